"""Which runs are seeds of one, and which have a rank or a judge's word."""

import json
import math
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from hf_dataselect.evaluation.benchmark import Setting, as_json
from hf_dataselect.evaluation.comparison.comparison import add_wins, compare_runs
from hf_dataselect.evaluation.report.picture import draw
from hf_dataselect.evaluation.report.report import to_markdown, write_report
from hf_dataselect.evaluation.report.sections import sections
from hf_dataselect.runs.folder import read_evaluation, write_evaluation
from tests.evaluation.judging.test_win_rate import Scripted
from tests.reported_runs import ROWS, answered, candidates, make_run, tables


def test_seeds_are_put_together_and_measured_against_the_baselines_of_all_seeds(tmp_path):
    folders = []
    for seed, loss in enumerate((1.9, 2.0, 2.1)):
        facts = {"facts": {"dataset": "rows", "seed": seed}, "seconds": 10.0 * seed}
        folders.append(make_run(tmp_path / f"full-{seed}", loss=2 * loss, noise=0.2, selection=facts, seed=seed))
        for rows in ([1, 2, 3], [1, 2, 3, 4]):
            folder = tmp_path / f"ifd-{len(rows)}-{seed}"
            folders.append(make_run(folder, "ifd", loss, noise=0.1, rows=rows, selection=facts, seed=seed))
    found = compare_runs(folders)
    assert [group.name for group in found.groups] == ["full", "ifd 3", "ifd 4"]
    assert [len(group.runs) for group in found.groups] == [3, 3, 3]
    ifd = found.groups[1]
    assert ifd.pir.settings["answer_loss"] == pytest.approx(2) and ifd.str_ratio == pytest.approx(0.1)
    assert ifd.pir.low < 2 < ifd.pir.high and "3 + 3 runs" in ifd.pir.interval
    text = to_markdown(sections(found))
    reason = "no judge compared the answers of all its runs; not estimated: "
    assert [reason in line for line in unranked(text)] == [True, True]
    assert "| seeds |" in text and "1.00 |" in text.split("## Overlap of")[1]
    assert [picture.name for picture in draw(found)][:2] == ["ratios", "curves"]


@pytest.mark.parametrize(
    "facts",
    [
        [{"target": "a"}, {"target": "b"}],
        [{"diversity": None}, {"diversity": {"threshold": 0.9}}],
        [{"judge": {"name": name, "cost": {"calls": 3}}} for name in ("openai:a", "openai:b")],
        [{"dtype": "float32"}, {"dtype": "bfloat16"}],
    ],
    ids=lambda facts: next(iter(facts[0])),
)
def test_runs_that_chose_by_something_else_are_no_seeds_of_each_other(facts, tmp_path):
    def run(seed: int, fact: dict) -> Path:
        facts = {"seed": seed, "dataset": candidates().content_hash()} | fact
        return make_run(tmp_path / f"rds{seed}", "rds", rows=[1, 2], selection={"facts": facts})

    found = compare_runs([run(seed, fact) for seed, fact in enumerate(facts)])
    assert [len(group.runs) for group in found.groups] == [1, 1]
    (rows,) = [section.table.rows for section in sections(found) if section.title == "Reproduction"]
    assert rows[0][-1] != rows[1][-1]
    alike = compare_runs([run(seed, facts[0]) for seed in (2, 3)])
    assert [len(group.runs) for group in alike.groups] == [2]


def test_runs_of_other_training_are_no_seeds_of_each_other(tmp_path):
    facts = [{"facts": {"dataset": "these rows", "seed": seed}} for seed in (0, 1)]
    runs = [make_run(tmp_path / "full"), make_run(tmp_path / "a", "ifd", rows=[1], selection=facts[0])]
    runs.append(make_run(tmp_path / "b", "ifd", rows=[1], selection=facts[1], learning_rate=1.0))
    assert [group.name for group in compare_runs(runs).groups] == ["full", "a", "b"]


def on_one_setting(folder: Path, method: str, loss: float, spread: float = 0.01, examples: int = 60) -> Path:
    """A run of the mean `loss`, of which every example has a value."""
    values = np.random.default_rng([ord(letter) for letter in folder.name]).normal(0, spread, examples)
    settings = {"answer_loss": Setting(loss, False, list(loss + values - values.mean()) if examples else None)}
    return make_run(folder, method, rows=[3, 4, 5], evaluation={"settings": as_json(settings)})


def unranked(text: str) -> list[str]:
    return text.split("## Efficiency: runs without a rank\n\n")[1].split("\n\n")[0].replace("- ", "").split("\n")


