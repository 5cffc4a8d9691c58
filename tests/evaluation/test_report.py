"""The report: what it reads from run folders, what it says, and what it writes."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset

from hf_dataselect.cli import main
from hf_dataselect.evaluation.benchmarks import Setting, as_json
from hf_dataselect.evaluation.report import _width, add_rows, compare_runs, to_markdown, write_report
from hf_dataselect.preprocessing.records import Records
from hf_dataselect.run_folder import write_evaluation, write_recipe, write_selection
from hf_dataselect.selector import Selection


ROWS = 12


def make_run(folder: Path, method: str = "full", loss: float = 2.0, accuracy: float = 0.5, **more) -> Path:
    """A finished run: `rows` it kept, `selection` and `evaluation` entries, `recipe` options."""
    rows = np.array(more.pop("rows", range(ROWS)), np.int64)
    scores = np.array(more.pop("scores", np.linspace(0, 1, ROWS)), np.float32)
    selection = {"seconds": 0.0, "facts": {"dataset": "these rows"}} | more.pop("selection", {})
    write_selection(folder, Selection(method, {}, rows, scores, budget=len(rows), **selection))
    settings = {"answer_loss": Setting(loss, False, [loss]), "token_accuracy": Setting(accuracy, True, [accuracy])}
    evaluation = {"settings": as_json(settings), "train_seconds": 100.0, "protocol": {"": {"rows": "held out"}}}
    write_evaluation(folder, evaluation | more.pop("evaluation", {}))
    write_recipe(folder, {"selection_method": method, "learning_rate": 1e-3, "output_dir": str(folder)} | more)
    return folder


@pytest.fixture
def runs(tmp_path) -> list[Path]:
    return [
        make_run(tmp_path / "ifd", "ifd", 1.6, 0.4, rows=[11, 10, 9], selection={"seconds": 30.0}),
        make_run(tmp_path / "full"),
        make_run(tmp_path / "random", "random", 2.5, 0.5, rows=[0, 5, 7]),
    ]


def candidates(column: str = "fault") -> Records:
    faults = [None] * 6 + ["cut"] * 4 + ["false"] * 2
    return Records(
        Dataset.from_list(
            [
                {"instruction": f"Question {i}?", "input": "", "output": f"Answer {i} " * 20, column: fault}
                for i, fault in enumerate(faults)
            ]
        )
    )


def test_the_baseline_comes_first_and_the_others_are_measured_against_it(runs):
    found = compare_runs(runs)
    assert [run.name for run in found.runs] == ["full", "ifd", "random"] and found.baseline is found.runs[0]
    full, ifd, random = found.runs
    assert full.pir is None and full.str_ratio is None
    assert ifd.pir.settings == pytest.approx({"answer_loss": 1.25, "token_accuracy": 0.8})
    assert ifd.pir.value == pytest.approx(1.025) and ifd.str_ratio == pytest.approx(0.3)
    assert random.pir.value == pytest.approx(0.9) and random.str_ratio == 0


def test_the_verdict_compares_with_everything_and_with_the_control(runs):
    text = to_markdown(compare_runs(runs))
    assert "ifd: 2.5% better than training on everything, 13.9% better than as many random rows" in text
    assert "random: 10.0% worse than training on everything, with 25.0% of the rows." in text
    assert "may be chance" in text


def test_a_control_of_another_size_is_no_control(runs, tmp_path):
    make_run(tmp_path / "random", "random", rows=[0, 1])
    assert "random rows" not in to_markdown(compare_runs(runs))


@pytest.mark.parametrize("loss, accuracy", [(math.nan, math.nan), (math.nan, 0.0)])
def test_a_control_without_a_pir_is_not_compared_with(runs, tmp_path, loss, accuracy):
    make_run(tmp_path / "random", "random", loss, accuracy, rows=[0, 5, 7])
    assert "random rows" not in to_markdown(compare_runs(runs))


def test_selecting_that_costs_more_than_training_on_everything_is_said(runs, tmp_path):
    make_run(tmp_path / "ifd", "ifd", rows=[1], selection={"seconds": 101.0})
    assert "ifd: selecting alone took longer than training on everything" in to_markdown(compare_runs(runs))


def test_rows_left_aside_and_cached_scores_are_named(runs, tmp_path):
    account = {"unscorable": {"empty answer": [1, 2]}, "dropped": {"IFD above 1": [3]}, "passes": {"cached_rows": 24}}
    make_run(tmp_path / "ifd", "ifd", rows=[9], selection=account | {"seconds": 30.0, "cached_seconds": 12.0})
    text = to_markdown(compare_runs(runs))
    assert "ifd: 2 rows unscorable: empty answer." in text and "ifd: 1 row dropped: IFD above 1." in text
    assert "ifd: 24 scores came from the cache; it spared 12.0 of the 30.0 selection seconds" in text


def test_several_full_runs_need_a_choice(runs, tmp_path):
    runs.append(make_run(tmp_path / "full2", loss=4.0))
    with pytest.raises(ValueError, match="full, full2.*--baseline"):
        compare_runs(runs)
    found = compare_runs(runs, baseline=tmp_path / "full2")
    assert found.baseline.name == "full2" and found.runs[1].pir.settings["answer_loss"] == 2.5


def test_the_baseline_may_be_named_in_another_way_and_need_not_be_listed(runs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert len(compare_runs(runs, baseline=Path("random")).runs) == 3
    assert [run.name for run in compare_runs(runs[:1], baseline=Path("full")).runs] == ["full", "ifd"]


def test_without_a_baseline_there_is_no_pir(runs):
    found = compare_runs([runs[0], runs[2]])
    assert found.baseline is None and all(run.pir is None for run in found.runs)
    assert "PIR and STR need a baseline" in to_markdown(found)


def test_folders_of_one_name_are_told_apart(runs, tmp_path):
    other = make_run(tmp_path / "more" / "ifd", "ifd", rows=[3, 4, 5])
    names = [run.name for run in compare_runs([*runs, other]).runs]
    assert names == ["full", str(runs[0]), "random", str(other)]


def test_a_folder_without_a_finished_run_is_refused(runs, tmp_path):
    with pytest.raises(ValueError, match="`runs='.*nothing'` is not the folder of a finished, evaluated run"):
        compare_runs([*runs, tmp_path / "nothing"])
    (runs[0] / "scores.parquet").unlink()
    with pytest.raises(ValueError, match="holds no readable selection"):
        compare_runs(runs)


def test_scores_of_zero_and_nan_are_left_out_of_pir_by_name(runs, tmp_path):
    make_run(tmp_path / "full", accuracy=0.0)
    make_run(tmp_path / "random", "random", math.nan, rows=[1])
    found = compare_runs(runs)
    assert list(found.runs[1].pir.settings) == ["answer_loss"] and math.isnan(found.runs[2].pir.value)
    text = to_markdown(found)
    assert "ifd: left out of the PIR: token_accuracy: no ratio of 0.4 and 0." in text
    assert "nan" not in text.split("##")[1].splitlines()[4]


def test_runs_evaluated_otherwise_have_no_pir(runs, tmp_path):
    make_run(tmp_path / "ifd", "ifd", rows=[1], evaluation={"protocol": {"": {"rows": "others"}}})
    found = compare_runs(runs)
    assert math.isnan(found.runs[1].pir.value)
    assert "ifd: left out of the PIR: all: evaluated on other rows" in to_markdown(found)


def test_other_training_or_rows_are_pointed_out(runs, tmp_path):
    assert "differs from the baseline" not in to_markdown(compare_runs(runs))
    make_run(tmp_path / "ifd", "ifd", rows=[1], learning_rate=1e-4, num_train_epochs=9)
    make_run(tmp_path / "random", "random", rows=[1], selection={"facts": {"dataset": "others"}})
    text = to_markdown(compare_runs(runs))
    assert "ifd: differs from the baseline in more than the rows: `learning_rate`, `num_train_epochs`." in text
    assert "random: differs from the baseline in more than the rows: the candidate rows." in text


def test_scores_before_training_are_shown_where_they_are_known(runs, tmp_path):
    assert "before training" not in to_markdown(compare_runs(runs))
    make_run(tmp_path / "full", evaluation={"history": [{"step": 0, "benchmark/answer_loss": 3.25}]})
    text = to_markdown(compare_runs(runs))
    assert "before training" in text and "3.2500" in text


def test_tallies_and_examples_of_the_candidate_rows(runs):
    found, records = compare_runs(runs), candidates()
    add_rows(found, records, "fault", examples=2)
    assert found.tallies["candidates"] == {"none": 6, "cut": 4, "false": 2}
    assert found.tallies["ifd"] == {"none": 0, "cut": 1, "false": 2}
    assert found.tallies["random"] == {"none": 2, "cut": 1, "false": 0}
    shown = found.examples["ifd"]
    assert [f"{row['what']} {row['row']}" for row in shown] == ["kept 11", "kept 10", "left out 0", "left out 1"]
    assert shown[0]["`fault`"] == "false" and shown[0]["prompt"] == "Question 11?" and shown[0]["answer"].endswith("…")
    assert set(found.examples) == {"ifd"}  # the others did not score
    text = to_markdown(found)
    assert " 4 (33%) |" in text and "Rows kept by `fault`" in text


def test_dropped_rows_are_shown_apart(runs, tmp_path):
    make_run(tmp_path / "ifd", "ifd", rows=[9], selection={"dropped": {"IFD above 1": [2, 11]}})
    found = compare_runs(runs)
    add_rows(found, candidates(), examples=1)
    shown = [f"{row['what']} {row['row']}" for row in found.examples["ifd"]]
    assert shown == ["kept 9", "left out 0", "dropped 2"]


def test_other_rows_and_unknown_columns_are_refused(runs):
    found, records = compare_runs(runs), candidates()
    with pytest.raises(ValueError, match="no column 'colour'"):
        add_rows(found, records, "colour")
    with pytest.raises(ValueError, match="chose from 12 rows, not from 3"):
        add_rows(found, Records(records.dataset.select(range(3))))


def test_tables_line_up_also_with_wide_characters(runs):
    found = compare_runs(runs)
    add_rows(found, candidates())
    found.examples["ifd"][0]["answer"] = "春天来了,花儿开了。"
    tables, table = [], []
    for line in [*to_markdown(found).splitlines(), ""]:
        if line.startswith("|"):
            table.append(_width(line))
        elif table:
            tables.append(table)
            table = []
    assert len(tables) == 3 and all(len(set(widths)) == 1 for widths in tables)


def test_the_report_is_written_with_a_picture(runs, tmp_path):
    pytest.importorskip("matplotlib")
    found = compare_runs(runs)
    add_rows(found, candidates(), "fault")
    paths = write_report(found, tmp_path / "new" / "report")
    assert [path.name for path in paths] == ["report.md", "report.json", "report.png"]
    assert paths[0].read_text() == to_markdown(found) + "\n"
    written = json.loads(paths[1].read_text())
    assert written["runs"][1]["pir"]["kind"] == "benchmark ratio" and written["tallies"]["ifd"]["cut"] == 1
    assert paths[2].read_bytes().startswith(b"\x89PNG") and paths[2].stat().st_size > 10_000


def test_a_picture_is_drawn_of_whatever_there_is(runs, tmp_path):
    pytest.importorskip("matplotlib")
    make_run(tmp_path / "random", "random", math.nan, math.nan, rows=[1])
    make_run(tmp_path / "ifd", "ifd", rows=[1], scores=[math.nan] + [1.0] * (ROWS - 1))
    for chosen in (runs, runs[1:2], [runs[0]], [runs[2]]):
        assert write_report(compare_runs(chosen), tmp_path / "report")[-1].suffix == ".png"


def test_the_command_reads_folders_and_rows(runs, tmp_path, capsys):
    candidates().dataset.to_json(tmp_path / "rows.jsonl")
    rows = ["--dataset_name", str(tmp_path / "rows.jsonl"), "--count_by", "fault"]
    main(["report", *map(str, runs), *rows, "--output_dir", str(tmp_path / "report")])
    printed = capsys.readouterr().out
    assert "## Rows kept by `fault`" in printed and str(tmp_path / "report" / "report.md") in printed
    with pytest.raises(SystemExit):
        main(["report", str(tmp_path / "nothing")])
    assert "hf-dataselect: error: `runs=" in capsys.readouterr().err
