"""What runs of a comparison are trained equally long by (`equal`): epochs, optimizer updates or tokens."""

from pathlib import Path
from typing import Literal

import numpy as np
import torch

from ..engines.runtime.token_rows import token_counts
from ..runs.folder import read_evaluation, write_recipe
from .trainer import DataSelectingTrainer


Equal = Literal["epochs", "updates", "tokens"]


def train_like(trainer: DataSelectingTrainer, baseline: Path, equal: Equal) -> None:
    """
    Set `max_steps`, also in `recipe.yaml`, to as many optimizer updates or tokens as the baseline was trained with.
    The baseline trains first, so these are what it did, not what its options imply: packed rows, rows without an
    answer in the window and several ranks count as they were.

    Tokens come in updates: the number of updates is chosen after which they are nearest, by the tokens of the rows
    kept in the order in which training takes them, epoch by epoch. Without accelerate's seedable sampler that order is
    not known before, and another one is taken for it.

    Args:
        trainer ([`DataSelectingTrainer`]):
            The trainer of the run, its rows prepared.
        baseline (`Path`):
            Run folder of the baseline of the same seed.
        equal (`str`):
            `"updates"` or `"tokens"`.

    Raises:
        `ValueError`: the baseline's folder does not say how long it was trained, or the rows have no token counts.
    """
    args = trainer.args
    wanted = read_evaluation(baseline, "output_dir").get("trained", {}).get(equal)
    if not wanted:
        raise ValueError(
            f"`equal={equal!r}`: {baseline} does not say with how many {equal} it was trained (it was resumed from a "
            "checkpoint of an earlier version). Delete the folder and train it again."
        )
    steps = wanted if equal == "updates" else updates_of(trainer, wanted)
    vars(args).update(max_steps=steps, _given=args._given | {"max_steps": steps})
    if trainer.is_world_process_zero():
        write_recipe(trainer.run_folder, trainer.recipe | args.given)


def updates_of(trainer: DataSelectingTrainer, tokens: int) -> int:
    """The number of updates, at least 1, after which a trainer has trained on about so many tokens."""
    rows = trainer.train_dataset
    if "input_ids" not in (rows.column_names or ()):
        raise ValueError("`equal='tokens'` needs rows whose tokens can be counted: choose 'updates' or 'epochs'.")
    lengths, loader, after = token_counts(rows), trainer.get_train_dataloader(), np.zeros(1, np.int64)
    epoch = 0
    while after[-1] < tokens:
        loader.set_epoch(epoch)
        with torch.random.fork_rng(devices=[]):
            batches = [int(lengths[batch].sum()) for batch in loader.batch_sampler]  # of this rank
        if not batches:
            raise ValueError(f"`dataloader_drop_last` drops all {len(rows)} rows kept: they are fewer than one batch.")
        if not lengths.any():
            raise ValueError("`equal='tokens'`: the rows kept hold no token.")
        updates = np.add.reduceat(batches, range(0, len(batches), trainer.args.gradient_accumulation_steps))
        updates = trainer.accelerator.reduce(torch.tensor(updates, device=trainer.accelerator.device), "sum")
        after = np.append(after, after[-1] + updates.cpu().numpy().cumsum())
        epoch += 1
    return max(1, int(np.abs(after - tokens).argmin()))
