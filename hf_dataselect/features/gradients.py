"""Gradient features of rows (LESS, arXiv 2402.04333)."""

from typing import Any

import numpy as np

from ..context import Context
from ..data.text import Encoded
from ..engines.gradients.collect import Gradients, gradients
from .hidden_states import _problematic, note_unusable


def answer_gradients(encoded: Encoded, ctx: Context, label: str, target: bool = False, **options: Any) -> Gradients:
    """
    Gradient features of rows (LESS, arXiv 2402.04333): how each one, alone, would move the model.

    Args:
        encoded ([`Encoded`]):
            The rows.
        ctx ([`Context`]):
            Model, window, ranks.
        label (`str`):
            Label of the progress bar.
        target (`bool`, *optional*, defaults to `False`):
            Rows of the target are not candidates: what can't be used of them is not entered in `ctx.account`.
        options:
            Of [`gradients`].

    Returns:
        [`Gradients`]
    """
    found = gradients(
        ctx.model,
        encoded.tokens,
        # A backward pass holds what all layers did, a scoring pass what one does.
        batch_tokens=max(1, ctx.batch_tokens // 4),
        dtype=ctx.dtype,
        gradient_checkpointing=ctx.gradient_checkpointing,
        accelerator=ctx.accelerator,
        cache_dir=ctx.cache_dir,
        progress=label,
        **options,
    )
    ctx.account.count(
        backward_rows=len(encoded.tokens) - found.cached,
        backward_tokens=found.computed_tokens,
        cached_rows=found.cached,
    )
    ctx.account.add_cached_seconds(found.cached_seconds)
    if not target:
        note_unusable(encoded, ctx)
        ctx.account.note("unscorable", "did not fit in memory", np.flatnonzero(~found.fits))
        unusable = np.flatnonzero(found.fits & ~np.isfinite(found.norm) & ~_problematic(encoded))
        ctx.account.note("unscorable", "the gradient is zero or not finite", unusable)
    return found
