"""`compare`: which runs it makes, that none is made twice, and that a killed comparison goes on."""

import json
import re
import time
from pathlib import Path

import pytest
import yaml

from hf_dataselect.cli.main import main
from hf_dataselect.runs.folder import read_recipe
from hf_dataselect.runs.folder import write_recipe as write_recipe_of
from hf_dataselect.training.compare_arguments import CompareArguments
from hf_dataselect.training.comparison import plan
from hf_dataselect.training.recipe import parse_recipe
from hf_dataselect.training.trainer import DataSelectingTrainer
from tests.processes import run, start_ranks
from tests.reported_runs import make_run, tables
from tests.run_folders import as_earlier_version
from tests.tiny_training import write_recipe


@pytest.fixture
def recipe(tmp_path) -> Path:
    path = write_recipe(tmp_path, output_dir=str(tmp_path / "runs"), save_models=False, selection_dtype="float32")
    given = yaml.safe_load(path.read_text())
    for name in ("selection_method", "selection_kwargs", "selection_budget"):
        del given[name]
    given |= {"methods": ["ifd"], "budgets": [0.25, 8], "seeds": [1], "method_kwargs": {"ifd": {"warmup": "none"}}}
    path.write_text(yaml.safe_dump(given))
    return path


RUNS = ["full-seed1", "random-0.25-seed1", "random-8-seed1", "ifd-0.25-seed1", "ifd-8-seed1"]


def planned(recipe: Path, *options: str):
    return plan(parse_recipe(["--config", str(recipe), *options], "compare", CompareArguments))[1]


def made(folder: Path) -> dict[str, float]:
    """When each run was evaluated."""
    return {path.parent.name: path.stat().st_mtime for path in folder.glob("*/eval.json")}


def test_every_method_budget_and_seed_is_a_run_and_baseline_and_control_are_among_them(recipe, tmp_path):
    runs = planned(recipe, "--seeds", "1", "2")
    assert [run.folder.name for run in runs] == RUNS + [name.replace("seed1", "seed2") for name in RUNS]
    assert {run.state for run in runs} == {"new"} and not (tmp_path / "runs").exists()
    assert runs[0].given["baseline_dir"] is None
    assert runs[-1].given["baseline_dir"] == str(tmp_path / "runs" / "full-seed2")
    assert runs[-1].given["seed"] == 2 and runs[-1].given["selection_kwargs"] == {"warmup": "none"}


def test_every_run_knows_what_all_methods_want_of_one_pass(recipe):
    assert {run.wants for run in planned(recipe, "--methods", "perplexity", "rsr", "length")} == {
        frozenset({"loss", "token ranks"})
    }


@pytest.mark.parametrize(
    "options, said",
    [
        (["--methods", "ifdd"], "did you mean 'ifd'"),
        (["--method_kwargs", '{"lenght": {}}'], "did you mean 'length'"),
        (["--method_kwargs", '{"ifd": {"warm": 1}}'], "has no option 'warm'"),
        (["--method_kwargs", "{"], "neither JSON nor YAML"),
        (["--method_kwargs", "[1]"], "must map methods to their options"),
        (["--budgets", "1"], "may mean one row or all"),
        (["--budgets", "25"], "more rows than the 24"),
        (["--methods", "alpagasus"], "needs `judge`"),
        (["--methods", "rds"], "needs `selection_target`"),
        (["--selection_budget", "6"], "`selection_budget` is of a single run: a comparison has budgets"),
        (["--seed", "7"], "a comparison has seeds"),
        (["--selection_policy", "tail_drop"], "`selection_policy` is of a single run: a comparison has none: train"),
        (["--guard_dataset", "{a: x.jsonl}"], "`guard_dataset` is of a single run: a comparison has none: its report"),
        (["--equal", "updates"], "`max_steps=2` already gives every run as many updates"),
        (["--count_by", "colour"], "`count_by='colour'` is not a column"),
        (["--eval_dataset_name", ""], "`eval_dataset_name` is required, or `benchmarks`"),
        (["--benchmarks", '[{"kind": "gsm8k", "dataset": "none.jsonl"}]'], "there is no file 'none.jsonl'"),
    ],
)
def test_wrong_options_are_refused_before_anything_is_made(recipe, tmp_path, capsys, options, said):
    with pytest.raises(SystemExit):
        main(["compare", "--config", str(recipe), *options])
    assert said in capsys.readouterr().err and not (tmp_path / "runs").exists()


