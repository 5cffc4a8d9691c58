"""Model-oriented features: hidden states of rows (paper, section 3.2)."""

import numpy as np

from ..context import Context
from ..data.encoded import Encoded
from ..data.records import Records
from ..engines.forward.cached_vectors import CachedVectors
from ..engines.forward.hidden_states import hidden_state, state_width
from ..engines.forward.shared_pass import compute_together
from ..engines.forward.wants import ONE_PASS
from ..engines.runtime.model_state import scoring_dtype
from ..engines.runtime.stored_vectors import Vectors
from ..engines.runtime.token_rows import TokenRows


def text_vectors(encoded: Encoded, ctx: Context, label: str, candidates: bool = True) -> Vectors:
    """
    The texts of rows as RDS+ represents them (arXiv 2503.01807): mean of the model's last hidden states weighted by
    position, scaled to length 1. They are cached on disk and read as needed; without a
    cache they are held in memory, float32 `(n, width)`. `candidates` says whether the rows are those that other
    methods at hand read, too.

    Returns:
        [`Vectors`]: rows without label tokens, and rows that did not fit in memory, are not usable.
    """
    if candidates:
        compute_together(ctx.model, encoded.tokens, ctx.runtime, ctx.wants & ONE_PASS, label)
    states = cached_states(encoded.tokens, ctx, label, pool="position", scaled=True)
    return states._replace(usable=states.usable & ~encoded.problematic)


def note_unusable(encoded: Encoded, ctx: Context) -> None:
    """Enter in `ctx.account` the unscorable rows, and those truncated to the window."""
    for reason, rows in encoded.problems.items():
        ctx.account.note("unscorable", reason, rows)
    ctx.account.note("truncated", "the answer is longer than the window", np.flatnonzero(encoded.truncated))


def prompt_embedding(records: Records, ctx: Context) -> np.ndarray:
    """[`prompt_vectors`] in memory, float32 `(n, width)`; NaN for unusable rows."""
    states = prompt_vectors(records, ctx)
    vectors = states.vectors[:]
    vectors[~states.usable] = np.nan
    return vectors


def prompt_vectors(records: Records, ctx: Context) -> Vectors:
    """
    Mean last hidden state of the prompts, cached as in [`text_vectors`]. Rows with an empty prompt, or without an
    answer within the window, are not usable.
    """
    encoded = ctx.encode(records)
    states = cached_states(encoded.prompts(), ctx, "Embedding prompts", pool="mean")
    return states._replace(usable=states.usable & ~encoded.problematic)


def cached_states(
    rows: TokenRows, ctx: Context, label: str, pool: str, scaled: bool = False, with_loss: bool = False
) -> Vectors:
    """[`hidden_state`] of rows, scaled to length 1 if `scaled`; read from the cache where known."""
    width = state_width(ctx.model) + with_loss
    described = {"pool": pool, "scaled": scaled, "dtype": str(scoring_dtype(ctx.model, ctx.runtime.dtype))}
    described |= {"loss": True} if with_loss else {}

    def compute(places: np.ndarray) -> np.ndarray:
        states = hidden_state(ctx.model, rows.select(places), ctx.runtime, pool, with_loss)
        return states / np.linalg.norm(states, axis=1, keepdims=True) if scaled else states

    with CachedVectors(ctx.runtime, ctx.model, width, label, len(rows), **described) as cached:
        return cached(rows.keys(), compute)
