"""What a prompt changes in the loss of each answer token, under noisy copies of the row (T-SHIRT)."""

from collections.abc import Sequence

import numpy as np

from ..context import Context
from ..data.records import Records
from ..data.text import TextFormat
from ..engines.forward.noisy_losses import noisy_deltas
from .hidden_states import note_unusable


def prompt_deltas(
    records: Records, ctx: Context, text_format: TextFormat, copies: int, alpha: float
) -> list[np.ndarray]:
    """
    Of each record, float32 `(copies, 1 + tokens)`: the change of the mean loss, and of each token's loss, that the
    prompt makes; see [`noisy_deltas`]. Records without one have no rows, and are entered in `ctx.account`.
    """
    encoded = ctx.encode(records, text_format)
    alone = ctx.encode(records, text_format, unconditional=True)
    order = np.argsort(alone.row, kind="stable")
    begins = np.searchsorted(alone.row[order], np.arange(len(records) + 1))
    answers = [alone.tokens.select(order[first:end]) for first, end in zip(begins, begins[1:], strict=False)]
    label = f"Scoring {copies} noisy copies"
    flat: Sequence[np.ndarray] = noisy_deltas(
        ctx.model, encoded.tokens, answers, ctx.runtime, copies, alpha, seed=ctx.seed, label=label
    )
    note_unusable(encoded, ctx)
    found = [np.asarray(values).reshape(copies, -1) for values in flat]
    lost = np.flatnonzero([values.size == 0 or not np.isfinite(values).all() for values in found])
    reason = "no token has a loss both with and without the prompt, or the row did not fit in memory"
    ctx.account.note("unscorable", reason, lost[~encoded.problematic[lost]])
    for row in {*lost, *np.flatnonzero(encoded.problematic)}:
        found[row] = np.zeros((0, 1), np.float32)
    return found
