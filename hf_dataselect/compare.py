"""
`hf-dataselect compare`: every method, budget and seed with equal training settings and one evaluation, and a report.

Each run is a folder named after what it keeps (`full-seed42`, `ifd-0.05-seed42`). The baseline (BM, `full`) and, for
each budget, the control (`random`) are always among them. A run whose folder says that it finished with the very same
settings, rows and model is not repeated; one that was killed goes on from its last checkpoint, or from the scores that
it had saved.
"""

import dataclasses
import gc
import hashlib
import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers.trainer_utils import get_last_checkpoint

from .config import DataSelectingConfig, parse_budget
from .engines.cache import digest, write_atomic
from .preprocessing.records import Records, load_rows
from .recipe import Recipe, build_trainer
from .registry import load_selector, nearest
from .run_folder import plain
from .selector import rows_to_keep


logger = logging.getLogger(__name__)

#: In a run's folder: the settings that decide its result, and whether it came to its end.
SETTINGS = "compared.json"
#: Options that do not decide it: where things are written and what is logged.
_FREE = ("output_dir", "baseline_dir", "run_name", "report_to", "selection_cache_dir", "selection_batch_tokens")
_FREE += ("selection_method", "selection_kwargs", "selection_budget", "seed", "disable_tqdm", "hub_", "push_to_hub")
_FREE += ("logging_", "save_", "dataset_num_proc", "dataloader_", "resume_from_checkpoint")


