"""Recipes: YAML files, overridden by the command line, that describe a run."""

import copy
import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from datasets import Dataset, disable_progress_bars
from trl import ModelConfig, ScriptArguments, get_peft_config, get_quantization_config

from ..data.chat_template import set_template
from ..data.load import check_exists, load_rows
from ..data.preferences import scored_columns
from ..data.records import Records
from ..data.rows_hash import rows_hash
from ..data.targets import load_target, target_names
from ..engines.runtime.loading import check_model_folder
from ..engines.runtime.part import Part
from ..engines.store.files import check_writable
from ..errors import Checks
from ..options import documented
from ..parsing import parse_options
from ..parts import check_part, compute_part
from ..plan import SelectionPlan
from ..runs.hub import make_repo
from ..selector import Selector
from .config import DataSelectingConfig
from .inputs import load_processing_class_of, selection_plan
from .trainer import DataSelectingTrainer


@documented
@dataclass
class DataArguments(ScriptArguments):
    """Where the rows come from: hub name, local folder, or path of a .json, .jsonl, .parquet or .csv file."""

    eval_dataset_name: str | None = field(
        default=None,
        metadata={
            "help": "Held-out rows: hub name, folder or file. Default: `dataset_test_split` of `dataset_name`, if "
            "`eval_strategy` is not 'no'. A single file is the split 'test'. More rows cost more time at every "
            "evaluation."
        },
    )
    eval_dataset_config: str | None = field(
        default=None,
        metadata={
            "help": "Its configuration. Default: `dataset_config`, if it is the same dataset as `dataset_name`."
        },
    )


@dataclass
class Recipe:
    """
    Parsed options of a run.

    Args:
        data ([`DataArguments`]):
            Candidate dataset and evaluation rows.
        args ([`DataSelectingConfig`]):
            Selection, training, evaluation.
        model ([`~trl.ModelConfig`]):
            The model, LoRA, quantization.
        more (`Any`, *optional*):
            Options of the command itself.
    """

    data: DataArguments
    args: DataSelectingConfig
    model: ModelConfig
    more: Any = None

    @property
    def sources(self) -> dict[str, Any]:
        """What `recipe.yaml` holds besides the arguments of [`DataSelectingConfig`]: rows and model."""
        given = {}
        for part in (self.data, self.model):
            for item in dataclasses.fields(part):
                default = item.default_factory() if item.default is dataclasses.MISSING else item.default
                if item.init and getattr(part, item.name) != default:
                    given[item.name] = getattr(part, item.name)
        return given


def parse_recipe(argv: Sequence[str], command: str = "train", more: type | None = None) -> Recipe:
    """
    Parse the options of a command; `more` is a dataclass of its own options.

    Raises:
        `ValueError`: options are missing, unknown, or have wrong values; all of them are named.
    """
    kinds, checks = (DataArguments, DataSelectingConfig, ModelConfig, *([more] if more else [])), Checks()
    recipe = Recipe(*parse_options(kinds, argv, f"hf-dataselect {command}", checks))
    data, args, model = recipe.data, recipe.args, recipe.model
    missing = {}
    if data is not None:
        missing["dataset_name"] = (data.dataset_name, "a hub name, a local folder, or a file")
    if model is not None:
        missing["model_name_or_path"] = (model.model_name_or_path, "a hub name or a local folder")
    for option, (value, kind) in missing.items():
        if not value:
            checks.errors.append(ValueError(f"`{option}` is required: {kind}."))
    if data is not None and args is not None and data.dataset_streaming and args.selection_stream_rows is None:
        checks.errors.append(
            ValueError(
                "`dataset_streaming` needs `selection_stream_rows`: how many rows to write to disk and choose from."
            )
        )
    if checks.errors:  # then nothing will be loaded: what can be told without that
        names = [data and data.dataset_name, data and data.eval_dataset_name]
        names += target_names(args.selection_target) if args else []
        for name in filter(None, names):
            checks(check_exists, name)
        checks(check_model_folder, model and model.model_name_or_path)
    checks.finish()
    if args.disable_tqdm:  # of reading rows
        disable_progress_bars()
    return recipe


