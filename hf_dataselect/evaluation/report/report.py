"""Writes the report: Markdown, one HTML page, pictures and JSON."""

import base64
import json
import logging
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import asdict
from importlib.resources import files
from pathlib import Path

import yaml

from ...engines.store.files import write_atomic, written_atomic
from ...errors import printable
from ...runs.files import plain
from ..comparison.comparison import Comparison
from .drawing import Picture
from .picture import draw
from .section import LONG, Section, Table, shortened
from .sections import sections
from .tables import write_tables
from .verdict import headline


logger = logging.getLogger(__name__)


def to_markdown(parts: Sequence[Section], pictures: Sequence[Picture] = ()) -> str:
    """The [`sections`] as Markdown with aligned tables, readable on a terminal too."""
    drawn, lines = {picture.name: picture for picture in pictures}, []
    for part in parts:
        lines += [f"## {part.title}", ""]
        if part.facts:
            lines += [*(f"- {name}: {value}" for name, value in part.facts.items()), ""]
        lines += _listed(part.text)
        if part.table:
            lines += [*_aligned(part.table), ""]
        for name in part.pictures:
            if name in drawn:
                lines += [f"![{drawn[name].alt}]({drawn[name].file})", ""]
        lines += _listed(part.remarks)
    return "\n".join(lines).rstrip()


def _listed(lines: list[str]) -> list[str]:
    return [*(f"- {line}" if len(lines) > 1 else line for line in lines), *([""] if lines else [])]


def to_html(parts: Sequence[Section], pictures: Sequence[Picture] = ()) -> str:
    """
    The [`sections`] as one self-contained page: inline style and pictures, no scripts, no network requests.

    Raises:
        `ImportError`: jinja2 is not installed (extra `report`).
    """
    from jinja2 import Environment

    source = (files(__package__) / "report.html.jinja").read_text(encoding="utf-8")
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"breakable": _breakable, "inlined": _inlined}
    template = environment.from_string(source)
    return template.render(sections=parts, pictures={picture.name: picture for picture in pictures}, long=LONG)


def _breakable(name: str) -> str:
    """A name that may be broken after punctuation and before capitals."""
    from markupsafe import Markup, escape

    return Markup("<wbr>").join(map(escape, re.split(r"(?<=[_/.:-])(?=\w)|(?<=[a-z])(?=[A-Z])", name)))


def _inlined(picture: Picture) -> str:
    """The picture as a data URL; vector graphics are sharp on a phone and on paper."""
    return "data:image/svg+xml;base64," + base64.b64encode(picture.svg).decode()


def write_report(comparison: Comparison, folder: Path) -> list[Path]:
    """
    Write report.md and report.json, each table as CSV in `tables/`, with jinja2 also as LaTeX, and report.html, with
    matplotlib also each picture as PNG, and those for a paper as PDF and SVG (both in the extra `report`). Replaces an
    earlier report in the folder. Returns the paths.
    """
    folder.mkdir(parents=True, exist_ok=True)
    drawn = [path for kind in ("png", "pdf", "svg") for path in folder.glob(f"report-*.{kind}")]
    for stale in [*drawn, folder / "report.html"]:
        stale.unlink(missing_ok=True)
    try:
        pictures = draw(comparison)
    except ImportError as error:
        logger.warning("No pictures: %s. `pip install hf_dataselect[report]`.", error)
        pictures = []
    paths = [folder / "report.md", folder / "report.json"]
    parts = sections(comparison)
    write_atomic(paths[0], to_markdown(parts, pictures) + "\n")
    described = [asdict(group) for group in comparison.groups]
    for run in (run for group in described for run in group["runs"]):
        del run["selection"]["scores"], run["selection"]["columns"]  # in the run's own scores.parquet
    content = {"verdict": headline(comparison), "groups": described, "tallies": comparison.tallies}
    content["examples"] = comparison.examples
    content["efficiency"] = [item._asdict() | item.point._asdict() for item in comparison.efficiencies()]
    content["unranked"] = [item._asdict() | item.point._asdict() for item in comparison.unranked()]
    write_atomic(paths[1], printable(json.dumps(plain(content), ensure_ascii=False)))
    for picture in pictures:
        paths.append(folder / picture.file)
        with written_atomic(paths[-1]) as temporary:
            picture.figure.savefig(temporary, dpi=150, format="png")
        for kind in ("pdf", "svg") if picture.paper else ():
            paths.append(paths[-1].with_suffix(f".{kind}"))
            write_atomic(paths[-1], getattr(picture, kind))
    paths += write_tables(parts, folder / "tables")
    try:
        page = to_html(parts, pictures)
    except ImportError as error:
        logger.warning("No report.html: %s. `pip install hf_dataselect[report]`.", error)
        return paths
    paths.append(folder / "report.html")
    write_atomic(paths[-1], page)
    return paths


def write_space(comparison: Comparison, report: Path) -> Path:
    """
    The page of a written report as the folder of a static Space: `space/`, with README.md and index.html.

    Raises:
        `ValueError`: jinja2 is not installed (extra `report`): there is no page.
    """
    page, space = report / "report.html", report / "space"
    if not page.is_file():
        raise ValueError(f"{report} has no report.html to make a Space of. `pip install hf_dataselect[report]`.")
    head = {"title": "Data selection report", "sdk": "static", "app_file": "index.html", "tags": ["hf_dataselect"]}
    space.mkdir(exist_ok=True)
    write_atomic(space / "index.html", page.read_text(encoding="utf-8"))
    text = f"---\n{yaml.safe_dump(head, sort_keys=False)}---\n\n# Data selection report\n\n{headline(comparison)}\n"
    write_atomic(space / "README.md", printable(text))
    return space


def in_short(paths: list[Path]) -> str:
    """The files that [`write_report`] has written: the report itself by name, the others by number."""
    named = [path for path in paths if path.stem == "report"]
    return f"{', '.join(map(str, named))}, and {len(paths) - len(named)} pictures and tables beside them"


def _aligned(table: Table) -> list[str]:
    rows = [[shortened(cell.replace("|", "/"), table.longest) for cell in row] for row in table.rows]
    widths = [max(3, *map(_width, column)) for column in zip(table.head, *rows, strict=True)]
    words = [table.left is None or place < table.left for place in range(len(table.head))]

    def line(cells: list[str]) -> str:
        gaps = [" " * (width - _width(cell)) for cell, width in zip(cells, widths, strict=True)]
        padded = [cell + gap if word else gap + cell for cell, gap, word in zip(cells, gaps, words, strict=True)]
        return f"| {' | '.join(padded)} |"

    rule = ["-" * (width - 1) + ("-" if word else ":") for width, word in zip(widths, words, strict=True)]
    return [line(table.head), line(rule), *map(line, rows)]


def _width(text: str) -> int:
    """Columns of the text on a terminal: a Chinese character takes two, a combining mark zero."""
    return sum(
        0 if unicodedata.combining(character) else 2 if unicodedata.east_asian_width(character) in "WF" else 1
        for character in text
    )