@dataclass
class CompareArguments:
    """
    What is compared.

    Args:
        methods (`list[str]`, *optional*, defaults to `["ifd"]`):
            Methods; `full` and `random` are added.
        budgets (`list[str]`, *optional*, defaults to `["0.05"]`):
            Fractions or counts, see `selection_budget`.
        seeds (`list[int]`, *optional*, defaults to `[42]`):
            Of selection and training; several give the interval of a PIR its spread between runs.
        method_kwargs (`dict` or `str`, *optional*):
            Options by method, a mapping or JSON.
        save_models (`bool`, *optional*, defaults to `True`):
            Whether each run's model is kept.
        count_by (`str`, *optional*):
            Column of the candidates by which the report counts the rows kept.
    """

    methods: list[str] = field(
        default_factory=lambda: ["ifd"],
        metadata={"help": "Methods to compare; the baseline `full` and the control `random` are always added."},
    )
    budgets: list[str] = field(
        default_factory=lambda: ["0.05"],
        metadata={
            "help": "Budgets (see selection_budget). Each costs one training a method and seed; no more scoring."
        },
    )
    seeds: list[int] = field(
        default_factory=lambda: [42],
        metadata={"help": "Seeds of selection and training. Each costs all runs again."},
    )
    method_kwargs: dict[str, Any] | str | None = field(
        default=None,
        metadata={"help": "Options by method, for example {ifd: {warmup: none}}: a mapping in YAML or JSON."},
    )
    save_models: bool = field(default=True, metadata={"help": "Keep each run's model: takes its disk for every run."})
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
        self.budgets = list(dict.fromkeys(map(parse_budget, self.budgets)))
        self.seeds = list(dict.fromkeys(self.seeds))
        for option in ("budgets", "seeds"):
            if not getattr(self, option):
                raise ValueError(f"`{option}` is empty.")
        for name, kwargs in given.items():
            load_selector(name, kwargs)  # also of a method that is not compared this time

    def runs(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Name and selection options of each run; every seed begins with its baseline."""
        for seed in self.seeds:
            for method in self.methods:
                kwargs = (self.method_kwargs or {}).get(method)
                fixed = load_selector(method, kwargs).fixed_budget
                for budget in [None] if fixed else self.budgets:
                    name = "-".join([_file_name(method), *([f"{budget:g}"] if budget else []), f"seed{seed}"])
                    yield (
                        name,
                        {
                            "selection_method": method,
                            "selection_kwargs": kwargs,
                            "selection_budget": budget,
                            "seed": seed,
                        },
                    )


@dataclass
class PlannedRun:
    """One run of a comparison: its folder, the recipe that makes it, and what decides its result."""

    folder: Path
    recipe: Recipe
    settings: dict[str, Any]

    @property
    def state(self) -> str:
        """
        `"new"`, `"begun"` (killed before its end) or `"finished"`.

        Raises:
            `ValueError`: the folder holds a run of other settings.
        """
        if not (self.folder / SETTINGS).is_file():
            if (self.folder / "selection.json").is_file():
                raise ValueError(
                    f"`output_dir`: {self.folder} holds a run that is not of a comparison: choose another folder."
                )
            return "new"
        written = json.loads((self.folder / SETTINGS).read_text(encoding="utf-8"))
        held = written["settings"]
        if held != self.settings:
            differ = [key for key in {**held, **self.settings} if held.get(key) != self.settings.get(key)]
            said = "; ".join(f"{key} was {held.get(key)!r}, is {self.settings.get(key)!r}" for key in sorted(differ))
            raise ValueError(
                f"`output_dir`: {self.folder} holds a run of other settings ({said}). Choose another `output_dir`, or "
                "delete that folder."
            )
        return "finished" if written["finished"] else "begun"

    def write(self, finished: bool) -> None:
        """Say in the folder what this run is."""
        self.folder.mkdir(parents=True, exist_ok=True)
        written = {"finished": finished, "settings": self.settings}
        write_atomic(self.folder / SETTINGS, json.dumps(written, ensure_ascii=False, indent=1))


def plan(recipe: Recipe) -> list[PlannedRun]:
    """
    All runs, checked before any model loads.

    Raises:
        `ValueError`: a wrong option, method or budget, rows that a method can't take, no held-out rows, or a folder
        that holds another run.
    """
    compared, root = recipe.more, Path(recipe.args.output_dir)
    unevaluated = not recipe.data.eval_dataset_name and recipe.args.eval_strategy == "no"
    if unevaluated and not recipe.args.named_benchmarks:
        raise ValueError(
            "`eval_dataset_name` is required, or `benchmarks`: nothing is compared without held-out rows."
        )
    if recipe.args.judge == "self":
        raise ValueError("`judge='self'` would let every model judge itself: name one model for all.")
    benchmarks = recipe.args.prepared_benchmarks()
    records = Records(load_rows(recipe.data.dataset_name, recipe.data.dataset_config, recipe.data.dataset_train_split))
    if compared.count_by not in (None, *records.dataset.column_names):
        raise ValueError(
            f"`count_by={compared.count_by!r}` is no column{nearest(compared.count_by, records.dataset.column_names)}"
        )
    held_out = recipe.data.eval_dataset_name
    shared = {
        **{k: v for k, v in (recipe.sources | recipe.args.given).items() if not k.startswith(_FREE)},
        "model_content": _content_of(recipe.model.model_name_or_path),
        "dataset_content": records.content_hash(),
        "benchmarks_content": {benchmark.name: benchmark.protocol() for benchmark in benchmarks},
        "eval_content": held_out and Records(load_rows(held_out, split=recipe.data.dataset_test_split)).content_hash(),
    }
    runs = []
    for name, chosen in compared.runs():
        folder = root / name
        baseline = root / f"full-seed{chosen['seed']}"
        given = recipe.args.given | chosen | {"output_dir": str(folder)}
        given["baseline_dir"] = None if folder == baseline else str(baseline)
        selector = load_selector(chosen["selection_method"], chosen["selection_kwargs"])
        if chosen["selection_budget"]:
            rows_to_keep(chosen["selection_budget"], len(records))
        selector.check(records)
        settings = plain(shared | chosen | {"selection_kwargs": dataclasses.asdict(selector)})
        run = PlannedRun(folder, dataclasses.replace(recipe, args=given, more=None), settings)
        logger.info("%s: %s", name, run.state)
        runs.append(run)
    return runs


def carry_out(run: PlannedRun, save_model: bool) -> None:
    """Do a run that is not finished: select, train, evaluate; the model is let go of at the end."""
    state = run.state
    if state == "finished":
        return
    run.recipe.args = DataSelectingConfig(**run.recipe.args)
    trainer = build_trainer(run.recipe)
    if trainer.is_world_process_zero():
        run.write(finished=False)
    begun = state == "begun" and (run.folder / "selection.json").is_file() and get_last_checkpoint(str(run.folder))
    trainer.train(resume_from_checkpoint=begun or None)
    if save_model:
        trainer.save_model(trainer.args.output_dir)
        trainer.create_model_card()
    trainer.accelerator.print(trainer.selection.summary())
    trainer.accelerator.wait_for_everyone()
    if trainer.is_world_process_zero():
        run.write(finished=True)
    trainer.accelerator.free_memory()
    del trainer
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _file_name(method: str) -> str:
    """A method's name as part of a folder's: that of `package.module:Class` is its class."""
    return method.rpartition(":")[2]


def _content_of(model: str) -> str:
    """What tells a model folder from another of the same name; a hub name stands for itself."""
    folder = Path(model).expanduser()
    if not folder.is_dir():
        return model
    hashes = {}
    for path in sorted(folder.glob("*")):
        if path.suffix in (".safetensors", ".bin", ".json", ".model", ".jinja") and path.is_file():
            with open(path, "rb") as file:
                hashes[path.name] = hashlib.file_digest(file, "blake2b").hexdigest()
    return digest(hashes)