@pytest.mark.parametrize(
    "loss, spread, examples, why",
    [
        (2.0, 0.0, 60, "its interval holds 1 (1.0000 to 1.0000)"),
        (2.01, 0.4, 60, r"its interval holds 1 \(0\.9\d+ to 1\.0\d+\)"),
        (2.0 / 0.97, 0.0, 0, "its benchmark ratio has no interval"),
        (2.0 / 0.97, 0.01, 9, "its benchmark ratio has no interval"),
        (2.0 / 1.2, 0.0, 60, "its benchmark ratio 1.2000 (1.2000 to 1.2000) is outside the range 0.949 to 1.01 in"),
        (2.0 / 0.8, 0.0, 60, "its benchmark ratio 0.8000 (0.8000 to 0.8000) is outside the range 0.949 to 1.01 in"),
        (
            2.0 / 0.951,
            0.05,
            60,
            r"its benchmark ratio 0\.9510 \(0\.94\d+ to .*\) is outside the range 0\.949 to 1\.01 in",
        ),
    ],
)
def test_a_run_that_no_judge_compared_is_neither_ranked_nor_mapped_where_that_is_not_known(
    tmp_path, loss, spread, examples, why
):
    found = compare_runs(
        [
            on_one_setting(tmp_path / "full", "full", 2.0, spread, examples),
            on_one_setting(tmp_path / "ifd", "ifd", loss, spread, examples),
        ]
    )
    assert found.efficiencies() == [] and [math.isnan(item.point.pir) for item in found.unranked()] == [True]
    text = to_markdown(sections(found), draw(found))
    (line,) = unranked(text)
    assert line.startswith("ifd (SDF 0.250): no judge compared its answers; not estimated: its ")
    assert why in line or re.search(why, line), line
    assert "plane" not in [picture.name for picture in draw(found)]
    assert "(wins scale)" not in text and "AlpaGasus" not in text and "1.44" not in text


def test_an_estimate_stands_apart_without_a_rank(tmp_path):
    full, ifd = (on_one_setting(tmp_path / name, name, loss) for name, loss in (("full", 2.0), ("ifd", 2.0 / 0.97)))
    found = compare_runs([full, ifd])
    assert found.efficiencies() == []
    (item,) = found.unranked()
    slope = (1.475 - 1.284) / (1.01 - 0.949)
    assert item.point == ("ifd", 0.25, pytest.approx(1.284 + slope * (0.97 - 0.949)))
    ends = [1.284 + slope * (end - 0.949) for end in (found.groups[1].pir.low, found.groups[1].pir.high)]
    pictures = {picture.name: picture for picture in draw(found)}
    (line,) = unranked(to_markdown(sections(found), pictures.values()))
    assert line == (
        f"ifd (SDF 0.250): no judge compared its answers; estimated PIR (wins scale) 1.350 ({ends[0]:.3f} to "
        f"{ends[1]:.3f} without the error of the line), from its benchmark ratio."
    )
    assert pictures["plane"].alt.endswith(": ifd at 25.0%, 1.350 (estimated, no rank).")
    (report,) = (path for path in write_report(found, tmp_path / "report") if path.name == "report.json")
    written = json.loads(report.read_text())
    assert written["efficiency"] == [] and written["unranked"][0]["pir"] == pytest.approx(item.point.pir)
    # Beside a run that a judge compared it stays apart; and so it does once a judge compared it without a result.
    answered(full, [5] * 30)
    answered(on_one_setting(tmp_path / "IFD", "ifd", 1.6), [9] * 20 + [5] * 4 + [1] * 6)
    found = compare_runs([full, ifd, tmp_path / "IFD"])
    add_wins(found, Scripted())
    rows = {row["method"]: row["rank"] for row in tables(to_markdown(sections(found)))["Efficiency"]}
    assert len(rows) == 10 and rows["IFD (this comparison)"] == "1" and rows["IFD"] == "2" and "ifd" not in str(rows)
    (plane,) = (picture for picture in draw(found) if picture.name == "plane")
    assert plane.alt.endswith(": IFD at 25.0%, 3.333; ifd at 25.0%, 1.350 (estimated, no rank).")
    answered(ifd, [9] * 30)
    found = compare_runs([full, ifd])
    add_wins(found, Scripted())
    assert unranked(to_markdown(sections(found))) == [
        "ifd (SDF 0.250): its wins rate has no value (all: no ratio of 30 wins and 0 losses)."
    ]
    assert math.isnan(found.unranked()[0].point.pir)


def test_a_wins_rate_whose_interval_has_no_upper_end_has_no_rank(tmp_path):
    full, ifd = (on_one_setting(tmp_path / name, name, loss) for name, loss in (("full", 2.0), ("ifd", 2.0 / 0.97)))
    answered(full, [5] * 30)
    answered(ifd, [9] * 28 + [1] * 2)
    found = compare_runs([full, ifd])
    add_wins(found, Scripted())
    assert found.groups[1].wins.value == 14 and found.groups[1].wins.high == math.inf and found.efficiencies() == []
    assert unranked(to_markdown(sections(found))) == ["ifd (SDF 0.250): the interval of its wins rate has no end."]


