"""A run folder is one run, and nothing in it that is damaged is believed."""

import json
import logging
import os
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import yaml

from hf_dataselect.engines.store.checked import write_json
from hf_dataselect.errors import DamagedFile
from hf_dataselect.evaluation.comparison.comparison import add_wins, compare_runs
from hf_dataselect.evaluation.comparison.evaluated_runs import read_run
from hf_dataselect.evaluation.judging.win_rate import read_answers
from hf_dataselect.runs.begin import begin_run, begin_training, enter_selection, go_on
from hf_dataselect.runs.files import WINS, plain, read, run_id, write
from hf_dataselect.runs.folder import (
    read_evaluation,
    read_recipe,
    read_selection,
    read_settings,
    write_recipe,
    write_selection,
    write_settings,
)
from tests.evaluation.judging.test_win_rate import Scripted
from tests.reported_runs import answered, make_run
from tests.run_folders import as_earlier_version, flipped


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """A baseline and a run with every kind of file that a report reads."""
    root = tmp_path_factory.mktemp("whole")
    for name, method in (("full", "full"), ("ifd", "ifd")):
        folder = make_run(root / name, method, text="Größe \u202e", dataset_kwargs={"token": "hf_secret"})
        write_settings(folder, {"equal": "updates", "seed": 1}, finished=True)
        answered(folder, [5] * 12 if method == "full" else [9] * 10 + [1] * 2)
    add_wins(compare_runs([root / "full", root / "ifd"]), Scripted())
    write(root / "full", WINS, {"of": "another"})
    return root


def everything(folder: Path) -> str:
    """All that is read of a run."""
    run = read_run(folder, [])
    described = asdict(run) | {"recipe": read_recipe(folder), "settings": read_settings(folder)}
    return json.dumps(plain(described | {"wins": read(folder, WINS), "answers": read_answers(folder)}))


FILES = ("recipe.yaml", "versions.json", "selection.json", "scores.parquet", "compared.json", "wins.json", "eval.json")


