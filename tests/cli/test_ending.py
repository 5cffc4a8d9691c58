"""How commands end that can't go on: in time, in one line, with what was paid for."""

import json
import os
import signal
import textwrap
import time

import pytest

from hf_dataselect.cli import ending
from tests.faulty_server import FaultyServer
from tests.processes import launched, run_ranks, start_ranks


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_a_signal_ends_a_judge_phase_at_once_and_keeps_the_replies(number, tmp_path):
    pytest.importorskip("openai")
    rows = [{"input": f"Question {i}", "output_1": "a", "output_2": "b", "label": i % 3} for i in range(30)]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    kept = tmp_path / "cache" / "judge" / "responses.jsonl"
    command = ["judge-check", "pairs.jsonl", "--judge", "openai:m", "--cache_dir", str(tmp_path / "cache")]
    command += ["--judge_kwargs", '{"concurrency": 60}']

    def fault(question, attempt):
        return None if any(f"Question {i}\n" in question for i in range(10)) else "slow"

    with FaultyServer(fault, reply=lambda question: "5 5", slow=60) as server:
        env = {"OPENAI_BASE_URL": server.url}
        with start_ranks(command, ranks=1, folder=tmp_path, env=env, timeout=120) as run:
            while run.running(within=0.01) and not (kept.exists() and kept.read_bytes().count(b"\n{") == 20):
                pass
            sent = time.monotonic()
            run.kill(number)
            (ended,) = run.wait()
    assert ended.exitcode == 128 + number and not ended.hung, ended.log
    assert time.monotonic() - sent < 20, "the server would have been silent for a minute"
    assert "20 of 60 replies had come; they are kept" in ended.log and "Traceback" not in ended.log
    last = ended.log.rstrip().splitlines()[-1]
    assert last.startswith("hf-dataselect: stopped by") and number.name in last and "20 of 60 calls" in last
    assert kept.read_bytes().count(b"\n{") == 20


def with_a_handler_of_its_own():
    """As a plug-in that saves a checkpoint at SIGTERM."""
    ending.GRACE = 0.1
    with ending.ending():
        signal.signal(signal.SIGTERM, lambda *_: print("saving", flush=True))
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.4)
        print("saved", flush=True)


def test_a_handler_that_a_library_sets_is_left_to_end_the_run(tmp_path):
    (ended,) = run_ranks(with_a_handler_of_its_own, ranks=1, folder=tmp_path)
    assert ended.exitcode == 0 and "saving\nsaved" in ended.log


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
