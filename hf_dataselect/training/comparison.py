"""
A comparison (`hf-dataselect compare`): every method, budget and seed with equal training settings and one evaluation.

Each run is a folder named after what it keeps (`full-seed42`, `ifd-0.05-seed42`). The baseline (BM, `full`) and, for
each budget, the control (`random`) are always included. A run whose folder says that it finished with the same
settings, rows and model is not repeated; a killed one resumes from its last checkpoint, or from its cached scores.
"""

import dataclasses
import gc
import hashlib
import json
import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from ..budget import Budget
from ..data.load import load_target
from ..data.records import Records
from ..engines.store.files import write_atomic
from ..engines.store.identity import digest
from ..evaluation.benchmark import load_benchmarks
from ..evaluation.comparison.evaluated_runs import FREE
from ..options import documented, nearest
from ..registry import load_selector
from ..runs.folder import plain, read_evaluation
from .config import DataSelectingConfig
from .inputs import prepare_benchmarks, selection_plan
from .recipe import Recipe, build_trainer, load_sources
from .trainer import DataSelectingTrainer


logger = logging.getLogger(__name__)

#: In a run's folder: the settings that decide its result, and whether it came to its end.
SETTINGS = "compared.json"
#: Of the options in [`FREE`], those that decide what is selected.
_DECIDING = ("selection_dtype", "selection_diversity", "selection_target", "selection_budget_by")
#: Options that are compared by content, not by name; the judge only for methods that ask it.
_BY_CONTENT = ("model_name_or_path", "dataset_name", "eval_dataset_name", "benchmarks", "judge", "judge_kwargs")
#: Options of single runs, and what a comparison has instead.
_INSTEAD = {
    "selection_method": "methods",
    "selection_kwargs": "method_kwargs",
    "selection_budget": "budgets",
    "seed": "seeds",
    "baseline_dir": "`full`, which is always among the",
}


