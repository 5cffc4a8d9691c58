"""What rows are worth to a model: its loss on held-out rows once it was tuned on them for a while."""

import hashlib
import time
from dataclasses import asdict, replace

import numpy as np

from ..context import Context
from ..data.records import Records
from ..engines.runtime.account import Account
from ..engines.runtime.batching import found_by_main
from ..engines.store.identity import digest, model_identity
from ..engines.store.row_store import RowStore
from ..engines.tuning.warm_up import ImageRows, WarmupSettings, warmed_up
from .image_loss import held_out_loss
from .tuning import tuning_rows


class TunedLoss:
    """
    A function from rows to the mean loss on held-out rows of the model tuned on them. Each result is kept in the
    context's cache, and the tuned weights, which would fill the disk, are not.

    Args:
        records ([`Records`]):
            The rows that are tuned on.
        held_out ([`Records`]):
            The rows whose loss is measured.
        ctx ([`Context`]):
            Model, tokenizer, ranks, cache.
        settings ([`WarmupSettings`]):
            How the model is tuned.
    """

    def __init__(self, records: Records, held_out: Records, ctx: Context, settings: WarmupSettings):
        self.records, self.held_out, self.settings = records, held_out, settings
        # What can't be scored of the held-out rows is no matter of the candidates, and nothing of a model that is
        # gone at once is worth keeping.
        self.ctx, self._account = replace(ctx, cache_dir=None, account=Account()), ctx.account
        #: All that decides a loss besides the rows.
        self.described = {
            "version": 2,  # 1: the ranks could tune different models
            "model": model_identity(ctx.model),
            "text": ctx.text_format(end_of_turn=True).key,
            "processor": [ctx.processor.to_json_string(), ctx.processor.chat_template] if records.images else None,
            "rows": records.content_hash(),
            "held_out": held_out.content_hash(),
            "settings": asdict(settings),
            "max_length": ctx.max_length,
            "dtype": ctx.dtype,
            "processes": ctx.accelerator.num_processes if ctx.accelerator else 1,
            "precision": ctx.accelerator.mixed_precision if ctx.accelerator else "no",
        }
        self._store = RowStore(ctx.cache_dir, {"engine": "tuned loss"} | self.described, 2)

    @property
    def key(self) -> str:
        """Hash of `described`."""
        return digest(self.described)

    @property
    def unscorable(self) -> dict[str, list[int]]:
        """Held-out rows without a loss, by reason; known once a loss was measured."""
        return self.ctx.account.rows("unscorable")

    def __call__(self, rows: np.ndarray) -> float:
        """
        Mean loss, NaN if no held-out row has one.

        Args:
            rows (`np.ndarray`):
                Rows to tune on, the same on all ranks.
        """
        accelerator = self.ctx.accelerator
        key = np.frombuffer(hashlib.blake2b(np.asarray(rows, "<i8").tobytes(), digest_size=16).digest(), "V16")
        (kept,), (known,) = found_by_main(accelerator, *self._store.load(key))
        if known:
            self._account.add_cached_seconds(kept[1])
            return float(kept[0])
        started = time.perf_counter()
        if self.records.images:  # TRL tokenizes them, whose collator takes the pictures
            processor, chosen = self.ctx.processor, ImageRows(self.records.for_training(rows), self.ctx.max_length)
        else:
            processor, chosen = self.ctx.tokenizer, tuning_rows(self.records, rows, self.ctx)
        with warmed_up(self.ctx.model, processor, chosen, self.settings, accelerator) as tuned:
            losses = held_out_loss(self.held_out, self.ctx.using(tuned)).mean
        loss = float(np.nanmean(losses)) if np.isfinite(losses).any() else float("nan")
        if accelerator is None or accelerator.is_main_process:
            self._store.append(key, np.array([[loss, time.perf_counter() - started]]))
        return loss

    def close(self) -> None:
        """Close the store."""
        self._store.close()
