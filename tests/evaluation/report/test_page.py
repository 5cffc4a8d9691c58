"""The report fit to show: its order, its header, merged remarks, matrices, tables and figures as files."""

import csv
import re
import shutil
import subprocess
import sys
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hf_dataselect.evaluation.comparison.comparison import Comparison, add_rows, compare_runs
from hf_dataselect.evaluation.comparison.pir import SAME
from hf_dataselect.evaluation.report import drawing, report
from hf_dataselect.evaluation.report.drawing import style
from hf_dataselect.evaluation.report.picture import _VERDICTS, _ratios, draw
from hf_dataselect.evaluation.report.remarks import _of_groups, _of_runs, remarks
from hf_dataselect.evaluation.report.report import to_html, to_markdown
from hf_dataselect.evaluation.report.section import Section, Table, merged
from hf_dataselect.evaluation.report.sections import sections
from hf_dataselect.evaluation.report.tables import file_name, write_tables
from hf_dataselect.evaluation.report.training import trained_differently
from hf_dataselect.evaluation.report.verdict import conclusion, headline, interval_text
from tests.reported_runs import candidates, make_run, many_runs, tables


@pytest.fixture(scope="module")
def many(tmp_path_factory) -> Comparison:
    folders = [path for path in many_runs(tmp_path_factory.mktemp("runs")) if path.name[:4] not in ("rds-", "less")]
    found = compare_runs(folders)
    add_rows(found, candidates(), "fault", examples=1)
    return found


@pytest.fixture(scope="module")
def pictures(many) -> list[drawing.Picture]:
    return draw(many)


@pytest.fixture(scope="module")
def written(many, pictures, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report, "draw", lambda comparison: pictures)
        report.write_report(many, folder)
    return folder


def test_the_page_shows_header_verdict_table_and_figure_and_then_the_details(written):
    page = (written / "report.html").read_text(encoding="utf-8")
    marks = ["<h1>", "<dl>", 'class="verdict"', "<h2>Runs</h2>", "<table", "<figure>", "<li>Interval of", "<details>"]
    places = [page.index(mark) for mark in marks]
    assert places == sorted(places)
    markdown = (written / "report.md").read_text(encoding="utf-8")
    marks = ["- model", "## Verdict", "## Runs", "| run ", "![PIR by", "- Interval of", "## Gains and harms"]
    places = [markdown.find(mark) for mark in marks[1:]]
    assert places == sorted(places) and markdown.startswith("## What was compared\n\n- rows: 12 candidates")


def test_the_header_says_what_was_compared(tmp_path):
    recipe = {"model_name_or_path": "org/model", "dataset_name": "org/rows", "eval_dataset_name": "org/held-out"}
    trained = {"trained": {"updates": 18}, "date": "2026-01-31T23:00:00+00:00"}
    full = make_run(tmp_path / "full", evaluation=trained, **recipe)
    later = {"trained": {"updates": 6}, "date": "2026-02-01T01:00:00+00:00"}
    ifd = make_run(tmp_path / "ifd", "ifd", rows=[1, 2, 3], evaluation=later, **recipe)
    random = make_run(tmp_path / "random", "random", rows=[4, 5], evaluation=later | {"trained": {"updates": 4}})
    (header, *_) = sections(compare_runs([full, ifd, random]))
    assert header.facts == {
        "model": "org/model",
        "data": "org/rows",
        "rows": "12 candidates, 2 to 3 of them kept",
        "evaluated on": "org/held-out (60 examples); settings: answer_loss, token_accuracy",
        "updates": "18 of the baseline; 4 to 6 of the others",
        "runs": "3, of 3 methods",
        "trained": "2026-01-31 to 2026-02-01",
    }
    old = make_run(tmp_path / "old", "length", rows=[1])  # by a version that recorded neither
    (header, *_) = sections(compare_runs([full, old]))
    assert "trained" not in header.facts and header.facts["updates"] == "18 of the baseline"