def load_candidates(recipe: Recipe) -> Dataset:
    """The candidate dataset."""
    data, text = recipe.data, [recipe.args.dataset_text_field]
    options = {"text_columns": text, "stream_rows": recipe.args.selection_stream_rows}
    return load_rows(data.dataset_name, data.dataset_config, data.dataset_train_split, **options)


def load_held_out(recipe: Recipe) -> Dataset | None:
    """
    The evaluation rows, if the recipe has any.

    Raises:
        `ValueError`: they can't be loaded, or the candidate dataset has no rows apart for evaluation.
    """
    data, text = recipe.data, [recipe.args.dataset_text_field]
    if data.eval_dataset_name:
        same = data.eval_dataset_name == data.dataset_name
        config = data.eval_dataset_config or (data.dataset_config if same else None)
        return load_rows(data.eval_dataset_name, config, data.dataset_test_split, "test", text)
    if recipe.args.eval_strategy == "no":
        return None
    try:
        return load_rows(data.dataset_name, data.dataset_config, data.dataset_test_split, text_columns=text)
    except ValueError as error:
        raise ValueError(
            f"`eval_strategy={recipe.args.eval_strategy.value!r}` needs held-out rows: set `eval_dataset_name`, or "
            f"`dataset_test_split` to a split of `dataset_name` that is not trained on. {error}"
        ) from error


def load_sources(recipe: Recipe, evaluation: bool = True) -> tuple[Dataset, Dataset | None]:
    """
    The candidate dataset and the evaluation rows, before anything expensive starts.

    Raises:
        `ValueError`: rows that can't be loaded, held-out rows that are the candidates, a model folder that does not
            exist, or an `output_dir` that can't be written; all of it at once.
    """
    checks = Checks()
    checks(check_model_folder, recipe.model.model_name_or_path)
    checks(check_writable, recipe.args.output_dir, "output_dir", make=False)
    rows = checks(load_candidates, recipe)
    held_out = checks(load_held_out, recipe) if evaluation else None
    checks.finish()
    if held_out is not None and len(rows) == len(held_out) and rows_hash(rows) == rows_hash(held_out):
        raise ValueError(
            f"The held-out rows (`eval_dataset_name={recipe.data.eval_dataset_name!r}`, `dataset_test_split="
            f"{recipe.data.dataset_test_split!r}`) are the candidates: evaluate on rows that are not trained on."
        )
    return rows, held_out


def subset_repo(args: DataSelectingConfig, train: bool) -> tuple[str, str] | None:
    """Option that names the repository of the subset, and its value; `push_to_hub` is the model's where one trains."""
    if args.hub_subset_id:
        return "hub_subset_id", args.hub_subset_id
    if args.push_to_hub and not train:
        return "hub_model_id", args.hub_model_id or Path(args.output_dir).absolute().name
    return None


def check_hub(args: DataSelectingConfig, train: bool) -> None:
    """
    Make the repositories that are pushed to, before anything is computed.

    Raises:
        [`HubError`]: The Hub is not reached, or refuses.
    """
    if subset := subset_repo(args, train):
        make_repo(*subset, "dataset", args.hub_private_repo is not False, args.hub_token)
    if args.push_to_hub and train:
        repo = args.hub_model_id or Path(args.output_dir).absolute().name
        make_repo("hub_model_id", repo, "model", bool(args.hub_private_repo), args.hub_token)


def check_without_training(args: DataSelectingConfig) -> None:
    """
    Refuse what selects while training where nothing trains.

    Raises:
        `ValueError`: an option, by its name.
    """
    for option in ("selection_policy", "selection_schedule"):
        if str(given := args.given.get(option)).lower() not in ("none", "once"):
            raise ValueError(
                f"`{option}={given!r}` selects while a model trains, and none is trained here. Leave it out for the "
                "rows that are kept before training, or use `hf-dataselect train`."
            )


