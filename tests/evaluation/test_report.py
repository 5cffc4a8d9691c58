"""The report: from run folders alone, against the right baseline, with rows and a picture."""

import json

import numpy as np
import pytest
from datasets import Dataset

from hf_dataselect.evaluation.report import add_rows, compare_runs, to_markdown, write_report
from hf_dataselect.preprocessing.records import Records
from hf_dataselect.run_folder import write_evaluation, write_selection
from hf_dataselect.selector import Selection


def write_run(folder, method: str, kept: list[int], loss: float, accuracy: float, seconds=(1.0, 10.0)):
    scores = np.linspace(1, 0, 8, dtype=np.float32)
    scores[7] = np.nan
    selection = Selection(method, {}, np.array(kept), scores, 0.5, seconds[0])
    selection.unscorable, selection.dropped = {"no answer": [7]}, {"IFD above 1": [6]}
    write_selection(folder, selection)
    settings = {
        "answer_loss": {"score": loss, "higher_is_better": False, "examples": [loss]},
        "token_accuracy": {"score": accuracy, "higher_is_better": True, "examples": [accuracy]},
    }
    write_evaluation(folder, {"method": method, "train_seconds": seconds[1], "settings": settings, "history": []})
    return folder


@pytest.fixture
def runs(tmp_path):
    full = write_run(tmp_path / "bm", "full", list(range(8)), 2.0, 0.5)
    ifd = write_run(tmp_path / "ifd", "ifd", [0, 1, 2, 3], 1.6, 0.6, seconds=(30.0, 5.0))
    return [ifd, full]


def rows() -> Records:
    faults = [None, "cut", None, "wrong", None, "cut", "wrong", None]
    table = {"instruction": [f"question {i}" for i in range(8)], "output": [f"answer {i}" for i in range(8)]}
    return Records(Dataset.from_dict(table | {"fault": faults}))


def test_runs_are_measured_against_the_one_of_full(runs):
    found = compare_runs(runs)
    assert [run.name for run in found.runs] == ["bm", "ifd"] and found.baseline.name == "bm"
    ifd = found.runs[1]
    assert ifd.pir.settings == {"answer_loss": pytest.approx(1.25), "token_accuracy": pytest.approx(1.2)}
    assert ifd.str_ratio == pytest.approx(3.0)
    text = to_markdown(found)
    assert "1.225" in text and "benchmark ratio" in text and "0.500" in text
    assert "no answer" in text and "IFD above 1" in text
    assert "took longer than training on everything" in text, "STR above 1 is said in words"


def test_two_baselines_have_to_be_told_apart(runs, tmp_path):
    other = write_run(tmp_path / "bm2", "full", list(range(8)), 2.1, 0.4)
    with pytest.raises(ValueError, match="--baseline"):
        compare_runs([*runs, other])
    assert compare_runs([*runs, other], other).baseline.name == "bm2"


def test_without_a_baseline_there_is_no_pir(runs):
    found = compare_runs(runs[:1])
    assert found.baseline is None and found.runs[0].pir is None and to_markdown(found)


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(ValueError, match="not the folder of a finished"):
        compare_runs([tmp_path])


def test_rows_kept_are_counted_and_shown(runs):
    found = compare_runs(runs)
    add_rows(found, rows(), "fault")
    assert found.tallies["ifd"] == {"none": 2, "cut": 1, "wrong": 1} or sorted(found.tallies["ifd"].values()) == [
        1,
        1,
        2,
    ]
    assert sum(found.tallies["candidates"].values()) == 8
    shown = found.examples["ifd"]
    assert {row["what"] for row in shown} == {"kept", "left out", "dropped"}
    assert "question 0" in to_markdown(found)


def test_rows_of_another_dataset_are_refused(runs):
    found = compare_runs(runs)
    with pytest.raises(ValueError, match="8 rows"):
        add_rows(found, Records(Dataset.from_dict({"text": ["a"]})))
    with pytest.raises(ValueError, match="no column"):
        add_rows(found, rows(), "faults")


def test_report_files_are_written(runs, tmp_path):
    found = compare_runs(runs)
    add_rows(found, rows(), "fault")
    paths = write_report(found, tmp_path / "report")
    assert {path.name for path in paths} >= {"report.md", "report.json"}
    content = json.loads((tmp_path / "report" / "report.json").read_text())
    assert len(content["runs"]) == 2
    pytest.importorskip("matplotlib")
    assert (tmp_path / "report" / "report.png").read_bytes()[:4] == b"\x89PNG"