def test_remarks_are_merged_without_losing_any(many):
    groups = [group.name for group in many.groups]
    names = {"all runs": groups, "all runs but the baseline": groups[1:]}
    names |= {name.capitalize(): of for name, of in names.items()}
    said = set()
    for line in remarks(many):
        about, _, sentence = line.partition(": ")
        if line.startswith(("Interval of", "The baseline")):
            continue
        said |= {(name, sentence) for name in names.get(about, about.split(", "))}
    assert said == {*_of_runs(many), *_of_groups(many), *(pair for pair in trained_differently(many) if pair[0])}
    intervals = [line for line in remarks(many) if line.startswith("Interval of ")]
    about = [
        re.match(r"Interval of (.*) \((benchmark ratio|benchmark ratio over the control)\):", line)
        for line in intervals
    ]
    found = sorted((name, match[2]) for match in about for name in names.get(match[1], match[1].split(", ")))
    expected = [(group.name, group.pir.kind) for group in many.groups if group.pir]
    expected += [(g.name, "benchmark ratio over the control") for g in many.groups if g.over_control]
    assert found == sorted(expected)


def test_equal_remarks_are_one_line_that_names_the_runs():
    said = [
        ("", "Of all."),
        ("a", "slow."),
        ("b", "slow."),
        ("c", "slow."),
        ("b", "odd."),
        ("c", "odd."),
        ("a", "rare."),
    ]
    assert merged(said, ["a", "b", "c"], "a") == [
        *("Of all.", "All runs: slow.", "All runs but the baseline: odd.", "a: rare."),
    ]
    assert merged([("a", "slow."), ("b", "slow.")], ["a", "b", "c"]) == ["a, b: slow."]
    assert merged([("a", "slow.")], ["a"]) == ["a: slow."]


def test_many_remarks_are_folded_and_few_are_not():
    few, lots = (to_html([Section("Runs", remarks=[f"Remark {i}." for i in range(n)])]) for n in (3, 30))
    assert "<details>" not in few and "<summary>Remarks (30)</summary>" in lots and lots.count("<li>") == 30


def test_the_overlap_is_one_symmetric_matrix(many):
    for title, place in (("Overlap of the selections", 2), ("Rank correlation of the scores", 3)):
        (part,) = (part for part in sections(many) if part.title == title)
        names = [row[0].partition(" ")[2] for row in part.table.rows]
        assert [row[0].partition(" ")[0] for row in part.table.rows] == part.table.head[1:]
        cells = [row[1:] for row in part.table.rows]
        assert cells == [list(column) for column in zip(*cells, strict=True)] and {
            c[i] for i, c in enumerate(cells)
        } == {"1.00"}
        values = {(pair[0].name, pair[1].name): pair[place] for pair in many.overlaps()}
        for one, other in combinations(names, 2):
            value = values[one, other]
            assert cells[names.index(one)][names.index(other)] == ("" if value is None else f"{value:.2f}")
        shades = np.array(part.table.shades)[:, 1:]
        assert (shades == shades.T).all() and np.abs(shades).max() == 1
    text = to_markdown(sections(many)).split("## Overlap of the selections")[1].split("## Rank")[0]
    assert len(text.splitlines()) < len(many.groups) + 8, "not a line for each pair"


def test_gains_and_harms_are_counted_as_they_are_shown(many):
    shown = tables(to_markdown(sections(many)))
    for compared, against in (("pir", "the baseline"), ("over_control", "as many random rows")):
        title = f"Gains and harms by setting, against {against}"
        (part,) = (part for part in sections(many) if part.title == title)
        cells = {row["run"]: row for row in shown[title]}
        verdicts = []
        for group in many.groups:
            pir = getattr(group, compared)
            assert (group.name in cells) == bool(pir)
            for setting, ratio in pir.settings.items() if pir else ():
                low, high = pir.intervals.get(setting, (np.nan, np.nan))
                sign = " +" if low > 1 else " -" if high < 1 else ""
                assert cells[group.name][setting] == f"{ratio:.3f}{sign}"
                verdicts += [sign] if low == low else []
        counts = [len(verdicts), verdicts.count(" +"), verdicts.count(" -")]
        assert [int(number) for number in re.findall(r"\d+", part.text[0])][:3] == counts and min(counts) > 0
        for row, shades in zip(part.table.rows, part.table.shades, strict=True):
            signs = [(" +" in cell) - (" -" in cell) for cell in row]
            assert [int(np.sign(shade)) for shade in shades] == signs