def begun(caplog) -> list[str]:
    """Lines that say which run begins."""
    return [record.getMessage() for record in caplog.records if record.name == "hf_dataselect.cli.compare"]


@pytest.mark.long
def test_a_comparison_is_trained_once_and_reported(recipe, tmp_path, capsys, monkeypatch, caplog):
    main(["compare", "--config", str(recipe)])
    folder = tmp_path / "runs"
    assert [re.sub(r", about \d+ (s|min) left$", ", about", line) for line in begun(caplog)] == [
        "run 1/5 full seed 1",
        *(f"run {place}/5 {name} seed 1, about" for place, name in enumerate(("random 0.25", "random 8"), start=2)),
        *(f"run {place}/5 {name} seed 1, about" for place, name in enumerate(("ifd 0.25", "ifd 8"), start=4)),
    ]
    caplog.clear()
    assert set(made(folder)) == set(RUNS)
    said = capsys.readouterr().out
    assert [line.partition(":")[0] for line in said.splitlines()[-3:]] == ["Compared", "Came out", "How sure"]
    shown, written = tables(said), tables((folder / "report" / "report.md").read_text())
    assert shown == written and [row["rows kept"] for row in shown["Runs"]] == ["24", "6", "8", "6", "8"]
    assert not list(folder.glob("*/model.safetensors"))
    selections = {name: json.loads((folder / name / "selection.json").read_text()) for name in RUNS}
    assert [len(selections[name]["indices"]) for name in RUNS] == [24, 6, 8, 6, 8]
    assert selections["ifd-8-seed1"]["passes"]["cached_rows"] == 48  # one scoring for both budgets
    recipes = [yaml.safe_load((folder / name / "recipe.yaml").read_text()) for name in RUNS]
    for name in ("learning_rate", "max_steps", "per_device_train_batch_size", "seed", "model_name_or_path"):
        assert len({found.get(name) for found in recipes}) == 1
    report = json.loads((folder / "report" / "report.json").read_text())
    assert [group["name"] for group in report["groups"]] == RUNS
    assert "answer_loss" in report["groups"][3]["over_control"]["settings"]

    def trains(*args, **kwargs):
        raise AssertionError("trained again")

    monkeypatch.setattr(DataSelectingTrainer, "train", trains)
    main(["compare", "--config", str(recipe)])
    moved = tmp_path / "moved.jsonl"
    moved.write_text((tmp_path / "rows.jsonl").read_text())
    # Nothing that decides a result: how it is logged, where the same rows lie.
    main(["compare", "--config", str(recipe), "--logging_steps", "3", "--dataset_name", str(moved)])
    assert begun(caplog) == []
    with monkeypatch.context() as patch:
        patch.chdir(tmp_path)
        main(["report", *map(str, folder.iterdir())])  # the report's own folder is passed over
    with pytest.raises(SystemExit):
        main(["compare", "--config", str(recipe), "--learning_rate", "0.5"])
    assert "learning_rate was the default, is 0.5" in capsys.readouterr().err
    rows = tmp_path / "rows.jsonl"
    rows.write_text("\n".join(rows.read_text().splitlines()[:-1]))
    with pytest.raises(SystemExit):
        main(["compare", "--config", str(recipe)])
    assert "dataset_content was" in capsys.readouterr().err


def test_a_finished_run_whose_ranks_diverged_is_not_taken_up(recipe, tmp_path):
    (first, *_) = planned(recipe)
    evaluation = {"steps": 2, "history": [{"step": 1}, {"step": 2}]}
    make_run(first.folder, evaluation=evaluation, selection={"facts": {"processes": 2}})
    first.write(finished=True)
    assert first.state == "finished"
    as_earlier_version(first.folder)
    assert first.state == "finished"
    as_earlier_version(first.folder, versions={"hf_dataselect": "0.1.0"})
    with pytest.raises(ValueError, match="Delete the folder and train it again"):
        planned(recipe)


