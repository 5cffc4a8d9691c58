"""The report: what it reads from run folders, what it says, and what it writes."""

import json
import math
import re
import shutil
import subprocess
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset
from scipy.stats import spearmanr

from hf_dataselect.cli.main import main
from hf_dataselect.data.records import Records
from hf_dataselect.evaluation.benchmark import Setting, as_json
from hf_dataselect.evaluation.comparison import comparison
from hf_dataselect.evaluation.comparison.comparison import add_rows, add_wins, compare_runs
from hf_dataselect.evaluation.comparison.efficiency import BASE
from hf_dataselect.evaluation.comparison.published import Point
from hf_dataselect.evaluation.report.picture import draw
from hf_dataselect.evaluation.report.report import _width, to_markdown, write_report
from hf_dataselect.evaluation.report.sections import sections
from hf_dataselect.runs.files import run_id
from hf_dataselect.runs.folder import read_evaluation, write_evaluation, write_recipe, write_selection
from hf_dataselect.selection import Selection
from tests.evaluation.judging.test_win_rate import Scripted


ROWS = 12


def make_run(folder: Path, method: str = "full", loss: float = 2.0, accuracy: float = 0.5, **more) -> Path:
    """A finished run: `rows` it kept, `selection` and `evaluation` entries, `recipe` options."""
    rows = np.array(more.pop("rows", range(ROWS)), np.int64)
    scores = np.array(more.pop("scores", np.linspace(0, 1, ROWS)), np.float32)
    selection = {"seconds": 0.0, "facts": {"dataset": candidates().content_hash()}} | more.pop("selection", {})
    write_selection(folder, Selection(method, {}, rows, scores, budget=len(rows), **selection))
    noise = np.random.default_rng(7).normal(0, more.pop("noise", 0.0), 60)
    noise -= noise.mean()
    settings = {"answer_loss": Setting(loss, False, list(loss + noise)), "token_accuracy": Setting(accuracy, True)}
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
    assert [run.name for run in found.groups] == ["full", "ifd", "random"] and found.baseline is found.groups[0]
    full, ifd, random = found.groups
    assert full.pir is None and full.str_ratio is None
    assert ifd.pir.settings == pytest.approx({"answer_loss": 1.25, "token_accuracy": 0.8})
    assert ifd.pir.value == pytest.approx(1.25) and ifd.str_ratio == pytest.approx(0.3)
    assert random.pir.value == pytest.approx(0.8) and random.str_ratio == 0
    assert ifd.pir.left_out == {"token_accuracy": "no score by example"}


def test_candidates_that_are_also_held_out_are_told(tmp_path, runs):
    facts = {"dataset": candidates().content_hash(), "also_in": {"quiz": {"rows": 3, "kept": 1, "first": [2, 4, 9]}}}
    leaky = make_run(tmp_path / "length", "length", rows=[0, 2], selection={"facts": facts})
    text = to_markdown(sections(compare_runs([*runs, leaky])))
    assert "length: 3 candidates are also in `quiz`, 1 of them were kept." in text and text.count("also in") == 1


def verdict(runs) -> str:
    return to_markdown(sections(compare_runs(runs))).split("## Verdict\n\n")[1].split("\n\n")[0]


def tables(text: str) -> dict[str, list[dict[str, str]]]:
    """The table of each section of a report in Markdown: rows of cells, each under its head."""
    found = {}
    for section in text.split("## ")[1:]:
        lines = [line.strip("|").split("|") for line in section.splitlines() if line.startswith("|")]
        head, _, *rows = [[cell.strip() for cell in line] for line in lines] or ([], [])
        found[section.partition("\n")[0]] = [dict(zip(head, row, strict=True)) for row in rows]
    return found


