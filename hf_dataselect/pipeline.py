"""`select()`: the paper (arXiv 2406.14115) on one screen."""

import dataclasses
import logging
import time
from contextlib import contextmanager
from typing import Any

import numpy as np
from datasets import Dataset

from .budget import rows_to_keep
from .context import Context
from .data.records import Records
from .errors import SelectionError
from .selection import Selection
from .selector import Selector


logger = logging.getLogger(__name__)


def select(dataset: Dataset | Records, selector: Selector, budget: float | int, ctx: Context) -> Selection:
    """
    Choose rows: normalise, featurize, score, check, select, check, agree.

    Args:
        dataset ([`~datasets.Dataset`] or [`Records`]):
            Candidate dataset.
        selector ([`Selector`]):
            The method.
        budget (`float` or `int`):
            Fraction or count, see [`rows_to_keep`].
        ctx ([`Context`]):
            Model, tokenizer, ranks. The model is given back as it was: mode, weights, `requires_grad`,
            gradient-checkpointing flags, hooks; so is the random state.

    Returns:
        [`Selection`]: the same on every rank.

    Raises:
        `ValueError`: the selector broke the contract (shape, dtype, order of rows) or changed the model's weights, no
        row could be kept, or the ranks hold different models.
    """
    from .engines.runtime.memory import peak_memory
    from .engines.runtime.model_state import preserved, unprepared
    from .selector import method_name

    records = dataset if isinstance(dataset, Records) else Records(dataset)
    n, method = len(records), method_name(selector)
    k = rows_to_keep(selector.fixed_budget or budget, n)
    started = time.perf_counter()
    unreadable = records.unreadable()
    for reason, rows in unreadable.items():
        ctx.account.note("dropped", reason, rows)
    with preserved(ctx.model), unprepared(ctx.model), _unchanged(selector, ctx):
        features = selector.featurize(records, ctx)
        scores = _checked_scores(selector.score(features, ctx), n, method)
        usable = scores.copy()
        for rows in unreadable.values():
            usable[rows] = np.nan
        if ctx.diversity is None:
            chosen = selector.select(usable, features, k, ctx)
        else:
            chosen = ctx.diversity.choose(lambda k: selector.select(usable, features, k, ctx), records, k, ctx)
        chosen = ctx.agreed(chosen)
    chosen = _checked_rows(chosen, n, k, method, set().union(*unreadable.values()))
    if len(chosen) == 0:
        reasons = [*ctx.account.rows("unscorable"), *ctx.account.rows("dropped")] or ["no score is a number"]
        raise SelectionError(f"`selection_method={method!r}` found no row to keep of {n}: {'; '.join(reasons)}.")
    if len(chosen) < k:
        logger.warning("`%s` keeps %s rows, fewer than the %s of the budget.", method, len(chosen), k)
    return Selection(
        method=method,
        options=dataclasses.asdict(selector) if dataclasses.is_dataclass(selector) else {},
        indices=chosen,
        scores=ctx.agreed(scores),
        budget=budget,
        seconds=time.perf_counter() - started + ctx.account.cached_seconds,
        cached_seconds=ctx.account.cached_seconds,
        passes=dict(ctx.account.passes),
        peak_memory=peak_memory(),
        facts={
            "diversity": dataclasses.asdict(ctx.diversity) if ctx.diversity is not None else None,
            "figures": ctx.account.figures,
        },
        **{kind: ctx.account.rows(kind) for kind in ("unscorable", "dropped", "truncated")},
    )


@contextmanager
def _unchanged(selector: Selector, ctx: Context):
    """Prove by checksum that ranks score with one model, and that the selector left every weight of it as it was."""
    if ctx.model is None or "model" not in selector.card.needs:
        yield
        return
    from .engines.runtime.batching import same_on_all_ranks
    from .engines.store.identity import model_identity

    before = model_identity(ctx.model)
    if not same_on_all_ranks(ctx.accelerator, before):
        raise SelectionError("The ranks hold different models. Load the same weights on every rank.")
    yield
    if model_identity(ctx.model) != before:
        raise ValueError(f"The selector {type(selector).__name__} left the model's weights changed.")


def _checked_scores(scores: Any, n: int, method: str) -> np.ndarray:
    scores = np.asarray(scores)
    if scores.shape != (n,) or not np.issubdtype(scores.dtype, np.number):
        raise ValueError(f"`{method}` must give {n} numbers, one a row: got {scores.dtype} of shape {scores.shape}.")
    return scores.astype(np.float32)


def _checked_rows(rows: Any, n: int, k: int, method: str, forbidden: set[int]) -> np.ndarray:
    rows = np.asarray(rows)
    whole = rows.ndim == 1 and (len(rows) == 0 or np.issubdtype(rows.dtype, np.integer))
    if not whole or len(np.unique(rows)) != len(rows) or ((rows < 0) | (rows >= n)).any() or len(rows) > k:
        raise ValueError(f"`{method}` must choose at most {k} different row numbers below {n}.")
    if forbidden:
        rows = rows[~np.isin(rows, list(forbidden))]
    return rows.astype(np.int64)