def build_trainer(
    recipe: Recipe, selector: Selector | None = None, rows: Dataset | None = None, evaluation: bool = True
) -> DataSelectingTrainer:
    """
    The trainer of a recipe, with its rows and its model.

    Args:
        recipe ([`Recipe`]):
            Parsed options.
        selector ([`Selector`], *optional*):
            An instance, instead of `selection_method`.
        rows ([`~datasets.Dataset`], *optional*):
            The candidate dataset, if it is loaded already.
        evaluation (`bool`, *optional*, defaults to `True`):
            Whether to evaluate: if not, evaluation rows, benchmarks and baseline are not loaded.
    """
    args, model = recipe.args, recipe.model
    if not evaluation:
        args = copy.copy(args)
        args.baseline_dir, args.benchmarks, args.eval_strategy, args.metric_for_best_model = None, None, "no", None
        args.push_to_hub = False  # of a model
    set_model_options(args, model)
    held_out = None
    if rows is None:
        rows, held_out = load_sources(recipe, evaluation)
    elif evaluation:
        held_out = load_held_out(recipe)
    trainer = DataSelectingTrainer(
        model.model_name_or_path,
        args,
        train_dataset=rows,
        eval_dataset=held_out,
        quantization_config=get_quantization_config(model),
        peft_config=get_peft_config(model),
        selector=selector,
    )
    trainer.recipe = recipe.sources
    return trainer


def set_model_options(args: DataSelectingConfig, model: ModelConfig) -> None:
    """What the recipe says of loading the model, where the trainer looks for it."""
    args.model_init_kwargs = {
        "revision": model.model_revision,
        "attn_implementation": model.attn_implementation,
        "dtype": model.dtype,
        **(args.model_init_kwargs or {}),
    }


def prepare_selection(
    recipe: Recipe, part: Part | None = None
) -> tuple[Dataset, SelectionPlan, Callable[[], Any], bool]:
    """
    A selection without training. It runs the model as the trainer would; a method that needs none loads none. With
    `part`, the function computes that part instead, see [`compute_part`], and nothing is written but the cache.

    Returns:
        `tuple`: the candidate dataset; the plan; a function that selects, and writes the run folder; whether this is
            the main process.
    """
    args, model = recipe.args, recipe.model
    rows, _ = load_sources(recipe, evaluation=False)
    records = Records(scored_columns(rows, args.dataset_text_field), args.dataset_text_field)
    plan = selection_plan(args, records, load_target(args.selection_target, records))
    if part is not None:
        check_part(plan, part, args.runtime(None).cache_dir)
    if plan.uses_model:
        trainer = build_trainer(recipe, rows=records.dataset, evaluation="training" in plan.needs)
        if part is not None:
            compute = partial(compute_part, trainer.plan, trainer.context(), part)
            return rows, trainer.plan, compute, trainer.is_world_process_zero()
        return rows, trainer.plan, trainer.select, trainer.is_world_process_zero()
    runtime = args.runtime(Accelerator(cpu=args.use_cpu))
    name = model.model_name_or_path
    plan.check(name, runtime.cache_dir)
    set_model_options(args, model)
    processing_class = load_processing_class_of(name, args)
    plan.complete(processing_class, args.eos_token, args.chat_template_path, getattr(args, "pad_token", None))
    set_template(processing_class, args)
    plan.try_preparation(processing_class)
    ctx = plan.context(processing_class, None, runtime, name, plan.load_judge(runtime))
    choose = partial(plan.select, ctx, Path(args.output_dir), recipe.sources | args.given)
    choose = choose if part is None else partial(compute_part, plan, ctx, part)
    return rows, plan, choose, runtime.is_main
