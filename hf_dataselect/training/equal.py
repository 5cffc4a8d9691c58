"""What runs of a comparison are trained equally long by (`equal`): epochs, optimizer updates or tokens."""

from pathlib import Path
from typing import Literal

from ..engines.runtime.token_rows import token_counts
from ..runs.folder import read_evaluation, write_recipe
from .trainer import DataSelectingTrainer


Equal = Literal["epochs", "updates", "tokens"]


def train_like(trainer: DataSelectingTrainer, baseline: Path, equal: Equal) -> None:
    """
    Set `max_steps`, also in `recipe.yaml`, to as many optimizer updates or tokens as the baseline was trained with.
    The baseline trains first, so these are what it did, not what its options foretell: packed rows, rows without an
    answer in the window and several ranks count as they were.

    Tokens come in updates, so the number of updates is chosen whose tokens are nearest: as many whole epochs of the
    rows kept as fit, each with all their tokens, and for what is left updates of as many tokens as a full one has on
    average. The order of the rows is not looked at: the result is off by about half an update, more only where rows
    are of very different lengths and updates have few.

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
    """The number of updates, at least 1, in which the trainer trains on about so many tokens."""
    rows = trainer.train_dataset
    if "input_ids" not in (rows.column_names or ()):
        raise ValueError("`equal='tokens'` needs rows whose tokens can be counted: choose 'updates' or 'epochs'.")
    epoch = int(token_counts(rows).sum())
    in_epoch = trainer.set_initial_training_values(trainer.args, trainer.get_train_dataloader())[1]
    whole, left = divmod(tokens, epoch)
    of_update = epoch / len(rows) * trainer.get_total_train_batch_size(trainer.args)
    return max(1, whole * in_epoch + min(in_epoch, round(left / of_update)))
