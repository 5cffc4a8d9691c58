"""What a report names, leaves out by name, and refuses."""

import math
from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset

from hf_dataselect.data.records import Records
from hf_dataselect.evaluation.comparison import comparison
from hf_dataselect.evaluation.comparison.comparison import add_rows, compare_runs
from hf_dataselect.evaluation.report.report import to_markdown
from hf_dataselect.evaluation.report.sections import sections
from tests.reported_runs import ROWS, candidates, make_run


def test_choosing_alike_is_measured(runs, tmp_path):
    scores = np.linspace(0, 1, ROWS)
    runs.append(make_run(tmp_path / "other", "length", rows=[11, 10, 2], scores=-scores))
    pairs = {(a.name, b.name): (shared, correlation) for a, b, shared, correlation in compare_runs(runs).overlaps()}
    assert pairs["ifd", "other"] == (0.5, pytest.approx(-1.0)) and pairs["ifd", "random"] == (0.0, None)
    assert len(pairs) == 3 and "-1.00 |" in to_markdown(sections(compare_runs(runs)))


def test_failed_benchmarks_and_held_out_rows_without_a_score_are_named(runs, tmp_path):
    evaluation = {"failed": {"mt": "no server."}, "unscorable": {"no answer": [1, 2, 3]}}
    make_run(tmp_path / "ifd", "ifd", rows=[1], evaluation=evaluation)
    text = to_markdown(sections(compare_runs(runs)))
    assert "ifd: the benchmark 'mt' failed: no server." in text
    assert "held out, unscorable: no answer" in text


def test_a_column_of_many_values_is_counted_by_the_commonest(runs, monkeypatch):
    records = Records(candidates().dataset.add_column("score", ["a", "a", "b", "b", *"cdefghij"]))
    monkeypatch.setattr(comparison, "VALUES_SHOWN", 3)
    found = compare_runs(runs)
    for run in (run for group in found.groups for run in group.runs):
        del run.selection.facts["dataset"]  # these rows have a column more
    add_rows(found, records, "score")
    assert found.tallies["candidates"] == {"a": 2, "b": 2, "others": 8}
    assert found.examples["ifd"][0]["score"] == 1.0 and found.examples["ifd"][0]["`score`"] == "others"


def test_other_rows_of_the_same_number_are_refused(runs):
    rows = [{"instruction": "Another", "input": "", "output": "row"}] * ROWS
    with pytest.raises(ValueError, match="different rows"):
        add_rows(compare_runs(runs), Records(Dataset.from_list(rows)))


def test_selecting_that_costs_more_than_training_on_everything_is_said(runs, tmp_path):
    make_run(tmp_path / "ifd", "ifd", rows=[1], selection={"seconds": 101.0})
    assert "ifd: selection took 1.0 times as long as training on everything" in to_markdown(
        sections(compare_runs(runs))
    )


