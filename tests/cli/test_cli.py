"""The command line: recipes, overrides, and one clear line for what is wrong."""

import errno
import importlib
import json
import os
import re
import subprocess
import sys

import pytest
from datasets import Dataset
from safetensors.torch import load_file

from hf_dataselect.cli.main import COMMANDS, main
from hf_dataselect.registry import method_names
from hf_dataselect.runs import folder
from tests.reported_runs import tables
from tests.rows import alpaca


def test_train_select_and_report(recipe, tmp_path, capsys):
    main(
        ["train", "--config", str(recipe), "--selection_method", "full", "--selection_kwargs", "{}"]
        + ["--selection_budget", "1.0", "--output_dir", str(tmp_path / "bm")]
    )
    main(["train", "--config", str(recipe), "--baseline_dir", str(tmp_path / "bm")])
    bm, run = (json.loads((tmp_path / name / "eval.json").read_text()) for name in ("bm", "run"))
    ratio = bm["settings"]["answer_loss"]["score"] / run["settings"]["answer_loss"]["score"]
    assert run["pir"]["settings"]["answer_loss"] == pytest.approx(ratio)
    assert run["pir"]["settings"].keys() | run["pir"]["left_out"].keys() == {"answer_loss", "token_accuracy"}
    selected = json.loads((tmp_path / "run" / "selection.json").read_text())
    assert run["str"] == pytest.approx(selected["seconds"] / bm["train_seconds"])
    weights = [load_file(tmp_path / name / "model.safetensors") for name in ("bm", "run")]
    assert any((weights[0][name] != weights[1][name]).any() for name in weights[0]), "trained on other rows"
    capsys.readouterr()
    main(["report", str(tmp_path / "run"), str(tmp_path / "bm"), "--output_dir", str(tmp_path / "report")])
    shown = tables(capsys.readouterr().out)["Runs"]
    assert [(row["run"], row["method"], row["rows kept"]) for row in shown] == [
        ("bm (BM)", "full", "24"),
        ("run", "ifd", "6"),
    ]
    assert shown[1]["STR"] == f"{run['str']:.3f}" and shown[1]["PIR (benchmark ratio)"] == f"{run['pir']['value']:.3f}"
    written = json.loads((tmp_path / "report" / "report.json").read_text())["groups"]
    assert [group["pir"] and group["pir"]["value"] for group in written] == [None, run["pir"]["value"]]


def test_the_recipe_in_a_run_folder_repeats_the_run(recipe, tmp_path):
    main(["select", "--config", str(recipe)])
    first = json.loads((tmp_path / "run" / "selection.json").read_text())
    repeated = tmp_path / "again.yaml"
    repeated.write_text((tmp_path / "run" / "recipe.yaml").read_text())
    main(["select", "--config", str(repeated), "--output_dir", str(tmp_path / "run2")])
    second = json.loads((tmp_path / "run2" / "selection.json").read_text())
    assert first["indices"] == second["indices"] and second["passes"]["cached_rows"] == 48


def test_select_writes_the_rows_without_training(recipe, tmp_path, capsys):
    main(["select", "--config", str(recipe)])
    rows = Dataset.from_parquet(str(tmp_path / "run" / "selected.parquet"))
    assert len(rows) == 6 and {"instruction", "selection_row", "selection_score"} <= set(rows.column_names)
    assert not (tmp_path / "run" / "model.safetensors").exists()
    assert "kept 6 of 24" in capsys.readouterr().out
    main(
        ["train", "--config", str(recipe), "--dataset_name", str(tmp_path / "run" / "selected.parquet")]
        + ["--selection_method", "random", "--selection_kwargs", "{}", "--output_dir", str(tmp_path / "next")]
    )


def test_a_method_without_a_model_loads_none(recipe, tmp_path, monkeypatch):
    def loads(*args, **kwargs):
        raise AssertionError("the model was loaded")

    monkeypatch.setattr("trl.trainer.sft_trainer.create_model_from_path", loads)
    main(["select", "--config", str(recipe), "--selection_method", "length", "--selection_kwargs", "{}"])
    assert json.loads((tmp_path / "run" / "selection.json").read_text())["kept"] == 6


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--selection_method", "idf"], "did you mean 'ifd'"),
        (["--selection_kwargs", '{"warm": 1}'], "no option 'warm'"),
        (["--selection_budget", "1"], "one row or all of them"),
        (["--selection_budget", "0"], "keeps nothing"),
        (["--selection_budget", "99"], "more rows than the 24"),
        (["--dataset_name", "./nothing.jsonl"], "there is no file"),
        (["--model_name_or_path", "./nothing"], "does not exist"),
        (["--dataset_streaming", "true"], "`dataset_streaming` needs `selection_stream_rows`"),
    ],
    ids=lambda value: value[1] if isinstance(value, list) else "",
)
@pytest.mark.parametrize("command", ["train", "select"])
def test_wrong_options_end_with_one_line_and_exit_code_2(recipe, capsys, command, arguments, message):
    with pytest.raises(SystemExit) as stopped:
        main([command, "--config", str(recipe), *arguments])
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert stopped.value.code == 2 and error.startswith("hf-dataselect: error:") and message in error