#: Method, rows kept, selection seconds, training seconds, loss, accuracy, and scores of the judge.
RUNS = {
    "full": ("full", range(ROWS), 0.5, 100.0, 2.0, 0.5, [5] * 30),
    "random": ("random", [0, 5, 7], 1.0, 21.0, 2.2, 0.45, None),
    "best": ("ifd", [11, 10, 9], 30.0, 23.0, 1.6, 0.55, [9] * 20 + [5] * 4 + [1] * 6),
    "random4": ("random", [0, 1, 2, 3], 2.0, 31.0, 2.1, 0.48, None),
    "worst": ("length", [11, 10, 3, 2], 12.0, 34.0, 2.5, 0.4, [9] * 5 + [5] * 4 + [1] * 21),
}


@pytest.fixture
def different(tmp_path) -> list[Path]:
    """Two methods, each with a control of its size, and a baseline; no two of their numbers are equal."""
    folders = []
    for place, (name, (method, rows, seconds, train_seconds, loss, accuracy, judged)) in enumerate(RUNS.items()):
        noise = np.random.default_rng(place).normal(0, 0.02, (2, 60))
        noise -= noise.mean(1, keepdims=True)
        settings = {
            "answer_loss": Setting(loss, False, list(loss + noise[0])),
            "token_accuracy": Setting(accuracy, True, list(accuracy + noise[1])),
        }
        evaluation = {"settings": as_json(settings), "train_seconds": train_seconds, "train_tokens": 1000 - place}
        evaluation |= {"history": [{"step": 0, "benchmark/answer_loss": 3.0 + place}]}
        scores = np.linspace(0, 1, ROWS) if method == "ifd" else np.arange(ROWS) % 5
        scores = np.where(np.arange(ROWS) < 2, np.nan, scores)  # two rows have none
        given = {"rows": rows, "scores": scores, "selection": {"seconds": seconds}, "evaluation": evaluation}
        folders.append(make_run(tmp_path / name, method, **given))
        if judged is not None:
            answered(folders[-1], judged)
    return folders


