"""[`Selection`]: the rows kept, what became of the others, and what it cost."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .errors import printable


#: Reasons shown in a summary; a chat template may give one for every row.
SHOWN_REASONS = 8
#: Columns of scores.parquet besides those that a method names.
RESERVED = ("row", "score", "kept", "reason")


@dataclass
class Selection:
    """
    What was chosen, and what it cost.

    Args:
        method (`str`):
            Name of the selector.
        options (`dict`):
            Its hyper-parameters.
        indices (`np.ndarray`):
            Rows kept, int64, best first.
        scores (`np.ndarray`):
            Quality labels, float32 `(candidates,)`; NaN = unscorable.
        budget (`float`, `int` or `str`):
            As asked for: a fraction or a count, or text such as `2000000 tokens`, see [`Budget`].
        seconds (`float`):
            What selecting cost: wall-clock time, and what an earlier run spent on the cached results, so that STR
            does not flatter a second run.
        cached_seconds (`float`):
            The part of it that an earlier run spent.
        passes (`dict[str, int]`):
            Rows and tokens that went through a model.
        peak_memory (`dict[str, int]`):
            Peak memory of the selection in bytes, and what was held before it, on the main process, see
            [`~engines.runtime.memory.peak_memory`].
        unscorable, dropped, truncated (`dict[str, list[int]]`):
            Rows by reason: without a score; excluded by the method or unusable; scored on a truncated text.
        facts (`dict`):
            Model, tokenizer template, dataset and versions, to tell one selection from another; `figures`: the
            method's own statistics, and ties at the cut.
        columns (`dict[str, np.ndarray]`):
            More numbers of each row by name, float32 `(candidates,)`: what the scores were computed from.
    """

    method: str
    options: dict[str, Any]
    indices: np.ndarray
    scores: np.ndarray
    budget: float | int | str
    seconds: float
    cached_seconds: float = 0.0
    passes: dict[str, int] = field(default_factory=dict)
    peak_memory: dict[str, int] = field(default_factory=dict)
    unscorable: dict[str, list[int]] = field(default_factory=dict)
    dropped: dict[str, list[int]] = field(default_factory=dict)
    truncated: dict[str, list[int]] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    columns: dict[str, np.ndarray] = field(default_factory=dict)

    @property
    def candidates(self) -> int:
        """Rows that could have been kept: the candidate dataset."""
        return len(self.scores)

    @property
    def sdf(self) -> float:
        """Selected dataset fraction: rows kept / candidates."""
        return len(self.indices) / self.candidates

    def figure_lines(self) -> list[str]:
        """The method's own statistics, and how many rows look odd."""
        lines = []
        for name, figure in self.facts.get("figures", {}).items():
            if isinstance(figure, list):
                figure = f"{len(figure):,} rows"
            elif isinstance(figure, dict):
                shown = [f"{key} {value:,}" for key, value in figure.items()]
                rest = [f"{len(shown) - SHOWN_REASONS} more"] if len(shown) > SHOWN_REASONS else []
                figure = ", ".join(shown[:SHOWN_REASONS] + rest)
            lines.append(f"{name}: {figure}")
        return lines

    def summary(self) -> str:
        """Lines for a log: how much was kept, at what cost, what was excluded, and the method's own figures."""
        lines = [
            f"{self.method}: kept {len(self.indices):,} of {self.candidates:,} rows (SDF {self.sdf:.3f}) "
            f"in {self.seconds:.1f} s" + (f", {self.cached_seconds:.1f} s of it cached" if self.cached_seconds else "")
        ]
        for kind in ("unscorable", "dropped", "truncated"):
            reasons = sorted(getattr(self, kind).items(), key=lambda item: -len(item[1]))
            lines += [f"  {kind}: {len(rows):,} rows, {reason}" for reason, rows in reasons[:SHOWN_REASONS]]
            if len(reasons) > SHOWN_REASONS:
                lines.append(f"  {kind}: {len(reasons) - SHOWN_REASONS} more reasons, see selection.json")
        lines += [f"  {line}" for line in self.figure_lines()]
        return printable("\n".join(lines))
