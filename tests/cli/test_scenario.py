"""`scenario`: rows are drawn once and kept apart, the comparison runs and resumes, wrong ones are refused early."""

import json
import re
from pathlib import Path

import pytest
import yaml
from datasets import Dataset
from filelock import FileLock

from benchmarks import results
from hf_dataselect.cli.main import main
from hf_dataselect.data.leakage import overlap
from hf_dataselect.data.load import load_rows
from hf_dataselect.data.records import Records
from hf_dataselect.options import nearest
from hf_dataselect.runs.lock import LOCK
from hf_dataselect.training.compare_arguments import CompareArguments
from hf_dataselect.training.recipe import parse_recipe
from hf_dataselect.training.scenario import FOLDER, comparison_of, load_scenario, make_rows, names
from hf_dataselect.training.trainer import DataSelectingTrainer
from tests.rows import alpaca
from tests.tiny import tiny_model, tiny_tokenizer


@pytest.fixture
def scenario(tmp_path) -> Path:
    """A scenario of two sources, one of whose answers a third is corrupted, with a tiny model."""
    tokenizer = tiny_tokenizer()
    tiny_model(tokenizer).save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    alpaca(60).to_json(tmp_path / "words.jsonl")
    sums = [{"question": f"What is {i} + 7?", "answer": f"The sum is {i + 7}."} for i in range(40)]
    Dataset.from_list(sums).to_json(tmp_path / "sums.jsonl")
    columns = {"instruction": "question", "output": "answer"}
    given = {
        "question": "Which rows help with sums?",
        "pool": [{"dataset": "hub/words", "rows": 14}, {"dataset": "hub/sums", "rows": 10, "columns": columns}],
        "target": {"dataset": "hub/sums", "rows": 4, "columns": columns},
        "held_out": {
            "sums": [{"dataset": "hub/sums", "rows": 12, "columns": columns}],
            "words": [{"dataset": "hub/words", "rows": 12}],
        },
        "corrupt": {"fraction": 0.25},
        "equal": ["epochs"],
        "compare": {
            "model_name_or_path": "hub/model",
            "methods": ["length"],
            "budgets": [0.25],
            "seeds": [0],
            "save_models": False,
            "save_strategy": "no",
            "per_device_train_batch_size": 4,
            "selection_dtype": "float32",
            "selection_cache_dir": str(tmp_path / "cache"),
            "report_to": "none",
            "use_cpu": True,
            "bf16": False,
            "disable_tqdm": True,
        },
    }
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(given))
    (tmp_path / "sources.yaml").write_text("{hub/words: words.jsonl, hub/sums: sums.jsonl, hub/model: model}")
    return tmp_path / "mine.yaml"


def command(scenario: Path, *options: str) -> list[str]:
    sources = str(scenario.parent / "sources.yaml")
    return ["scenario", str(scenario), "--sources", sources, "--output_dir", str(scenario.parent / "out"), *options]


def changed(scenario: Path, **changes) -> Path:
    """A scenario that changes this one."""
    path = Path("changed.yaml")
    path.write_text(yaml.safe_dump({"base": str(scenario)} | changes))
    return path


@pytest.mark.parametrize("name", names())
def test_the_scenarios_of_the_repository_are_comparisons(name, tmp_path):
    scenario = load_scenario(name)
    assert scenario.question.endswith("?") and scenario.equal == ["epochs", "updates"] and scenario.target
    files = {part: tmp_path / f"{part}.jsonl" for part in ("pool", "target", *scenario.held_out)}
    (tmp_path / "compare.yaml").write_text(yaml.safe_dump(comparison_of(scenario, "updates", tmp_path, files)))
    found = parse_recipe(
        ["--config", str(tmp_path / "compare.yaml"), "--use_cpu", "true"], "compare", CompareArguments
    )
    assert {"full", "random", "length"} < set(found.more.methods)
    assert len(found.more.seeds) >= 3 and len(found.more.budgets) == 2 and found.more.equal == "updates"
    assert [item["name"] for item in found.args.benchmarks] == list(scenario.held_out)


