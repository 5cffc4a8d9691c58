"""Losses of the answers while a model learns them."""

import numpy as np

from ..context import Context
from ..data.records import Records
from ..data.text import TextFormat
from ..engines.tuning.temporary_weights import check_tunable
from ..engines.tuning.warm_up import WarmupSettings, warmed_up_by_epoch
from ..errors import NoUsableRow
from .loss import answer_loss


def loss_trajectories(records: Records, ctx: Context, text_format: TextFormat, settings: WarmupSettings) -> np.ndarray:
    """
    Mean loss of each answer, in nats a token, before the context's model is fine-tuned on all rows and at the end of
    each epoch, float64 `(n, 1 + epochs)`; the weights are restored. Rows without one are NaN, and entered in
    `ctx.account`.

    Raises:
        [`NoUsableRow`]: no row can be scored.
        [`SelectionError`]: the model can't be tuned so.
    """
    check_tunable(ctx.model, settings)

    def untrained(ctx: Context) -> np.ndarray:
        return answer_loss(records, ctx, text_format, label="Scoring answers before the training").mean

    losses = [ctx.of_all_parts(untrained)]
    usable = np.flatnonzero(np.isfinite(losses[0]))
    if len(usable) == 0:
        raise NoUsableRow("No row has an answer to learn within the window.")
    rows = ctx.encode(records, text_format).tokens.select(usable)
    with warmed_up_by_epoch(ctx.model, ctx.tokenizer, rows, settings, ctx.runtime) as (model, epochs):
        for number, epoch in enumerate(epochs, 1):
            epoch.load()
            label = f"Scoring answers after epoch {number}/{len(epochs)}"
            losses.append(answer_loss(records, ctx.using(model), text_format, label=label).mean)
    return np.column_stack(losses)
