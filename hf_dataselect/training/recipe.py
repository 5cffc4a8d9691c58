"""From a recipe (YAML, and the command line over it) to a trainer."""

import dataclasses
import difflib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from datasets import Dataset
from trl import ModelConfig, ScriptArguments, TrlParser, get_peft_config, get_quantization_config

from ..data.records import load_rows
from .config import DataSelectingConfig
from .trainer import DataSelectingTrainer


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
            Candidate and held-out rows.
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
        """What the run folder's `recipe.yaml` holds besides the changed training arguments."""
        given = {}
        for part in (self.data, self.model):
            for item in dataclasses.fields(part):
                default = item.default_factory() if item.default is dataclasses.MISSING else item.default
                if item.init and getattr(part, item.name) != default:
                    given[item.name] = getattr(part, item.name)
        return given


class _Parser(TrlParser):
    """Refuses unknown options, in the recipe and on the command line, before any other fault is looked for."""

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
    Options of a command; `more` is a dataclass of its own options.

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
        raise ValueError("`dataset_streaming` can't be used: rows that are only streamed past can't be chosen from.")
    return recipe


def load_held_out(recipe: Recipe) -> Dataset | None:
    """The rows to evaluate on, if there are any."""
    data = recipe.data
    if data.eval_dataset_name:
        return load_rows(data.eval_dataset_name, split=data.dataset_test_split)
    if recipe.args.eval_strategy != "no":
        return load_rows(data.dataset_name, data.dataset_config, data.dataset_test_split)
    return None


def build_trainer(recipe: Recipe) -> DataSelectingTrainer:
    """The trainer of a recipe, with its rows and its model."""
    data, args, model = recipe.data, recipe.args, recipe.model
    args.model_init_kwargs = {
        "revision": model.model_revision,
        "attn_implementation": model.attn_implementation,
        "dtype": model.dtype,
        **(args.model_init_kwargs or {}),
    }
    trainer = DataSelectingTrainer(
        model.model_name_or_path,
        args,
        train_dataset=load_rows(data.dataset_name, data.dataset_config, data.dataset_train_split),
        eval_dataset=load_held_out(recipe),
        quantization_config=get_quantization_config(model),
        peft_config=get_peft_config(model),
    )
    trainer.recipe = recipe.sources
    return trainer
