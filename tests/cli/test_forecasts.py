"""`--dry_run` refuses what the run refuses, and counts what `auto` trains."""

import pytest

from hf_dataselect.cli.main import main
from hf_dataselect.training.forecast import Forecast
from hf_dataselect.training.recipe import parse_recipe
from tests.tiny_training import write_recipe


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