def test_the_verdict_says_with_its_interval_whether_that_holds_the_chance_between_runs(tmp_path, many):
    seeds = [group for group in many.groups if len(group.runs) == 2]
    said = headline(Comparison(seeds, many.baseline))
    assert said.count("with the variance between 2 + 2 runs)") == 2 and "other seeds" not in said
    runs = [make_run(tmp_path / "full", noise=0.3), make_run(tmp_path / "ifd", "ifd", 1.6, noise=0.3, rows=[1])]
    alone = headline(compare_runs(runs))
    assert ", without the variance between runs)" in alone and "; with one run a side, other seeds may" in alone
    assert ". " not in alone.removesuffix("."), "in the same sentence"
    facts = {"selection": {"facts": {"seed": 5, "dataset": candidates().content_hash()}}}
    runs.append(make_run(tmp_path / "full5", noise=0.3, seed=5, **facts))
    make_run(tmp_path / "full", noise=0.3, selection={"facts": {"seed": 4, "dataset": candidates().content_hash()}})
    assert "with the variance between 1 + 2 runs, the side with one taken to vary as the other)" in headline(
        compare_runs(runs)
    )


def test_the_conclusion_says_what_was_compared_what_came_out_and_how_sure_that_is(tmp_path, many):
    baseline = make_run(tmp_path / "full", noise=0.3)
    better = make_run(tmp_path / "ifd", "ifd", 1.6, noise=0.3, rows=[1])
    (best,) = [group for group in compare_runs([baseline, better]).groups if group.pir]
    compared, found, sure = conclusion(compare_runs([baseline, better]))
    rows = len(candidates())
    assert compared == (
        f"Compared: models trained on rows of {rows} (full on {rows}, ifd on 1) for equally many epochs, 1 run each."
    )
    assert found == f"Came out: ifd is {best.pir.verdict} than training on everything; there is no random control."
    assert f"PIR {best.pir.value:.3f} over training on everything, 95 % interval {interval_text(best.pir)}, " in sure
    assert "without the variance between runs" in sure and sure.endswith("; more `seeds` would tell.")
    rated = [group for group in many.groups if group.pir and group.method not in ("full", "random")]
    compared, found, sure = conclusion(many)
    won = [group for group in rated if group.over_control and group.over_control.verdict == "better"]
    assert f"{len(won)} of {len(rated)} selections are better than as many random rows" in found
    best = max(rated, key=lambda group: group.pir.value)
    assert found.startswith(f"Came out: {best.name} ") and "best of several looks better" in sure
    assert conclusion(Comparison(rated, None)) == [headline(Comparison(rated, None))]


#: What LaTeX reads otherwise than as text.
ODD = r"a_b & 50% of $x$ {#1} ~ ^ \cmd"


def test_tables_are_files_that_read_back_to_what_is_shown(many, written):
    parts = [part for part in sections(many) if part.table]
    files = {path.name for path in (written / "tables").iterdir()}
    assert files == {f"{file_name(part.title)}.{kind}" for part in parts for kind in ("csv", "tex")}
    assert "runs.csv" in files and len(files) == 2 * len(parts)
    for part in parts:
        with open(written / "tables" / f"{file_name(part.title)}.csv", encoding="utf-8", newline="") as file:
            assert list(csv.reader(file)) == [part.table.head, *part.table.rows]
    frame = pd.read_csv(written / "tables" / "runs.csv")
    assert frame["PIR (benchmark ratio)"].dtype == float and len(frame) == len(many.groups)


