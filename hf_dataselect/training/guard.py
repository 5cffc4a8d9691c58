"""[`GuardCallback`]: measures at every evaluation what training does to domains (`guard_dataset`)."""

import dataclasses
import logging
import time
from typing import Any

import numpy as np
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ..compat.sharding import sharding_by_args
from ..data.guard_sets import load_guard
from ..data.records import Records
from ..engines.runtime.model_state import preserved
from ..engines.runtime.phase import doing
from ..engines.runtime.ranks import meeting
from ..errors import SelectionError
from ..evaluation.comparison.pir import MIN_EXAMPLES
from ..evaluation.guard import HARMED, HELPED, LEVEL, Change, change_of
from ..features.image_loss import held_out_loss
from ..policy import Guarded
from ..runs.files import GUARD, plain, write
from ..sharding_refusals import check_trained
from .trained import entered, step_of_model


logger = logging.getLogger(__name__)

#: Where `trainer_state.json` of a checkpoint keeps the losses before training and the changes so far.
_KEY = "hf_dataselect_guard"


def guard_records(args: Any, records: Records) -> dict[str, Records]:
    """
    The rows that guard each domain, for candidates; see [`load_guard`].

    Raises:
        `ValueError`: the run shards the model in another way than the guard was run in, or harm is allowed to nothing.
    """
    if not args.guard_dataset and "guard_harm" in args.changed:
        raise ValueError(f"`guard_harm={args.guard_harm}` needs `guard_dataset`: held-out rows by domain.")
    sets = load_guard(args.guard_dataset, records, MIN_EXAMPLES)
    for name, rows in sets.items():
        check_trained(sharding_by_args(args), f"`guard_dataset.{name}`", rows.images)
    return sets


