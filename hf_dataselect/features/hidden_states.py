"""Model-oriented features: hidden states of rows (paper, section 3.2)."""

from collections.abc import Sequence

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


#: Seed of the projections of layers.
_SIGNS = 42


def text_vectors(encoded: Encoded, ctx: Context, label: str, candidates: bool = True) -> Vectors:
    """
    The texts of rows as RDS+ represents them (arXiv 2503.01807): mean of the model's last hidden states weighted by
    position, scaled to length 1. They are cached on disk and read as needed; without a cache they are held in memory,
    float32 `(n, width)`. `candidates` says whether the rows are those that other methods read, too.

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


def prompt_vectors(records: Records, ctx: Context) -> Vectors:
    """
    Mean last hidden state of the prompts, cached as in [`text_vectors`]. Rows with an empty prompt, or without an
    answer within the window, are not usable.
    """
    encoded = ctx.encode(records)
    states = cached_states(encoded.prompts(), ctx, "Embedding prompts", pool="mean")
    return states._replace(usable=states.usable & ~encoded.problematic)


def unscaled_text_vectors(encoded: Encoded, ctx: Context, label: str, candidates: bool = True) -> Vectors:
    """[`text_vectors`] of their own length, by which CRDS (arXiv 2602.13773) whitens; they share no pass."""
    states = cached_states(encoded.tokens, ctx, label, pool="position")
    return states._replace(usable=states.usable & ~encoded.problematic)


def layer_vectors(encoded: Encoded, ctx: Context, label: str, layers: Sequence[int]) -> Vectors:
    """
    States of several layers side by side (CRDS, arXiv 2602.13773): each layer's mean weighted by position, projected
    by a random matrix of +1 and -1 to a part of its width, so that all of them are as wide as one, about. One layer
    is not projected. Cached as in [`text_vectors`].
    """
    width = state_width(ctx.model)
    each = width // len(layers) if len(layers) > 1 else width
    draws = (np.random.default_rng([_SIGNS, place]) for place in range(len(layers)))
    signs = [(2.0 * draw.integers(0, 2, (width, each)) - 1).astype(np.float32) for draw in draws]
    described = {"pool": "position", "layers": list(layers), "signs": _SIGNS}
    described["dtype"] = str(scoring_dtype(ctx.model, ctx.runtime.dtype))

    def compute(places: np.ndarray) -> np.ndarray:
        states = hidden_state(ctx.model, encoded.tokens.select(places), ctx.runtime, "position", layers=layers)
        parts = np.split(states, len(layers), axis=1)
        return side_by_side(parts, signs) if len(layers) > 1 else states

    options = {"total": len(encoded.tokens), **described}
    with CachedVectors(ctx.runtime, ctx.model, each * len(layers), label, **options) as cached:
        states = cached(encoded.tokens.keys(), compute)
    return states._replace(usable=states.usable & ~encoded.problematic)


def side_by_side(parts: Sequence[np.ndarray], matrices: Sequence[np.ndarray]) -> np.ndarray:
    """Vectors of each layer `(b, width)` times its matrix `(width, size)`, side by side `(b, layers x size)`."""
    return np.concatenate([part @ matrix for part, matrix in zip(parts, matrices, strict=True)], axis=1)


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
