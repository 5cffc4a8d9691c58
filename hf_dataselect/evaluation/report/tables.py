"""The tables of a report as files: CSV for a program, LaTeX (booktabs) for a paper."""

import logging
import re
from collections.abc import Sequence
from itertools import chain, count
from pathlib import Path

import pandas as pd

from ...engines.store.files import write_atomic
from .section import Section, Table


logger = logging.getLogger(__name__)
#: Rows beyond which a table in LaTeX breaks across pages.
_PAGE = 40


def write_tables(parts: Sequence[Section], folder: Path) -> list[Path]:
    """Write `NAME.csv` and, with jinja2, `NAME.tex` for each table, named after its section. Returns the paths."""
    folder.mkdir(parents=True, exist_ok=True)
    for stale in [*folder.glob("*.csv"), *folder.glob("*.tex")]:
        stale.unlink()
    paths, latex = [], True
    for part in (part for part in parts if part.table):
        name, taken = file_name(part.title), {path.stem for path in paths}
        name = next(new for new in chain([name], (f"{name}-{i}" for i in count(2))) if new not in taken)
        paths.append(folder / f"{name}.csv")
        frame = pd.DataFrame(part.table.rows, columns=part.table.head)
        write_atomic(paths[-1], frame.to_csv(index=False, lineterminator="\n"))
        try:
            text = to_latex(frame, part.table, part.title) if latex else None
        except ImportError as error:
            logger.warning("No tables in LaTeX: %s. `pip install hf_dataselect[report]`.", error)
            latex = False
        if latex:
            paths.append(folder / f"{name}.tex")
            write_atomic(paths[-1], text)
    return paths


def to_latex(frame: pd.DataFrame, table: Table, caption: str) -> str:
    """
    A table for the packages booktabs and, where it is long, longtable; special characters are escaped.

    Raises:
        `ImportError`: jinja2 is not installed.
    """
    from pandas.io.formats.style import Styler

    words, shown = table.words, Styler(frame)
    return (
        shown.format(escape="latex")
        .format_index(escape="latex", axis=1)
        .hide(axis="index")
        .to_latex(
            column_format="l" * words + "r" * (len(table.head) - words),
            hrules=True,
            label=f"tab:{file_name(caption)}",
            caption=_escaped(caption),
            environment="longtable" if len(frame) > _PAGE else None,
            position=None if len(frame) > _PAGE else "htbp",
        )
    )


def _escaped(text: str) -> str:
    named = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    return text.translate(str.maketrans({letter: f"\\{letter}" for letter in "&%$#_{}"} | named))


def file_name(title: str) -> str:
    """A title as the name of a file."""
    return re.sub(r"[^\w.]+", "-", title.lower()).strip("-")
