"""
A comparison (`hf-dataselect compare`): every method, budget and seed with equal training settings and one evaluation.

Each run is a folder named after what it keeps (`full-seed42`, `ifd-0.05-seed42`). The baseline (BM, `full`) and, for
each budget, the control (`random`) are always included. A run whose folder says that it finished with the same
settings, rows and model is not repeated; a killed one resumes from its last checkpoint, or from its cached scores.
"""

import dataclasses
import gc
import logging
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState

from ..budget import Budget
from ..compat.sharding import sharding_by_args
from ..data.records import Records
from ..data.targets import load_target
from ..engines.forward.wants import Want
from ..engines.llm.load import parse_spec
from ..engines.llm.metered import announced
from ..engines.runtime.progress import Series, Task
from ..errors import DamagedFile, SelectionError
from ..evaluation.benchmark import load_benchmarks
from ..evaluation.comparison.evaluated_runs import read_run
from ..options import nearest
from ..runs.files import EVALUATION, RECIPE, SCORES, SELECTION, plain, run_id
from ..runs.folder import read_evaluation, read_recipe, read_selection, read_settings, write_settings
from ..runs.secrets import without_secrets
from .checkpoints import last_whole_checkpoint
from .config import DataSelectingConfig
from .equal import train_like
from .inputs import prepare_benchmarks, selection_plan
from .judge_calls import judge_total
from .recipe import Recipe, build_trainer, load_sources
from .run_settings import refuse_options_of_one_run, refuse_other_settings, shared_settings
from .trainer import DataSelectingTrainer
from .trial_plan import plan_trials


logger = logging.getLogger(__name__)

#: Options of single runs, and what a comparison has instead.
_INSTEAD = {
    "selection_method": "methods",
    "selection_kwargs": "method_kwargs",
    "selection_budget": "budgets",
    "seed": "seeds",
    "baseline_dir": "`full`, which is always among the",
    "guard_dataset": "none: its report says what each run gains and harms in each of the `benchmarks`",
} | dict.fromkeys(("selection_policy", "selection_schedule"), "none: train with and without it, and `report` both")


@dataclass
class PlannedRun:
    """
    One run of a comparison.

    Args:
        folder (`Path`):
            Its run folder.
        recipe ([`Recipe`]):
            That of the comparison.
        given (`dict`):
            Arguments of the run's own [`DataSelectingConfig`].
        settings (`dict`):
            What decides its result.
        wants (`frozenset`, *optional*):
            What the methods of all runs want of the model, so that one pass serves them all.
    """

    folder: Path
    recipe: Recipe
    given: dict[str, Any]
    settings: dict[str, Any]
    wants: frozenset[Want] = frozenset()

    @property
    def state(self) -> str:
        """
        `"new"`, `"begun"` (killed before its end) or `"finished"`.

        Raises:
            `ValueError`: the folder holds a run with other settings, or one whose ranks may have trained different
                models.
        """
        held, finished = read_settings(self.folder)
        if not held:
            if (self.folder / SELECTION).is_file():
                raise ValueError(
                    f"`output_dir`: {self.folder} holds a run that is not part of a comparison: choose another folder."
                )
            return "new"
        refuse_other_settings(self.folder, held, self.settings)
        finished = finished and all((self.folder / name).is_file() for name in (SELECTION, SCORES, EVALUATION))
        if finished:
            try:
                read_run(self.folder, [])
            except DamagedFile as error:
                logger.warning("%s: %s: what is damaged is made anew.", self.folder.name, error)
                finished = False
        return "finished" if finished else "begun"

    def mend(self) -> bool:
        """Remove what is damaged of the run's files; whether the rows that it is trained on are known."""
        for name, reader in {RECIPE: read_recipe, EVALUATION: read_evaluation}.items():
            try:
                reader(self.folder)
            except DamagedFile:
                (self.folder / name).unlink()
            except ValueError:  # not evaluated yet
                pass
        try:
            return bool(read_settings(self.folder)[0] and read_selection(self.folder))
        except ValueError:
            return False

    @property
    def title(self) -> str:
        """Method, budget and seed."""
        budget = self.given["selection_budget"]
        method, amount = self.given["selection_method"], [] if budget is None else [str(budget)]
        return " ".join([method.rpartition(":")[2], *amount, "seed", str(self.given["seed"])])

    @property
    def trains_alike(self) -> bool:
        """Whether all runs get as much training, however many rows they keep."""
        return self.recipe.more.equal != "epochs" or self.recipe.args.max_steps > 0

    @property
    def work(self) -> float:
        """What a run that is over trained on: its rows, or 1 where all runs train alike."""
        return 1 if self.trains_alike else len(read_selection(self.folder).indices)

    def write(self, finished: bool) -> None:
        """Write the settings to the folder, and whether the run is finished."""
        write_settings(self.folder, self.settings, finished)

    def build(self) -> DataSelectingTrainer:
        """The trainer. The run before it has to be over: each config sets up the process anew."""
        return build_trainer(dataclasses.replace(self.recipe, args=DataSelectingConfig(**self.given)))