def test_rows_left_aside_and_cached_scores_are_named(runs, tmp_path):
    account = {"unscorable": {"empty answer": [1, 2]}, "dropped": {"IFD above 1": [3]}, "passes": {"cached_rows": 24}}
    account["facts"] = {"judge": {"name": "x", "cost": {"calls": 7, "failed": 0}}}
    gib = 2**30
    account["peak_memory"] = {"process": 3 * gib, "process_before": gib, "gpu": 5 * gib, "gpu_before": gib // 2}
    make_run(tmp_path / "ifd", "ifd", rows=[9], selection=account | {"seconds": 30.0, "cached_seconds": 12.0})
    text = to_markdown(sections(compare_runs(runs)))
    accounted = text.split("## Row accounting")[1]
    lines = [" ".join(line.replace("|", " ").split()) for line in accounted.splitlines()]
    for line in ("ifd candidates 12", "ifd unscorable: empty answer 2", "ifd dropped: IFD above 1 1", "ifd kept 1"):
        assert line in lines
    memory = "process 3.00 GiB, of it 1.00 GiB held before; gpu 5.00 GiB, of it 0.50 GiB held before"
    assert f"ifd peak memory of the selection {memory}" in lines
    assert "ifd rows and tokens through models cached rows 24" in lines and "ifd calls of the judge x calls 7" in lines
    assert "ifd scores read from the cache 24, which saved 12.0 of the 30.0 selection seconds" in lines


def test_several_full_runs_need_a_choice(runs, tmp_path):
    runs.append(make_run(tmp_path / "full2", loss=4.0))
    with pytest.raises(ValueError, match="full, full2.*--baseline"):
        compare_runs(runs)
    found = compare_runs(runs, baseline=tmp_path / "full2")
    assert found.baseline.name == "full2" and found.groups[1].pir.settings["answer_loss"] == 2.5


def test_the_baseline_may_be_named_in_another_way_and_need_not_be_listed(runs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert len(compare_runs(runs, baseline=Path("random")).groups) == 3
    assert [run.name for run in compare_runs(runs[:1], baseline=Path("full")).groups] == ["full", "ifd"]


def test_without_a_baseline_there_is_no_pir(runs):
    found = compare_runs([runs[0], runs[2]])
    assert found.baseline is None and all(run.pir is None for run in found.groups)
    assert "PIR and STR need a baseline" in to_markdown(sections(found))


def test_folders_of_one_name_are_told_apart(runs, tmp_path):
    other = make_run(tmp_path / "more" / "ifd", "ifd", rows=[3, 4, 5])
    names = [run.name for run in compare_runs([*runs, other]).groups]
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
    assert list(found.groups[1].pir.settings) == ["answer_loss"] and math.isnan(found.groups[2].pir.value)
    text = to_markdown(sections(found))
    assert "ifd: excluded from the PIR (benchmark ratio): token_accuracy: no ratio of 0.4 and 0." in text
    assert "| nan" not in text


def test_runs_evaluated_otherwise_have_no_pir(runs, tmp_path):
    make_run(tmp_path / "ifd", "ifd", rows=[1], evaluation={"protocol": {"": {"rows": "others"}}})
    found = compare_runs(runs)
    assert math.isnan(found.groups[1].pir.value)
    assert "ifd: excluded from the PIR (benchmark ratio): all: evaluated on different" in to_markdown(sections(found))


def test_other_training_or_rows_are_pointed_out(runs, tmp_path):
    assert "differs from the baseline" not in to_markdown(sections(compare_runs(runs)))
    make_run(tmp_path / "ifd", "ifd", rows=[1], learning_rate=1e-4, num_train_epochs=9)
    make_run(tmp_path / "random", "random", rows=[1], selection={"facts": {"dataset": "others"}})
    text = to_markdown(sections(compare_runs(runs)))
    assert "ifd: differs from the baseline not only in its rows: `learning_rate`, `num_train_epochs`." in text
    assert "random: differs from the baseline not only in its rows: the candidate rows." in text


def test_a_guard_is_another_training_only_where_a_policy_may_follow_it(runs, tmp_path):
    guard = {"guard_dataset": {"math": "math.jsonl"}, "guard_harm": 0.1}
    make_run(tmp_path / "ifd", "ifd", rows=[1], **guard)
    assert "differs from" not in to_markdown(sections(compare_runs(runs)))
    make_run(tmp_path / "ifd", "ifd", rows=[1], selection_policy="domains", **guard)
    compared = compare_runs(runs)
    group = next(group for group in compared.groups if group.method == "ifd")
    assert set(group.differences(compared.baseline)) == {"`selection_policy`", "`guard_dataset`", "`guard_harm`"}


def test_scores_before_training_are_shown_where_they_are_known(runs, tmp_path):
    assert "before training" not in to_markdown(sections(compare_runs(runs)))
    make_run(tmp_path / "full", evaluation={"history": [{"step": 0, "benchmark/answer_loss": 3.25}]})
    text = to_markdown(sections(compare_runs(runs)))
    assert "before training" in text and "3.2500" in text


def test_tallies_and_examples_of_the_candidate_rows(runs):
    found, records = compare_runs(runs), candidates()
    add_rows(found, records, "fault", examples=2)
    assert found.tallies["candidates"] == {"none": 6, "cut": 4, "false": 2}
    assert found.tallies["ifd"] == {"none": 0, "cut": 1, "false": 2}
    assert found.tallies["random"] == {"none": 2, "cut": 1, "false": 0}
    shown = found.examples["ifd"]
    assert [f"{row['what']} {row['row']}" for row in shown] == ["kept 11", "kept 10", "not kept 0", "not kept 1"]
    assert (
        shown[0]["`fault`"] == "false"
        and shown[0]["prompt"] == "Question 11?"
        and shown[0]["answer"].startswith("Answer 11")
    )
    assert set(found.examples) == {"ifd"}  # the others did not score
    text = to_markdown(sections(found))
    assert " 4 (33%) |" in text and "Rows kept by `fault`" in text


def test_dropped_rows_are_shown_apart(runs, tmp_path):
    make_run(tmp_path / "ifd", "ifd", rows=[9], selection={"dropped": {"IFD above 1": [2, 11]}})
    found = compare_runs(runs)
    add_rows(found, candidates(), examples=1)
    shown = [f"{row['what']} {row['row']}" for row in found.examples["ifd"]]
    assert shown == ["kept 9", "not kept 0", "dropped 2"]


def test_other_rows_and_unknown_columns_are_refused(runs):
    found, records = compare_runs(runs), candidates()
    with pytest.raises(ValueError, match="no column 'colour'"):
        add_rows(found, records, "colour")
    with pytest.raises(ValueError, match="selected from 12 rows, not from these 3"):
        add_rows(found, Records(records.dataset.select(range(3))))
