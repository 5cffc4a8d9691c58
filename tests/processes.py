"""
Commands and functions as processes of their own, on one rank or several.

[`run_ranks`] forks them from a server that has imported everything once (`multiprocessing`'s own, one for each pytest
process, started when it is first needed): a rank begins in a tenth of a second in place of eight seconds. [`launch`]
starts a module as users do, by `accelerate launch`.
"""

import faulthandler
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import wait
from pathlib import Path
from typing import NamedTuple

import hf_dataselect


ROOT = Path(__file__).parents[1]
_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload(["tests.warm"])


def environment(**extra: str) -> dict[str, str]:
    return {**os.environ, **extra}


class Ended(NamedTuple):
    """How a rank ended: its exit code (a signal is negative), what it printed, its seconds, and whether it hung."""

    exitcode: int
    log: str
    seconds: float
    hung: bool


@dataclass
class Ranks:
    """Ranks that run; leaving its `with` block kills those that still do."""

    processes: list[multiprocessing.Process]
    logs: list[Path]
    timeout: float

    def __post_init__(self):
        self.began, self.ended = time.monotonic(), {}

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.kill()
        for process in self.processes:
            process.join()

    def running(self, within: float = 0.0) -> list[int]:
        """The ranks that still run, as soon as one has ended or the seconds are over."""
        running = [rank for rank in range(len(self.processes)) if rank not in self.ended]
        for sentinel in wait([self.processes[rank].sentinel for rank in running], within):
            rank = next(rank for rank in running if self.processes[rank].sentinel == sentinel)
            self.processes[rank].join()
            self.ended[rank] = time.monotonic() - self.began
        return [rank for rank in running if rank not in self.ended]

    def kill(self, signum: int = signal.SIGKILL, ranks: Iterable[int] | None = None) -> None:
        """Send a signal to these ranks, or to all that run."""
        for rank in set(self.running()) & set(range(len(self.processes)) if ranks is None else ranks):
            os.kill(self.processes[rank].pid, signum)

    def log(self, rank: int = 0) -> str:
        return self.logs[rank].read_text(errors="replace") if self.logs[rank].exists() else ""

    def wait(self, timeout: float | None = None) -> list[Ended]:
        """How each rank ended; those that still run when the time is over end with their stacks in their logs."""
        end = self.began + (self.timeout if timeout is None else timeout)
        while (hung := self.running()) and time.monotonic() < end:
            self.running(end - time.monotonic())
        for signum in (signal.SIGABRT, signal.SIGKILL):  # `faulthandler` prints the stacks of what is aborted
            self.kill(signum)
            stop = time.monotonic() + 10
            while self.running() and time.monotonic() < stop:
                self.running(stop - time.monotonic())
        return [
            Ended(process.exitcode, self.log(rank), self.ended[rank], rank in hung)
            for rank, process in enumerate(self.processes)
        ]


def start_ranks(
    what: Callable | Sequence[str],
    *arguments,
    ranks: int = 2,
    folder: Path,
    env: Mapping[str, str] | None = None,
    patch: Callable[[int], None] | None = None,
    timeout: float = 240,
) -> Ranks:
    """
    Start a function or a command on so many ranks of the CPU.

    Args:
        what: a function that is picklable (of a module, or a `functools.partial` of one), called with `arguments`; or
            the arguments of `hf-dataselect`, as `["select", "--config", ...]`.
        ranks: 1 starts a plain process that knows of no ranks.
        folder: the folder they run in, which also gets their logs.
        env: variables beside those of this process.
        patch: a picklable function, called with the rank before `what`: it may replace what it likes, since the
            process ends with `what`.
        timeout: seconds after which a rank that still runs is said to hang; it is ended, with its stacks in its log.

    A rank ends by itself where this process ends. Several ranks form a process group as `torchrun` and
    `accelerate launch` let them, but none is ended because another one failed.

    Example:

    ```python
    with start_ranks(["select", "--config", str(recipe)], folder=tmp_path) as run:
        while "Scoring" not in run.log(0) and run.running(within=0.01):
            ...
        run.kill(signal.SIGKILL, ranks=[1])
        zero, one = run.wait(timeout=60)
    assert one.exitcode == -signal.SIGKILL and zero.exitcode == 1 and not zero.hung
    ```
    """
    assert 1 <= ranks <= 8, "a rank is a process"
    base, processes, logs = environment(**(env or {})), [], []
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    for rank in range(ranks):
        given = dict(base)
        if ranks > 1:
            given |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(ranks)}
            given |= {"LOCAL_WORLD_SIZE": str(ranks), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
            given |= {"ACCELERATE_USE_CPU": "true"}
        logs.append(folder / f"log-{time.monotonic_ns()}-{rank}.txt")
        parts = (rank, logs[-1], given, folder, patch, timeout, hf_dataselect.__file__, what, arguments)
        processes.append(_SERVER.Process(target=_rank, args=parts))
    found = Ranks(processes, logs, timeout)
    try:
        for process in processes:
            process.start()
    except BaseException:
        found.processes = [process for process in processes if process.pid]
        found.__exit__()
        raise
    return found


def run_ranks(what: Callable | Sequence[str], *arguments, **options) -> list[Ended]:
    """How each rank ended: [`start_ranks`] with its options, to the end."""
    with start_ranks(what, *arguments, **options) as started:
        return started.wait()


def succeed(what: Callable | Sequence[str], *arguments, **options) -> str:
    """The same where every rank must end well; what the first one printed."""
    ended = run_ranks(what, *arguments, **options)
    for rank, one in enumerate(ended):
        assert one.exitcode == 0, f"rank {rank}{' hung' * one.hung}, exit code {one.exitcode}:\n{one.log[-6000:]}"
    return ended[0].log


def _rank(rank, log, environ, folder, patch, timeout, package, what, arguments) -> None:
    with open(log, "wb") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    faulthandler.enable()
    faulthandler.dump_traceback_later(timeout + 30, exit=True)  # where nobody is left to do it
    threading.Thread(target=_follow, daemon=True).start()
    os.environ.clear()
    os.environ.update(environ)
    os.chdir(folder)
    assert hf_dataselect.__file__ == package, f"{hf_dataselect.__file__} is another package"
    if patch is not None:
        patch(rank)
    if callable(what):
        what(*arguments)
    else:
        from hf_dataselect.cli.main import main

        main(list(what))


def _follow() -> None:
    """End with the process that started this one."""
    multiprocessing.parent_process().join()
    os.kill(os.getpid(), signal.SIGKILL)


def run(processes: int, recipe: Path, *options: str, command: str = "train") -> str:
    """A command of `hf-dataselect` on so many ranks, to its good end; what the first printed."""
    given = [command, "--config", str(recipe), *options]
    return succeed(given, ranks=processes, folder=recipe.parent)


def launch(processes: int, module: str, *arguments: str, cwd: Path) -> str:
    """A module by `accelerate launch`, to its good end; what all ranks printed."""
    done = launched(processes, module, *arguments, cwd=cwd)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout


def launched(processes: int, module: str, *arguments: str, cwd: Path) -> subprocess.CompletedProcess:
    """A module by `accelerate launch`, to whatever end."""
    command = [sys.executable, "-m", "accelerate.commands.launch"]
    # Without MPI, `accelerate launch` starts several processes only with `--multi_gpu`; `use_cpu` keeps them here.
    command += ["--multi_gpu", "--num_processes", str(processes)]
    command += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
    command += ["--main_process_port", "0", "-m", module, *arguments]
    return subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=600, cwd=cwd)
