"""What a training did, counted as it ran: figures by which a report tells that runs were trained differently."""

from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ..compat.trl import trained_tokens
from ..runs.files import RUN, run_id
from .checkpoints import BESIDE, KEY


#: Figures that stay as they are while a run trains; resumed with another value, a run has a list of them.
SETTINGS = ("ranks", "batch_size", "max_length")


class TrainedCallback(TrainerCallback):
    """
    Counts what the trainer does. A run that resumes goes on counting where its checkpoint was, in whatever folder.

    Args:
        trainer ([`~trl.SFTTrainer`]):
            The trainer.
    """

    def __init__(self, trainer: Any):
        self.trainer = trainer
        self._before: dict[str, Any] = {}
        self._peak, self._tokens_before, self._run = 0.0, 0, None

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs):
        begins = {"learning_rate": 0.0, "tokens": 0}
        self._before = (state.stateful_callbacks or {}).get(KEY, {}) if state.global_step else begins
        self._peak, self._tokens_before = 0.0, trained_tokens(self.trainer)
        self._run = run_id(self.trainer.run_folder)

    def on_optimizer_step(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs):
        rates = [float(group["lr"]) for group in kwargs["optimizer"].param_groups]
        self._peak = max(self._peak, *rates)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs):
        # With the state, a checkpoint keeps them.
        online = getattr(self.trainer, "online", None)
        beside = {BESIDE: online.FILE} if online else {}
        state.stateful_callbacks[KEY] = self.figures(args, state) | {RUN: self._run} | beside

    def figures(self, args: TrainingArguments, state: TrainerState) -> dict[str, Any]:
        """
        What was done so far.

        Returns:
            `dict`: `updates` of the optimizer; `epochs`; `tokens` without padding (`int`); the highest `learning_rate`
            of an update; `ranks`; `batch_size`, rows of an update over all ranks (`int`); `max_length`. The tokens and
            the learning rate are `None` for a run resumed from a checkpoint that does not hold its own.
        """
        tokens, peak = self._before.get("tokens"), self._before.get("learning_rate")
        now = {
            "ranks": self.trainer.accelerator.num_processes,
            "batch_size": self.trainer.get_total_train_batch_size(args),
            "max_length": args.max_length,
        }
        return {
            "updates": state.global_step,
            "epochs": state.epoch,
            "tokens": None if tokens is None else tokens + trained_tokens(self.trainer) - self._tokens_before,
            "learning_rate": None if peak is None else max(peak, self._peak),
        } | {name: _also(self._before.get(name, now[name]), now[name]) for name in SETTINGS}


def step_of_model(args: TrainingArguments, state: TrainerState) -> int:
    """The step of the model that training ends with, which may be an earlier one by `load_best_model_at_end`."""
    best = state.best_global_step if args.load_best_model_at_end and state.best_model_checkpoint else None
    return state.global_step if best is None else best


def entered(history: list[dict], entry: dict) -> list[dict]:
    """Evaluations by their steps, with another one, in place of that of the same step, whose epoch it keeps."""
    earlier = next((one for one in history if one["step"] == entry["step"]), entry)
    others = [one for one in history if one["step"] != entry["step"]]
    return sorted([*others, entry | {"epoch": earlier["epoch"]}], key=lambda one: one["step"])


def _also(before: Any, now: Any) -> Any:
    """The value of a setting, or all that a resumed run had, in order."""
    values = before if isinstance(before, list) else [before]
    return before if values[-1] == now else [*values, now]