@pytest.mark.parametrize("name", ["eval.json", "recipe.yaml", "selection.json", "scores.parquet"])
def test_a_finished_run_with_a_damaged_file_is_named_and_made_anew(recipe, name, caplog):
    (first, *_) = planned(recipe)
    make_run(first.folder)
    first.write(finished=True)
    assert first.state == "finished" and first.mend()
    whole = (first.folder / name).read_bytes()
    (first.folder / name).write_bytes(whole[: len(whole) // 2])
    assert first.state == "begun" and f"{first.folder / name} is damaged" in caplog.text
    rows_are_known = name in ("eval.json", "recipe.yaml")
    assert first.mend() is rows_are_known and (first.folder / name).exists() is not rows_are_known


def test_settings_that_are_damaged_are_named(recipe, capsys):
    (first, *_) = planned(recipe)
    first.write(finished=True)
    path = first.folder / "compared.json"
    path.write_text(path.read_text().replace("true", "false"))
    with pytest.raises(SystemExit):
        main(["compare", "--config", str(recipe)])
    assert f"{path} is damaged (its checksum is that of another content)" in capsys.readouterr().err


@pytest.mark.long
def test_a_killed_comparison_goes_on_and_repeats_no_finished_run(recipe, tmp_path):
    folder = tmp_path / "runs"
    command = ["compare", "--config", str(recipe), "--max_steps", "12"]
    command += ["--save_strategy", "steps", "--save_steps", "1", "--save_total_limit", "1"]
    with start_ranks(command, ranks=1, folder=tmp_path) as killed:
        deadline = time.monotonic() + 240
        # In the middle of the second run: with a checkpoint, without its evaluation.
        while not list((folder / RUNS[1]).glob("checkpoint-*/trainer_state.json")):
            assert killed.running(within=0.02) and time.monotonic() < deadline, killed.log()
    before = made(folder)
    assert set(before) == {RUNS[0]}
    main(command)
    after = made(folder)
    assert set(after) == set(RUNS) and after[RUNS[0]] == before[RUNS[0]]
    state = json.loads((folder / RUNS[1] / "checkpoint-12" / "trainer_state.json").read_text())
    assert state["global_step"] == 12 and (folder / RUNS[1] / "compared.json").exists()


def test_two_ranks_make_the_same_comparison(recipe, tmp_path):
    run(2, recipe, "--budgets", "6", command="compare")
    runs = ["full-seed1", "random-6-seed1", "ifd-6-seed1"]
    assert set(made(tmp_path / "runs")) == set(runs)
    for name in runs:
        two = json.loads((tmp_path / "runs" / name / "selection.json").read_text())
        evaluation = json.loads((tmp_path / "runs" / name / "eval.json").read_text())
        assert two["facts"]["processes"] == 2 and evaluation["ranks_agree"] and evaluation["steps"] == 2
        assert [evaluation["trained"][figure] for figure in ("updates", "ranks", "batch_size")] == [2, 2, 4]
        alone = str(tmp_path / "alone" / name)
        main(["select", "--config", str(tmp_path / "runs" / name / "recipe.yaml"), "--output_dir", alone])
        one = json.loads((tmp_path / "alone" / name / "selection.json").read_text())
        assert one["indices"] == two["indices"] and one["facts"]["processes"] == 1
    shown = tables((tmp_path / "runs" / "report" / "report.md").read_text())["Runs"]
    assert [(row["run"].split()[0], row["rows kept"]) for row in shown] == list(
        zip(runs, ["24", "6", "6"], strict=True)
    )


def by_epochs(recipe: Path, **more) -> None:
    """Let the recipe train for 2 epochs: `full` for 12 updates of at most 4 rows, a run on 6 rows for 4."""
    given = yaml.safe_load(recipe.read_text())
    del given["max_steps"]
    batch = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2, "num_train_epochs": 2}
    recipe.write_text(yaml.safe_dump(given | batch | {"methods": ["length"], "budgets": [6]} | more))


def trained(folder: Path, name: str) -> dict:
    return json.loads((folder / name / "eval.json").read_text())["trained"]


SHORT = ["random-6-seed1", "length-6-seed1"]


def test_runs_get_as_many_updates_as_the_baseline_also_when_they_resume(recipe, tmp_path, capsys, caplog):
    """With packing, the number of updates is known only as the rows are."""
    by_epochs(recipe, packing=True, max_length=32, save_strategy="steps", save_steps=3, equal="updates")
    folder = tmp_path / "runs"
    main(["compare", "--config", str(recipe)])
    baseline = trained(folder, "full-seed1")
    for name in SHORT:
        found = trained(folder, name)
        assert found["updates"] == baseline["updates"] > 6 and found["epochs"] > 2 == baseline["epochs"]
        assert yaml.safe_load((folder / name / "recipe.yaml").read_text())["max_steps"] == found["updates"]
    shown = capsys.readouterr().out
    assert tables(shown)["Runs"][2]["over control"]
    assert "Trained for as many optimizer updates as the baseline, not for as many epochs (`equal: updates`)." in shown
    assert "epochs trained" not in shown  # which `equal` asks for
    assert "times as many optimizer updates" not in shown and "`max_steps`" not in shown

    whole, run = trained(folder, SHORT[0]), folder / SHORT[0]
    (run / "eval.json").unlink()  # as if killed at its first checkpoint
    (folder / SHORT[1] / "eval.json").unlink()
    edited = read_recipe(folder / SHORT[1]) | {"learning_rate": 0.5}
    write_recipe_of(folder / SHORT[1], edited)
    moved = yaml.safe_load(recipe.read_text()) | {"model_name_or_path": str(tmp_path / "moved")}
    (tmp_path / "model").rename(tmp_path / "moved")
    recipe.write_text(yaml.safe_dump(moved))
    for path in run.glob("checkpoint-*/trainer_state.json"):
        if path.parent.name != "checkpoint-3":
            path.unlink()
    before = made(folder)
    main(["compare", "--config", str(recipe)])
    assert trained(folder, SHORT[0]) == whole and before.items() <= made(folder).items()
    assert f"now '{tmp_path / 'moved'}'" in caplog.text  # and resumed
    assert caplog.text.count("It is trained anew.") == 1 and f"{SHORT[1]}: `resume_from_checkpoint`" in caplog.text
    assert read_recipe(folder / SHORT[1]).get("learning_rate") != 0.5
    with pytest.raises(SystemExit):
        main(["compare", "--config", str(recipe), "--equal", "epochs"])
    assert "equal was updates, is the default" in capsys.readouterr().err


def test_runs_get_about_as_many_tokens_as_the_baseline(recipe, tmp_path, capsys):
    by_epochs(recipe, equal="tokens")
    main(["compare", "--config", str(recipe)])
    wanted = trained(tmp_path / "runs", "full-seed1")
    assert wanted["updates"] == 12
    for name in SHORT:
        found = trained(tmp_path / "runs", name)
        assert abs(found["tokens"] - wanted["tokens"]) <= found["tokens"] / found["updates"]
    shown = capsys.readouterr().out
    said = {(row["run"], row["what"]): row["how much"] for row in tables(shown)["Row accounting"]}
    assert said["full-seed1", "tokens trained"] == f"{wanted['tokens']:,}"
    assert tables(shown)["Runs"][2]["over control"], "also where its control got another number of updates"


def test_runs_get_as_many_epochs_by_default_and_fewer_updates(recipe, tmp_path, capsys, caplog):
    by_epochs(recipe, methods=[], disable_tqdm=True)
    main(["compare", "--config", str(recipe)])
    assert begun(caplog) == [], "`disable_tqdm` silences all but the results"
    full, random = (trained(tmp_path / "runs", name) for name in ("full-seed1", "random-6-seed1"))
    assert (full["updates"], random["updates"], full["epochs"], random["epochs"]) == (12, 4, 2, 2)
    shown = capsys.readouterr().out
    assert [row["updates"] for row in tables(shown)["Runs"]] == ["12", "4"]
    assert shown.count("The baseline got 3 times as many optimizer updates as the runs on fewer rows.") == 1
    assert "not only in its rows" not in shown and "equal:" not in shown
