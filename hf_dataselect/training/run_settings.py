"""The settings that decide the results of a recipe's runs, and what is refused where they differ."""

import hashlib
from pathlib import Path
from typing import Any

from ..data.records import Records
from ..engines.store.identity import digest
from ..evaluation.comparison.evaluated_runs import FREE
from .config import DataSelectingConfig
from .recipe import Recipe


#: Of the options in [`FREE`], those that decide what is selected.
_DECIDING = ("selection_dtype", "selection_diversity", "selection_target", "selection_budget_by")
#: Options that are compared by content, not by name; the judge only for methods that ask it.
_BY_CONTENT = ("model_name_or_path", "dataset_name", "eval_dataset_name", "benchmarks", "judge", "judge_kwargs")


def refuse_other_settings(folder: Path, held: dict[str, Any], settings: dict[str, Any]) -> None:
    """Raise `ValueError`, which names what differs, for a folder that holds results of other settings."""
    if held != settings:
        differ = [key for key in {**held, **settings} if held.get(key) != settings.get(key)]
        then, now = ({key: given.get(key, "the default") for key in differ} for given in (held, settings))
        said = "; ".join(f"{key} was {then[key]}, is {now[key]}" for key in sorted(differ))
        raise ValueError(
            f"`output_dir`: {folder} holds a run with other settings ({said}). Choose another `output_dir`, or delete "
            "that folder."
        )


def shared_settings(
    recipe: Recipe, records: Records, held_out: Any, target: Records | None, benchmarks: list[Any]
) -> dict[str, Any]:
    """What decides the results of all runs of a recipe, rows and models by their content."""
    decides = {
        name: value
        for name, value in (recipe.sources | recipe.args.given).items()
        if name in _DECIDING or not name.startswith((*FREE, *_BY_CONTENT))
    }
    return decides | {
        "model_content": _content_of(recipe.model.model_name_or_path),
        "dataset_content": records.content_hash(),
        "target_content": target and target.content_hash(),
        "benchmarks_content": {item.name: item.protocol() for item in benchmarks},
        "eval_content": held_out and Records(held_out, recipe.args.dataset_text_field).content_hash(),
    }


def refuse_options_of_one_run(args: DataSelectingConfig, instead: dict[str, str], what: str) -> None:
    """Raise `ValueError` for options that `what` has others for."""
    for option, other in instead.items():
        if option in args.given:
            raise ValueError(f"`{option}` is of a single run: {what} has {other}.")


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
