"""What an audit learns of selectors by, and `auto` decides by: held-out losses after training on subsets."""

import dataclasses
import logging
import time
from pathlib import Path
from typing import Any

import numpy as np
from trl import SFTConfig

from ..data.records import Records
from ..engines.tuning.settings import TrainingSettings
from ..evaluation.comparison.evaluated_runs import FREE
from ..features.tuned_loss import TunedLoss
from ..fitted.subset_losses import Measured, SubsetLosses


logger = logging.getLogger(__name__)

#: Prefixes of arguments of [`~trl.SFTConfig`] that decide no weights, or that token rows already follow.
_BESIDE = (*FREE, "eval_", "do_", "load_best", "metric_for", "greater_is", "dataset_", "model_init", "chat_template")
_BESIDE += ("assistant_only", "completion_only", "truncation_mode")


class TrainedLosses:
    """Held-out losses of the trainer's model trained on rows with one seed, kept in `subsets.jsonl` of a folder."""

    def __init__(self, trainer: Any, held_out: Records, folder: Path, seed: int):
        args, self.seed = trainer.args, seed
        ctx = trainer.context(cached=False)
        fields = {item.name for item in dataclasses.fields(SFTConfig)}
        settings = TrainingSettings(
            method="lora" if hasattr(trainer.model, "peft_config") else "full",
            epochs=args.num_train_epochs,
            learning_rate=args.learning_rate,
            batch_size=args.per_device_train_batch_size,
            gradient_accumulation=args.gradient_accumulation_steps,
            seed=seed,
            given={name: args.given[name] for name in fields & args.given.keys() if not name.startswith(_BESIDE)},
        )
        self._loss = TunedLoss(trainer.records, held_out, ctx, settings)
        self._store = SubsetLosses(folder / "subsets.jsonl", self._loss.key, ctx.runtime)

    def untrained(self) -> Measured:
        """The losses before training: those of no rows."""
        (measured,) = self._store.measure([np.zeros(0, np.int64)], lambda _: (self._loss.untrained(), {}), "Untrained")
        for reason, rows in self._loss.unscorable.items():
            logger.warning("%d held-out rows have no loss: %s.", len(rows), reason)
        return measured

    def known(self, rows: np.ndarray) -> bool:
        """Whether an earlier process has trained on these."""
        return tuple(rows.tolist()) in self._store.done

    def measure(self, subsets: list[np.ndarray], name: str) -> list[Measured]:
        """Those of subsets; the line of each notes the seconds of the training, of its steps, and of all."""

        def loss_of(rows: np.ndarray) -> tuple[np.ndarray, dict[str, float]]:
            started = time.perf_counter()
            losses = self._loss.by_row(rows)
            spent = {"train_seconds": self._loss.train_seconds, "spent": time.perf_counter() - started}
            return losses, {"seconds": self._loss.seconds} | spent

        return self._store.measure(subsets, loss_of, name)
