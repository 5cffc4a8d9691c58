"""What a report is made of: sections of sentences, tables and pictures."""

from dataclasses import dataclass, field

import numpy as np

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


@dataclass
class Section:
    """A section of the report: sentences, then a table, then pictures by name."""

    title: str
    text: list[str] = field(default_factory=list)
    table: Table | None = None
    pictures: tuple[str, ...] = ()


def named(comparison: Comparison) -> dict[str, str]:
    """Names of the groups as they are shown."""
    return {g.name: f"{g.name} (BM)" if g is comparison.baseline else g.name for g in comparison.groups}


def number(value: float | None, digits: int = 3) -> str:
    """A number with so many digits; empty for none."""
    return "" if value is None or not np.isfinite(value) else f"{value:.{digits}f}"