@pytest.mark.parametrize("name", [*FILES, "answers/koala.jsonl"])
def test_no_damage_is_believed(whole, name, tmp_path):
    folder = shutil.copytree(whole / "ifd", tmp_path / "ifd")
    path, known = folder / name, everything(folder)
    content = path.read_bytes()
    places = [place * (len(content) - 1) // 30 for place in range(31)]
    damaged = [flipped(content, place, bit) for place, bit in zip(places, [0, 4, 5] * 11, strict=False)]
    damaged += [content[:place] for place in places]
    noticed = 0
    for broken in damaged:
        path.write_bytes(broken)
        try:
            assert everything(folder) == known
        except DamagedFile as error:
            noticed += str(path) in str(error) or name == "versions.json"
            assert "is damaged" in str(error)
        else:
            noticed += path.read_bytes().split() == content.split() or name != "scores.parquet"
    assert noticed == len(damaged)


@pytest.mark.parametrize("name", [*FILES, "answers/koala.jsonl"])
def test_a_file_of_another_run_is_refused_by_name(whole, name, tmp_path):
    folder = shutil.copytree(whole / "ifd", tmp_path / "ifd")
    shutil.copy(whole / "full" / name, folder / name)
    with pytest.raises(DamagedFile, match="another run|was written with") as error:
        everything(folder)
    assert name == "versions.json" or str(folder / name) in str(error.value)


def test_every_file_has_the_id_of_its_run(whole):
    for folder in (whole / "full", whole / "ifd"):
        run = run_id(folder)
        assert len(run) == 32 and run in (folder / "recipe.yaml").read_text().splitlines()[0]
        assert run.encode() in (folder / "scores.parquet").read_bytes()
        for path in [*folder.glob("*.json"), *folder.glob("answers/*.jsonl")]:
            assert f'"run": "{run}"' in path.read_text()
    assert run_id(whole / "full") != run_id(whole / "ifd")


def test_a_run_of_an_earlier_version_is_read_with_one_warning(whole, tmp_path, caplog):
    folder = shutil.copytree(whole / "ifd", tmp_path / "ifd")
    known = json.loads(everything(folder))
    as_earlier_version(folder)
    with caplog.at_level(logging.WARNING):
        found = json.loads(everything(folder))
    assert found | {"folder": ""} == known | {"folder": ""}
    assert [record.message for record in caplog.records] == [
        f"{folder} was written by an earlier version, without checksums: it is read unchecked."
    ]
    (folder / "selection.json").write_text((folder / "selection.json").read_text().replace("11", "1100", 1))
    with pytest.raises(DamagedFile, match=r"selection\.json is damaged .*(row numbers|rows)"):
        read_selection(folder)
    (folder / "eval.json").write_text((folder / "eval.json").read_text().replace('"score": ', '"score": "x", "was": '))
    with pytest.raises(DamagedFile, match=r"eval\.json is damaged .*'x' is no score"):
        read_run(folder, [])


@pytest.mark.parametrize("earlier", [False, True])
def test_a_second_run_removes_what_the_first_left(whole, tmp_path, caplog, earlier):
    folder = shutil.copytree(whole / "ifd", tmp_path / "ifd")
    kept = [
        folder / "checkpoint-3" / "model.safetensors",
        folder / "answers" / "mine.jsonl",
        folder / "selected.parquet",
    ]
    for path in kept:
        path.parent.mkdir(exist_ok=True)
        path.write_text('{"of": "the user"}')
    if earlier:
        as_earlier_version(folder)
        (folder / "answers" / "koala.jsonl").write_text('{"id": 1, "question": "q", "answer": "a"}')
    first = run_id(folder)
    (folder / f".eval.json.{'0' * 32}").write_text("torn by a kill")
    begin_run(folder, {"selection_method": "length"})
    assert "held a run of 'ifd': its results are removed (eval.json, wins.json, " in caplog.text
    assert "answers/koala.jsonl" in caplog.text
    left = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert left == {"versions.json", "recipe.yaml"} | {str(p.relative_to(folder)) for p in kept}
    assert run_id(folder) not in (None, first) and read_recipe(folder) == {"selection_method": "length"}
    with pytest.raises(ValueError, match="is not the folder of a finished, evaluated run"):
        read_evaluation(folder)


def test_a_run_of_an_earlier_version_that_goes_on_gets_an_id(whole, tmp_path, caplog):
    folder = shutil.copytree(whole / "ifd", tmp_path / "ifd")
    as_earlier_version(folder)
    go_on(folder, read_recipe(folder), read_selection(folder))
    caplog.clear()
    assert len(run_id(folder)) == 32 and read_run(folder, []).settings and read_settings(folder)[1]
    assert not caplog.records


@pytest.mark.parametrize("kill", ["eval.json", "recipe.yaml", "selection.json", "versions.json"])
def test_a_run_of_an_earlier_version_that_is_killed_as_it_gets_its_id_goes_on(whole, tmp_path, monkeypatch, kill):
    folder = shutil.copytree(whole / "ifd", tmp_path / "ifd")
    as_earlier_version(folder)
    recipe, selection, known = read_recipe(folder), read_selection(folder), json.loads(everything(folder))
    move = os.replace

    def killed(path, target):
        if Path(target).name == kill and (kill != "versions.json" or '"becomes"' in Path(target).read_text()):
            raise KeyboardInterrupt
        return move(path, target)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr("os.replace", killed)
        go_on(folder, recipe, selection)
    assert run_id(folder) is None and json.loads(everything(folder)) == known
    go_on(folder, read_recipe(folder), read_selection(folder))
    assert len(run_id(folder)) == 32 and json.loads(everything(folder))["recipe"] == recipe


def test_a_selection_made_again_keeps_the_run_and_another_does_not(whole, tmp_path):
    folder = shutil.copytree(whole / "ifd", tmp_path / "ifd")
    recipe, known, run = read_recipe(folder), everything(folder), run_id(folder)
    selection = read_selection(folder)
    enter_selection(folder, recipe | {"max_steps": 9}, replace(selection, seconds=7.0))
    assert everything(folder) == known
    begin_training(folder, recipe | {"max_steps": 9}, selection, None, ("max_steps",))
    assert run_id(folder) == run and not (folder / "eval.json").exists() and not list(folder.glob("answers/*"))
    assert read_recipe(folder)["max_steps"] == 9
    begin_training(folder, recipe | {"learning_rate": 9.0}, selection, None, ("max_steps",))
    assert run_id(folder) != run
    run = run_id(folder)
    enter_selection(folder, recipe, replace(selection, indices=selection.indices[::-1]))
    assert run_id(folder) != run


def test_a_copy_without_versions_is_read_and_a_mixed_one_is_not(whole, tmp_path):
    folder = shutil.copytree(whole / "ifd", tmp_path / "ifd")
    known = everything(folder)
    (folder / "versions.json").unlink()
    found = json.loads(everything(folder))
    assert found["recipe"] == json.loads(known)["recipe"] and run_id(folder) == run_id(whole / "ifd")
    (tmp_path / "base").mkdir()
    shutil.copy(folder / "eval.json", tmp_path / "base")
    assert read_evaluation(tmp_path / "base") == read_evaluation(whole / "ifd")
    shutil.copy(whole / "full" / "eval.json", folder)
    with pytest.raises(DamagedFile, match="another run"):
        read_evaluation(folder)


def test_line_ends_of_another_system_are_no_damage(whole, tmp_path):
    folder = shutil.copytree(whole / "ifd", tmp_path / "ifd")
    known = everything(folder)
    for path in [*folder.glob("*.json"), folder / "recipe.yaml", *folder.glob("answers/*")]:
        path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert everything(folder) == known


def test_a_recipe_is_a_config_also_when_it_was_edited(tmp_path):
    write_recipe(tmp_path, {"selection_method": "ifd", "note": "a\u202eb \x1b[31m", "learning_rate": 1e-5})
    text = (tmp_path / "recipe.yaml").read_text()
    assert text.startswith("# hf_dataselect: run ") and "\u202e" not in text and "\x1b" not in text
    assert (
        read_recipe(tmp_path)
        == yaml.safe_load(text)
        == {
            "selection_method": "ifd",
            "note": "a\u202eb \x1b[31m",
            "learning_rate": 1e-5,
        }
    )
    (tmp_path / "recipe.yaml").write_text(text.replace("ifd", "rds"))
    assert yaml.safe_load((tmp_path / "recipe.yaml").read_text())["selection_method"] == "rds"
    with pytest.raises(DamagedFile, match=r"recipe\.yaml is damaged .*delete it: the run is then read without"):
        read_recipe(tmp_path)
    (tmp_path / "recipe.yaml").write_text("a: !!python/object/apply:os.system ['true']\n")
    with pytest.raises(DamagedFile, match="constructor"):
        read_recipe(tmp_path)


def test_what_a_judge_said_is_not_believed_once_it_is_damaged(whole, tmp_path):
    for name in ("full", "ifd"):
        shutil.copytree(whole / name, tmp_path / name)
    folders = [tmp_path / "full", tmp_path / "ifd"]
    assert compare_runs(folders).groups[1].wins.value == 5
    path = tmp_path / "ifd" / "wins.json"
    path.write_text(path.read_text().replace("-1.0", "1.0"))
    group = compare_runs(folders).groups[1]
    assert group.wins is None and group.judge.startswith(f"not judged: {path} is damaged")


def test_scores_are_written_whole(whole, tmp_path, monkeypatch):
    folder = shutil.copytree(whole / "ifd", tmp_path / "ifd")
    selection = read_selection(folder)

    def killed(table, path):
        path.write_bytes(b"PAR1")
        raise KeyboardInterrupt

    monkeypatch.setattr("hf_dataselect.runs.folder.pq.write_table", killed)
    with pytest.raises(KeyboardInterrupt):
        write_selection(folder, selection)
    assert read_selection(folder).indices.tolist() == selection.indices.tolist()


def test_versions_that_are_damaged_are_named(whole, tmp_path):
    folder = shutil.copytree(whole / "ifd", tmp_path / "ifd")
    write_json(folder / "versions.json", {"run": "0" * 32})
    with pytest.raises(DamagedFile, match=f"its id is '{run_id(whole / 'ifd')}', that in versions.json '{'0' * 32}'"):
        read_evaluation(folder)
