"""How commands end that can't go on: in time, in one line, with what was paid for."""

import json
import signal
import subprocess
import sys
import textwrap
import time

import pytest

from tests.faulty_server import FaultyServer
from tests.processes import environment, launched


ASKING = """
    import logging, sys
    from hf_dataselect.cli.console import log_to_console
    from hf_dataselect.cli.ending import ending
    from hf_dataselect.engines.llm.load import load_judge
    from hf_dataselect.engines.llm.judge_options import JudgeOptions
    from hf_dataselect.engines.runtime.runtime import Runtime

    log_to_console()
    with ending():
        judge = load_judge("openai:m", JudgeOptions(concurrency=60), Runtime(cache_dir=sys.argv[1]))
        rows = [f"Question {i // 2}\\n {i}" for i in range(60)]
        judge.ask([[{"role": "user", "content": row}] for row in rows], label="Judging")
"""


def test_ctrl_c_and_sigterm_end_a_judge_phase_at_once_and_keep_the_replies(tmp_path):
    pytest.importorskip("openai")
    rows = [{"input": f"Question {i}", "output_1": "a", "output_2": "b", "label": i % 3} for i in range(30)]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "ask.py").write_text(textwrap.dedent(ASKING))
    command = ["-m", "hf_dataselect", "judge-check", "pairs.jsonl", "--judge", "openai:m", "--cache_dir", "SIGINT"]
    commands = {
        signal.SIGINT: [*command, "--judge_kwargs", '{"concurrency": 60}'],
        signal.SIGTERM: ["ask.py", "SIGTERM"],
    }

    def fault(question, attempt):
        return None if any(f"Question {i}\n" in question for i in range(10)) else "slow"

    with FaultyServer(fault, reply=lambda question: "5 5", slow=60) as server:
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        options = pipes | {"cwd": tmp_path, "env": environment(OPENAI_BASE_URL=server.url)}
        began = {number: subprocess.Popen([sys.executable, *given], **options) for number, given in commands.items()}
        deadline = time.monotonic() + 120
        for number, process in began.items():
            kept = tmp_path / number.name / "judge" / "responses.jsonl"
            while (not kept.exists() or kept.read_bytes().count(b"\n{") < 20) and time.monotonic() < deadline:
                time.sleep(0.01)
            sent = time.monotonic()
            process.send_signal(number)
            said = process.communicate(timeout=60)[1]
            assert process.returncode == 128 + number, said
            assert time.monotonic() - sent < 20, "the server would have been silent for a minute"
            assert "20 of 60 replies had come; they are kept" in said and "Traceback" not in said
            last = said.rstrip().splitlines()[-1]
            assert last.startswith("hf-dataselect: stopped by") and number.name in last and "20 of 60 calls" in last
            assert kept.read_bytes().count(b"\n{") == 20


FAILING = """
    import os
    from accelerate import Accelerator
    from hf_dataselect.cli.ending import ending
    from hf_dataselect.engines.runtime.phase import doing
    from hf_dataselect.engines.runtime.runtime import Runtime

    with ending():
        runtime = Runtime(Accelerator(cpu=True))
        assert runtime.gather(runtime.rank) == [0, 1]
        with doing("Scoring answers"):
            if runtime.rank == 1:
                raise KeyError("the real error")
            runtime.wait()
"""


def test_the_error_of_a_failing_rank_is_the_last_that_is_said(tmp_path):
    (tmp_path / "failing.py").write_text(textwrap.dedent(FAILING))
    done = launched(2, "failing", cwd=tmp_path)
    said = done.stderr
    assert done.returncode == 1
    assert said.count("KeyError: 'the real error'") == 3, said
    assert "hf-dataselect: rank 0: Rank 1 failed at: Scoring answers. KeyError: 'the real error'" in said
    assert "[rank1]: Traceback" in said and "[rank0]:" not in said and "onnection closed" not in said
    root = said[said.index("Root Cause (first observed failure)") :]
    assert "rank      : 1 " in root and root.rstrip(" =\n").endswith("KeyError: 'the real error'")
