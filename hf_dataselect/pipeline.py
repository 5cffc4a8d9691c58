"""`select()`: the paper (arXiv 2406.14115) on one screen."""

import dataclasses
import logging
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset

from .budget import Budget
from .context import Context
from .data.records import Records
from .diversity import Diversity
from .engines.runtime.token_rows import token_counts
from .engines.subset.choose import tied_at_the_cut
from .errors import AllExcluded, SelectionError
from .selection import RESERVED, Selection
from .selector import Scores, Selector, method_name


logger = logging.getLogger(__name__)


def select(
    dataset: Dataset | Records,
    selector: Selector,
    budget: Budget | float | int | str | None,
    ctx: Context,
    may_keep_none: bool = False,
) -> Selection:
    """
    Choose rows: read, featurize, score, exclude, select, agree. Experimental: [`select_dataset`] is the stable way.

    Args:
        dataset ([`~datasets.Dataset`] or [`Records`]):
            Candidate dataset.
        selector ([`Selector`]):
            The method.
        budget (`float`, `int`, `str` or [`Budget`], *optional*):
            How much to keep, see [`~hf_dataselect.budget`]; by default the method's own.
        ctx ([`Context`]):
            Model, tokenizer, ranks. The model is restored afterwards (mode, weights, `requires_grad`,
            gradient-checkpointing flags, hooks), and so is the random state.
        may_keep_none (`bool`, *optional*, defaults to `False`): Whether these are a block of rows, with none to keep.

    Returns:
        [`Selection`]: the same on every rank.

    Raises:
        `ValueError`: the selector broke the contract (shape, dtype, order of rows) or changed the model's weights, no
        row could be kept, or the ranks hold different models.
    """
    from .engines.runtime.memory import peak_memory

    records = dataset if isinstance(dataset, Records) else Records(dataset)
    n, method = len(records), method_name(selector)
    budget = Budget.parse(selector.default_budget if selector.fixed_budget or budget is None else budget)
    check_budget(budget, selector, ctx.diversity)
    k, groups = rows_asked(budget, selector, n), None if budget.groups is None else budget.groups.of(records.dataset)
    started = time.perf_counter()
    has_template = getattr(ctx.tokenizer, "chat_template", None) is not None
    with peak_memory() as peak, scoring(selector, ctx) as (ctx, identity):
        unreadable = records.unreadable(ctx.text_format() if has_template else None, ctx.runtime.num_proc)
        for reason, rows in unreadable.items():
            ctx.account.note("dropped", reason, rows)
        features = ctx.of_all_parts(partial(selector.featurize, records))
        scores, columns = _checked_scores(selector.score(features, ctx), n, method)
        usable = scores.copy()
        for rows in unreadable.values():
            usable[rows] = np.nan
        usable = _exclude(usable, selector.exclude(usable, features, ctx), method, ctx)
        usable = _exclude(usable, budget.exclude(usable), method, ctx)

        def best(scores: np.ndarray, k: int) -> np.ndarray:
            if not np.isfinite(scores).any():
                return np.zeros(0, np.int64)

            def ranked(k: int) -> np.ndarray:
                return _checked_rows(selector.select(scores, records, features, k, ctx), scores, k, method)

            return ranked(k) if ctx.diversity is None else ctx.diversity.choose(ranked, records, k, ctx)

        tokens = _trained_tokens(records, ctx) if budget.unit == "tokens" else None
        chosen = ctx.runtime.broadcast(budget.choose(usable, best, groups, tokens))
    if len(chosen) == 0 and not may_keep_none:
        reasons = [*ctx.account.rows("unscorable"), *ctx.account.rows("dropped")]
        if tokens is not None and np.isfinite(usable).any():
            reasons.append(f"the best row has more tokens than the budget, {budget}")
        why = "; ".join(reasons) or "no score is a number"
        kind = AllExcluded if np.isfinite(scores).any() and not np.isfinite(usable).any() else SelectionError
        raise kind(f"`selection_method={method!r}` found no row to keep of {n}: {why}.")
    if not may_keep_none:
        if k is not None and len(chosen) < k:
            logger.warning("`%s` keeps %s rows, fewer than the %s of the budget.", method, len(chosen), k)
        _describe_cut(usable, chosen, budget, groups, ctx)
    selector.describe(chosen, usable, records, features, ctx)
    if tokens is not None:
        ctx.account.figures["tokens kept"] = f"{int(tokens[chosen].sum()):,} of {budget.value:,}"
    return Selection(
        method=method,
        options=dataclasses.asdict(selector) if dataclasses.is_dataclass(selector) else {},
        indices=chosen,
        scores=ctx.runtime.broadcast(scores),
        columns=ctx.runtime.broadcast(columns),
        budget=budget.plain,
        seconds=time.perf_counter() - started + ctx.account.cached_seconds,
        cached_seconds=ctx.account.cached_seconds,
        passes=dict(ctx.account.passes),
        peak_memory=peak,
        facts={
            "diversity": ctx.diversity.facts() if ctx.diversity is not None else None,
            "figures": ctx.account.figures,
            "model_identity": identity,
        },
        **{kind: ctx.account.rows(kind) for kind in ("unscorable", "dropped", "truncated")},
    )