def plan(recipe: Recipe) -> tuple[Records, list[PlannedRun]]:
    """
    The candidate dataset and all runs, checked before any model loads.

    Raises:
        `ValueError`: a wrong option, method or budget, rows that a method can't take, no held-out rows, or a folder
        that holds another run.
    """
    compared, args, root = recipe.more, recipe.args, Path(recipe.args.output_dir)
    refuse_options_of_one_run(args, _INSTEAD, "a comparison")
    if root.exists() and not root.is_dir():
        raise ValueError(f"`output_dir={str(root)!r}` is a file.")
    rows, held_out = load_sources(recipe)
    records = Records(rows, args.dataset_text_field)
    columns = records.dataset.column_names
    if compared.count_by not in (None, *columns):
        raise ValueError(f"`count_by={compared.count_by!r}` is not a column{nearest(compared.count_by, columns)}")
    if held_out is None and not load_benchmarks(args.benchmarks):
        raise ValueError(
            "`eval_dataset_name` is required, or `benchmarks`: nothing is compared without held-out rows."
        )
    if args.judge == "self":
        raise ValueError("`judge='self'` would let every model judge itself: name one model for all.")
    if compared.equal != "epochs" and args.max_steps > 0:
        raise ValueError(
            f"`max_steps={args.max_steps}` already gives every run as many updates: remove it, or "
            f"`equal={compared.equal!r}`."
        )
    if compared.equal == "tokens" and records.images:
        raise ValueError("`equal='tokens'` can't count the tokens of images beforehand: choose 'updates' or 'epochs'.")
    target, benchmarks = load_target(args.selection_target, records), prepare_benchmarks(args, None)
    equal = {} if compared.equal == "epochs" else {"equal": compared.equal}
    shared = shared_settings(recipe, records, held_out, target, benchmarks) | equal
    compared.add_target_control()
    runs, wants = [], frozenset()
    for name, chosen in compared.runs():
        folder, baseline = root / name, root / f"full-seed{chosen['seed']}"
        if folder in [run.folder for run in runs]:
            raise ValueError(f"`methods`: two of them would share the folder {folder}.")
        given = args.changed | chosen | {"output_dir": str(folder)}
        given["baseline_dir"] = None if folder == baseline else str(baseline)
        checked = selection_plan(DataSelectingConfig(**given), records, target)
        checked.check(recipe.model.model_name_or_path, sharding=sharding_by_args(args))
        plan_trials(checked, held_out, recipe.model.model_name_or_path)
        judged = {"judge": args.judge} if "judge" in checked.selector.needs() else {}
        settings = shared | chosen | judged | {"selection_kwargs": dataclasses.asdict(checked.selector)}
        settings = without_secrets(plain(settings))
        run = PlannedRun(folder, recipe, given, settings)
        wants |= checked.selector.wants()
        logger.info("%s: %s", name, run.state)
        runs.append(run)
    for run in runs:
        run.wants = wants
    to_train = sum(run.state != "finished" for run in runs)
    to_compare = sum(run.given["baseline_dir"] is not None for run in runs)
    in_words = args.judge and parse_spec(args.judge)[0] != "reward"
    total = judge_total(benchmarks, args.judge_options, to_train, to_compare) if in_words else None
    if total and PartialState().is_main_process:
        logger.info("%s: %s.", args.judge, total)
    return records, runs


def series_of(runs: list[PlannedRun], candidates: int) -> Series:
    """The runs as a [`Series`], whose work is the rows to train on."""
    tasks = []
    for run in runs:
        budget = run.given["selection_budget"]
        rows = candidates if budget is None else Budget.parse(budget).rows(candidates)
        work = 1 if run.trains_alike else rows
        tasks.append(Task(run.title, run.given["selection_method"], work, str(budget)))
    return Series(tasks)


def carry_out(run: PlannedRun, trainer: DataSelectingTrainer, save_model: bool) -> dict[str, Any]:
    """Select, train, evaluate; then free the model. Gives what [`Series.end`] takes, on the main process."""
    trainer.plan.compared, trainer.plan.wants = run.settings, run.wants
    checkpoint = trainer.args.runtime(trainer.accelerator).on_main(partial(_goes_on_from, run))
    try:
        trainer.prepare_subset(checkpoint)
    except SelectionError as error:
        if checkpoint is None:
            raise
        logger.warning("%s: %s It is trained anew.", run.folder.name, error)
        checkpoint = None
        trainer.prepare_subset()
    equal, baseline = run.recipe.more.equal, run.given["baseline_dir"]
    if equal != "epochs" and baseline is not None:
        train_like(trainer, Path(baseline), equal)
    with announced():  # what benchmarks ask the judge, see `plan`
        trainer.train(resume_from_checkpoint=checkpoint)
    if save_model:
        trainer.save_model(trainer.args.output_dir)
        trainer.create_model_card()
    trainer.accelerator.print(trainer.selection.summary())
    trainer.accelerator.wait_for_everyone()
    done = {}
    if trainer.is_world_process_zero():
        evaluation = read_evaluation(run.folder)
        done = {"work": run.work, "proportional": evaluation.get("train_seconds")}
        if failed := evaluation.get("failed"):
            logger.error("%s: not finished, as benchmarks failed: %s", run.folder.name, ", ".join(failed))
        run.write(finished=not failed)
    trainer.accelerator.free_memory()
    del trainer
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return done


def _goes_on_from(run: PlannedRun) -> str | None:
    """The last whole checkpoint of a run that was begun; `None` if it has to begin anew."""
    if not run.mend():
        return None
    try:
        checkpoint = last_whole_checkpoint(run.folder, run_id(run.folder))
    except SelectionError as error:
        logger.warning("%s", error)
        return None
    if checkpoint is not None:
        run.write(finished=False)
    return checkpoint and str(checkpoint)
