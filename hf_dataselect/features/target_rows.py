"""Target-task examples: token rows, and subtasks by an optional column."""

import logging
from collections import Counter
from dataclasses import dataclass

import numpy as np

from ..context import Context
from ..data.encoded import Encoded
from ..data.records import Records
from ..data.targets import SUBTASK, TASK, WEIGHT, check_target_text
from ..data.text import TextFormat
from ..engines.subset.target_similarity import weighted
from ..errors import SelectionError


logger = logging.getLogger(__name__)


def subtasks(target: Records) -> np.ndarray | None:
    """
    Subtask of each row, numbered by first appearance, int64 `(n,)`; `None` without a column `subtask`. Rows
    without a value form one subtask.
    """
    if SUBTASK not in target.dataset.column_names:
        return None
    numbers = {}
    return np.array([numbers.setdefault(name, len(numbers)) for name in target.dataset[SUBTASK]], np.int64)


@dataclass(frozen=True)
class Columns:
    """
    What of a target chooses rows: its examples, or groups of them.

    Args:
        groups (`np.ndarray`):
            Column of each target row, int64 `(m,)`, numbered from 0.
        tasks (`list[str]`, *optional*):
            Task of each column; `None` where the target has no named tasks.
        weights (`np.ndarray`, *optional*):
            Weight of the task of each column, the largest 1; `None` where all are equal.
        names (`list[str]`):
            What each column is called.
    """

    groups: np.ndarray
    tasks: list[str] | None
    weights: np.ndarray | None
    names: list[str]

    @property
    def shares(self) -> np.ndarray | None:
        """What each column has of turns, or of mass: its task's weight, shared by the columns of the task."""
        if self.tasks is None:
            return None
        count = Counter(self.tasks)
        weights = np.ones(len(self.tasks)) if self.weights is None else self.weights
        return weights / np.array([count[task] for task in self.tasks])

    def weighted(self, similarity: np.ndarray) -> np.ndarray:
        """Similarities `(n, columns)` as a highest one counts them, see [`weighted`]."""
        if self.weights is None:
            return similarity
        return weighted(similarity, self.weights.astype(similarity.dtype))


def columns(target: Records, rule: str, one: bool = False) -> Columns:
    """
    What of the target chooses rows by a rule of [`~engines.subset.matchers`], or by the `mean`: subtasks, or, for
    other rules than `max`, `mean` and `round_robin` and without a column `subtask`, each row by itself. `one` says
    whether rows without that column are one subtask.
    """
    groups = subtasks(target) if rule in ("max", "mean", "round_robin") else None
    if groups is None:
        groups = np.zeros(len(target), np.int64) if one else np.arange(len(target))
    _, first = np.unique(groups, return_index=True)
    held, tasks, weights = target.dataset, None, None
    if {TASK, WEIGHT} <= set(held.column_names):
        some = held.select(first)
        tasks, weights = list(some[TASK]), np.array(some[WEIGHT], np.float64)
        weights = None if (weights == weights[0]).all() else weights / weights.max()
    grouped = len(first) < len(groups) and SUBTASK in held.column_names
    names = list(map(str, held.select(first)[SUBTASK])) if grouped else [f"row {row}" for row in first]
    return Columns(groups, tasks, weights, names)


def encode_target(ctx: Context, text_format: TextFormat) -> Encoded:
    """
    Token rows of `ctx.target`. A warning names unusable rows.

    Raises:
        [`SelectionError`]: no row is usable.
    """
    check_target_text(ctx.target)
    encoded = ctx.encode(ctx.target, text_format)
    unusable = {reason: rows for reason, rows in encoded.problems.items() if rows}
    for reason, rows in unusable.items():
        shown = ", ".join(map(str, rows[:8])) + (", ..." if len(rows) > 8 else "")
        logger.warning(
            "`selection_target`: %s of %s rows are not used (%s): %s.", len(rows), len(ctx.target), reason, shown
        )
    if sum(map(len, unusable.values())) == len(ctx.target):
        raise SelectionError(
            f"`selection_target`: none of its {len(ctx.target)} rows can be used: {'; '.join(unusable)}."
        )
    return encoded


def refuse_without_target(usable: np.ndarray, encoded: Encoded, ctx: Context) -> None:
    """
    Warn of target rows that have an answer but no finite feature.

    Raises:
        [`SelectionError`]: no row is usable.
    """
    known = [row for rows in encoded.problems.values() for row in rows]
    lost = np.setdiff1d(np.flatnonzero(~usable), known)
    if len(lost):
        shown = ", ".join(map(str, lost[:8])) + (", ..." if len(lost) > 8 else "")
        logger.warning(
            "`selection_target`: %s rows did not fit in memory or gave no finite numbers: %s.", len(lost), shown
        )
    if not usable.any():
        raise SelectionError(
            "`selection_target`: the model's logits or their gradients are not finite for any of its rows, or none "
            "fits in memory. Check its weights, or score in another `selection_dtype`."
        )