class GuardCallback(TrainerCallback):
    """
    Measures the losses of held-out rows of each domain before training, at every evaluation and when training ends,
    and logs `guard/<domain>/loss`, `guard/<domain>/change` (relative) and `guard/<domain>/verdict` (1 HELPED, 0 NO
    DIFFERENCE, -1 HARMED); a policy may follow them. `guard.json` in the run folder holds them. Without domains it
    does nothing. Experimental.

    Args:
        trainer ([`DataSelectingTrainer`]):
            The trainer.
        args ([`DataSelectingConfig`]):
            Its arguments.
    """

    def __init__(self, trainer: Any, args: Any):
        self.trainer, self.harm, self.sets = trainer, args.guard_harm, guard_records(args, trainer.records)
        #: What was measured last, by domain.
        self.changes: dict[str, Change] = {}
        self._before: dict[str, np.ndarray] = {}
        self._unscorable: dict[str, dict[str, int]] = {}
        self._history: list[dict[str, Any]] = []
        self._measured_at: int | None = None
        self._ended_with: int | None = None

    @property
    def harmed(self) -> list[str]:
        """The domains that were HARMED, as measured last."""
        return [name for name, change in self.changes.items() if change.verdict == HARMED]

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs):
        if not self.sets:
            return
        self._measured_at = self._ended_with = None
        rows = {name: records.content_hash() for name, records in self.sets.items()}
        if state.global_step:
            self._go_on(state.stateful_callbacks.get(_KEY), rows)
        else:
            self._history, self._unscorable = [], {}
            self._before = self._losses(before=True)
            for name, losses in self._before.items():
                self._check(name, losses)
        state.stateful_callbacks[_KEY] = {
            "rows": rows,
            "before": plain(self._before),
            "unscorable": self._unscorable,
            "history": self._history,
        }

    def _go_on(self, kept: dict[str, Any] | None, rows: dict[str, str]) -> None:
        if kept is None or kept["rows"] != rows:
            what = "had none" if kept is None else f"was of other rows or domains ({', '.join(kept['rows'])})"
            raise SelectionError(
                f"`resume_from_checkpoint` with `guard_dataset`: that of the checkpoint {what}, so that the losses "
                "before training are unknown. Give the same rows, or train anew."
            )
        self._before = {name: np.array(losses, np.float64) for name, losses in kept["before"].items()}
        self._unscorable, self._history = kept["unscorable"], kept["history"]

    def _check(self, name: str, losses: np.ndarray) -> None:
        option, known = f"`guard_dataset.{name}`", np.isfinite(losses)
        for reason, count in self._unscorable[name].items():
            logger.warning("%s: %d rows have no loss before training: %s.", option, count, reason)
        if known.sum() < MIN_EXAMPLES:
            raise SelectionError(
                f"{option}: only {known.sum()} of {len(losses)} rows have a loss before training, and {MIN_EXAMPLES} "
                "are needed to tell harm from chance. Give others, or a longer `max_length`."
            )
        if not losses[known].any():
            raise SelectionError(f"{option}: the model's loss is 0 before training, so that no harm can be relative.")

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs):
        # With several sets of evaluation rows, `evaluate` is called for each; before training, there is nothing yet.
        step = state.global_step if self._ended_with is None else self._ended_with
        if not self._before or self._measured_at == step:
            return
        self._measure(state, step)
        online = getattr(self.trainer, "online", None)
        if online is not None:
            seen = {name: Guarded(one.change, one.verdict == HARMED) for name, one in self.changes.items()}
            online.policy.guard(seen)

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs):
        if not self.sets:
            return
        self._ended_with = step_of_model(args, state)
        if self._measured_at != self._ended_with:
            started = time.perf_counter()
            self._measure(state, self._ended_with)
            self.trainer.evaluation_seconds += time.perf_counter() - started
        for name, one in self.changes.items() if state.is_world_process_zero else ():
            said = "%s is %s by training: loss %+.2f %% (one-sided 95 %% bounds %+.2f and %+.2f %%)."
            if one.verdict not in (HARMED, HELPED):
                said = "%s shows %s: loss %+.2f %% (one-sided 95 %% bounds %+.2f and %+.2f %%)."
            logger.info(said, name, one.verdict, 100 * one.change, 100 * one.low, 100 * one.high)

    def _losses(self, before: bool = False) -> dict[str, np.ndarray]:
        """Losses of the rows of each domain, under the model as it is; those before training are kept by content."""
        losses = {}
        with preserved(self.trainer.model), meeting(), doing("Measuring the guard"):
            for name, records in self.sets.items():
                ctx = self.trainer.context(cached=before)
                losses[name] = held_out_loss(records, ctx, label=f"Guarding {name}").mean
                if before:
                    reasons = ctx.account.rows("unscorable")
                    self._unscorable[name] = {reason: len(rows) for reason, rows in reasons.items()}
        return losses

    def _measure(self, state: TrainerState, step: int) -> None:
        losses, self._measured_at = self._losses(), step
        self.changes = {name: change_of(self._before[name], now, self.harm) for name, now in losses.items()}
        entry: dict[str, Any] = {"step": step, "epoch": state.epoch}
        entry["domains"] = {name: plain(dataclasses.asdict(one)) for name, one in self.changes.items()}
        self._history[:] = entered(self._history, entry)  # the list is that of the state, too
        logs: dict[str, float] = {}
        for name, one in self.changes.items():
            numbers = {"loss": one.loss, "change": one.change, "verdict": {HELPED: 1, HARMED: -1}.get(one.verdict, 0)}
            logs |= {f"guard/{name}/{what}": value for what, value in numbers.items() if np.isfinite(value)}
            if one.lost:
                logger.error("`guard_dataset.%s`: %d rows have no loss any more, and had one.", name, one.lost)
        self.trainer.log(logs)
        if self.trainer.is_world_process_zero():
            write(self.trainer.run_folder, GUARD, self._figures(losses))

    def _figures(self, losses: dict[str, np.ndarray]) -> dict[str, Any]:
        """What `guard.json` holds."""
        return {
            "harm": self.harm,
            "level": LEVEL,
            "domains": {
                name: dataclasses.asdict(self.changes[name])
                | {"rows": self.sets[name].content_hash(), "unscorable": self._unscorable[name]}
                | {"losses_before": self._before[name], "losses": now}
                for name, now in losses.items()
            },
            "history": self._history,
        }
