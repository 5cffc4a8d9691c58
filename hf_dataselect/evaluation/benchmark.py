"""
Benchmarks: a model's scores, setting by setting, each with a direction and the score of every example.

| kind | measures | settings | better | at every evaluation |
|---|---|---|---|---|
| `held_out` | answers of held-out rows | `answer_loss`, `token_accuracy`, one a metric | as each says | yes |
| `multiple_choice` | the likeliest choice (MMLU, BBH) | `accuracy` | higher | yes |
| `generation` | generated answers against references, see [`metrics`] | one a metric | as it says | no |
| `gsm8k` | the same, by the last number of the answer | `numeric_match` | higher | no |
| `instructions` | nothing: keeps the answers, for win rates between runs | none | | no |
| `mt_bench` | answers to two turns, graded by the judge | `grade`, 1 to 10 | higher | no |
| `lm_eval` | tasks of the lm-evaluation-harness | one a task and metric | as the task says | no |

The rows in `eval_dataset` are `held_out`; the option `benchmarks` names the others. What is not run at every
evaluation is run when training ends; `at_end` of each says which.
"""

import importlib
import inspect
import json
import pkgutil
import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ..context import Context
from ..options import nearest, require_extras, typed_options


@dataclass
class Setting:
    """
    A model's score in one setting.

    Args:
        score (`float`):
            Mean over rows, or a corpus metric; NaN if no row could be scored.
        higher_is_better (`bool`):
            Direction.
        examples (`list[float]`, *optional*):
            Score of each row, NaN = unscorable; none for a corpus metric.
        parts (`dict[str, float]`, *optional*):
            Mean over the rows of a part (a subject, a turn), where the rows are of several.
    """

    score: float
    higher_is_better: bool
    examples: list[float] | None = None
    parts: dict[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, examples: np.ndarray, higher_is_better: bool, part_of: Sequence[str] | None = None) -> "Setting":
        """The mean over the rows that have a score; `part_of` names each row's part."""
        examples, parts = np.asarray(examples, np.float64), {}
        if part_of is not None and len(set(part_of)) > 1:
            labels = np.array(part_of)
            parts = {label: _mean(examples[labels == label]) for label in sorted(set(part_of))}
        return cls(_mean(examples), higher_is_better, examples.tolist(), parts)


def _mean(values: np.ndarray) -> float:
    return float(np.nanmean(values)) if np.isfinite(values).any() else float("nan")


@dataclass(kw_only=True)
class Benchmark(ABC):
    """
    Something a model is measured by. A subclass is a dataclass in a file of this folder; its fields are its options.

    Args:
        name (`str`, *optional*):
            Stands before the names of its settings, `name/setting`; empty for none.
        at_end (`bool`, *optional*):
            Run only when training ends, and not at every evaluation.
    """

    name: str = ""
    at_end: bool = False
    #: What the context must hold besides the model: `"judge"`; the benchmark's `judge` is then set to its spec.
    needs: ClassVar[frozenset[str]] = frozenset()

    def extras(self) -> dict[str, str]:
        """Packages that it needs, and the extra of this package that brings each."""
        return {}

    def default_name(self) -> str:
        """The name where none is given."""
        return self.name

    def prepare(self) -> None:  # noqa: B027 (optional)
        """Load what it asks about, and refuse what can't be asked with a `ValueError`; before any weights load."""

    @abstractmethod
    def protocol(self) -> dict[str, Any]:
        """What two evaluations must share to be compared: content of the rows, options that change numbers."""

    @abstractmethod
    def score(self, ctx: Context, folder: Path | None = None) -> dict[str, Setting]:
        """
        Settings of the model of the context. Nothing is cached, since a model is evaluated once at each step. Rows
        that can't be scored are NaN, and entered in `ctx.account` with the reason. Answers are kept in `folder`.
        """

    def run(self, ctx: Context, folder: Path | None = None) -> dict[str, Setting]:
        """[`score`], with the benchmark's name before the names of the settings."""
        return {f"{self.name}/{key}" if self.name else key: value for key, value in self.score(ctx, folder).items()}


def benchmark_kinds() -> list[str]:
    """Kinds of benchmarks: the files in `hf_dataselect/evaluation/benchmarks/`."""
    from . import benchmarks

    return sorted(module.name for module in pkgutil.iter_modules(benchmarks.__path__))


def benchmark_class(kind: str) -> type[Benchmark]:
    """The class of a kind; the packages of another one are not loaded for it."""
    module = importlib.import_module(f"{__package__}.benchmarks.{kind}")
    return next(
        found
        for _, found in inspect.getmembers(module, inspect.isclass)
        if issubclass(found, Benchmark) and found.__module__ == module.__name__
    )


def load_benchmarks(described: list[dict[str, Any]] | str | None) -> list[Benchmark]:
    """
    Benchmarks as a recipe names them, typed and checked; no rows are read yet.

    Args:
        described (`list[dict]` or `str`, *optional*):
            One mapping each, `kind` and its options; a list of them as JSON on the command line.

    Raises:
        `ValueError`: no such kind or option (with the nearest right name), a value of the wrong type or one that the
            benchmark refuses, two benchmarks of one name.
        `ImportError`: an optional package is missing; the message names the extra.
    """
    if isinstance(described, str):
        try:
            described = json.loads(described)
        except json.JSONDecodeError as error:
            raise ValueError(f"`benchmarks={described!r}` is not JSON: {error}.") from error
    described = [described] if isinstance(described, dict) else described or []
    if not isinstance(described, list) or not all(isinstance(item, dict) for item in described):
        raise ValueError(
            f"`benchmarks` must be a list of mappings such as {{kind: gsm8k, dataset: ...}}, got {described!r}."
        )
    found: list[Benchmark] = []
    for place, item in enumerate(described):
        option, kind = f"benchmarks[{place}]", item.get("kind")
        if kind not in benchmark_kinds():
            raise ValueError(f"`{option}`: `kind={kind!r}` does not exist{nearest(str(kind), benchmark_kinds())}")
        cls = benchmark_class(kind)
        required = [item.name for item in fields(cls) if item.init and item.default is item.default_factory is MISSING]
        if missing := [name for name in required if name not in item]:
            raise ValueError(f"`{option}`: {kind!r} needs `{'` and `'.join(missing)}`.")
        options = {key: value for key, value in item.items() if key != "kind"}
        benchmark = typed_options(cls, options, option, f"{kind!r} has")
        require_extras(f"kind: {kind}", benchmark.extras())
        benchmark.name = benchmark.name or benchmark.default_name()
        if not re.fullmatch(r"[\w.+-]+", benchmark.name):
            raise ValueError(f"`{option}`: `name={benchmark.name!r}` may have letters, digits and . _ + - in it only.")
        if benchmark.name in {other.name for other in found}:
            raise ValueError(f"`{option}`: another one is called {benchmark.name!r} too: give each its own `name`.")
        found.append(benchmark)
    return found


def as_json(settings: dict[str, Setting]) -> dict[str, Any]:
    """Settings for `eval.json`."""
    return {name: asdict(setting) for name, setting in settings.items()}


def from_json(described: dict[str, Any]) -> dict[str, Setting]:
    """Settings of an `eval.json`."""

    def number(value: float | None) -> float:
        return float("nan") if value is None else value

    return {
        name: Setting(
            number(item["score"]),
            item["higher_is_better"],
            None if item.get("examples") is None else list(map(number, item["examples"])),
            {part: number(value) for part, value in item.get("parts", {}).items()},
        )
        for name, item in described.items()
    }