def test_a_judge_compares_answers_and_its_word_is_kept(runs, tmp_path):
    ifd, full, random = runs
    answered(full, [5] * 30)
    answered(ifd, [9] * 20 + [5] * 4 + [1] * 6)
    answered(random, [1] * 30)
    found = compare_runs(runs)
    assert found.groups[1].wins is None
    add_wins(found, Scripted())
    wins = found.groups[1].wins
    assert wins.settings == {"koala": pytest.approx(20 / 6)} and wins.verdict == "better"
    assert {item.point.name: item.point.pir for item in found.efficiencies()}["ifd"] == pytest.approx(20 / 6)
    again = compare_runs(runs)  # from the folders, without a judge
    assert again.groups[1].wins == wins and again.groups[2].wins.verdict == "worse"
    text = to_markdown(sections(again))
    assert "its answers compared with the baseline's by the judge: better (PIR 3.333, wins rate" in text
    assert "| PIR (wins rate) |" in text
    assert "- All runs but the baseline: answers compared by scripted." in text
    other = compare_runs([random, ifd], baseline=random)
    assert other.groups[1].wins is None  # what is kept is of another baseline
    answered(ifd, [5] * 30)
    assert compare_runs(runs).groups[1].wins is None  # ... and of other answers
    (ifd / "answers" / "koala.jsonl").write_text((full / "answers" / "koala.jsonl").read_text())
    assert compare_runs(runs).groups[1].judge == (
        f"not judged: {ifd / 'answers' / 'koala.jsonl'} is damaged (it is not the one that eval.json was written "
        "with). Evaluate the run again."
    )
    answered(ifd, [9] * 20 + [5] * 4 + [1] * 6)
    shutil.rmtree(random / "answers")
    write_evaluation(random, read_evaluation(random))
    unjudged = compare_runs(runs)
    add_wins(unjudged, Scripted())
    assert unjudged.groups[1].wins is not None and unjudged.groups[2].wins is None
    assert "random: not judged: " in to_markdown(sections(unjudged)) and "has no answers" in to_markdown(
        sections(unjudged)
    )
    with pytest.raises(ValueError, match="no run of `full`"):
        add_wins(compare_runs([ifd]), Scripted())


def test_ties_that_no_judge_saw_are_named(tmp_path):
    full, ifd = make_run(tmp_path / "full"), make_run(tmp_path / "ifd", "ifd", rows=[1])
    answered(full, [5] * 20 + ["the same"] * 10)
    answered(ifd, [9] * 16 + [1] * 4 + ["the same"] * 10)
    found = compare_runs([full, ifd])
    judge = Scripted()
    add_wins(found, judge)
    assert judge.cost.calls == 40 and found.groups[1].wins.value == 4
    for shown in (found, compare_runs([full, ifd])):  # from the folder too
        text = to_markdown(sections(shown))
        assert "; 10 ties are identical answers, which the judge did not see" in text


def test_wins_against_one_baseline_run_do_not_hold_its_chance(tmp_path):
    full = make_run(tmp_path / "full", selection={"facts": {"seed": 0}})
    answered(full, [5] * 20)
    folders = [full]
    for seed in (0, 1):
        folders.append(make_run(tmp_path / f"ifd-{'ab'[seed]}", "ifd", rows=[1], selection={"facts": {"seed": seed}}))
        answered(folders[-1], [9] * 12 + [1] * 8)
    found = compare_runs(folders)
    add_wins(found, Scripted())
    wins = found.groups[1].wins
    assert "2 runs" in wins.interval and wins.interval.endswith("between runs of the baseline is not included")


def test_test_sets_that_not_every_seed_answered_are_named(tmp_path):
    folders = []
    for seed in (0, 1):
        facts = {"facts": {"dataset": candidates().content_hash(), "seed": seed}}
        for name, scores in (("full", [5] * 30), ("ifd", [9] * 18 + [1] * 12)):
            rows = range(ROWS) if name == "full" else [1, 2]
            folders.append(make_run(tmp_path / (name + "ab"[seed]), name, rows=rows, selection=facts, seed=seed))
            answered(folders[-1], scores)
            if seed == 0:
                answered(folders[-1], scores[:20], "chat")
    for given in (folders, folders[::-1]):  # whichever run comes first
        found = compare_runs(given)
        add_wins(found, Scripted())
        (ifd,) = (group for group in found.groups if group.method == "ifd")
        assert ifd.wins.settings == {"koala": 1.5} and ifd.wins.left_out == {
            "chat": "the runs answered other questions of it"
        }
        assert "ifd 2: excluded from the PIR (wins rate): chat: the runs answered other questions of it." in (
            to_markdown(sections(found))
        )
