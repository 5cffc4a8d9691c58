"""Warm-up fine-tuning: the model temporarily fine-tuned on some rows."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from ..context import Context
from ..data.records import Records
from ..engines.runtime.token_rows import TokenRows
from ..engines.tuning.temporary_weights import check_tunable
from ..engines.tuning.warm_up import WarmupSettings, warmed_up


def tuning_rows(records: Records, rows: np.ndarray, ctx: Context) -> TokenRows:
    """Token rows for warm-up fine-tuning: the tokens and labels that TRL trains on."""
    return ctx.trained(records.subset(rows), parts=True).tokens


def check_warmup(ctx: Context, options: Any) -> None:
    """Raise [`SelectionError`], before anything is scored for the warm-up, for a model that can't be tuned so."""
    if options.warmup != "none":
        check_tunable(ctx.model, _settings(ctx, options))


@contextmanager
def tuned_on(records: Records, rows: Sequence[int], ctx: Context, options: Any) -> Iterator[Context]:
    """
    The context with its model temporarily fine-tuned on some rows; unchanged without rows, or if `warmup` is "none".

    Args:
        rows (`Sequence[int]`):
            Row numbers; those of the main process are used.
        options (`Any`):
            The method, with the options `warmup`, `warmup_epochs`, `warmup_learning_rate`, `warmup_batch_size` and
            `warmup_gradient_accumulation`.
    """
    rows = ctx.agreed(rows)
    if options.warmup == "none" or len(rows) == 0:
        yield ctx
        return
    chosen = tuning_rows(records, rows, ctx)
    with warmed_up(ctx.model, ctx.tokenizer, chosen, _settings(ctx, options), ctx.runtime) as model:
        yield ctx.using(model)


def _settings(ctx: Context, options: Any) -> WarmupSettings:
    return WarmupSettings(
        method=options.warmup,
        epochs=options.warmup_epochs,
        learning_rate=options.warmup_learning_rate or (2e-5 if options.warmup == "full" else 2e-4),
        batch_size=options.warmup_batch_size,
        gradient_accumulation=options.warmup_gradient_accumulation,
        seed=ctx.seed,
    )