def test_every_number_of_the_report_is_under_its_own_head(different, tmp_path):
    found = compare_runs(different)
    add_wins(found, Scripted())
    add_rows(found, candidates(), "fault", examples=1)
    groups = {group.name: group for group in found.groups}
    assert list(groups) == list(RUNS)

    def between(pir) -> str:
        assert pir.low < pir.value < pir.high
        return f"{pir.low:.3f} to {pir.high:.3f}"

    def ratio(name: str, other: str) -> float:
        (*_, loss, accuracy, _), (*_, other_loss, other_accuracy, _) = RUNS[name], RUNS[other]
        return (other_loss / loss + accuracy / other_accuracy) / 2

    shown = tables(to_markdown(sections(found)))
    names = {name: f"{name} (BM)" if name == "full" else name for name in RUNS}
    wins = {"best": "3.333", "worst": "0.238"}
    for name, control, row in zip(RUNS, ["", "", "random", "", "random4"], shown["Runs"], strict=True):
        method, rows, seconds, train_seconds, *_ = RUNS[name]
        group, compared = groups[name], name != "full"
        assert row == {
            "run": names[name],
            "method": method,
            "verdict": {"full": "", "best": "better"}.get(name, "worse"),
            "rows kept": str(len(rows)),
            "SDF": f"{len(rows) / ROWS:.3f}",
            "PIR (benchmark ratio)": f"{ratio(name, 'full'):.3f}" if compared else "",
            "95 % interval": between(group.pir) if compared else "",
            "over control": f"{ratio(name, control):.3f} ({between(group.over_control)}): {group.over_control.verdict}"
            if control
            else "",
            "STR": f"{seconds / 100:.3f}" if compared else "",
            "selection s": f"{seconds:.1f}",
            "training s": f"{train_seconds:.1f}",
            "PIR (wins rate)": wins.get(name, ""),
            "its interval": between(group.wins) if name in wins else "",
        }
    assert [list(row) for row in shown["Runs"]][0] == [
        *("run", "method", "verdict", "rows kept", "SDF", "PIR (benchmark ratio)", "95 % interval", "over control"),
        *("STR", "selection s", "training s", "PIR (wins rate)", "its interval"),
    ]
    scores = {name: RUNS[name][4:6] for name in RUNS}
    heads = ["answer_loss (lower is better)", "token_accuracy (higher is better)"]
    assert shown["Held-out rows and benchmarks"] == [
        {"run": "before training", heads[0]: "3.0000", heads[1]: ""},
        *(
            {"run": names[name], heads[0]: f"{loss:.4f}", heads[1]: f"{hits:.4f}"}
            for name, (loss, hits) in scores.items()
        ),
    ]
    controls = {"best": "random", "worst": "random4"}
    for compared, against, more, head in (
        (dict.fromkeys(list(RUNS)[1:], "full"), "the baseline", "", "score / baseline"),
        (controls, "as many random rows", ", over the control", "score / control"),
    ):
        ratios = {
            name: {
                "answer_loss": scores[other][0] / scores[name][0],
                "token_accuracy": scores[name][1] / scores[other][1],
            }
            for name, other in compared.items()
        }
        pirs = {name: groups[name].over_control if more else groups[name].pir for name in compared}
        assert shown["Verdicts by setting" + more] == [
            {
                "run": name,
                "setting": setting,
                "verdict": pir.verdicts[setting],
                "part of the PIR": "yes",
                head: f"{ratios[name][setting]:.3f}",
                "its 95 % interval": f"{pir.intervals[setting][0]:.3f} to {pir.intervals[setting][1]:.3f}",
            }
            for name, pir in pirs.items()
            for setting in pir.settings
        ]
        signs = {"better": " +", "worse": " -"}
        assert shown[f"Gains and harms by setting, against {against}"] == [
            {"run": name}
            | {setting: f"{ratio:.3f}{signs.get(pirs[name].verdicts[setting], '')}" for setting, ratio in of.items()}
            for name, of in ratios.items()
        ]
    mine = {row.pop("method"): row for row in shown["Efficiency"] if "(this comparison)" in row["method"]}
    assert mine.keys() == {f"{name} (this comparison)" for name in wins}
    for name, rank in {"best": "1", "worst": "10"}.items():  # of nine published, two of them tied, and these
        sdf, pir = len(RUNS[name][1]) / ROWS, RUNS[name][-1].count(9) / RUNS[name][-1].count(1)
        assert mine[f"{name} (this comparison)"] == {
            "SDF": f"{sdf:.3f}",
            "PIR (wins scale)": wins[name],
            "95 % interval": between(groups[name].wins),
            "distance": f"{BASE.distance(Point(name, sdf, pir)):.3f}",
            "rank": rank,
        }
    assert len(shown["Efficiency"]) == 11
    assert "infeasible area of the other: best and IFD.\n" in to_markdown(sections(found))
    apart = to_markdown(sections(found)).split("## Efficiency: runs without a rank")[1].split("##")[0]
    for name, sdf in {"random": "0.250", "random4": "0.333"}.items():
        pir, value = groups[name].pir, ratio(name, "full")
        assert (
            f"- {name} (SDF {sdf}): not judged: {different[list(RUNS).index(name)]} has no answers: add a test set of "
            f"the kind `instructions` to `benchmarks`; not estimated: its benchmark ratio {value:.4f} ({pir.low:.4f} "
            f"to {pir.high:.4f}) is outside the range 0.949 to 1.01 in which the line is known.\n"
        ) in apart
    assert apart.count("SDF") == 2
    overlaps = {row.pop("run"): list(row.values()) for row in shown["Overlap of the selections"]}
    alike = spearmanr(np.arange(2, ROWS), np.arange(2, ROWS) % 5).statistic
    assert list(overlaps) == ["1 random", "2 best", "3 random4", "4 worst"]
    assert overlaps["2 best"][3] == overlaps["4 worst"][1] == "0.40" and overlaps["1 random"][2] == f"{1 / 6:.2f}"
    assert shown["Rank correlation of the scores"] == [
        {"run": "1 best", "1": "1.00", "2": f"{alike:.2f}"},
        {"run": "2 worst", "1": f"{alike:.2f}", "2": "1.00"},
    ]
    counted = {row["run"]: row["none"] for row in shown["Rows kept by `fault`"]}
    assert counted == {
        **{"candidates": "6 (50%)", "full (BM)": "6 (50%)", "random": "2 (67%)", "best": "0 (0%)"},
        **{"random4": "4 (100%)", "worst": "2 (50%)"},
    }
    assert [list(row.values())[:4] for row in shown["Scores of worst"]] == [
        ["kept", "11", "1.000", "false"],
        ["not kept", "5", "0.000", "none"],
    ]
    said = {(row["run"], row["what"]): row["how much"] for row in shown["Row accounting"]}
    assert said["worst", "candidates"] == "12" and said["worst", "kept"] == "4"
    assert said["worst", "tokens of the rows kept"] == "996 (99.6% of the baseline's)"

    cells = [
        cell for part in sections(found) if part.table for row in (part.table.head, *part.table.rows) for cell in row
    ]
    (page,) = (path for path in write_report(found, tmp_path / "report") if path.suffix == ".html")
    written = page.read_text().replace("<wbr>", "")
    assert list(map(unescape, re.findall(r"<t[hd](?:\s[^>]*)?>(.*?)</t[hd]>", written, re.DOTALL))) == cells


