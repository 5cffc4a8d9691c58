"""Resume a run: the rows of the checkpoint are read back, never selected again."""

import dataclasses
import json
import logging
from pathlib import Path

from transformers.trainer_utils import get_last_checkpoint

from ..errors import SelectionError
from ..plan import SelectionPlan
from ..runs.folder import DIVERGED, may_have_diverged, plain, read_selection
from ..selection import Selection


logger = logging.getLogger(__name__)


def read_selection_back(plan: SelectionPlan, run_folder: Path, checkpoint: str | bool) -> tuple[Selection, Path]:
    """
    The selection that a checkpoint was trained on.

    Args:
        plan ([`SelectionPlan`]):
            What would be selected now.
        run_folder (`Path`):
            That of the run that resumes.
        checkpoint (`str` or `bool`):
            Folder of the checkpoint; `True` for the last one of the run folder.

    Returns:
        `tuple`: the selection, and the run folder that it was read from.

    Raises:
        [`SelectionError`]: there is none, it was made from another dataset or with other options, or the ranks of its
            run may have trained different models.
    """
    if checkpoint is True:
        checkpoint = get_last_checkpoint(str(run_folder))
    folders = [*([Path(checkpoint).parent] if checkpoint else []), run_folder]
    folder = next((folder for folder in folders if (folder / "selection.json").is_file()), None)
    if folder is None:
        raise SelectionError(
            f"`resume_from_checkpoint`: no selection.json in {' or '.join(map(str, folders))}, so the rows that the "
            "checkpoint was trained on are unknown. Resume in the folder of that run."
        )
    selection = read_selection(folder)
    state = Path(checkpoint or "", "trainer_state.json")
    if state.is_file() and may_have_diverged(folder, json.loads(state.read_text(encoding="utf-8"))["global_step"]):
        raise SelectionError(f"`resume_from_checkpoint={str(checkpoint)!r}`: {DIVERGED}")
    if selection.facts.get("dataset") != plan.records.content_hash():
        raise SelectionError(
            f"`resume_from_checkpoint`: the selection in {folder} was made from another `train_dataset`. Give the "
            "same one, or start anew without resuming."
        )
    now = {
        "method": plan.method,
        "options": plain(dataclasses.asdict(plan.selector)),
        "budget": plan.budget.plain,
        "seed": plan.seed,
        "diversity": dataclasses.asdict(plan.diversity) if plan.diversity else None,
        "target": plan.target and plan.target.content_hash(),
    }
    then = {"method": selection.method, "options": plain(selection.options), "budget": selection.budget}
    then |= {name: selection.facts.get(name) for name in ("seed", "diversity", "target")}
    changed = [f"{name} (then {then[name]}, now {now[name]})" for name in now if now[name] != then[name]]
    if changed:
        raise SelectionError(
            f"`resume_from_checkpoint`: the selection in {folder} was made with other options: {', '.join(changed)}. "
            "Restore them, or start anew without resuming."
        )
    logger.info("Resuming with the %s rows of %s.", len(selection.indices), folder)
    return selection, folder
