"""A working folder with what the docs name: the model, the datasets and the recipes, tiny and local."""

import runpy
import sys
from pathlib import Path

import pytest

from tests.rows import alpaca, layout
from tests.tiny import tiny_model, tiny_tokenizer


ROOT = Path(__file__).parents[2]
#: What a machine without a GPU takes, as the README says, and few steps.
CPU = ["--use_cpu", "true", "--bf16", "false"]
MODEL, ROWS, HELD_OUT = "HuggingFaceTB/SmolLM2-135M", "yahma/alpaca-cleaned", "HuggingFaceH4/no_robots"
CHATS, PAIRS, PROMPTS = "trl-lib/Capybara", "trl-lib/ultrafeedback_binarized", "trl-lib/DeepMath-103K"


def make_home(folder: Path) -> Path:
    """Folders named as the model and the datasets of the recipes are on the Hub, which are found first."""
    tokenizer = tiny_tokenizer()
    tiny_model(tokenizer).save_pretrained(folder / MODEL)
    tokenizer.save_pretrained(folder / MODEL)
    chats = layout("messages", 20)
    asked = chats.map(lambda row: {"prompt": row["messages"][:1], "solution": "$e$"}, remove_columns="messages")
    pairs = chats.map(
        lambda row: {"rejected": [*row["messages"][:-1], {"role": "assistant", "content": "No."}]}
    ).rename_column("messages", "chosen")
    for name, rows in ((CHATS, chats), (PAIRS, pairs), (PROMPTS, asked)):
        (folder / name).mkdir(parents=True)
        rows.to_json(folder / name / "train.jsonl")
    for name, file, n in ((ROWS, "train.jsonl", 60), (HELD_OUT, "test.jsonl", 12)):
        (folder / name).mkdir(parents=True)
        rows = alpaca(n, seed=n)
        rows = rows.map(lambda row, i: {"instruction": row["instruction"][:-1] + "?."[i % 4 > 0]}, with_indices=True)
        rows.to_json(folder / name / file)
    for name in ("recipes", "examples"):
        (folder / name).symlink_to(ROOT / name)
    return folder


def run_script(path: Path, *arguments: str) -> dict:
    """Run a script as `python path arguments`; gives its names."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [str(path), *arguments])
        patch.syspath_prepend(str(path.parent))
        return runpy.run_path(str(path), run_name="__main__")
