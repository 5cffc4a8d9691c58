"""[`OnlineTrainer`]: [`~trl.SFTTrainer`] whose steps a policy takes part in; without one, it changes nothing."""

from collections.abc import Iterator
from inspect import signature
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from trl import SFTTrainer

from ...context import Context
from ...data.records import Records
from ..trials import trainable
from .lines import Pool
from .refusals import check_policy_rows
from .schedule import Reselection, Schedule
from .training import OnlineTraining


class OnlineTrainer(SFTTrainer):
    """
    The hooks of [`~transformers.Trainer`] by which a policy comes into training: what the dataloader deals out, the
    micro-batches of a step, the forward pass. The loop itself is the trainer's.
    """

    #: The candidate dataset.
    records: Records
    #: The policy at work, if there is one.
    online: OnlineTraining | None = None

    def context(self, cached: bool = True) -> Context:
        """What selectors may use."""
        raise NotImplementedError

    def __init__(self, model: Any, args: Any, data_collator: Any, *more: Any, **kwargs: Any):
        given = signature(SFTTrainer).bind(model, args, data_collator, *more, **kwargs).arguments
        check_policy_rows(args, self.records, data_collator, given)
        super().__init__(model, args, data_collator, *more, **kwargs)
        schedule = Schedule.parse(args.selection_schedule)
        if args.policy is not None or schedule is not None:
            self.online = OnlineTraining(self, args.policy or Reselection(schedule, self))
            self.add_callback(self.online)

    def rows_to_prepare(self, kept: np.ndarray) -> np.ndarray:
        """The rows kept; under a schedule all that can be trained on, as they may be kept later."""
        if self.online is None or not isinstance(self.online.policy, Reselection):
            return kept
        return trainable(self.records, self.context())[0]

    def prepare_lines(self, dataset: Any, rows: np.ndarray, kept: np.ndarray) -> Any:
        """TRL's preparation of rows, whose numbers in the candidate dataset are given; of those kept."""
        own = super()._prepare_dataset

        def prepare(part: Any, args: Any, packing: bool) -> Any:
            return own(part, self.processing_class, args, packing, None, "train")

        if self.online is None:
            return prepare(dataset, self.args, self.args.packing)
        return self.online.enter(Pool(prepare, self.args, dataset, rows), kept).dataset

    def get_train_dataloader(self) -> Any:
        """That of [`~transformers.Trainer`]; under a policy it deals out numbers, and lines are read step by step."""
        if self.online is None:
            return super().get_train_dataloader()
        if self.train_dataset is not self.online.lines.dataset:
            raise ValueError(
                "`train_dataset` was replaced after its rows were prepared, and the policy knows those only: make the "
                "trainer with the new rows."
            )
        kept = self.train_dataset, self.data_collator
        self.train_dataset, self.data_collator = self.online.tickets, list
        try:
            return super().get_train_dataloader()
        finally:
            self.train_dataset, self.data_collator = kept

    def get_batch_samples(self, epoch_iterator: Iterator, num_batches: int, *more: Any, **kwargs: Any) -> Any:
        """The micro-batches of a step, and the label tokens of all."""
        if self.online is not None:
            epoch_iterator = iter(self.online.batches(list(islice(epoch_iterator, num_batches))))
        return super().get_batch_samples(epoch_iterator, num_batches, *more, **kwargs)

    def compute_loss(self, model: Any, *more: Any, **kwargs: Any) -> Any:
        """The loss of a micro-batch; in training, with the weights of the policy."""
        if self.online is not None and self.model.training:
            model = self.online.watched(model)
        return super().compute_loss(model, *more, **kwargs)

    def training_step(self, *given: Any, **kwargs: Any) -> Any:
        """The passes of a micro-batch; after the last one of a step, the policy may take rows by their gradients."""
        loss = super().training_step(*given, **kwargs)
        if self.online is not None:
            self.online.passed()
        return loss

    def train(self, resume_from_checkpoint: str | bool | None = None, **kwargs: Any) -> Any:
        """As [`~transformers.Trainer.train`]."""
        if self.online is not None:
            self.online.begin(Path(str(resume_from_checkpoint)) if resume_from_checkpoint else None)
        return super().train(resume_from_checkpoint=resume_from_checkpoint, **kwargs)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """As [`~trl.SFTTrainer.log`], with what the policy did since the last time."""
        if self.online is not None and "loss" in logs:
            logs |= self.online.record.logs()
        super().log(logs, start_time)
