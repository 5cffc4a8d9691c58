"""Options that make a method small enough for a test, or that it can't do without; models by the name of a folder."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from datasets import Dataset

from tests.tiny import tiny_evaluator, tiny_model, tiny_tokenizer


OPTIONS = {
    "alpagasus": {"threshold": 2.0},
    "bids": {"lora_r": 2, "warmup_epochs": 1},
    "blend": {"members": {"perplexity": 1, "length": {"weight": -0.5}}, "where": "perplexity.conditional_loss > 0"},
    "car": {"quality_kwargs": {"model": "REWARD"}, "encoder": "model", "clusters": 3},
    "cascade": {"method": "perplexity", "prefilter": "length", "keep": 0.8},
    "column": {"name": "rating"},
    "deita": {"complexity_scorer": "LLAMA", "quality_scorer": "LLAMA"},
    "gist": {"lora_r": 2, "warmup_epochs": 1},
    "ifd": {"warmup_clusters": 2, "warmup_rows_per_cluster": 2},
    "instag": {"min_count": 1, "similarity": 0, "support": 0},
    "instruction_mining": {"reward_model": "REWARD", "evaluator": "EVALUATOR"},
    "instructiongpt4": {"rule": "mean", "clip": "CLIP", "reward_model": "REWARD", "clusters": 3},
    "less": {"lora_r": 4, "warmup_epochs": 2, "projection_dim": 256},
    "mig": {
        "quality": "alpagasus",
        "quality_kwargs": {"threshold": None},
        "tags": {"min_count": 1, "similarity": 0, "support": 0},
        "encoder": None,
    },
    "mods": {
        "reward_model": "REWARD",
        "quality_threshold": -1e9,
        "encoder": "model",
        "warmup_epochs": 1,
        "max_new_tokens": 4,
    },
    "nuggets": {"tasks": 4, "threshold": None},
    "qdit": {"quality_kwargs": {"model": "REWARD"}, "encoder": "model"},
    "reward": {"model": "REWARD"},
    "reward_gap": {"policy": "POLICY"},
    "selectit": {"prompts": 2},
    "s2l": {"model": "LLAMA", "clusters": 4, "epochs": 1},
    "superfiltering": {"model": "LLAMA"},
    "t_shirt": {"model": "LLAMA", "copies": 2},
    "token_drop": {"warmup_epochs": 1},
}
#: Layouts of rows that a method needs.
LAYOUTS = {"conversation_ifd": "messages"}


def with_columns(rows: Dataset, name: str) -> Dataset:
    """The rows with the column that a method reads."""
    if name == "reward_gap":
        return rows.add_column("rejected", [f"No. {number}" for number in range(len(rows))])
    if name == "pass_rate":
        return rows.add_column("pass_rate", [(i % 5 + 1) / 8 for i in range(len(rows))])
    return rows


def save_models(folder: Path) -> dict[str, str]:
    """The models that options name, each in a folder of its own; the folders by name."""
    from tests.engines.llm.test_local import reward_model
    from tests.tiny_vision import save_clip

    tokenizer, found = tiny_tokenizer(), {}
    for name, make in (
        ("LLAMA", tiny_model),
        ("POLICY", partial(tiny_model, seed=1)),
        ("REWARD", reward_model),
        ("EVALUATOR", tiny_evaluator),
    ):
        found[name] = str(folder / name)
        for part in (make(tokenizer), tokenizer):
            part.save_pretrained(found[name])
    return found | {"CLIP": save_clip(folder / "CLIP")}


def in_folders(options: Any, folders: Mapping[str, str]) -> Any:
    """Options with folders in the place of the names of models."""
    if isinstance(options, dict):
        return {key: in_folders(value, folders) for key, value in options.items()}
    return folders.get(options, options) if isinstance(options, str) else options
