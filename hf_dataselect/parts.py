"""[`compute_part`]: one part of what a selection computes, by one of several jobs that share a cache folder."""

import dataclasses
import logging
from pathlib import Path

import numpy as np

from .context import Context
from .engines.runtime.part import Part
from .engines.store.files import check_cache
from .pipeline import scoring, select
from .plan import SelectionPlan


logger = logging.getLogger(__name__)


def check_part(plan: SelectionPlan, part: Part, cache_dir: Path | None) -> None:
    """
    Refuse what can't be computed in parts, before anything loads.

    Raises:
        `ValueError`: a method whose computation does not split, more parts than rows, or no cache that can be written.
    """
    rows, said = len(plan.records), f"`part={str(part)!r}`"
    if plan.selector.splits is None:
        raise ValueError(
            f"{said}: `{plan.method}` with these options computes nothing row by row that is kept for others: select "
            "without `--part`."
        )
    if part.of > rows:
        raise ValueError(f"{said}: the {rows:,} rows can't be split into so many parts. Take fewer.")
    if cache_dir is None or not check_cache(cache_dir):
        raise ValueError(
            f"{said} is for the `select` that follows, which reads it from the cache: set `selection_cache_dir` to a "
            "folder that all jobs can write to."
        )


def compute_part(plan: SelectionPlan, ctx: Context, part: Part) -> dict[str, int]:
    """
    Compute and keep what `plan.select` then reads for one part of the rows, and what all parts need, unless another
    job has kept it: while one computes that, the others wait for it.

    Args:
        plan ([`SelectionPlan`]):
            What is selected from what, checked by [`check_part`].
        ctx ([`Context`]):
            From `plan.context`.
        part ([`Part`]):
            The part.

    Returns:
        `dict[str, int]`: rows and tokens by kind of pass, as in [`Selection`].
    """
    selector, records = plan.selector, plan.records
    mine = dataclasses.replace(ctx, runtime=dataclasses.replace(ctx.runtime, part=part))
    if selector.splits == "selection" or (plan.diversity is not None and plan.diversity.kind == "facility_location"):
        return select(records, selector, plan.budget, mine).passes
    if plan.diversity is not None or selector.spreads_out:
        logger.info("Vectors for the final choice are computed by `select` without `--part`.")
    if selector.splits == "rows":
        rows = np.arange(part.number - 1, len(records), part.of)
        records, mine = records.subset(rows), ctx.of_rows(rows)
    with scoring(selector, mine) as (ctx, _):
        selector.featurize(records, ctx)
    return dict(ctx.account.passes)