@documented
@dataclass
class CompareArguments:
    """What is compared."""

    methods: list[str] = field(
        default_factory=lambda: ["ifd"],
        metadata={"help": "Methods to compare; the baseline `full` and the control `random` are always added."},
    )
    budgets: list[str] = field(
        default_factory=lambda: ["0.05"],
        metadata={
            "help": "Budgets (see selection_budget). Each costs one training per method and seed, and no scoring."
        },
    )
    seeds: list[int] = field(
        default_factory=lambda: [42],
        metadata={
            "help": "Seeds of selection and training; with several, the interval of a PIR covers the spread between "
            "runs. Each costs all runs again."
        },
    )
    method_kwargs: dict[str, Any] | str | None = field(
        default=None,
        metadata={"help": "Options by method, for example {ifd: {warmup: none}}: a mapping in YAML or JSON."},
    )
    save_models: bool = field(default=True, metadata={"help": "Keep the model of each run, which takes disk space."})
    count_by: str | None = field(
        default=None, metadata={"help": "Column of the candidates by which the report counts the rows kept."}
    )

    def __post_init__(self):
        if isinstance(self.method_kwargs, str):
            try:
                self.method_kwargs = json.loads(self.method_kwargs)
            except json.JSONDecodeError as error:
                raise ValueError(f"`method_kwargs={self.method_kwargs!r}` is not JSON: {error}.") from error
        given = self.method_kwargs or {}
        if not (isinstance(given, dict) and all(isinstance(kwargs, dict) for kwargs in given.values())):
            raise ValueError(f"`method_kwargs` must map methods to their options, got {self.method_kwargs!r}.")
        self.methods = list(dict.fromkeys(["full", "random", *self.methods]))
        self.budgets = list(dict.fromkeys(Budget.parse(budget).plain for budget in self.budgets))
        self.seeds = list(dict.fromkeys(self.seeds))
        for option in ("budgets", "seeds"):
            if not getattr(self, option):
                raise ValueError(f"`{option}` is empty.")
        for name, kwargs in given.items():
            load_selector(name, kwargs)  # also for a method that is not compared this time

    def runs(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Name and selection options of each run; every seed begins with its baseline."""
        for seed in self.seeds:
            for method in self.methods:
                kwargs = (self.method_kwargs or {}).get(method)
                fixed = load_selector(method, kwargs).fixed_budget
                for budget in [None] if fixed else self.budgets:
                    name = "-".join([_file_name(method), *([_as_name(budget)] if budget else []), f"seed{seed}"])
                    yield (
                        name,
                        {
                            "selection_method": method,
                            "selection_kwargs": kwargs,
                            "selection_budget": budget,
                            "seed": seed,
                        }
                        | ({"selection_budget_by": None} if fixed else {}),
                    )


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
    """

    folder: Path
    recipe: Recipe
    given: dict[str, Any]
    settings: dict[str, Any]

    @property
    def state(self) -> str:
        """
        `"new"`, `"begun"` (killed before its end) or `"finished"`.

        Raises:
            `ValueError`: the folder holds a run with other settings, or one whose ranks may have trained different
                models.
        """
        if not (self.folder / SETTINGS).is_file():
            if (self.folder / "selection.json").is_file():
                raise ValueError(
                    f"`output_dir`: {self.folder} holds a run that is not part of a comparison: choose another folder."
                )
            return "new"
        written = json.loads((self.folder / SETTINGS).read_text(encoding="utf-8"))
        held = written["settings"]
        if held != self.settings:
            differ = [key for key in {**held, **self.settings} if held.get(key) != self.settings.get(key)]
            then, now = ({key: given.get(key, "the default") for key in differ} for given in (held, self.settings))
            said = "; ".join(f"{key} was {then[key]}, is {now[key]}" for key in sorted(differ))
            raise ValueError(
                f"`output_dir`: {self.folder} holds a run with other settings ({said}). Choose another `output_dir`, "
                "or delete that folder."
            )
        whole = all((self.folder / name).is_file() for name in ("selection.json", "eval.json"))
        if whole:
            read_evaluation(self.folder, "output_dir")
        return "finished" if written["finished"] and whole else "begun"

    def write(self, finished: bool) -> None:
        """Write the settings to the folder, and whether the run is finished."""
        self.folder.mkdir(parents=True, exist_ok=True)
        written = {"finished": finished, "settings": self.settings}
        write_atomic(self.folder / SETTINGS, json.dumps(written, ensure_ascii=False, indent=1))

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
    for option, instead in _INSTEAD.items():
        if option in args.given:
            raise ValueError(f"`{option}` is of a single run: a comparison has {instead}.")
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
    target = load_target(args.selection_target, records)
    decides = {
        name: value
        for name, value in (recipe.sources | args.given).items()
        if name in _DECIDING or not name.startswith((*FREE, *_BY_CONTENT))
    }
    shared = decides | {
        "model_content": _content_of(recipe.model.model_name_or_path),
        "dataset_content": records.content_hash(),
        "target_content": target and target.content_hash(),
        "benchmarks_content": {item.name: item.protocol() for item in prepare_benchmarks(args, None)},
        "eval_content": held_out and Records(held_out, args.dataset_text_field).content_hash(),
    }
    runs = []
    for name, chosen in compared.runs():
        folder, baseline = root / name, root / f"full-seed{chosen['seed']}"
        if folder in [run.folder for run in runs]:
            raise ValueError(f"`methods`: two of them would share the folder {folder}.")
        given = args.given | chosen | {"output_dir": str(folder)}
        given["baseline_dir"] = None if folder == baseline else str(baseline)
        checked = selection_plan(DataSelectingConfig(**given), records, target)
        checked.check(recipe.model.model_name_or_path)
        judged = {"judge": args.judge} if "judge" in checked.selector.needs() else {}
        settings = plain(shared | chosen | judged | {"selection_kwargs": dataclasses.asdict(checked.selector)})
        run = PlannedRun(folder, recipe, given, settings)
        logger.info("%s: %s", name, run.state)
        runs.append(run)
    return records, runs


def carry_out(run: PlannedRun, trainer: DataSelectingTrainer, save_model: bool) -> None:
    """Select, train, evaluate; then free the model."""
    begun = run.state == "begun" and (run.folder / "selection.json").is_file()
    checkpoint = _last_whole_checkpoint(run.folder) if begun else None
    if trainer.is_world_process_zero():
        run.write(finished=False)
    trainer.train(resume_from_checkpoint=checkpoint)
    if save_model:
        trainer.save_model(trainer.args.output_dir)
        trainer.create_model_card()
    trainer.accelerator.print(trainer.selection.summary())
    trainer.accelerator.wait_for_everyone()
    if trainer.is_world_process_zero():
        failed = read_evaluation(run.folder).get("failed")
        if failed:
            logger.error("%s: not finished, as benchmarks failed: %s", run.folder.name, ", ".join(failed))
        run.write(finished=not failed)
    trainer.accelerator.free_memory()
    del trainer
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _last_whole_checkpoint(folder: Path) -> str | None:
    """The last complete checkpoint: a kill may leave one without its state, which is written last."""
    steps = {
        int(path.parent.name.split("-")[1]): path.parent for path in folder.glob("checkpoint-*/trainer_state.json")
    }
    return str(steps[max(steps)]) if steps else None


def _as_name(budget: float | int | str) -> str:
    """A budget as part of a folder's name: without spaces and signs."""
    return re.sub(r"[^\w.]+", "-", str(budget))


def _file_name(method: str) -> str:
    """A method's name in a folder's name: the class of `package.module:Class`."""
    return method.rpartition(":")[2]


def _content_of(model: str) -> str:
    """Hash of a model folder; a Hub name itself."""
    folder = Path(model).expanduser()
    if not folder.is_dir():
        return model
    hashes = {}
    for path in sorted(folder.glob("*")):
        if path.suffix in (".safetensors", ".bin", ".json", ".model", ".jinja") and path.is_file():
            with open(path, "rb") as file:
                hashes[path.name] = hashlib.file_digest(file, "blake2b").hexdigest()
    return digest(hashes)