def needs_of(selector: Selector, diversity: Diversity | None) -> frozenset[str]:
    """What the method needs, and its diversity step."""
    return selector.needs() if diversity is None else selector.needs() | diversity.needs()


def check_budget(budget: Budget, selector: Selector, diversity: Diversity | None) -> None:
    """
    Refuse a budget that a choice of rows can't be cut to.

    Raises:
        `ValueError`: a budget of tokens, a threshold or groups for a method or a diversity step whose best `k` rows
            are not the first of more.
    """
    if budget.unit in ("fraction", "rows") and budget.groups is None:
        return
    what = f"`{method_name(selector)}` with these options" if not selector.nested else ""
    if diversity is not None and diversity.kind == "facility_location":
        what = "`selection_diversity='facility_location'`"
    if what:
        raise ValueError(
            f"`selection_budget={str(budget)!r}`: {what} chooses other rows for each number of rows: give a fraction "
            "or a count, without `selection_budget_by`."
        )


def rows_asked(budget: Budget, selector: Selector, candidates: int) -> int | None:
    """
    Rows that a budget means, see [`Budget.rows`].

    Raises:
        `ValueError`: more than the candidates, or than the method can keep.
    """
    asked, most = budget.rows(candidates), max(1, round(selector.largest_part * candidates))
    if asked is not None and asked > most:
        raise ValueError(
            f"`selection_budget={str(budget)!r}` asks for {asked:,} of {candidates:,} rows, of which "
            f"`{method_name(selector)}` leaves {most:,} with these options: give a smaller budget, or raise `keep`."
        )
    return asked


def check_diversity(diversity: Diversity | None, selector: Selector) -> None:
    """
    Refuse a diversity for a method that leaves it nothing to do.

    Raises:
        `ValueError`: the method keeps every row, or already keeps rows apart.
    """
    if diversity is not None and (selector.spreads_out or selector.fixed_budget):
        why = "keeps every row" if selector.fixed_budget else "already keeps rows apart itself"
        raise ValueError(f"`selection_diversity={diversity.kind!r}`: `{method_name(selector)}` {why}. Remove it.")


@contextmanager
def scoring(selector: Selector, ctx: Context) -> Iterator[tuple[Context, str | None]]:
    """
    The context that a method computes in, with what other methods want of the same pass, and the hash of the model,
    `None` where it is not used. Afterwards the model and the random state are as before.
    """
    from .engines.runtime.model_state import preserved, unprepared
    from .engines.runtime.phase import doing

    # What other methods want is kept for them, if it can be.
    ctx = dataclasses.replace(ctx, wants=selector.wants() | (ctx.wants if ctx.runtime.cache_dir else frozenset()))
    with (
        doing(f"selecting by `{method_name(selector)}`"),
        preserved(ctx.model),
        unprepared(ctx.model),
        _unchanged(selector, ctx) as identity,
        _kept_for_one_pass(ctx) as ctx,
    ):
        yield ctx, identity


@contextmanager
def _kept_for_one_pass(ctx: Context):
    """
    The context with a cache that lasts as long as the selection, where there is none and one pass serves several
    wants. Several ranks, which may have no folder in common, make a pass for each instead.
    """
    from .engines.forward.wants import ONE_PASS

    if ctx.runtime.cache_dir is not None or len(ctx.wants & ONE_PASS) < 2 or ctx.runtime.world > 1:
        yield ctx
        return
    with tempfile.TemporaryDirectory(prefix="hf_dataselect-") as folder:
        yield dataclasses.replace(ctx, runtime=dataclasses.replace(ctx.runtime, cache_dir=Path(folder)))