def many_runs(folder: Path) -> list[Path]:
    """26 runs: four methods at two budgets, controls and the baseline, two seeds each, and four single ones."""
    rng, folders = np.random.default_rng(11), []
    hard = rng.beta(3, 1.3, 200) * 0.9

    def add(name: str, method: str, gain: float, rows: list[int], seed: int) -> None:
        accurate = (rng.random(200) < np.clip(hard * gain, 0, 1)).astype(float)
        losses = 2.0 / gain + 0.3 * rng.normal(size=200)
        rare = np.zeros(200) if method == "length" else np.arange(200) < 40
        settings = {
            "answer_loss": Setting.of(losses, False),
            "token_accuracy": Setting.of(accurate, True),
            "rare": Setting.of(rare * 1.0, True),
        }
        facts = {"facts": {"dataset": candidates().content_hash(), "seed": seed}, "seconds": 5.0 * len(rows) + seed}
        evaluation = {"settings": as_json(settings), "train_seconds": 10.0 * len(rows) + seed}
        folders.append(make_run(folder / name, method, rows=rows, selection=facts, evaluation=evaluation, seed=seed))

    methods = {"ifd": 1.3, "length": 0.9, "rds": 1.0, "less": 0.7}
    for seed in (0, 1):
        add(f"full-{seed}", "full", 1.0, list(range(ROWS)), seed)
        for size in (3, 4):
            add(f"random-{size}-{seed}", "random", 0.95, list(range(size)), seed)
            for method, gain in methods.items():
                add(f"{method}-{size}-{seed}", method, gain, list(range(size, 2 * size)), seed)
    for method, gain in methods.items():
        add(f"{method}-5", method, gain, [2, 3, 5, 7, 9], 0)
    return folders


