"""Trainings under each policy, in this process, on two ranks, and in one that is killed."""

import os
import signal
from pathlib import Path
from typing import Any

from accelerate import PartialState
from datasets import Dataset
from peft import LoraConfig
from transformers import TrainerCallback

from hf_dataselect.selectors.perplexity import Perplexity
from hf_dataselect.training.trainer import DataSelectingTrainer
from tests.rows import layout
from tests.tiny_training import tiny_trainer


POLICIES: dict[str, dict[str, Any]] = {
    "loss_weight": {},
    "tail_drop": {"schedule": "static"},
    "self_paced": {"full_at": 1.0},
    "info_batch": {},
    "lead": {"clusters": 2, "fraction": 0.5},
    "domains": {"prefer": {"a": 2}},
    "greats": {},
}
#: What a policy follows besides its steps.
GUARDED: dict[str, dict[str, Any]] = {"domains": {"eval_strategy": "steps", "eval_steps": 2}}
#: All that a policy has to work with at once.
EVERYTHING = {
    "packing": True,
    "max_length": 40,
    "assistant_only_loss": True,
    "gradient_checkpointing": True,
    "peft_config": LoraConfig(r=4, lora_alpha=8, lora_dropout=0.0, target_modules="all-linear"),
    "optim": "sgd",
    "max_steps": 6,
}


def sources(n: int = 10) -> Dataset:
    return layout("messages", n).add_column("source", ["a", "b", "c", "c", "a"] * (n // 5))


def examples(folder: Path) -> str:
    """A file of target-task examples."""
    folder.mkdir(parents=True, exist_ok=True)
    layout("messages", 3, seed=9).to_json(folder / "target.jsonl")
    return str(folder / "target.jsonl")


def trained(folder: Path, policy: str, **options) -> DataSelectingTrainer:
    """A trainer under a policy, trained."""
    resume = options.pop("resume_from_checkpoint", None)
    given = {"train_dataset": sources(), "selection_policy_kwargs": POLICIES[policy], **options}
    if policy in GUARDED:
        held_out = layout("messages", 24, seed=7)
        guard = {"a": held_out.select(range(12)), "b": held_out.select(range(12, 24))}
        given = {"guard_dataset": guard, "eval_dataset": held_out.select(range(2)), **GUARDED[policy], **given}
    if policy == "greats":
        given["selection_target"] = examples(folder)
    trainer = tiny_trainer(folder, selection_policy=policy, **given)
    trainer.train(resume_from_checkpoint=resume)
    return trainer


def on_rank(folder: Path) -> None:
    """Every policy on the ranks of this launch, whose steps are of four lines."""
    state = PartialState(cpu=True)
    for policy in POLICIES:
        options = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 2}
        trained(folder / policy, policy, **EVERYTHING, **options)
    selecting_again(folder / "again", per_device_train_batch_size=1, **UNSAVED)
    state.destroy_process_group()


class Kill(TrainerCallback):
    """Ends the process at a step as a power cut does, before that step is saved."""

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == 5:
            os.kill(os.getpid(), signal.SIGKILL)


SAVED = {"save_strategy": "steps", "save_steps": 2, "max_steps": 9, "logging_steps": 1}


def killed(folder: Path, policy: str) -> None:
    trained(folder, policy, callbacks=[Kill()], **SAVED)


UNSAVED = {"save_strategy": "no", "max_steps": 6, "optim": "sgd"}
#: The method chooses again after every second step: at the fourth, its third time, after a checkpoint.
AGAIN: dict[str, Any] = {
    "method": "perplexity",
    "kwargs": {"keep": "top"},
    "selection_budget": 5,
    "selection_schedule": {"every": 2},
}


def selecting_again(folder: Path, **options) -> DataSelectingTrainer:
    """A trainer whose method chooses again while it trains, trained."""
    resume = options.pop("resume_from_checkpoint", None)
    trainer = tiny_trainer(folder, train_dataset=layout("prompt-completion", 20), **AGAIN | SAVED | options)
    trainer.train(resume_from_checkpoint=resume)
    return trainer


def killed_selecting(folder: Path) -> None:
    score, times = Perplexity.score, []

    def third(self, features, ctx):
        times.append(1)
        if len(times) == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return score(self, features, ctx)

    Perplexity.score = third
    selecting_again(folder)