def test_scenarios_are_listed_with_their_questions(capsys):
    main(["scenario", "--list"])
    said = capsys.readouterr().out
    assert {"target", "noisy", "redundant", "general", "language", "multi-turn", "weak-domain"} <= set(names())
    docs = (FOLDER.parents[1] / "docs" / "scenarios.md").read_text(encoding="utf-8")
    for name in names():
        question = load_scenario(name).question
        assert re.search(rf"(?m)^{name} +{re.escape(question)}$", said) and f"| `{name}` | {question} |" in docs


def test_a_scenario_runs_resumes_and_becomes_a_page(scenario, tmp_path, capsys, monkeypatch):
    main(command(scenario, "--methods", "full"))
    out, runs = tmp_path / "out", ["full-seed0", "random-0.25-seed0"]
    assert sorted(path.parent.name for path in out.glob("epochs/*/eval.json")) == runs
    said = capsys.readouterr().out
    assert "Which rows help with sums?" in said and "pool: 24 rows: 14 words, 10 sums; 18 none" in said
    assert "Rows kept by `fault`" in said and (out / "epochs" / "report" / "report.md").is_file()
    parts = {path.stem: Records(load_rows(str(path))) for path in (out / "rows").glob("*.jsonl")}
    assert {name: len(rows) for name, rows in parts.items()} == {"pool": 24, "target": 4, "sums": 12, "words": 12}
    assert not any(overlap(parts[one], {two: parts[two] for two in parts if two != one}) for one in parts)

    before = {path: path.stat().st_mtime_ns for path in out.glob("epochs/*/eval.json")}
    for name in ("words", "sums"):  # drawn rows stay without their sources
        (tmp_path / f"{name}.jsonl").unlink()
    main(command(scenario, "--dry_run"))
    said = capsys.readouterr().out
    assert (
        "epochs: 3 runs, 2 of them finished; what is left trains as long as 0.2 runs on all rows, about 0 min" in said
    )
    main(command(scenario))
    after = {path: path.stat().st_mtime_ns for path in out.glob("epochs/*/eval.json")}
    assert len(after) == 3 and before.items() <= after.items()
    evaluated = json.loads((out / "epochs" / "length-0.25-seed0" / "eval.json").read_text())
    names = [f"{test_set}/{score}" for test_set in ("sums", "words") for score in ("answer_loss", "token_accuracy")]
    assert sorted(evaluated["settings"]) == names

    def trains(*args, **kwargs):
        raise AssertionError("trained again")

    monkeypatch.setattr(DataSelectingTrainer, "train", trains)
    main(["compare", "--config", str(out / "epochs.yaml")])  # the same without the scenario
    results.main([str(out), "--output_dir", str(tmp_path / "results")])
    found = json.loads((tmp_path / "results" / "out-epochs.json").read_text())
    text = (tmp_path / "results" / "README.md").read_text()
    assert found["runs"] == found["planned"] == 3 and found["held_out"] == {"sums": 12, "words": 12}
    assert str(tmp_path) not in json.dumps(found) + text
    length = next(group for group in found["groups"] if group["method"] == "length")
    pir = length["over_control"]
    assert length["seeds"] == [0] and pir["low"] <= pir["value"] <= pir["high"]
    stated = f"`length 0.25` {pir['value']:.3f} ({pir['low']:.3f} to {pir['high']:.3f})"
    verdict = {"better": "Better than", "worse": "Worse than"}.get(pir["verdict"], "No significant difference from")
    assert re.search(f"{verdict} as many random rows: .*{re.escape(stated)}", text)
    assert "`hf-dataselect scenario out.yaml --equal epochs --methods length --seeds 0`" in text
    assert "leave out the variance between runs: full, length 0.25, random 0.25." in text
    assert text.index("Limits first") < text.index("##")