def test_in_a_report_of_26_runs_no_sentence_contradicts_a_number(tmp_path):
    folders = many_runs(tmp_path)
    found = compare_runs(folders)
    assert len(folders) == 26 and len(found.groups) == 15
    text = to_markdown(sections(found))
    shown = tables(text)
    for group, row in zip(found.groups, shown["Runs"], strict=True):
        assert row["seeds"] == str(len(group.runs)) and row["SDF"] == f"{len(group.selection.indices) / ROWS:.3f}"
        seconds = [run.selection.seconds for run in group.runs]
        assert row["selection s"] == f"{np.mean(seconds):.1f}"
        assert row["training s"] == f"{np.mean([run.train_seconds for run in group.runs]):.1f}"
        if group is found.baseline:
            assert row["verdict"] == row["PIR (benchmark ratio)"] == row["95 % interval"] == ""
            continue
        low, high = map(float, row["95 % interval"].split(" to "))
        value = float(row["PIR (benchmark ratio)"])
        assert low <= value <= high and float(row["STR"]) == pytest.approx(np.mean(seconds) / 120.5, abs=1e-3)
        assert row["verdict"] == ("better" if low > 1 else "worse" if high < 1 else "no significant difference")
        used = ["answer_loss", "token_accuracy"] + ["rare"] * (group.method != "length")
        assert value == pytest.approx(np.mean([group.pir.settings[name] for name in used]), abs=1e-3)
        said = [line for line in text.splitlines() if "excluded from the PIR (benchmark ratio): rare:" in line]
        assert [group.name in line[2:].partition(":")[0].split(", ") for line in said] == [group.method == "length"]
        assert ("over control" in row and bool(row["over control"])) == (
            group.method != "random" and len(group.selection.indices) in (3, 4)
        )
    for row in shown["Verdicts by setting"]:
        if row["part of the PIR"] != "yes":
            assert row["setting"] == "rare" and row["verdict"] == "unknown" and not row["its 95 % interval"]
            continue
        low, high = map(float, row["its 95 % interval"].split(" to "))
        assert low <= float(row["score / baseline"]) <= high
        expected = "better" if low > 1 else "worse" if high < 1 else "no significant difference"
        assert row["verdict"] == expected or 1.0 in (low, high)  # rounded
    said = verdict(folders)
    best = max((g for g in found.groups if g.pir and g.method != "random"), key=lambda g: g.pir.value)
    assert f"{best.name}, on" in said and f"PIR {best.pir.value:.3f}" in said and "highest PIR of 12" in said
    assert {"ifd 3", "ifd 4", "ifd-5"} >= {best.name} and "is better than training on everything" in said


def test_the_verdict_is_that_of_the_best_run_in_the_words_of_its_interval(different):
    def said(*names: str) -> str:
        return verdict([different[list(RUNS).index(name)] for name in names])

    assert said(*RUNS).startswith("best, on 25.0% of the rows, is better than training on everything (PIR 1.175,")
    assert "; it is better than as many random rows (PIR 1.299," in said(*RUNS)
    assert said(*RUNS).endswith(". It has the highest PIR of 2, which biases it upwards.")
    alone = said("full", "random4", "worst")
    assert alone.startswith("worst, on 33.3% of the rows, is worse than training on everything (PIR 0.800,")
    assert "; it is worse than as many random rows (PIR 0.837," in alone and "highest" not in alone
    assert said("full", "random").startswith("random, on 25.0% of the rows, is worse than training on everything")
    assert "the number of rows may be the cause" in said("full", "worst") and "may be" not in said("full", "random")


def test_two_copies_of_a_run_show_no_difference(runs, tmp_path):
    make_run(tmp_path / "ifd", "ifd", noise=0.3, rows=[11, 10, 9])
    make_run(tmp_path / "full", noise=0.3)
    found = compare_runs(runs[:2])
    assert (found.groups[1].pir.low, found.groups[1].pir.high) == (1, 1)
    assert "ifd, on 25.0% of the rows, is not significantly different from training on everything" in verdict(runs[:2])
    assert "without a control" in verdict(runs[:2])


def test_without_examples_the_number_alone_is_no_verdict(runs, tmp_path):
    bare = {"settings": as_json({"answer_loss": Setting(1.0, False)})}
    make_run(tmp_path / "ifd", "ifd", rows=[11, 10, 9], evaluation=bare)
    assert "ifd, on 25.0% of the rows, cannot be compared with training on everything without an interval" in verdict(
        runs
    )


def test_a_control_of_another_size_is_no_control(runs, tmp_path):
    make_run(tmp_path / "random", "random", rows=[0, 1])
    assert "without a control of as many random rows" in verdict(runs)


