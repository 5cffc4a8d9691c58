"""[`OnlineTraining`]: a policy inside the steps of a trainer, on all ranks alike, saved with each checkpoint."""

import dataclasses
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from accelerate.utils import gather_object
from transformers import TrainerControl, TrainerState, TrainingArguments

from ...engines.runtime.model_state import preserved
from ...engines.runtime.phase import doing
from ...engines.runtime.ranks import meeting
from ...policy import Policy, Seen, progress_at
from ...runs.files import POLICY, plain, write
from ...runs.folder import write_selection
from ..checkpointed import Checkpointed, packed, unpacked
from .lines import Lines, Pool, Round, row_batch, runs_of
from .record import Record
from .sampler import RoundSampler
from .schedule import Reselection
from .tap import Tap
from .target_gradients import TargetGradients


logger = logging.getLogger(__name__)


class OnlineTraining(Checkpointed):
    """
    What a policy needs of a trainer, and what the trainer asks it.

    Args:
        trainer ([`DataSelectingTrainer`]):
            The trainer.
        policy ([`Policy`]):
            What selects.
    """

    FILE = "policy_state.json"

    def __init__(self, trainer: Any, policy: Policy):
        self.trainer, self.policy = trainer, policy
        self.gradients = TargetGradients(trainer, policy) if policy.reads_gradients else None

    def enter(self, pool: Pool, kept: np.ndarray) -> Lines:
        """Train on rows of a pool; the lines of those that were kept."""
        self.pool = pool
        self.lines = pool.lines if len(kept) == len(pool.rows) else pool.of(kept)
        return self.lines

    @property
    def lines_a_step(self) -> int:
        """Lines of an optimizer step, over all ranks."""
        args = self.trainer.args
        return args.train_batch_size * args.gradient_accumulation_steps * self.trainer.accelerator.num_processes

    @property
    def tickets(self) -> range:
        """What the dataloader deals out in an epoch: numbers of lines, or as many as whole steps take of a sampler."""
        count, step = len(self.lines), self.lines_a_step
        return range(-(-count // step) * step if self.policy.chooses else count)

    def begin(self, resumed_from: Path | None) -> None:
        """Let the policy learn what it has to know before the first step; a checkpoint holds it."""
        trainer, records = self.trainer, self.trainer.records
        self.resumed_from, self.tap = resumed_from, Tap(self.policy)
        self.sampler = RoundSampler(self.pool, self.policy, trainer.args.seed)
        self.record = Record(records.dataset, getattr(self.policy, "column", "source"))
        self.policy.state.clear()
        self.seconds = self.prepared_in = 0.0
        self.unscorable: dict[str, int] = {}
        self.empty_steps = 0  # in which every row weighed 0
        if self.gradients is not None:
            self.gradients.begin()
        if resumed_from is not None:
            return
        started, ctx = time.perf_counter(), trainer.context()
        with preserved(trainer.model), meeting(), doing("Preparing the policy"):
            self.policy.prepare(records, self.pool.rows, ctx)
        self.unscorable = {reason: len(rows) for reason, rows in ctx.account.rows("unscorable").items()}
        for reason, count in self.unscorable.items():
            said = "`selection_policy`: %d rows have no loss before training, and %s: %s."
            logger.warning(said, count, self.policy.without_loss, reason)
        self.prepared_in = time.perf_counter() - started + ctx.account.cached_seconds
        self._spend(self.prepared_in)

    def batches(self, dealt: list[list[int]]) -> list[Any]:
        """The micro-batches of a step, for as many lists of tickets."""
        started, collating = time.perf_counter(), 0.0
        whole = Round(self.lines, self.pool.rows, np.ones(len(self.pool.rows)))
        served = [[(whole, ticket) for ticket in tickets] for tickets in dealt]
        if self.policy.chooses and dealt:
            served = self._drawn([len(tickets) for tickets in dealt])
        micro_batches, expected = [], []
        for lines in served:
            examples = [example for one, places in runs_of(lines) for example in one.lines.examples(places)]
            begun = time.perf_counter()
            micro_batches.append(self.trainer.data_collator(examples))
            collating += time.perf_counter() - begun
            expected.append(row_batch(lines, micro_batches[-1]["input_ids"].shape))
        self.tap.expect(expected)
        self.seconds += time.perf_counter() - started - collating
        return micro_batches

    def _drawn(self, sizes: list[int]) -> list[list[tuple[Round, int]]]:
        """This rank's micro-batches of the lines of all ranks."""
        state, accelerator = self.trainer.state, self.trainer.accelerator
        if isinstance(self.policy, Reselection) and self._is_due(state.global_step):
            before = self.policy.state["kept"]
            self._spend(self.policy.renew(state.global_step, self.pool.rows))
            if not np.array_equal(self.policy.state["kept"], before):
                self.sampler.end_round()
        ranks, rank = accelerator.num_processes, accelerator.process_index
        taken = self.sampler.take(sum(sizes) * ranks, progress_at(state.global_step, state.max_steps))
        ends = np.cumsum([0, *(size for size in sizes for _ in range(ranks))])
        mine = range(rank, len(ends) - 1, ranks)
        return [taken[ends[place] : ends[place + 1]] for place in mine]

    def _is_due(self, step: int) -> bool:
        schedule, of_epoch = self.policy.schedule, len(self.tickets) // self.lines_a_step
        every, updates = schedule.steps(of_epoch), self.trainer.state.max_steps
        if step == 0 and schedule.times(updates, of_epoch) == 0:
            logger.warning("`selection_schedule`: training ends after %d steps, before %d are done.", updates, every)
        done = self.policy.state["selections"]
        return step > 0 and step % every == 0 and (not done or done[-1]["step"] < step)

    def _spend(self, seconds: float) -> None:
        """Count seconds among those of the selection."""
        self.trainer.selection.seconds += seconds
        if self.trainer.is_world_process_zero():
            write_selection(self.trainer.run_folder, self.trainer.selection)

    def watched(self, model: Any) -> Callable[..., Any]:
        """The model, for the next forward pass of a step."""
        if self.gradients is not None and self.tap.next is not None:
            self.gradients.rows.begin(self.tap.next.rows, self.tap.next.of_token)
        return self.tap.model(model)

    def passed(self) -> None:
        """A backward pass is done; after the last one of a step, let the policy take rows by their gradients."""
        if self.gradients is None:
            return
        started = time.perf_counter()
        self.gradients.rows.pause()
        if self.tap.next is None:
            rows, (losses, tokens, weights) = self._taken()
            weights[tokens > 0] *= self.gradients.take(rows[tokens > 0], tokens[tokens > 0])
            self._of_step = rows, np.stack([losses, tokens, weights])
        self.seconds += time.perf_counter() - started

    def _taken(self) -> tuple[np.ndarray, np.ndarray]:
        """Rows `(k,)` of all ranks in the step that ends; sums of their losses, label tokens, weights, `(3, k)`."""
        parts = [self.tap.taken()]
        if self.trainer.accelerator.num_processes > 1:
            parts = gather_object(parts)
        rows, place = np.unique(np.concatenate([part for part, _ in parts]), return_inverse=True)
        losses, tokens, weights = np.concatenate([part for _, part in parts], 1)
        return rows, np.stack([np.bincount(place, part, len(rows)) for part in (losses, tokens, tokens * weights)])

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs):
        started = time.perf_counter()
        rows, sums = self._taken() if self.gradients is None else self._of_step
        counted = sums[1] > 0
        losses, tokens, weighted = (part[counted] for part in sums)
        seen = Seen(state.global_step, state.max_steps, rows[counted], losses / tokens, tokens)
        if len(seen.rows):
            self.record.observe(seen, weighted / tokens)
            self.empty_steps += not weighted.any()
            self.policy.observe(seen)
        self.seconds += time.perf_counter() - started

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs):
        if self.empty_steps:
            logger.warning(
                "`%s` dropped all rows of %d of %d steps, in which nothing was learnt: train for more steps, with more"
                " rows in each, or drop a smaller part.",
                *(self.trainer.args.selection_policy, self.empty_steps, state.global_step),
            )
        if state.is_world_process_zero:
            write(self.trainer.run_folder, POLICY, self.figures(state.global_step))

    def figures(self, steps: int) -> dict[str, Any]:
        """What `policy.json` holds."""
        options = self.policy.schedule if isinstance(self.policy, Reselection) else self.policy
        return {
            "policy": self.trainer.args.selection_policy or "selection_schedule",
            "options": plain(dataclasses.asdict(options)),
            "selections": self.policy.state.get("selections"),
            "steps": steps,
            "rounds": self.sampler.round if self.policy.chooses else None,
            "unscorable": self.unscorable,
            "steps_without_rows": self.empty_steps,
            "prepare_seconds": self.prepared_in,
            "seconds_a_step": self.seconds / max(1, steps),
        } | self.record.figures()

    def state_dict(self) -> dict[str, Any]:
        """The policy's state, the round, what was counted, and the seconds that it took."""
        parts = {"policy": self.policy.state, "sampler": self.sampler.state_dict(), "record": self.record.state_dict()}
        counted = {"seconds": [self.seconds, self.prepared_in], "unscorable": self.unscorable}
        counted["empty_steps"] = self.empty_steps
        return packed(parts) | {"rows": packed(self.pool.rows)} | counted

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """
        Go on from a [`state_dict`].

        Raises:
            `ValueError`: it is of other rows.
        """
        parts = unpacked(state)
        if not np.array_equal(parts["rows"], self.pool.rows):
            raise ValueError("`resume_from_checkpoint`: its policy was given other rows. Train anew, without it.")
        self.policy.state |= parts["policy"]
        self.sampler.load_state_dict(parts["sampler"])
        self.record.load_state_dict(parts["record"])
        self.seconds, self.prepared_in = parts["seconds"]
        self.unscorable, self.empty_steps = parts["unscorable"], parts.get("empty_steps", 0)