def test_a_baseline_that_is_not_there_is_refused_for_training_only(recipe, capsys):
    with pytest.raises(SystemExit):
        main(["train", "--config", str(recipe), "--baseline_dir", "./nothing"])
    assert "baseline_dir" in capsys.readouterr().err
    main(["select", "--config", str(recipe), "--baseline_dir", "./nothing"])


def test_a_selector_in_the_working_folder_is_found(recipe, tmp_path, monkeypatch):
    code = "from hf_dataselect.selectors.random import Random\n\n\nclass Mine(Random):\n    pass\n"
    (tmp_path / "my_own_module.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    options = ["--selection_method", "my_own_module:Mine", "--selection_kwargs", "{}"]
    main(["select", "--config", str(recipe), *options])
    assert json.loads((tmp_path / "run" / "selection.json").read_text())["method"] == "my_own_module:Mine"


def test_nothing_to_keep_is_one_line_too(recipe, tmp_path, capsys):
    rows = alpaca(3).map(lambda row: {"output": ""})
    rows.to_json(tmp_path / "rows.jsonl")
    with pytest.raises(SystemExit):
        main(["train", "--config", str(recipe), "--selection_budget", "2"])
    assert "found no row to keep of 3: no answer" in capsys.readouterr().err


def test_a_disk_that_is_full_at_the_end_is_one_line_with_the_file(recipe, capsys, monkeypatch):
    def full(*arguments, **options):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(folder.pq, "write_table", full)
    with pytest.raises(SystemExit) as left:
        main(["select", "--config", str(recipe), "--selection_method", "length", "--selection_kwargs", "{}"])
    said = capsys.readouterr().err
    assert left.value.code == 2 and "Traceback" not in said
    assert re.search(r"error: .*No space left on device: '.*scores\.parquet': make room", said)


def test_a_misspelt_entry_of_a_recipe_is_refused(recipe, capsys):
    recipe.write_text(recipe.read_text() + "selection_metod: ifd\n")
    with pytest.raises(SystemExit):
        main(["train", "--config", str(recipe)])
    assert "selection_metod" in capsys.readouterr().err


def test_methods_prints_the_cards(capsys):
    main(["methods"])
    printed = capsys.readouterr().out
    assert all(f"`{name}`" in printed for name in method_names())
    main(["methods", "ifd"])
    printed = capsys.readouterr().out
    assert "warmup_clusters = 100" in printed and "2308.12032" in printed and "deviations" in printed


def test_a_card_imports_its_own_method_only():
    code = "import sys; from hf_dataselect.cli.main import main; main(['methods', 'indicator']); "
    code += "print([name for name in sys.modules if name.split('.')[0] in ('peft', 'trl', 'sklearn', 'bitsandbytes')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]" and done.stderr == ""


def test_misspelt_options_are_named_with_the_nearest_right_one(tmp_path, capsys):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("model_name_or_path: m\nselection_metod: ifd\nbf16: true\n")
    given = ["--model_name_or_path", "m", "--dataset_name", "d"]
    for argv, said in (
        (["--config", str(recipe)], "`selection_metod` (did you mean `selection_method`?)"),
        ([*given, "--selection-budgets=3"], "`selection-budgets` (did you mean `selection_budget`?)"),
        ([*given, "--qqq", "1"], "Unknown options: `qqq`."),
        ([*given, "alone"], "Unknown options: alone."),
    ):
        with pytest.raises(SystemExit) as stopped:
            main(["train", *argv])
        assert stopped.value.code == 2 and said in capsys.readouterr().err


def test_main_is_the_function_by_both_names():
    package, module = importlib.import_module("hf_dataselect.cli"), importlib.import_module("hf_dataselect.cli.main")
    assert package.main is module.main is main
    code = "import sys; from hf_dataselect.cli import main; main(['--help']); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False" and "train-scorer" in done.stdout


def test_help_and_unknown_commands(capsys):
    main([])
    assert "train" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["tain"])
    assert "unknown command" in capsys.readouterr().err


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command, capsys):
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == 0 and "usage" in capsys.readouterr().out
