"""Target-task examples: token rows, and subtasks by an optional column."""

import logging

import numpy as np

from ..context import Context
from ..data.encoded import Encoded
from ..data.records import Records
from ..data.text import TextFormat
from ..errors import SelectionError


logger = logging.getLogger(__name__)

#: Column of the target that holds the subtask of a row.
SUBTASK = "subtask"


def subtasks(target: Records) -> np.ndarray | None:
    """
    Subtask of each row, numbered by first appearance, int64 `(n,)`; `None` without a column `subtask`. Rows
    without a value form one subtask.
    """
    if SUBTASK not in target.dataset.column_names:
        return None
    numbers = {}
    return np.array([numbers.setdefault(name, len(numbers)) for name in target.dataset[SUBTASK]], np.int64)


def columns(target: Records, rule: str, one: bool = False) -> np.ndarray:
    """
    What of the target chooses rows by a rule of [`~engines.subset.matchers`]: the subtask of each target row, or, for
    other rules than `max` and `round_robin` and without a column `subtask`, the row itself. Int64 `(n,)`. `one` says
    whether rows without that column are one subtask.
    """
    groups = subtasks(target) if rule in ("max", "round_robin") else None
    if groups is not None:
        return groups
    return np.zeros(len(target), np.int64) if one else np.arange(len(target))


def check_target_text(ctx: Context) -> None:
    """Refuse, with a [`SelectionError`], target rows that are token ids."""
    if ctx.target.layout == "tokens":
        raise SelectionError("`selection_target` holds token ids: give its rows untokenized.")


def encode_target(ctx: Context, text_format: TextFormat) -> Encoded:
    """
    Token rows of `ctx.target`. A warning names unusable rows.

    Raises:
        [`SelectionError`]: no row is usable.
    """
    check_target_text(ctx)
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
