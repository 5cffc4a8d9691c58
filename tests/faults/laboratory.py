"""Models, rows and commands for the cases, and the runs: as forked processes, each with its log and its tally."""

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

from tests.engines.llm.test_local import reward_model
from tests.faults.case import At, Run, Server, Signal
from tests.faults.inject import Patch
from tests.faulty_server import FaultyServer
from tests.processes import Ended, Ranks, start_ranks
from tests.rows import alpaca_rows
from tests.selectors.small import OPTIONS
from tests.tiny import tiny_evaluator, tiny_model, tiny_tokenizer
from tests.tiny_vision import save_clip


#: The judge's key, and a token of a hub: neither may be read anywhere afterwards.
KEY, TOKEN = "sk-KEYkeyKEYkeyKEYkey", "hf_TOKENtokenTOKENtoken"
#: Seconds after which a run is said to hang.
LONGEST = 90
#: Options of a method besides those of `tests.selectors.small`: a warm-up of several steps.
_STEPS = {"warmup_batch_size": 2, "warmup_gradient_accumulation": 1}
_MORE = {
    "alpagasus": {"threshold": None},
    "ifd": {"warmup_clusters": 4, "warmup_rows_per_cluster": 4, **_STEPS},
    "less": {"warmup_fraction": 0.2, **_STEPS},
    "mods": {"necessity_threshold": -1e9, **_STEPS},
}
#: Options that make sense after another run only.
_OF_OTHERS = ("resume_from_checkpoint", "baseline_dir")
_JUDGED, _TARGETED, _UNBOUNDED = ("alpagasus", "instag"), ("less", "rds"), ("full",)


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
        tokenizer = tiny_tokenizer()
        models = {"LLAMA": tiny_model(tokenizer), "REWARD": reward_model(tokenizer)}
        for name, model in (models | {"EVALUATOR": tiny_evaluator(tokenizer)}).items():
            model.save_pretrained(self.root / name)
            tokenizer.save_pretrained(self.root / name)
        save_clip(self.root / "CLIP")
        rows = {"rows": alpaca_rows(60), "few": alpaca_rows(12), "held_out": alpaca_rows(8, 5)}
        rows |= {"target": alpaca_rows(3, 9), "nan": alpaca_rows(12), "escapes": alpaca_rows(24)}
        rows["nan"][4]["output"] = "red ~ fox stone."
        for row in rows["escapes"][:12]:  # a title, a colour, and letters that read backwards
            hurt = "\x1b]0;TITLE\x07\x1b[31mred\x1b[2J \u202eevil\u202c <script>alert(1)</script> "
            row |= {"instruction": hurt + row["instruction"], "output": hurt + "long " * 30}
        for name, listed in rows.items():
            (self.root / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in listed))

    def __enter__(self):
        self.server.__enter__()
        return self

    def __exit__(self, *error):
        self.server.__exit__()
        self.clear()

    def arguments(self, run: Run) -> list[str]:
        """Of `hf-dataselect`."""
        if run.command == "report":
            runs = [str(self.folder / name) for name in run.options["runs"]]
            more = {name: value for name, value in run.options.items() if name != "runs"}
            return ["report", *runs, *self._flags(more)]
        options = {
            "model_name_or_path": "ROOT/LLAMA",
            "dataset_name": "ROOT/rows.jsonl",
            "eval_dataset_name": "ROOT/held_out.jsonl",
            "output_dir": f"FOLDER/{run.folder}",
            "selection_cache_dir": "FOLDER/cache",
            "selection_method": run.method,
            "selection_dtype": "float32",
            "selection_batch_tokens": 256,
            "max_length": 128,
            "max_steps": 3,
            "per_device_train_batch_size": 2,
            "learning_rate": 1e-3,
            "logging_steps": 1,
            "save_strategy": "no",
            "report_to": "none",
            "use_cpu": True,
            "bf16": False,
        }
        if run.method not in _UNBOUNDED:
            options["selection_budget"] = 0.2
        if run.method in _TARGETED:
            options["selection_target"] = "ROOT/target.jsonl"
        if run.method in _JUDGED:
            options["judge"] = "openai:judge"
        given = dict(run.options)
        kwargs = OPTIONS.get(run.method, {}) | _MORE.get(run.method, {}) | given.pop("selection_kwargs", {})
        kwargs = {name: f"ROOT/{value}" if str(value).isupper() else value for name, value in kwargs.items()}
        if kwargs and run.command in ("select", "train"):
            options["selection_kwargs"] = kwargs
        return [run.command, *self._flags(options | given)]

    def _flags(self, options: dict[str, Any]) -> list[str]:
        flags = []
        for name, value in options.items():
            if value is None:
                continue
            values = value if isinstance(value, list) else [value]
            texts = [json.dumps(one) if isinstance(one, dict) else str(one) for one in values]
            texts = [text.replace("ROOT", str(self.root)).replace("FOLDER", str(self.folder)) for text in texts]
            flags += [f"--{name}", *texts]
        return flags

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
        arguments = self.arguments(run)
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
