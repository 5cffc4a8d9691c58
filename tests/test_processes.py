"""Ranks that tests start end as they should, and none outlives the tests."""

import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import psutil
import pytest
import torch
import torch.distributed

from tests.processes import environment, run_ranks, start_ranks, succeed


def end(how: str) -> None:
    print("rank", os.environ["RANK"], flush=True)
    if how == "exit" and os.environ["RANK"] == "1":
        sys.exit(3)
    if how == "raise" and os.environ["RANK"] == "1":
        raise LookupError("of rank 1")


@pytest.mark.parametrize("how, code, said", [("well", 0, ""), ("exit", 3, ""), ("raise", 1, "LookupError: of rank 1")])
def test_each_rank_ends_by_itself(tmp_path, how, code, said):
    zero, one = run_ranks(end, how, folder=tmp_path)
    assert (zero.exitcode, one.exitcode) == (0, code) and not zero.hung and not one.hung
    assert zero.log == "rank 0\n" and one.log.startswith("rank 1\n") and said in one.log
    if code:
        with pytest.raises(AssertionError, match=f"rank 1, exit code {code}:\nrank 1"):
            succeed(end, how, folder=tmp_path)


def replaced(name: str, rank: int) -> None:
    setattr(sys.modules[__name__], name, lambda: print("patched", rank, os.environ["A_FAULT"], Path.cwd()))


def unpatched() -> None:
    print("as it is", "tests.warm" in sys.modules)


def called() -> None:
    unpatched()


def test_a_rank_is_patched_and_finds_all_imported(tmp_path):
    patched = run_ranks(called, ranks=1, folder=tmp_path, env={"A_FAULT": "2"}, patch=partial(replaced, "unpatched"))
    assert patched[0].log == f"patched 0 2 {tmp_path}\n"
    assert succeed(called, ranks=1, folder=tmp_path) == "as it is True\n"


def sums() -> None:
    torch.distributed.init_process_group("gloo")
    mine = torch.tensor(float(torch.distributed.get_rank() + 1))
    torch.distributed.all_reduce(mine)
    print(mine.item())


def test_ranks_are_a_process_group(tmp_path):
    assert [ended.log for ended in run_ranks(sums, ranks=3, folder=tmp_path)] == ["6.0\n"] * 3


def sleeps_on_one() -> None:
    print("here", flush=True)
    if os.environ["RANK"] == "1":
        time.sleep(600)


def test_a_rank_that_hangs_is_ended_and_says_where(tmp_path):
    zero, one = run_ranks(sleeps_on_one, folder=tmp_path, timeout=1)
    assert (zero.exitcode, zero.hung, one.exitcode, one.hung) == (0, False, -signal.SIGABRT, True)
    assert "in sleeps_on_one" in one.log and one.seconds > 1


def test_one_rank_is_killed_and_the_rest_as_the_block_ends(tmp_path):
    with start_ranks(time.sleep, 600, folder=tmp_path) as run:
        run.kill(ranks=[1])
        assert run.running(within=30) == [0]
    assert [process.exitcode for process in run.processes] == [-signal.SIGKILL] * 2


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGINT])
def test_ranks_end_with_the_process_that_started_them(tmp_path, signum):
    code = """
        import signal, sys, time
        from pathlib import Path
        from tests import processes
        signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where the tests run in the background
        processes._SERVER.set_forkserver_preload([])
        with processes.start_ranks(time.sleep, 600, folder=Path(sys.argv[1])) as run:
            print(*(process.pid for process in run.processes), flush=True)
            run.wait()
    """
    code = "\n".join(line[8:] for line in code.splitlines())
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    ranks = [psutil.Process(int(pid)) for pid in process.stdout.readline().split()]
    left = [*ranks, ranks[0].parent()]  # the server
    process.send_signal(signum)
    process.communicate(timeout=120)
    assert len(left) == 3 and not psutil.wait_procs(left, timeout=120)[1]
