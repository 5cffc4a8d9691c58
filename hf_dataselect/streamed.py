"""A stream that is larger than the disk: scored block by block, and the best rows of all blocks are kept."""

import copy
import dataclasses
import logging
from collections.abc import Iterable
from typing import Any

import numpy as np
from datasets import Dataset, concatenate_datasets

from .budget import Budget
from .context import Context
from .data.records import Records
from .diversity import Diversity
from .engines.runtime.account import Account
from .engines.store.identity import digest
from .engines.subset.choose import tied_at_the_cut
from .errors import SelectionError
from .plan import SelectionPlan
from .runs.publish import numbered
from .selection import Selection
from .selector import Selector, method_name


logger = logging.getLogger(__name__)


def check_by_row(selector: Selector, budget: Budget, diversity: Diversity | None) -> None:
    """
    Refuse what can't be selected from blocks.

    Raises:
        `ValueError`: a method that compares rows or tunes the model on some of them, `diversity`, or a budget that
            depends on rows to come.
    """
    if not selector.by_row or diversity is not None:
        what = f"`{method_name(selector)}` with these options" if diversity is None else "`diversity`"
        raise ValueError(
            f"`stream_block`: {what} chooses otherwise from blocks than from all rows. Give `stream_rows`, the number "
            "of rows to write to disk and choose from, or a method whose score of a row depends on no other row: "
            "docs/scaling.md lists them with their options (`perplexity` with `keep: top`, `ifd` with `warmup: none`)."
        )
    if budget.unit not in ("rows", "score") or budget.groups is not None:
        raise ValueError(
            f"`stream_block`: `budget={str(budget)!r}` depends on rows to come: give a count such as 5000, or a "
            "threshold such as 'score >= 4.5', without `budget_by`."
        )


def of_block(budget: Budget, rows: int) -> Budget:
    """The budget of a block of so many rows."""
    return budget if budget.unit == "score" else dataclasses.replace(budget, value=min(budget.value, rows))


def select_blocks(
    blocks: Iterable[tuple[Dataset, Records]], plan: SelectionPlan, budget: Budget, ctx: Context
) -> tuple[Dataset, Selection]:
    """
    The best rows of all blocks, in memory, and what became of the others. Of equal scores, rows of an earlier block
    come first, and those of one block as the seed draws them.

    Args:
        blocks (`Iterable`):
            Rows of each block, and how they are read.
        plan ([`SelectionPlan`]):
            What is done with a block.
        budget ([`Budget`]):
            What is kept of all.
        ctx ([`Context`]):
            From the plan.
    """
    kept, numbers, scores = None, np.zeros(0, np.int64), np.zeros(0, np.float32)
    parts, contents, first = [], [], 0
    for dataset, records in blocks:
        if first > 0:
            try:
                plan.selector.check(records)
            except ValueError as error:
                raise ValueError(
                    f"Of rows {first:,} to {first + len(records) - 1:,} of the stream: {error}"
                ) from error
        own = dataclasses.replace(ctx, runtime=dataclasses.replace(ctx.runtime, account=Account()))
        block = copy.copy(plan)
        block.records, block.budget, block.may_keep_none = records, of_block(budget, len(records)), True
        selection = block.select(own, None, {})
        parts.append((first, selection))
        contents.append(records.content_hash())
        rows = dataset.with_format(None).select(selection.indices)
        rows = rows if kept is None else concatenate_datasets([kept, rows])
        numbers = np.concatenate([numbers, first + selection.indices])
        scores = np.concatenate([scores, selection.scores[selection.indices]])
        best = np.argsort(-scores, kind="stable")[: budget.value if budget.unit == "rows" else None]
        kept, numbers, scores = rows.select(best).flatten_indices(keep_in_memory=True), numbers[best], scores[best]
        first += len(records)
    if budget.unit == "rows" and len(numbers) < budget.value:
        logger.warning("`%s` keeps %s rows, fewer than the %s of the budget.", plan.method, len(numbers), budget.value)
    merged = _merged(parts, numbers, budget)
    if len(numbers) == 0:
        why = "; ".join([*merged.unscorable, *merged.dropped])
        raise SelectionError(f"`{plan.method}` found no row to keep of {first} of the stream: {why}.")
    merged.facts |= {"dataset": digest(contents), "also_in": None, "figures": _figures(parts, merged)}
    return numbered(kept, merged), merged


def _merged(parts: list[tuple[int, Selection]], indices: np.ndarray, budget: Budget) -> Selection:
    """One selection of those of blocks, each with the number of its first row."""
    selections = [part for _, part in parts]
    names = dict.fromkeys(name for part in selections for name in part.passes)
    lost: dict[str, dict[str, list[int]]] = {kind: {} for kind in ("unscorable", "dropped", "truncated")}
    for first, part in parts:
        for kind, reasons in lost.items():
            for reason, rows in getattr(part, kind).items():
                reasons.setdefault(reason, []).extend(first + row for row in rows)
    return dataclasses.replace(
        selections[-1],
        indices=indices,
        scores=np.concatenate([part.scores for part in selections]),
        columns={name: np.concatenate([part.columns[name] for part in selections]) for name in selections[0].columns},
        budget=budget.plain,
        seconds=sum(part.seconds for part in selections),
        cached_seconds=sum(part.cached_seconds for part in selections),
        passes={name: sum(part.passes.get(name, 0) for part in selections) for name in names},
        peak_memory={
            name: max(part.peak_memory.get(name, 0) for part in selections) for name in selections[0].peak_memory
        },
        **lost,
    )


def _figures(parts: list[tuple[int, Selection]], merged: Selection) -> dict[str, Any]:
    """Figures of blocks: lists of rows as one, others block by block; and the ties at the cut of all."""
    figures: dict[str, Any] = {"blocks of the stream": len(parts)}
    for number, (first, part) in enumerate(parts, 1):
        for name, value in part.facts["figures"].items():
            if isinstance(value, list) and all(isinstance(row, int) for row in value):
                figures.setdefault(name, []).extend(first + row for row in value)
            else:
                figures.setdefault(name, {})[f"block {number}"] = value
    usable = merged.scores.copy()
    usable[[row for rows in merged.dropped.values() for row in rows]] = np.nan
    tied, kept = tied_at_the_cut(usable, merged.indices)
    return figures | ({"rows tied at the cut": {"tied": tied, "kept": kept}} if tied else {})