@pytest.mark.parametrize(
    "changes, said",
    [
        (
            {"pool": [{"dataset": "hub/words", "rows": 100}]},
            "`rows=100` of .*words.jsonl.* it has 48 that can be used",
        ),
        ({"pool": [{"dataset": "none.jsonl", "rows": 4}]}, "there is no file 'none.jsonl'"),
        ({"pool": [{"dataset": "hub/words", "row": 4}]}, "`pool` needs `rows`"),
        ({"pool": [{"dataset": "hub/words", "rows": 4, "splits": "a"}]}, "no option 'splits'; did you mean 'split'"),
        ({"pool": ["hub/words"]}, "`pool` must be a list of mappings"),
        ({"pool": None}, "needs `pool`"),
        ({"held_out": [{"dataset": "hub/words", "rows": 4}]}, "`held_out` must map the name of each test set"),
        ({"held_out": {"target": [{"dataset": "hub/words", "rows": 4}]}}, "'target' can't name a test set"),
        ({"held_out": {"../a": [{"dataset": "hub/words", "rows": 4}]}}, "'../a' can't name a test set"),
        ({"pool_seed": -1}, "`pool_seed=-1` must be at least 0"),
        ({"corrupt": {"fraction": 0.3, "kinds": ["cutt"]}}, "kinds='cutt' must be one of 'shuffled', 'cut', 'wrong'"),
        ({"corrupt": {"kinds": ["cut"]}}, "`corrupt` needs `fraction`"),
        ({"duplicate": {"fraction": 2}}, "`duplicate`: fraction=2.0 must be"),
        ({"questions": "a?"}, "no option 'questions'; did you mean 'question'"),
        ({"compare": {"methods": ["lenght"]}}, "did you mean 'length'"),
        ({"compare": {"budgets": [25]}}, "more rows than the 24"),
        ({"base": "changed.yaml"}, "`base='changed.yaml'` leads back to it"),
        ({"base": "targets"}, "scenario 'targets' does not exist; did you mean 'target'"),
    ],
)
def test_a_wrong_scenario_is_refused_before_a_model_loads(scenario, capsys, monkeypatch, changes, said):
    monkeypatch.setattr(DataSelectingTrainer, "__init__", lambda *args, **kwargs: pytest.fail("a model was loaded"))
    monkeypatch.chdir(scenario.parent)
    with pytest.raises(SystemExit):
        main(command(changed(scenario, **changes)))
    assert re.search(said, capsys.readouterr().err)


def test_wrong_options_of_the_command_are_refused(scenario, tmp_path, capsys):
    for options, said in (
        (["scenario", "taget"], "scenario 'taget' does not exist" + nearest("taget", names())),
        (["scenario", "none.yaml"], "there is no such file"),
        (["scenario"], "`NAME` is required"),
        (command(scenario, "--equal", "epoch"), "`equal='epoch'` does not exist; did you mean 'epochs'"),
        ([*command(scenario)[:2], "--sources", "none.yaml"], "`--sources none.yaml` can't be read"),
        (command(scenario, "--pool_seed", "-1"), "`pool_seed=-1` must be at least 0"),
        (command(scenario, "--config", "other.yaml"), "`--config`: a scenario is its own recipe"),
        (command(scenario, "--learning_rte", "1"), "`learning_rte` (did you mean `learning_rate`?)"),
    ):
        with pytest.raises(SystemExit):
            main(options)
        assert said in capsys.readouterr().err
    assert not list(tmp_path.glob("out/epochs/*"))


def test_a_folder_that_another_process_draws_into_is_refused(scenario, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    with FileLock(tmp_path / "out" / LOCK), pytest.raises(SystemExit):
        main(command(scenario, "--dry_run"))
    assert "is in use" in capsys.readouterr().err and not (tmp_path / "out" / "rows").exists()


def test_drawn_rows_are_not_mixed_with_others_and_not_changed(scenario, tmp_path):
    places = yaml.safe_load((tmp_path / "sources.yaml").read_text())
    places = {name: tmp_path / place for name, place in places.items()}
    mine, folder = load_scenario(str(scenario), places), tmp_path / "rows"
    files = make_rows(mine, folder)
    drawn = {name: path.read_bytes() for name, path in files.items()}
    assert make_rows(mine, folder) == files
    again = make_rows(mine, tmp_path / "again")
    assert drawn == {name: path.read_bytes() for name, path in again.items()}
    mine.pool_seed = 1
    with pytest.raises(ValueError, match=r"drawn by other options \(`pool_seed` was 0, is 1\)"):
        make_rows(mine, folder)
    other = make_rows(mine, tmp_path / "other")
    assert all(path.read_bytes() != drawn[name] for name, path in other.items())
    mine.pool_seed = 0
    files["target"].write_bytes(drawn["target"].replace(b"sum", b"SUM"))
    with pytest.raises(ValueError, match="target.jsonl is missing or was changed"):
        make_rows(mine, folder)
    files["target"].unlink()
    with pytest.raises(ValueError, match="target.jsonl is missing or was changed"):
        make_rows(mine, folder)