@contextmanager
def _unchanged(selector: Selector, ctx: Context):
    """
    Check by a hash that all ranks score with the same model, and that the selector left its weights unchanged; yields
    the hash, `None` where the model is not used.
    """
    if ctx.model is None or "model" not in needs_of(selector, ctx.diversity):
        yield None
        return
    from .engines.store.identity import identities_remembered, model_identity, note_identity

    before = model_identity(ctx.model)
    if not ctx.runtime.agree(before):
        raise SelectionError("The ranks hold different models. Load the same weights on every rank.")
    with identities_remembered():
        note_identity(ctx.model, before)
        yield before
    if model_identity(ctx.model) != before:
        raise ValueError(f"The selector {type(selector).__name__} left the model's weights changed.")


def _checked_scores(given: Any, n: int, method: str) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Scores and columns as float32, checked."""
    given = Scores.of(given)
    numbers = {"score": given.values} | given.columns
    if taken := {"score", *RESERVED} & given.columns.keys():
        raise ValueError(f"`{method}` names columns {sorted(taken)}, which scores.parquet has already: rename them.")
    for name, values in numbers.items():
        values = numbers[name] = np.asarray(values)
        if values.shape != (n,) or not np.issubdtype(values.dtype, np.number):
            raise ValueError(
                f"`{method}` must give {n} numbers as `{name}`, one a row: got {values.dtype} of shape {values.shape}."
            )
    with np.errstate(over="ignore"):
        numbers = {name: values.astype(np.float32) for name, values in numbers.items()}
    return numbers.pop("score"), numbers


def _exclude(scores: np.ndarray, masks: dict[str, np.ndarray], method: str, ctx: Context) -> np.ndarray:
    """Scores without those of the rows that masks exclude, which are entered as dropped by reason."""
    scores = scores.copy()
    for reason, mask in masks.items():
        mask = np.asarray(mask)
        if mask.shape != scores.shape or mask.dtype != bool:
            raise ValueError(f"`{method}` must exclude by a mask of {len(scores)} truth values: {reason!r} has none.")
        ctx.account.note("dropped", reason, np.flatnonzero(mask))
        scores[mask] = np.nan
    return scores


def _checked_rows(rows: Any, scores: np.ndarray, k: int, method: str) -> np.ndarray:
    rows = np.asarray(rows)
    whole = rows.ndim == 1 and (len(rows) == 0 or np.issubdtype(rows.dtype, np.integer))
    if not whole or len(np.unique(rows)) != len(rows) or ((rows < 0) | (rows >= len(scores))).any() or len(rows) > k:
        raise ValueError(f"`{method}` must choose at most {k} different row numbers below {len(scores)}.")
    rows = rows.astype(np.int64)
    if np.isnan(scores[rows]).any():
        raise ValueError(f"`{method}` chose rows without a score: {rows[np.isnan(scores[rows])][:8].tolist()}.")
    return rows


def _trained_tokens(records: Records, ctx: Context) -> np.ndarray:
    """Tokens of each row in the window of the training, int64 `(n,)`."""
    if records.layout == "tokens":
        lengths = token_counts(records.dataset)
        return np.minimum(lengths, ctx.max_length or lengths.max(initial=0))
    encoded = ctx.encode(records, ctx.text_format(end_of_turn=True), parts=True)
    return np.bincount(encoded.row, encoded.tokens.lengths, len(records)).astype(np.int64)


def _describe_cut(scores: np.ndarray, chosen: np.ndarray, budget: Budget, groups: Any, ctx: Context) -> None:
    """Enter ties at the cut, which the seed settled, and how many rows each group keeps."""
    lost = [row for rows in ctx.account.rows("dropped").values() for row in rows]  # also by a diversity step
    scores = scores.copy()
    scores[np.setdiff1d(np.array(lost, np.int64), chosen)] = np.nan
    names, members = groups or (["all"], np.zeros(len(scores), np.int64))
    parts = [(members == group, members[chosen] == group) for group in range(len(names))]
    tied = [tied_at_the_cut(np.where(mine, scores, np.nan), chosen[kept]) for mine, kept in parts]
    rows, kept = map(sum, zip(*tied, strict=True))
    if rows:
        ctx.account.figures["rows tied at the cut"] = {"tied": rows, "kept": kept}
    if budget.groups is not None:
        ctx.account.figures[f"rows kept by {budget.groups.column}"] = {
            name: int(kept.sum()) for name, (_, kept) in zip(names, parts, strict=True)
        }
