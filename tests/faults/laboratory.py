"""The runs of the cases, as forked processes, each with its log and its tally; and the undisturbed ones."""

import json
import random
import shutil
import signal
import subprocess
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from tests.faults.case import At, Run, Server, Signal
from tests.faults.commands import arguments_of, write_materials
from tests.faults.inject import Patch
from tests.faulty_server import FaultyServer
from tests.processes import Ended, Ranks, start_ranks, succeed


#: The judge's key, and a token of a hub: neither may be read anywhere afterwards.
KEY, TOKEN = "sk-KEYkeyKEYkeyKEYkey", "hf_TOKENtokenTOKENtoken"
#: Seconds after which a run is said to hang.
LONGEST = 90
#: Options that make sense after another run only.
_OF_OTHERS = ("resume_from_checkpoint", "baseline_dir")


def rating(question: str) -> str:
    """A judge's reply, the same to the same question."""
    number = len(question) + question.count("e")
    return (
        f'["all", "kind {number % 5}", "kind {number % 11}"]' if "JSON" in question else f"{number % 6}\nAs I see it."
    )


@dataclass
class Result:
    """What a run was and left behind."""

    run: Run
    ended: list[Ended]
    #: Of each rank.
    tallies: list[dict[str, float]]
    #: From the fault, or from the start, to the end of the last rank that was not its victim.
    seconds: float

    @property
    def log(self) -> str:
        """Of all ranks, the first one last, as a terminal shows it."""
        return "\n".join(one.log for one in reversed(self.ended)).replace("\r", "\n")

    @property
    def exitcode(self) -> int:
        """The first that is not 0."""
        return next((one.exitcode for one in self.ended if one.exitcode), 0)

    @property
    def met_fault(self) -> bool:
        return any("fault" in tally for tally in self.tallies) or not isinstance(self.run.inject, (At, Signal))


@dataclass
class Laboratory:
    """Cases run in folders below `root`; models, rows and undisturbed runs are made once."""

    root: Path
    #: Of undisturbed runs: what decides them, and what they were.
    references: dict[str, tuple[dict, Result]] = field(default_factory=dict)
    #: Of the undisturbed runs that cases begin with: a copy of the folder, what the runs were, and the judge's calls.
    beginnings: dict[str, tuple[Path, list[Result], Counter]] = field(default_factory=dict)

    def __post_init__(self):
        self.root.mkdir(parents=True, exist_ok=True)
        #: Every case has this folder and this judge: their names decide the keys of caches.
        self.folder, self.server = self.root / "case", FaultyServer()
        self.serve(Server())
        write_materials(self.root)

    def __enter__(self):
        self.server.__enter__()
        succeed(["methods"], ranks=1, folder=self.root)  # the seconds of the first case are not those of imports
        return self

    def __exit__(self, *error):
        self.server.__exit__()
        self.clear()

    def serve(self, server: Server) -> None:
        """Let the judge be this one from now on."""

        def fault(question: str, attempt: int) -> str | None:
            met = attempt <= server.calls and random.Random(question).random() < server.share
            return server.fault if server.fault and met else None

        self.server.fault, self.server.delay, self.server.slow = fault, server.delay, 2 * LONGEST
        self.server.reply = lambda question: rating(question) + server.reply.replace("KEY", KEY)
        self.server.calls = Counter()

    def start(self, run: Run) -> "Running":
        """Start the ranks of a run."""
        tally = self.folder / f"tally-{time.monotonic_ns()}"
        env = {"OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": self.server.url}
        patch = Patch(tally, None if isinstance(run.inject, Signal) else run.inject)
        arguments = arguments_of(run, self.root, self.folder)
        ranks = start_ranks(arguments, ranks=run.ranks, folder=self.folder, env=env, patch=patch, timeout=LONGEST)
        return Running(run, ranks, tally, self.server)

    def reference(self, run: Run) -> tuple[dict, Result]:
        """What decides an undisturbed run of the same options, and what it was."""
        key = repr(undisturbed(run))
        if key not in self.references:
            case, self.folder = self.folder, self.root / "reference"
            try:
                self.clear()
                self.serve(Server())
                self.note(self.start(undisturbed(run)).finish())
            finally:
                self.folder = case
        return self.references[key]

    def note(self, result: Result) -> None:
        """Keep what an undisturbed run left behind as the reference."""
        assert result.exitcode == 0, f"an undisturbed run failed: {result.run}\n{result.log[-3000:]}"
        content = content_of(self.folder / result.run.folder)
        self.references.setdefault(repr(undisturbed(result.run)), (content, result))

    def clear(self) -> None:
        """Empty the folder of the cases."""
        for path in self.folder.glob("*"):
            if path.is_mount():
                subprocess.run(["umount", "-l", str(path)], check=True)
        if self.folder.exists():
            shutil.rmtree(self.folder)
        self.folder.mkdir()

    def begin(self, runs: tuple[Run, ...]) -> tuple[list[Result], Counter]:
        """The folder as undisturbed runs leave it, what they were, and the judge's calls."""
        key = repr(runs)
        self.clear()
        self.serve(Server())
        if key not in self.beginnings:
            results = []
            for run in runs:
                results.append(self.start(run).finish())
                self.note(results[-1])
            copy = self.root / f"beginning-{len(self.beginnings)}"
            shutil.copytree(self.folder, copy)
            self.beginnings[key] = copy, results, Counter(self.server.calls)
        else:
            shutil.copytree(self.beginnings[key][0], self.folder, dirs_exist_ok=True)
        _, results, calls = self.beginnings[key]
        return list(results), Counter(calls)


