"""Warm-up fine-tuning: the model temporarily fine-tuned on some rows."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from ..context import Context
from ..data.records import Records
from ..data.text import encode
from ..engines.runtime.token_rows import TokenRows
from ..engines.tuning.warm_up import WarmupSettings, warmed_up


def tuning_rows(records: Records, rows: np.ndarray, ctx: Context) -> TokenRows:
    """
    Some rows as the model is tuned on them for a while: the tokens that are scored, cut at the window, the answers
    alone counted, and the end of each turn with them, as in training.
    """
    return encode(records.subset(rows), ctx.text_format(end_of_turn=True), num_proc=ctx.num_proc).tokens


#: Numbers of a method that tunes the model for a while.
TUNING_OPTIONS = ("warmup_epochs", "warmup_learning_rate", "warmup_batch_size", "warmup_gradient_accumulation")


@contextmanager
def tuned_on(records: Records, rows: Sequence[int], ctx: Context, options: Any) -> Iterator[Context]:
    """
    The context with its model tuned on some rows for a while; as it is with no rows, or where `warmup` is "none".

    Args:
        rows (`Sequence[int]`):
            Row numbers.
        options (`Any`):
            What has the options `warmup` and `TUNING_OPTIONS`: the method.
    """
    if options.warmup == "none" or len(rows) == 0:
        yield ctx
        return
    settings = WarmupSettings(
        method=options.warmup,
        epochs=options.warmup_epochs,
        learning_rate=options.warmup_learning_rate or (2e-5 if options.warmup == "full" else 2e-4),
        batch_size=options.warmup_batch_size,
        gradient_accumulation=options.warmup_gradient_accumulation,
        gradient_checkpointing=ctx.gradient_checkpointing,
        seed=ctx.seed,
    )
    chosen = tuning_rows(records, rows, ctx)
    with warmed_up(ctx.model, ctx.tokenizer, chosen, settings, ctx.accelerator, ctx.cache_dir, ctx.account) as model:
        yield ctx.using(model)