@pytest.mark.parametrize("loss, accuracy", [(math.nan, math.nan), (math.nan, 0.0)])
def test_a_control_without_a_pir_is_not_compared_with(runs, tmp_path, loss, accuracy):
    make_run(tmp_path / "random", "random", loss, accuracy, rows=[0, 5, 7])
    assert "it cannot be compared with as many random rows without an interval (no PIR" in verdict(runs)


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


def test_choosing_alike_is_measured(runs, tmp_path):
    scores = np.linspace(0, 1, ROWS)
    runs.append(make_run(tmp_path / "other", "length", rows=[11, 10, 2], scores=-scores))
    pairs = {(a.name, b.name): (shared, correlation) for a, b, shared, correlation in compare_runs(runs).overlaps()}
    assert pairs["ifd", "other"] == (0.5, pytest.approx(-1.0)) and pairs["ifd", "random"] == (0.0, None)
    assert len(pairs) == 3 and "-1.00 |" in to_markdown(sections(compare_runs(runs)))


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


def answered(folder: Path, scores: list[int | str], name: str = "koala") -> None:
    (folder / "answers").mkdir(exist_ok=True)
    answers = [f"{folder.name} {score}" if isinstance(score, int) else score for score in scores]
    lines = [{"run": run_id(folder), "question": f"q{i}", "answer": answer} for i, answer in enumerate(answers)]
    (folder / "answers" / f"{name}.jsonl").write_text("\n".join(map(json.dumps, lines)))
    write_evaluation(folder, read_evaluation(folder))


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


def test_tables_line_up_also_with_wide_characters(runs):
    found = compare_runs(runs)
    add_rows(found, candidates())
    found.examples["ifd"][0]["answer"] = "春天来了,花儿开了。"
    tables, table = [], []
    for line in [*to_markdown(sections(found)).splitlines(), ""]:
        if line.startswith("|"):
            table.append(_width(line))
        elif table:
            tables.append(table)
            table = []
    assert len(tables) == 10 and all(len(set(widths)) == 1 for widths in tables)


def test_the_report_is_written_with_its_pictures(runs, tmp_path):
    found = compare_runs(runs)
    add_rows(found, candidates(), "fault")
    written = write_report(found, tmp_path / "new" / "report")
    paths = {path.name: path for path in written if path.parent.name == "report"}
    assert set(paths) == {
        *("report.md", "report.json", "report.html", "report-tallies.png", "report-scores-ifd.png"),
        *(f"report-{name}.{kind}" for name in ("ratios", "over-control") for kind in ("png", "pdf", "svg")),
    }
    assert all(path.is_file() for path in written) and len({*written}) == len(written)
    markdown = paths["report.md"].read_text()
    assert markdown.replace("report-ratios.png", "") != markdown and "![Rows kept by fault. candidates: 6" in markdown
    written = json.loads(paths["report.json"].read_text())
    assert written["groups"][1]["pir"]["kind"] == "benchmark ratio" and written["tallies"]["ifd"]["cut"] == 1
    assert written["verdict"].startswith("ifd, on 25.0%") and written["efficiency"] == []
    assert [item["name"] for item in written["unranked"]] == ["ifd", "random"]
    for name in paths:
        if name.endswith(".png"):
            assert paths[name].read_bytes().startswith(b"\x89PNG") and paths[name].stat().st_size > 5_000


