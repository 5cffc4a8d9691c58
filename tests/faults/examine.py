"""All cases of a kind, in a process of its own."""

import re
import tempfile
from pathlib import Path

import tests.conftest  # noqa: F401  no hub, one thread
from tests.faults.cases import CASES
from tests.faults.conduct import conduct
from tests.faults.laboratory import Laboratory
from tests.faults.table import Line, line_of


def examine(kind: str, pattern: str) -> list[Line]:
    """The lines of the cases; those that are wrong are shown with their logs."""
    lines = []
    with tempfile.TemporaryDirectory() as root, Laboratory(Path(root) / "laboratory") as laboratory:
        for case in CASES:
            if case.kind == kind and re.search(pattern, case.name):
                verdict = conduct(case, laboratory)
                lines.append(line_of(verdict))
                print(lines[-1].text + ("\n" + verdict.log[-4000:] if verdict.wrong else ""), flush=True)
    return lines
