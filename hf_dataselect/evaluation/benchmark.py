"""
Benchmarks: scores of a model by setting, each with a direction and, where defined, per-example scores.

| kind | measures | settings | better | at every evaluation |
|---|---|---|---|---|
| `held_out` | answers of held-out rows | `answer_loss`, `token_accuracy`, metrics | varies | yes |
| `multiple_choice` | the most likely choice (MMLU, BBH) | `accuracy` | higher | yes |
| `generation` | generated answers against references, see [`metrics`] | metrics | varies | no |
| `gsm8k` | the same, by the last number of the answer | `numeric_match` | higher | no |
| `instructions` | nothing: saves answers for win rates between runs | | | no |
| `mt_bench` | answers to two turns, graded by the judge | `grade`, 1 to 10 | higher | no |
| `lm_eval` | tasks of the lm-evaluation-harness | metrics of each task | varies | no |

`eval_dataset` is evaluated as `held_out`; the option `benchmarks` adds others. The files of `benchmarks/` are the
kinds, and a class of one's own is `kind: package.module:Class`. A benchmark with `at_end` runs when training ends, the
others at every evaluation.
"""

import copy
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
from ..options import class_of_module, imported_class, nearest, require_extras, typed_options


@dataclass
class Setting:
    """
    Score of a model in one setting.

    Args:
        score (`float`):
            Mean over rows, or a corpus metric; NaN if no row could be scored.
        higher_is_better (`bool`):
            Direction.
        examples (`list[float]`, *optional*):
            Score of each row, NaN = unscorable; `None` for a corpus metric.
        parts (`dict[str, float]`, *optional*):
            Mean by part (subject, turn), if the rows have several.
    """

    score: float
    higher_is_better: bool
    examples: list[float] | None = None
    parts: dict[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, examples: np.ndarray, higher_is_better: bool, part_of: Sequence[str] | None = None) -> "Setting":
        """The mean over rows with a score; `part_of` gives the part of each row."""
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
    A benchmark. A subclass is a dataclass in a file of `benchmarks/`; its fields are its options.

    Args:
        name (`str`, *optional*):
            Prefix of its settings, `name/setting`; empty for no prefix.
        at_end (`bool`, *optional*):
            Run only when training ends, not at every evaluation.
    """

    name: str = ""
    at_end: bool = False
    #: What the context must provide besides the model: `"judge"`; the benchmark's `judge` is then set to its spec.
    needs: ClassVar[frozenset[str]] = frozenset()
    #: Whether another library runs the model, in passes that ranks with parts of it can't make together.
    runs_elsewhere: ClassVar[bool] = False

    def extras(self) -> dict[str, str]:
        """Required packages, each with the extra that installs it."""
        return {}

    def default_name(self) -> str:
        """Name by default."""
        return self.name

    def prepare(self) -> None:  # noqa: B027 (optional)
        """Load the rows and raise `ValueError` for unusable ones; called before any weights load."""

    def asked(self) -> Any:
        """Its rows ([`Records`]) or its questions (`list[str]`), if known; candidates among them are reported."""
        return []

    def judge_calls(self) -> tuple[int, int, int]:
        """Calls of the judge to evaluate one model, and their prompt tokens and new tokens, all at most."""
        return 0, 0, 0

    @abstractmethod
    def protocol(self) -> dict[str, Any]:
        """What must be equal for two evaluations to be comparable: row content and options that change scores."""

    @abstractmethod
    def score(self, ctx: Context, folder: Path | None = None) -> dict[str, Setting]:
        """
        Settings of the model in the context. Nothing is cached, since a model is evaluated once at each step.
        Unscorable rows are NaN and recorded in `ctx.account` with the reason. Answers are written to `folder`.
        """

    def run(self, ctx: Context, folder: Path | None = None) -> dict[str, Setting]:
        """[`score`], with the benchmark's name as prefix of the settings."""
        return {f"{self.name}/{key}" if self.name else key: value for key, value in self.score(ctx, folder).items()}


def benchmark_kinds() -> list[str]:
    """Kinds of benchmarks: the files of `benchmarks/`."""
    from . import benchmarks

    return sorted(module.name for module in pkgutil.iter_modules(benchmarks.__path__))


def benchmark_class(kind: str) -> type[Benchmark]:
    """
    The class of a kind, `gsm8k` or `package.module:Class`; imports no other kind.

    Raises:
        `ValueError`: there is no such kind (with the nearest right name), or the class is no benchmark.
    """
    if ":" in kind:
        return imported_class(kind, Benchmark, f"`kind={kind!r}`")
    if kind not in benchmark_kinds():
        raise ValueError(f"`kind={kind!r}` does not exist{nearest(kind, benchmark_kinds())}")
    return class_of_module(f"{__package__}.benchmarks.{kind}", Benchmark)


def load_benchmarks(
    described: list[dict[str, Any]] | str | None, max_new_tokens: int | None = None
) -> list[Benchmark]:
    """
    Benchmarks from a recipe, typed and checked; rows are read later, by [`Benchmark.prepare`].

    Args:
        described (`list[dict]` or `str`, *optional*):
            For each benchmark a mapping of `kind` and options; on the command line, the list as JSON.
        max_new_tokens (`int`, *optional*):
            Of the kinds that generate, where the mapping has none; by default each kind's own.

    Raises:
        `ValueError`: Unknown kind or option (the message suggests the nearest name), an invalid value, or two
            benchmarks with the same name.
        `ImportError`: An optional package is not installed; the message names the extra.
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
    benchmarks: list[Benchmark] = []
    for place, item in enumerate(described):
        option, kind = f"benchmarks[{place}]", str(item.get("kind"))
        try:
            cls = benchmark_class(kind)
        except ValueError as error:
            raise ValueError(f"`{option}`: {error}") from error
        required = [item.name for item in fields(cls) if item.init and item.default is item.default_factory is MISSING]
        if missing := [name for name in required if name not in item]:
            raise ValueError(f"`{option}`: {kind!r} needs `{'` and `'.join(missing)}`.")
        # A copy: the config keeps what it was given.
        options = {key: copy.deepcopy(value) for key, value in item.items() if key != "kind"}
        if max_new_tokens is not None and "max_new_tokens" in {item.name for item in fields(cls)}:
            options.setdefault("max_new_tokens", max_new_tokens)
        benchmark = typed_options(cls, options, option, f"{kind!r} has")
        require_extras(f"kind: {kind}", benchmark.extras())
        benchmark.name = benchmark.name or benchmark.default_name()
        if not re.fullmatch(r"[\w.+-]+", benchmark.name):
            raise ValueError(f"`{option}`: `name={benchmark.name!r}` may only contain letters, digits and . _ + -.")
        if benchmark.name in {other.name for other in benchmarks}:
            raise ValueError(f"`{option}`: the name {benchmark.name!r} is taken: give each benchmark its own `name`.")
        benchmarks.append(benchmark)
    return benchmarks


def as_json(settings: dict[str, Setting]) -> dict[str, Any]:
    """Settings for `eval.json`."""
    return {name: asdict(setting) for name, setting in settings.items()}


def from_json(described: dict[str, Any]) -> dict[str, Setting]:
    """
    Settings of an `eval.json`.

    Raises:
        `KeyError`, `TypeError`: it has none.
    """

    def number(value: float | None) -> float:
        if value is not None and type(value) not in (int, float):
            raise TypeError(f"{value!r} is no score")
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
