"""How commands end that can't go on: in time, in one line, with what was paid for."""

import json
import signal
import subprocess
import sys
import time

import pytest

from hf_dataselect.engines.store.replies import ReplyStore
from tests.faulty_server import FaultyServer
from tests.processes import environment


def test_ctrl_c_and_sigterm_end_a_judge_phase_at_once_and_keep_the_replies(tmp_path):
    pytest.importorskip("openai")
    rows = [{"input": f"Question {i}", "output_1": "a", "output_2": "b", "label": i % 3} for i in range(30)]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def fault(question, attempt):
        return None if any(f"Question {i}\n" in question for i in range(10)) else "slow"

    with FaultyServer(fault, reply=lambda question: "5 5", slow=60) as server:
        began = {}
        for number in (signal.SIGINT, signal.SIGTERM):
            command = [sys.executable, "-m", "hf_dataselect", "judge-check", "pairs.jsonl", "--judge", "openai:m"]
            command += ["--cache_dir", str(tmp_path / number.name), "--judge_kwargs", '{"concurrency": 60}']
            pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
            environs = environment(OPENAI_BASE_URL=server.url)
            began[number] = subprocess.Popen(command, cwd=tmp_path, env=environs, **pipes)
        deadline = time.monotonic() + 120
        for number, process in began.items():
            kept = tmp_path / number.name / "judge" / "responses.jsonl"
            while not kept.exists() or kept.read_bytes().count(b"\n{") < 20 and time.monotonic() < deadline:
                time.sleep(0.01)
            sent = time.monotonic()
            process.send_signal(number)
            said = process.communicate(timeout=60)[1]
            assert process.returncode == 128 + number, said
            assert time.monotonic() - sent < 20, "the server would have been silent for a minute"
            assert "20 of 60 replies had come; they are kept" in said and "Traceback" not in said
            assert said.rstrip().splitlines()[-1].startswith("hf-dataselect: stopped by"), said
            assert number.name in said and ", after" in said
            assert len([line for line in kept.read_bytes().splitlines() if line]) == 20
            assert ReplyStore(kept.parent).load([]) == {}
