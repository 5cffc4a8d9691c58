"""The decision table: its facts are shown with their sources, and its measured rows are those of the results."""

import json
import re
from pathlib import Path

import pytest

from benchmarks import decisions as benchmark
from hf_dataselect.cli.main import main
from hf_dataselect.evaluation.decisions import READ, decision_table, decisions, measured
from hf_dataselect.registry import method_names
from hf_dataselect.training.scenario import names


ROOT = Path(__file__).parents[2]


def test_methods_for_a_question_say_what_is_measured_and_published(capsys):
    for question, found in decisions()["questions"].items():
        main(["methods", "--for", question])
        printed = capsys.readouterr().out
        assert found["try"] in printed and set(found["scenarios"]) <= set(names())
        for row in (row for row in decisions()["published"] if row["question"] == question):
            assert row["gain"] in printed and f"arXiv {row['source']}, {row['date']}, {READ[row['read']]}" in printed
        for row in measured(question):
            pir = row["over_random"]
            assert f"{pir['value']:.3f} | {pir['low']:.3f} to {pir['high']:.3f} | " in re.sub(" +", " ", printed)
    for wrong, said in (
        (["--for", "tagret"], "did you mean 'target'"),
        (["ifd", "--for", "noise"], "give one of both"),
    ):
        with pytest.raises(SystemExit):
            main(["methods", *wrong])
        assert said in capsys.readouterr().err


def test_facts_name_methods_and_questions_that_exist():
    asked = decisions()["questions"]
    for row in decisions()["published"] + decisions()["measured"]:
        assert row["question"] in asked
    for found in asked.values():
        named = {name.split(":")[0] for name in re.findall("`([^`]+)`", found["try"])}
        assert named <= {*method_names(), "rule", "selection_diversity", "subtask"}


def test_the_decision_table_is_that_of_the_results():
    assert decision_table() in (ROOT / "README.md").read_text(encoding="utf-8"), "run benchmarks/decisions.py results"
    found = [json.loads(path.read_text(encoding="utf-8")) for path in sorted((ROOT / "results").glob("*.json"))]
    assert decisions()["measured"] == benchmark.decided(found), "run benchmarks/decisions.py results"


@pytest.fixture
def result() -> dict:
    """A comparison of a scenario, as its file of results has it."""
    pir = {"value": 1.07123, "low": 1.05, "high": 1.09, "verdict": "better", "interval": "", "settings": {}}
    group = {"method": "rds", "budget": 0.1, "seeds": [0, 1], "str": 0.04, "over_control": pir, "over_baseline": None}
    full = {"method": "full", "budget": None, "seeds": [0], "kept": 320, "over_control": None}
    control = group | {"method": "random"}
    return {
        "scenario": "noisy-10-pool1",
        "pool_seed": 1,
        "equal": "updates",
        "model": "tiny",
        "groups": [full, control, group],
    }


def test_results_become_rows_of_the_question_that_their_scenario_asks(result, tmp_path):
    unknown = result | {"scenario": "mine", "pool_seed": 0}
    (row,) = benchmark.decided([unknown, result])
    assert row["question"] == "noise" and row["scenario"] == "noisy-10-pool1" and row["equal"] == "updates"
    assert row["over_random"] == {"value": 1.07123, "low": 1.05, "high": 1.09, "verdict": "better"}
    assert (row["method"], row["budget"], row["seeds"], row["rows"]) == ("rds", 0.1, 2, 320)
    package, readme = tmp_path / "hf_dataselect" / "evaluation" / "decisions.json", tmp_path / "README.md"
    package.parent.mkdir(parents=True)
    readme.write_text(f"before\n\n{decision_table()}\n\nafter\n")
    before = readme.read_text()
    benchmark.write(decisions()["measured"], tmp_path)
    assert readme.read_text() == before
    assert package.read_bytes() == (ROOT / package.relative_to(tmp_path)).read_bytes()
    benchmark.write([row], tmp_path)
    assert json.loads(package.read_text()) == decisions() | {"measured": [row]}
