"""Recipes: YAML files, overridden by the command line, that describe a run."""

import copy
import dataclasses
import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from datasets import Dataset
from transformers import AutoTokenizer
from trl import ModelConfig, ScriptArguments, TrlParser, get_peft_config, get_quantization_config

from ..compat.trl import check_parser
from ..data.load import load_rows
from ..data.records import Records
from ..engines.runtime.loading import load_processing_class
from ..options import documented
from ..plan import SelectionPlan, load_target, tokenizer_of
from ..selection import Selection
from ..selector import Selector
from .config import DataSelectingConfig
from .inputs import selection_plan
from .trainer import DataSelectingTrainer


@documented
@dataclass
class DataArguments(ScriptArguments):
    """Where the rows come from: hub name, local folder, or path of a .json, .jsonl, .parquet or .csv file."""

    eval_dataset_name: str | None = field(
        default=None,
        metadata={
            "help": "Held-out rows: hub name, folder or file. Default: `dataset_test_split` of `dataset_name`, if "
            "`eval_strategy` is not 'no'. More rows cost more time at every evaluation."
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


check_parser(TrlParser)


class _Parser(TrlParser):
    """Refuses unknown options in the recipe and on the command line before any other error."""

    def set_defaults_with_config(self, **kwargs) -> list[str]:
        self._refuse(super().set_defaults_with_config(**kwargs))
        return []

    def parse_known_args(self, *args, **kwargs):
        options, unknown = super().parse_known_args(*args, **kwargs)
        self._refuse(unknown)
        return options, unknown

    def _refuse(self, unknown: list[str]) -> None:
        known, said = [item.name for kind in self.dataclass_types for item in dataclasses.fields(kind)], []
        for option in (item.removeprefix("--").partition("=")[0] for item in unknown if item.startswith("--")):
            near = difflib.get_close_matches(option.replace("-", "_"), known, 1)
            said.append(f"`{option}`" + (f" (did you mean `{near[0]}`?)" if near else ""))
        if unknown:
            raise ValueError(f"Unknown options: {', '.join(said or unknown)}. `{self.prog} --help` lists all.")


def parse_recipe(argv: Sequence[str], command: str = "train", more: type | None = None) -> Recipe:
    """
    Parse the options of a command; `more` is a dataclass of its own options.

    Raises:
        `ValueError`: an option is missing, unknown, or has a wrong value.
    """
    kinds = (DataArguments, DataSelectingConfig, ModelConfig, *([more] if more else []))
    recipe = Recipe(*_Parser(kinds, prog=f"hf-dataselect {command}").parse_args_and_config(argv))
    if not recipe.data.dataset_name:
        raise ValueError("`dataset_name` is required: a hub name, a local folder, or a file.")
    if not recipe.model.model_name_or_path:
        raise ValueError("`model_name_or_path` is required: a hub name or a local folder.")
    if recipe.data.dataset_streaming:
        raise ValueError("`dataset_streaming` can't be used: streamed rows can't be chosen from.")
    return recipe


def load_candidates(recipe: Recipe) -> Dataset:
    """The candidate dataset."""
    return load_rows(recipe.data.dataset_name, recipe.data.dataset_config, recipe.data.dataset_train_split)


def load_held_out(recipe: Recipe) -> Dataset | None:
    """The evaluation rows, if the recipe has any."""
    data = recipe.data
    if data.eval_dataset_name:
        return load_rows(data.eval_dataset_name, split=data.dataset_test_split)
    if recipe.args.eval_strategy != "no":
        return load_rows(data.dataset_name, data.dataset_config, data.dataset_test_split)
    return None


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
        args.baseline_dir, args.benchmarks, args.eval_strategy = None, None, "no"
    args.model_init_kwargs = {
        "revision": model.model_revision,
        "attn_implementation": model.attn_implementation,
        "dtype": model.dtype,
        **(args.model_init_kwargs or {}),
    }
    trainer = DataSelectingTrainer(
        model.model_name_or_path,
        args,
        train_dataset=load_candidates(recipe) if rows is None else rows,
        eval_dataset=load_held_out(recipe) if evaluation else None,
        quantization_config=get_quantization_config(model),
        peft_config=get_peft_config(model),
        selector=selector,
    )
    trainer.recipe = recipe.sources
    return trainer


def prepare_selection(recipe: Recipe) -> tuple[SelectionPlan, Callable[[], Selection], bool]:
    """
    A selection without training. It runs the model as the trainer would; a method that needs none loads none.

    Returns:
        `tuple`: the plan; a function that selects, and writes the run folder; whether this is the main process.
    """
    args, model = recipe.args, recipe.model
    records = Records(load_candidates(recipe), args.dataset_text_field)
    plan = selection_plan(args, records, load_target(args.selection_target, records))
    if plan.uses_model:
        trainer = build_trainer(recipe, rows=records.dataset, evaluation=False)
        return trainer.plan, trainer.select, trainer.is_world_process_zero()
    runtime = args.runtime(Accelerator(cpu=args.use_cpu))
    name = model.model_name_or_path
    plan.check(name, runtime.cache_dir)
    tokenizer = load_processing_class(name, revision=model.model_revision, trust_remote_code=args.trust_remote_code)
    plan.complete(tokenizer, args.eos_token, args.chat_template_path)
    _set_template(tokenizer, args)
    ctx = plan.context(tokenizer, None, runtime, name, plan.load_judge(runtime))
    choose = partial(plan.select, ctx, Path(args.output_dir), recipe.sources | args.given)
    return plan, choose, runtime.is_main


def _set_template(processing_class: Any, args: DataSelectingConfig) -> None:
    """`eos_token` and `chat_template_path` as TRL's trainer sets them, with the model's part left out."""
    tokenizer, path = tokenizer_of(processing_class), args.chat_template_path
    if args.eos_token is not None:
        tokenizer.eos_token = args.eos_token
    if path is None:
        return
    if path.endswith((".jinja", ".j2")) and Path(path).is_file():
        processing_class.chat_template = Path(path).read_text(encoding="utf-8")
        return
    source = AutoTokenizer.from_pretrained(path)
    processing_class.chat_template = source.get_chat_template()
    tokenizer.add_tokens(
        [token for token in source.added_tokens_decoder.values() if token.content not in tokenizer.vocab]
    )
    tokenizer.eos_token = source.eos_token
