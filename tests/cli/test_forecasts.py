"""`--dry_run` refuses what the run refuses, and counts what `auto` trains."""

import json
import re
from pathlib import Path

import pytest
import yaml

from hf_dataselect.cli.main import main
from hf_dataselect.data.records import Records
from hf_dataselect.declared import method_names
from hf_dataselect.registry import load_selector
from hf_dataselect.training.forecast import Forecast
from hf_dataselect.training.recipe import parse_recipe
from tests.rows import alpaca
from tests.tiny_training import write_recipe


@pytest.fixture
def recipe(tmp_path) -> Path:
    return write_recipe(tmp_path, selection_kwargs={"warmup": "none"})


def refused(capsys, argv: list[str]) -> str:
    with pytest.raises(SystemExit):
        main(argv)
    return capsys.readouterr().err.splitlines()[-1]


def test_a_dry_run_refuses_what_the_run_refuses(tmp_path, capsys):
    recipe = write_recipe(tmp_path)
    auto = ["--config", str(recipe), "--selection_method", "auto", "--selection_kwargs", "{}"]
    for command in ("train", "select"):
        said = [refused(capsys, [command, *auto, *more]) for more in ([], ["--dry_run"])]
        assert said[0] == said[1] and "rows are fewer than 32" in said[0]
    for options, why in (
        (["--baseline_dir", "no such run"], "`baseline_dir='no such run'` is not the folder"),
        (["--guard_dataset", f"{{a: {tmp_path / 'heldout.jsonl'}}}"], "`guard_dataset.a` has 6 rows, too few"),
        (["--fail_on_harm"], "`fail_on_harm` needs `guard_dataset`"),
        (["--selection_policy", "domains"], "column='source' is not in `train_dataset`"),
        (["--selection_policy", "greats", "--selection_target", str(tmp_path / "heldout.jsonl")], "without LoRA"),
    ):
        train = ["train", "--config", str(recipe), *options]
        said = [refused(capsys, [*train, *more]) for more in ([], ["--dry_run"])]
        assert said[0] == said[1] and why in said[0]
    for given in ({"selection_policy": "tail_drop"}, {"selection_schedule": "{every: 2}"}):
        (option, value), select = *given.items(), ["select", "--config", str(recipe)]
        said = [refused(capsys, [*select, f"--{option}", value, *more]) for more in ([], ["--dry_run"])]
        assert said[0] == said[1] and f"`{option}=" in said[0] and "none is trained here" in said[0]


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        ({"save_strategy": "no"}, 0),
        ({"save_strategy": "epoch"}, 3),  # of 40 rows, 20 updates an epoch, 50 in all
        ({"save_strategy": "steps", "save_steps": 20}, 3),
        ({"save_strategy": "steps", "save_steps": 0.25}, 4),
        ({"save_strategy": "steps", "save_steps": 500}, 1),
        ({"save_strategy": "steps", "save_steps": 20, "save_total_limit": 2}, 2),
        ({"save_strategy": "epoch", "max_steps": 61}, 4),
    ],
)
def test_a_dry_run_counts_the_checkpoints_that_training_leaves(tmp_path, options, kept):
    recipe = write_recipe(tmp_path, 40, **{"max_steps": -1, "num_train_epochs": 2.5} | options)
    forecast = Forecast(parse_recipe(["--config", str(recipe)]), None, 40)
    assert forecast._updates(40) == options.get("max_steps", 50) and forecast._checkpoints(40) == kept


def test_a_dry_run_counts_the_epochs_and_the_held_out_rows_of_trials(tmp_path, capsys):
    auto = {"methods": ["length"], "auto_budget": 600}
    options = {"selection_method": "auto", "selection_kwargs": auto, "selection_budget": 10, "max_steps": -1}
    recipe = write_recipe(tmp_path, 40, num_train_epochs=3, **options)
    for command in ("select", "train"):
        main([command, "--config", str(recipe), "--dry_run"])
        said = capsys.readouterr().out
        assert f"forward passes over a row: {40 + 64 * 12}\n" in said and "no more begins after 10 min" in said
        assert f"rows of warm-ups (trainings of the method's own): {12 * 10 * 3}\n" in said


@pytest.mark.parametrize("command", ["select", "train"])
def test_a_dry_run_says_what_the_run_then_costs(recipe, tmp_path, capsys, command):
    again = ["--selection_schedule.every", "2", "--max_steps", "5"] if command == "train" else []
    again += ["--guard_dataset.a", str(tmp_path / "rows.jsonl")] if again else []  # 24 rows, twice
    main([command, "--config", str(recipe), *again, "--dry_run"])
    said, passes = capsys.readouterr().out, 3 * 48 + 2 * 24 if again else 48  # after steps 2 and 4, too
    assert not (tmp_path / "run").exists()
    assert (
        "rows: 24 candidates" in said and f"forward passes over a row: {passes}\n" in said and "rows kept: 6" in said
    )
    assert ("trainings: 1, of 6 rows" in said) == (command == "train") and "time: about" in said and "memory: " in said
    if command == "select":
        main(["select", "--config", str(recipe)])
        done = json.loads((tmp_path / "run" / "selection.json").read_text())["passes"]
        assert done["forward_rows"] == 48


def test_a_dry_run_counts_the_scoring_before_training_of_a_policy(recipe):
    argv = ["--config", str(recipe), "--selection_policy", "tail_drop"]
    forecast = Forecast(parse_recipe(argv), None, 24)
    forecast.train(load_selector("random"), 6)
    assert (forecast.trained_rows, +forecast.passes) == ([6], {"forward_rows": 6})


def test_a_dry_run_of_a_comparison_and_of_an_audit_counts_all_trainings(recipe, tmp_path, capsys):
    content = yaml.safe_load(recipe.read_text(encoding="utf-8"))
    single = ("selection_method", "selection_kwargs", "selection_budget")
    recipe.write_text(yaml.safe_dump({k: v for k, v in content.items() if k not in single}), encoding="utf-8")
    given = ["--methods", "perplexity", "--budgets", "0.25", "9", "--seeds", "0", "1", "--max_steps", "-1"]
    main(["compare", "--config", str(recipe), *given, "--num_train_epochs", "1", "--dry_run"])
    said = capsys.readouterr().out
    assert "runs: 10, of which 0 are finished" in said and "trainings: 10, of 6 to 24 rows" in said
    assert "forward passes over a row: 24\n" in said  # one pass serves budgets and seeds
    main(
        ["audit", "--config", str(recipe), "--methods", "length", "--subsets", "9", "--subset_rows", "5", "--dry_run"]
    )
    said = capsys.readouterr().out
    assert re.search(r"trainings: 1[12], of 5 rows", said) and not (tmp_path / "run").exists()


def test_forecasts_name_the_passes_that_are_booked():
    records = Records(alpaca(12))
    for name in method_names():
        try:
            selector = load_selector(name)
        except (ValueError, ImportError, TypeError):
            continue  # options without defaults
        found = selector.forecast(len(records), 4, 3)
        assert all(isinstance(number, int) and number > 0 for number in found.values()), name
        runs = selector.card.features == "model-oriented" and name != "pass_rate"  # whose rollouts are in the rows
        assert bool(found) == bool(runs or selector.needs() & {"model", "judge"}), name
