"""What a report is made of: sections of sentences, tables and pictures."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ...errors import printable
from ..comparison.comparison import Comparison


@dataclass
class Table:
    """
    Cells as text.

    Args:
        head (`list[str]`):
            Names of the columns.
        rows (`list[list[str]]`):
            Cells.
        left (`int`, *optional*, defaults to `1`):
            Number of left-aligned text columns; the others hold numbers. `None`: all are text.
        longest (`int`, *optional*):
            Maximum characters of a cell in Markdown, whose lines don't wrap.
    """

    head: list[str]
    rows: list[list[str]]
    left: int | None = 1
    longest: int | None = None

    def __post_init__(self):
        self.head, self.rows = _printable(self.head), _printable(self.rows)


@dataclass
class Section:
    """A section of the report: sentences, then a table, then pictures by name."""

    title: str
    text: list[str] = field(default_factory=list)
    table: Table | None = None
    pictures: tuple[str, ...] = ()

    def __post_init__(self):
        self.title, self.text = _printable(self.title), _printable(self.text)


def _printable(text: Any) -> Any:
    """Texts in whatever lists, with what steers a terminal or reorders a page escaped."""
    return [_printable(part) for part in text] if isinstance(text, list) else printable(text)


def named(comparison: Comparison) -> dict[str, str]:
    """Names of the groups as they are shown."""
    return {g.name: f"{g.name} (BM)" if g is comparison.baseline else g.name for g in comparison.groups}


def number(value: float | None, digits: int = 3) -> str:
    """A number with so many digits; empty for none."""
    return "" if value is None or not np.isfinite(value) else f"{value:.{digits}f}"