def undisturbed(run: Run) -> Run:
    """The same run in a folder of its own, without what only another run makes possible."""
    options = {name: value for name, value in run.options.items() if name not in _OF_OTHERS}
    return Run(run.command, run.method, None, options, "run", run.ranks)


def content_of(folder: Path) -> dict[str, Any]:
    """What decides a run, of all run folders in a folder: rows, scores, evaluation, rules."""
    found = {}
    for path in sorted(folder.rglob("*.json")) + sorted(folder.rglob("scores.parquet")):
        name = str(path.relative_to(folder))
        if path.suffix == ".parquet":
            found[name] = pq.read_table(path)["score"].to_pylist()
            continue
        described = json.loads(path.read_text()) if path.name in ("selection.json", "eval.json", "rule.json") else {}
        if path.name == "eval.json":
            found[name] = {key: setting["score"] for key, setting in described["settings"].items()}
        elif described:
            names = ("indices", "unscorable", "dropped", "coefficients", "intercept", "weights", "columns")
            found[name] = {key: described[key] for key in names if key in described}
    return found


@dataclass
class Running:
    """A run that has started."""

    run: Run
    ranks: Ranks
    tally: Path
    server: FaultyServer

    def tallies(self) -> list[dict[str, float]]:
        paths = [self.tally.with_name(f"{self.tally.name}-{rank}") for rank in range(self.run.ranks)]
        return [json.loads(path.read_text()) if path.exists() and path.stat().st_size else {} for path in paths]

    def await_fault(self) -> None:
        """Wait until the run meets its fault, or ends."""
        while self.ranks.running(within=0.02) and not any("fault" in tally for tally in self.tallies()):
            pass

    def finish(self) -> Result:
        """Wait for its end; a rank that was stopped is ended once the others have."""
        run, ranks, signalled = self.run, self.ranks, None
        if isinstance(run.inject, Signal):
            while ranks.running(within=0.01) and sum(self.server.calls.values()) < run.inject.calls:
                pass
            signalled = time.monotonic()
            ranks.kill(getattr(signal, f"SIG{run.inject.name.upper()}"))
        victim = run.inject.rank if isinstance(run.inject, At) and run.inject.action == "stop" else None
        while set(ranks.running(within=0.05)) - {victim} and time.monotonic() < ranks.began + ranks.timeout:
            pass
        if victim is not None:
            ranks.kill(signal.SIGKILL, [victim])
        ended, tallies = ranks.wait(), self.tallies()
        if signalled is not None:
            tallies[0]["fault"] = signalled
        began = max((tally["fault"] for tally in tallies if "fault" in tally), default=ranks.began)
        last = max((ranks.ended[rank] for rank in range(run.ranks) if rank != victim), default=0.0)
        return Result(run, ended, tallies, ranks.began + last - began)


def mount(folder: Path, size: str) -> None:
    """Make a folder a disk of its own of a size, give it another size, fill it, or make it read-only."""
    folder.mkdir(exist_ok=True)
    if size == "full":
        with open(folder / "filler", "wb", buffering=0) as file, suppress(OSError):
            while file.write(bytes(4096)):
                pass
        return
    options = f"remount,size={size}" if folder.is_mount() else f"size={size}"
    options = "remount,ro" if size == "read-only" else options
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], check=True)
