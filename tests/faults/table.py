"""The table of faults, `docs/faults.md`."""

import os
import platform
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import psutil

from tests.faults.case import Case
from tests.faults.verdict import Verdict


PAGE = Path(__file__).parents[2] / "docs" / "faults.md"
_HEADINGS = {
    "kill": "Kills",
    "interrupt": "Ctrl-C and SIGTERM",
    "disk": "Full and read-only disks",
    "damage": "Damaged caches",
    "run folder": "Run folders",
    "judge": "Judges",
    "ranks": "Ranks",
    "rows": "Rows and secrets",
}
_OUTCOMES = """\
| outcome | means |
|---|---|
| run again, resumed, the run goes on | rows, scores and evaluation are those of an undisturbed run |
| computed anew | the same, and nothing damaged was used; unless a file only lacks its end, a message names it |
| refused | one line that says what is wrong, exit code 2, and nothing is computed from it |
| named | what happened is said: by the last lines of the log, or as the reason of a row |
| {wrong} | not what is expected, and why |
"""


_WRONG = "**not recovered**"


class Line(NamedTuple):
    """A line of the table, and its section."""

    kind: str
    text: str


def merged(cases: Sequence[Case], found: Sequence[Line]) -> list[Line]:
    """The lines found, and those that the page has of the other cases, in the order of the cases."""
    known = [
        *found,
        *(Line("", text) for text in (PAGE.read_text(encoding="utf-8").splitlines() if PAGE.exists() else [])),
    ]
    lines = []
    for case in cases:
        text = next((line.text for line in known if line.text.startswith(beginning(case))), None)
        if text is None:
            raise SystemExit(f"{PAGE.name} has no line of {case.name!r}: run all.")
        lines.append(Line(case.kind, text))
    return lines


def page(lines_of: Sequence[Line]) -> str:
    """The whole page."""
    right = sum(_WRONG not in line.text for line in lines_of)
    memory = psutil.virtual_memory().total / 2**30
    machine = f"{len(os.sched_getaffinity(0))} CPU cores and {memory:.0f} GB of memory, no GPU"
    versions = f"Python {platform.python_version()}, " + ", ".join(
        f"{name} {version(name)}" for name in ("torch", "transformers", "trl")
    )
    lines = [
        "# Faults",
        "",
        f"`make test-faults` injects {len(lines_of)} faults and writes this page; a part of them runs in `make test`. "
        "Do not edit it: the cases are in `tests/faults/cases/`.",
        "",
        f"Written on {time.strftime('%Y-%m-%d')}, on {machine}, with {versions}. {right} of "
        f"{len(lines_of)} faults end as expected.",
        "",
        "Each fault meets a command on a tiny model, in a process of its own; what is left behind is compared with "
        "that of an undisturbed run. Lost is the work that was done twice: scores, steps and calls beyond those of an "
        "undisturbed run. Seconds are those of the last run, or, where a limit is set, those from the fault on.",
        "",
        _OUTCOMES.rstrip().format(wrong=_WRONG),
    ]
    for kind, heading in _HEADINGS.items():
        lines += [
            "",
            f"## {heading}",
            "",
            "| fault | where | lost | recovered how | seconds |",
            "|---|---|---|---|---:|",
        ]
        lines += [line.text for line in lines_of if line.kind == kind]
    return "\n".join(lines) + "\n"


def line_of(verdict: Verdict) -> Line:
    """A case in the table."""
    cells = [verdict.lost, verdict.how, f"{verdict.seconds:.1f}"]
    text = beginning(verdict.case) + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
    return Line(verdict.case.kind, text)


def beginning(case: Case) -> str:
    """The cells of a line that say which fault it is."""
    return f"| {case.fault} | {case.where} | ".replace("\\", "\\\\")
