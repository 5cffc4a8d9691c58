"""Recipes and quickstart data: they parse, name what exists, and the data is what its generator says."""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import yaml

from hf_dataselect.cli import _parse
from hf_dataselect.registry import load_selector


ROOT = Path(__file__).parents[1]
RECIPES = sorted((ROOT / "recipes").glob("*.yaml"))


def test_every_method_asked_for_has_a_recipe():
    named = {path.stem for path in RECIPES}
    assert named >= {"full", "random", "length", "perplexity", "ifd", "superfiltering", "quickstart"}


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_recipes_parse(path):
    monkeypatch.setattr()
    options = yaml.safe_load(path.read_text())
    selector = load_selector(options["selection_method"], options.get("selection_kwargs"))
    arguments = _parse(["--config", str(path), "--use_cpu", "true", "--bf16", "false"])
    assert arguments.args.selector == selector and arguments.data.dataset_name and arguments.model.model_name_or_path
    assert arguments.args.budget_of(selector)
    if selector.card.paper:
        assert f"arXiv {selector.card.paper}" in path.read_text()


@pytest.mark.parametrize("path", sorted((ROOT / "recipes" / "accelerate").glob("*.yaml")), ids=lambda path: path.stem)
def test_launch_configs_are_accelerates_own(path):
    from accelerate.commands.config.config_args import load_config_from_file

    config = load_config_from_file(str(path))
    assert config.num_processes >= 1 and (path.stem == "cpu") == bool(config.use_cpu)


def rows(name: str) -> list[dict]:
    lines = (ROOT / "recipes" / "quickstart" / name).read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def test_a_known_share_of_the_quickstart_rows_is_faulty():
    candidates, held_out = rows("candidates.jsonl"), rows("heldout.jsonl")
    faults = Counter(row["fault"] for row in candidates)
    assert len(candidates) == 352 and len(held_out) == 60
    names = ("wrong_answer", "cut_answer", "other_question", "near_duplicate")
    assert {name: faults[name] for name in names} == dict.fromkeys(names, 22) and faults[None] == 264
    assert all(row["fault"] is None for row in held_out)
    questions = [(row["instruction"], row["input"]) for row in candidates if row["fault"] is None]
    assert not set(questions) & {(row["instruction"], row["input"]) for row in held_out}
    assert all(row["output"].strip() for row in candidates + held_out)


def test_the_quickstart_data_is_what_its_generator_writes(tmp_path):
    script = ROOT / "recipes" / "quickstart" / "make_data.py"
    subprocess.run([sys.executable, str(script), "--out", str(tmp_path)], check=True, capture_output=True)
    for name in ("candidates.jsonl", "heldout.jsonl"):
        assert (tmp_path / name).read_bytes() == (script.parent / name).read_bytes()
