"""Held-out loss of the model fine-tuned on some rows."""

import time
from dataclasses import asdict, replace

import numpy as np

from ..context import Context
from ..data.records import Records
from ..engines.runtime.account import Account
from ..engines.runtime.cached_map import cached_value
from ..engines.store.identity import digest, identity_of
from ..engines.tuning.warm_up import ImageRows, WarmupSettings, warmed_up
from .image_loss import held_out_loss
from .tuning import tuning_rows


class TunedLoss:
    """
    A function from rows to the mean held-out loss of the model temporarily fine-tuned on them. Losses are cached; the
    fine-tuned weights, which would fill the disk, are not.

    Args:
        records ([`Records`]):
            The rows to fine-tune on.
        held_out ([`Records`]):
            The held-out rows.
        ctx ([`Context`]):
            Model, tokenizer, ranks, cache.
        settings ([`WarmupSettings`]):
            How the model is fine-tuned.
    """

    def __init__(self, records: Records, held_out: Records, ctx: Context, settings: WarmupSettings):
        self.records, self.held_out, self.settings = records, held_out, settings
        #: Seconds of the last fine-tuning, without the evaluation.
        self.seconds = float("nan")
        # An account of its own, as held-out rows are not candidates; no cache, as the model exists for one loss only.
        self._runtime, self.ctx = ctx.runtime, replace(ctx, runtime=ctx.runtime.uncached(Account()))
        #: What a loss depends on besides the rows.
        self.described = {
            # Raise it when the loss of unchanged rows, model and settings changes by more than rounding.
            "version": 4,
            "model": identity_of(ctx.model),
            "text": ctx.text_format(end_of_turn=True).key,
            "processor": [ctx.processor.to_json_string(), ctx.processor.chat_template] if records.images else None,
            "rows": records.content_hash(),
            "held_out": held_out.content_hash(),
            "settings": asdict(settings),
            "max_length": ctx.max_length,
            "preparation": asdict(ctx.preparation),
        } | ctx.runtime.described

    @property
    def key(self) -> str:
        """Hash of `described`."""
        return digest(self.described)

    @property
    def train_seconds(self) -> float:
        """Seconds of the steps of the last fine-tuning."""
        return self.ctx.runtime.account.tuning_seconds

    @property
    def unscorable(self) -> dict[str, list[int]]:
        """Held-out rows without a loss, by reason; known after the first loss."""
        return self.ctx.account.rows("unscorable")

    def __call__(self, rows: np.ndarray) -> float:
        """
        Mean held-out loss; NaN if no held-out row has a loss.

        Args:
            rows (`np.ndarray`):
                Rows to fine-tune on, the same on all ranks.
        """

        def mean() -> float:
            losses = self.by_row(rows)
            return float(np.nanmean(losses)) if np.isfinite(losses).any() else float("nan")

        namespace = {"engine": "tuned loss"} | self.described
        return cached_value(mean, np.asarray(rows, "<i8").tobytes(), namespace, self._runtime)

    def by_row(self, rows: np.ndarray) -> np.ndarray:
        """
        Loss of each held-out row, float64 `(held-out rows,)`, NaN without one; computed anew.

        Args:
            rows (`np.ndarray`):
                Rows to fine-tune on, the same on all ranks.
        """
        started = time.perf_counter()
        if self.records.images:  # TRL's collator tokenizes them together with the pictures
            processor, chosen = self.ctx.processor, ImageRows(self.records.for_training(rows), self.ctx.max_length)
        else:
            processor, chosen = self.ctx.tokenizer, tuning_rows(self.records, rows, self.ctx)
        with warmed_up(self.ctx.model, processor, chosen, self.settings, self.ctx.runtime) as tuned:
            self.seconds = time.perf_counter() - started
            return held_out_loss(self.held_out, self.ctx.using(tuned)).mean

    def untrained(self) -> np.ndarray:
        """Loss of each held-out row before fine-tuning, float64 `(held-out rows,)`."""
        return held_out_loss(self.held_out, self.ctx).mean