class Page(HTMLParser):
    """What a page consists of."""

    def __init__(self, text: str):
        super().__init__()
        self.tags, self.attributes, self.open = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes.append(dict(attributes))
        if tag not in ("meta", "link", "img", "wbr", "!doctype"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_stands_alone_and_rows_can_not_break_it(runs, tmp_path):
    found = compare_runs(runs)
    records = candidates()
    add_rows(found, records, "fault")
    found.examples["ifd"][0]["prompt"] = "</td><script>alert(1)</script>|<img src=x onerror=alert(2)>"
    path = next(path for path in write_report(found, tmp_path / "report") if path.suffix == ".html")
    page = Page(path.read_text(encoding="utf-8"))
    assert not page.open and "script" not in page.tags and page.tags.count("img") == 4
    for attributes in page.attributes:
        assert not any(name.startswith("on") for name in attributes)
        for name in ("src", "href"):
            assert attributes.get(name, "data:").startswith("data:")
    alts = [a["alt"] for tag, a in zip(page.tags, page.attributes, strict=True) if tag == "img"]
    assert all(len(alt) > 30 for alt in alts)


def test_a_browser_opens_the_page_without_an_error_on_a_phone_and_on_paper(runs, tmp_path):
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        pytest.skip("there is no Chromium")
    found = compare_runs(runs)
    add_rows(found, candidates(), "fault")
    page = next(path for path in write_report(found, tmp_path / "report") if path.suffix == ".html")
    quiet = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
    quiet += ["--disable-component-update", "--disable-sync", f"--user-data-dir={tmp_path / 'profile'}"]
    for options in (
        ["--window-size=390,844", f"--screenshot={tmp_path / 'phone.png'}"],
        ["--no-pdf-header-footer", f"--print-to-pdf={tmp_path / 'paper.pdf'}"],
    ):
        command = [browser, *quiet, "--enable-logging=stderr", *options, page.as_uri()]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
        assert "CONSOLE" not in done.stderr, done.stderr
    frames = "".join(f'<iframe src="{page.name}" width="{width}" height="900"></iframe>' for width in (390, 768, 1280))
    measure = """<script>addEventListener("load", () => {
        document.title = [...document.querySelectorAll("iframe")].map(frame => {
                   const root = frame.contentDocument.documentElement;
                   for (const part of root.querySelectorAll("details")) part.open = true;
                   return root.scrollWidth; }).join(" ") })</script>"""
    wide = page.with_name("frames.html")
    wide.write_text(f"<!DOCTYPE html><body>{frames}{measure}</body>", encoding="utf-8")
    command = [
        browser,
        *quiet,
        "--allow-file-access-from-files",
        "--hide-scrollbars",
        "--virtual-time-budget=3000",
        "--dump-dom",
        wide.as_uri(),
    ]
    dumped = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    assert "<title>390 768 1280</title>" in dumped, "nothing is wider than the window"
    assert (tmp_path / "phone.png").stat().st_size > 10_000 and (tmp_path / "paper.pdf").stat().st_size > 10_000


def test_a_picture_is_drawn_of_whatever_there_is(runs, tmp_path):
    make_run(tmp_path / "random", "random", math.nan, math.nan, rows=[1])
    make_run(tmp_path / "ifd", "ifd", rows=[1], scores=[math.nan] + [1.0] * (ROWS - 1))
    for chosen in (runs, runs[1:2], [runs[0]], [runs[2]]):
        written = write_report(compare_runs(chosen), tmp_path / "report")
        assert [path.exists() for path in written] == [True] * len(written)


def test_the_command_reads_folders_and_rows(runs, tmp_path, capsys):
    candidates().dataset.to_json(tmp_path / "rows.jsonl")
    rows = ["--dataset_name", str(tmp_path / "rows.jsonl"), "--count_by", "fault"]
    main(["report", *map(str, runs), *rows, "--output_dir", str(tmp_path / "report")])
    printed = capsys.readouterr().out
    assert "## Rows kept by `fault`" in printed and str(tmp_path / "report" / "report.md") in printed
    others = sum(path.is_file() and path.stem != "report" for path in (tmp_path / "report").rglob("*"))
    assert f"report.html, and {others} pictures and tables beside them.\n" in printed
    with pytest.raises(SystemExit):
        main(["report", str(tmp_path / "nothing")])
    assert "hf-dataselect: error: `runs=" in capsys.readouterr().err


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
