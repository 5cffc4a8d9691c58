"""Everything that is wrong is told at once, with its root, before a model loads."""

import json

import pytest
import yaml

from hf_dataselect.cli.console import checked
from hf_dataselect.cli.main import main
from hf_dataselect.training.recipe import parse_recipe


def lines(capsys) -> list[str]:
    """What was refused, one error a line."""
    said = capsys.readouterr().err.splitlines()
    return [line.removeprefix("hf-dataselect: error: ") for line in said if line.startswith("hf-dataselect: error: ")]


@pytest.mark.parametrize("command", ["train", "select"])
def test_everything_that_is_wrong_is_told_at_once(tmp_path, capsys, command):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        "selection_metod: ifd\nselection_method: idf\nmax_steps: many\njudge: nobody\nlr_scheduler_type: sideways\n"
        "dataset_name: ./nowhere.jsonl\neval_dataset_name: ./missing/rows\nselection_batch_tokens: 0\n",
        encoding="utf-8",
    )
    with pytest.raises(SystemExit) as stopped:
        main([command, "--config", str(recipe), "--seed", "x", "--seed2=3", "--selection_diversity", "most"])
    said = lines(capsys)
    expected = [
        "`seed`: invalid int value: 'x'",
        "`max_steps`: invalid int value: 'many'",
        "`selection_metod` (did you mean `selection_method`?), `seed2` (did you mean `seed`?)",
        "`selection_method='idf'` does not exist; did you mean 'ifd'",
        "`judge='nobody'`",
        "sideways",
        "`selection_batch_tokens=0` must be at least 1",
        "`model_name_or_path` is required",
        "there is no file './nowhere.jsonl'",
        "there is no folder './missing/rows'",
        "most",
    ]
    assert stopped.value.code == 2
    for words in expected:
        assert sum(words in line for line in said) == 1, (words, said)
    assert len(said) == len(expected)


def test_all_options_of_a_method_that_are_wrong_are_told_at_once(recipe, capsys):
    kwargs = {"warm": 1, "warmup_epochs": "many", "warmup_learning_rate": "fast"}
    with pytest.raises(SystemExit):
        given = ["--selection_kwargs", json.dumps(kwargs), "--judge_kwargs", '{"a": 1}']
        main(["select", "--config", str(recipe), *given])
    said = lines(capsys)
    assert len(said) == 4 and all(any(name in line for line in said) for name in (*kwargs, "judge_kwargs"))


def test_rows_model_and_folder_that_can_not_be_used_are_told_at_once(recipe, tmp_path, capsys):
    (tmp_path / "rows.jsonl").write_text("oh\n", encoding="utf-8")
    (tmp_path / "heldout.csv").write_text("", encoding="utf-8")
    (tmp_path / "file").write_text("", encoding="utf-8")
    given = ["--model_name_or_path", "./nothing", "--eval_dataset_name", str(tmp_path / "heldout.csv")]
    with pytest.raises(SystemExit):
        main(["train", "--config", str(recipe), *given, "--output_dir", str(tmp_path / "file" / "run")])
    words = [
        "rows.jsonl, line 1, column 1: not JSON",
        "heldout.csv is empty",
        "'./nothing' does not exist",
        "`output_dir",
    ]
    said = lines(capsys)
    assert len(said) == 4 and all(sum(word in line for line in said) == 1 for word in words)


@pytest.mark.parametrize("command", ["train", "select", "compare", "audit", "fit-rule", "train-scorer"])
def test_a_folder_without_room_is_refused_before_a_model_loads(recipe, tmp_path, capsys, monkeypatch, command):
    def loads(*args, **kwargs):
        raise AssertionError("the model was loaded")

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("transformers.PreTrainedModel.from_pretrained", loads)
    monkeypatch.setattr("hf_dataselect.engines.store.files.os.fsync", full)
    monkeypatch.setenv("OPENAI_BASE_URL", "http://localhost:9/v1")
    given = {"model_name_or_path": tmp_path / "model", "dataset_name": tmp_path / "rows.jsonl", "judge": "openai:x"}
    argv = [item for name, value in given.items() for item in (f"--{name}", str(value))]
    more = ["--selection_method", "instruction_mining", "--selection_kwargs", "{}"] if command == "fit-rule" else []
    if command != "train-scorer":
        argv = ["--config", str(recipe), "--selection_cache_dir", "none", *more]
    if command in ("compare", "audit"):
        content = yaml.safe_load(recipe.read_text(encoding="utf-8"))
        single = ("selection_method", "selection_kwargs", "selection_budget")
        recipe.write_text(yaml.safe_dump({k: v for k, v in content.items() if k not in single}), encoding="utf-8")
    with pytest.raises(SystemExit) as stopped:
        main([command, *argv, "--use_cpu", "true", "--bf16", "false", "--output_dir", str(tmp_path / "run")])
    said = [line for line in lines(capsys) if "`output_dir=" in line]
    assert stopped.value.code == 2 and len(said) == 1 and "No space left on device" in said[0]
    assert not (tmp_path / "run").exists() and not list(tmp_path.glob(".probe*"))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_a_recipe_is_read_as_utf_8_with_or_without_a_byte_order_mark(recipe, tmp_path, encoding):
    content = recipe.read_text(encoding="utf-8").replace(str(tmp_path / "run"), str(tmp_path / "läuft"))
    recipe.write_text(content, encoding=encoding)
    found = parse_recipe([f"--config={recipe}"])
    assert found.args.output_dir == str(tmp_path / "läuft")
    assert found.model.model_name_or_path == str(tmp_path / "model")


@pytest.mark.parametrize("content", ["a: [", "- a", "env: 3", "\udce9"])
def test_a_file_that_is_no_recipe_is_refused(tmp_path, capsys, content):
    (tmp_path / "recipe.yaml").write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(SystemExit):
        main(["train", "--config", str(tmp_path / "recipe.yaml")])
    assert "recipe.yaml" in lines(capsys)[0]


def test_the_root_of_a_nested_error_is_told(capsys):
    def nested():
        try:
            try:
                raise KeyError("column")
            except KeyError as error:
                raise RuntimeError("while generating") from error
        except RuntimeError as error:
            raise ValueError(f"Can't load: {error}") from error

    with pytest.raises(SystemExit):
        checked(nested)
    assert lines(capsys) == ["Can't load: while generating ('column')"]
