"""The files of a report: Markdown, the page, pictures, and the command that writes them."""

import json
import math
import shutil
import subprocess
from html.parser import HTMLParser

import pytest

from hf_dataselect.cli.main import main
from hf_dataselect.evaluation.comparison.comparison import add_rows, compare_runs
from hf_dataselect.evaluation.report.report import _width, to_markdown, write_report
from hf_dataselect.evaluation.report.sections import sections
from tests.reported_runs import ROWS, candidates, make_run


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