def test_latex_is_escaped_and_long_tables_break_across_pages(tmp_path):
    table = Table(["run", ODD, "run"], [[ODD, "1", "2"]])
    parts = [Section(f"Rows kept by `{ODD}`", table=table), Section("Long", table=Table(["run"], [["x"]] * 60))]
    (tmp_path / "stale.tex").write_text("of an earlier report")
    paths = write_tables(parts, tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted(paths)
    odd, long = (path.read_text(encoding="utf-8") for path in paths if path.suffix == ".tex")
    escaped = [r"a\_b", r"\& 50\%", r"\$x\$", r"\{\#1\}", r"\textasciitilde", r"\textasciicircum", r"\textbackslash"]
    assert all(odd.count(text) == 3 for text in escaped), "caption, head and cell"
    assert re.search(r"(?<!\\)[$#]", odd) is None and odd.count("\\toprule") == 1 and "{lrr}" in odd
    assert long.startswith("\\begin{longtable}{l}") and "\\endhead" in long
    if latex := shutil.which("pdflatex"):
        body = "\n".join(path.read_text(encoding="utf-8") for path in paths if path.suffix == ".tex")
        packages = "\\documentclass{article}\\usepackage{booktabs,longtable}\\begin{document}"
        (tmp_path / "all.tex").write_text(f"{packages}{body}\\end{{document}}", encoding="utf-8")
        subprocess.run([latex, "-interaction=nonstopmode", "-halt-on-error", "all.tex"], cwd=tmp_path, check=True)


def test_tables_of_titles_that_look_alike_are_files_of_their_own_and_latex_needs_an_extra(
    tmp_path, caplog, monkeypatch
):
    parts = [Section(f"Scores of {name}", table=Table(["run"], [[name]])) for name in ("IFD", "ifd", "if/d", "if-d")]
    assert {path.name for path in write_tables(parts, tmp_path) if path.suffix == ".csv"} == {
        *("scores-of-ifd.csv", "scores-of-ifd-2.csv", "scores-of-if-d.csv", "scores-of-if-d-2.csv"),
    }
    assert [(tmp_path / f"scores-of-ifd{more}.csv").read_text() for more in ("", "-2")] == ["run\nIFD\n", "run\nifd\n"]
    monkeypatch.setitem(sys.modules, "jinja2", None)
    monkeypatch.delitem(sys.modules, "pandas.io.formats.style", raising=False)
    assert {path.suffix for path in write_tables(parts, tmp_path)} == {".csv"} and len(caplog.records) == 1
    assert "`pip install hf_dataselect[report]`" in caplog.text


def test_figures_for_a_paper_hold_their_fonts_and_do_not_rely_on_colour(written):
    for name in ("ratios", "over-control", "curves"):
        assert (written / f"report-{name}.pdf").read_bytes().count(b"/FontFile2") >= 1
        assert "<text" not in (written / f"report-{name}.svg").read_text(encoding="utf-8")
    assert len({(marker, fill == "white") for marker, _, fill in _VERDICTS.values()}) == 4
    assert {"better", "worse", SAME, "unknown"} == set(_VERDICTS)


def test_equal_comparisons_give_equal_figures(many, pictures):
    with style():
        again, *_ = _ratios(many)
    assert again.name == pictures[0].name and (again.svg, again.pdf) == (pictures[0].svg, pictures[0].pdf)


def test_every_text_of_a_picture_is_within_it(pictures):
    for picture in pictures:
        figure = picture.figure
        for text in [*figure.axes[0].texts, *(text for legend in figure.legends for text in legend.get_texts())]:
            box = text.get_window_extent()
            assert figure.bbox.x0 - 1 <= box.x0 and box.x1 <= figure.bbox.x1 + 1, (picture.name, text.get_text())
