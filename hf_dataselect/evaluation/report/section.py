"""What a report is made of: sections of facts, sentences, tables, pictures and remarks."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ...errors import printable
from ..comparison.comparison import Comparison


#: Rows of a table, or remarks, beyond which the page folds them.
LONG = 16


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
        shades (`list[list[float]]`, *optional*):
            For each cell from -1 (worse, fewer) to 1 (better, more), how strongly the page colours it; 0 is not.
    """

    head: list[str]
    rows: list[list[str]]
    left: int | None = 1
    longest: int | None = None
    shades: list[list[float]] | None = None

    @property
    def words(self) -> int:
        """Number of columns that hold text."""
        return len(self.head) if self.left is None else self.left

    def __post_init__(self):
        self.head, self.rows = _printable(self.head), _printable(self.rows)


@dataclass
class Section:
    """
    A section of the report, in this order.

    Args:
        title (`str`):
            Heading.
        text (`list[str]`, *optional*):
            Sentences.
        table ([`Table`], *optional*):
            A table.
        pictures (`tuple[str, ...]`, *optional*):
            Pictures by name, where they are drawn.
        remarks (`list[str]`, *optional*):
            Sentences below all that.
        facts (`dict[str, str]`, *optional*):
            Names and values.
        folded (`bool`, *optional*, defaults to `False`):
            Whether the page shows it only when asked to.
    """

    title: str
    text: list[str] = field(default_factory=list)
    table: Table | None = None
    pictures: tuple[str, ...] = ()
    remarks: list[str] = field(default_factory=list)
    facts: dict[str, str] = field(default_factory=dict)
    folded: bool = False

    @property
    def empty(self) -> bool:
        """Whether it says nothing."""
        return not (self.text or self.table or self.remarks or self.facts)

    def __post_init__(self):
        self.title, self.text, self.remarks = map(_printable, (self.title, self.text, self.remarks))
        self.facts = {name: printable(value) for name, value in self.facts.items()}


def _printable(text: Any) -> Any:
    """Texts in whatever lists, with what steers a terminal or reorders a page escaped."""
    return [_printable(part) for part in text] if isinstance(text, list) else printable(text)


def named(comparison: Comparison) -> dict[str, str]:
    """Names of the groups as they are shown."""
    return {g.name: f"{g.name} (BM)" if g is comparison.baseline else g.name for g in comparison.groups}


def number(value: float | None, digits: int = 3) -> str:
    """A number with so many digits; empty for none."""
    return "" if value is None or not np.isfinite(value) else f"{value:.{digits}f}"


def shortened(text: Any, length: int | None) -> str:
    """The text on one line, at most `length` characters."""
    text = " ".join(str(text).split())
    return text if length is None or len(text) <= length else text[: length - 1].rstrip() + "…"


def abridged(name: str, length: int) -> str:
    """A name of at most `length` characters: names often differ at both ends."""
    return name if len(name) <= length else f"{name[: (length - 1) // 2]}…{name[-(length // 2) :]}"


def merged(remarks: Iterable[tuple[str, str]], everything: list[str], baseline: str | None = None) -> list[str]:
    """
    One line for each sentence, with the names of all runs that it is said of.

    Args:
        remarks (`Iterable[tuple[str, str]]`):
            Name and sentence; no name for what is said of the comparison.
        everything (`list[str]`):
            Names of all runs, or of all groups.
        baseline (`str`, *optional*):
            That of the baseline.
    """
    names: dict[str, dict[str, None]] = {}
    for name, sentence in remarks:
        names.setdefault(sentence, {})[name] = None
    lines = []
    for sentence, said in names.items():
        about = all_of([*said], everything, baseline)
        about = about.capitalize() if len(said) > 1 and about.startswith("all runs") else about
        lines.append(sentence if "" in said else f"{about}: {sentence}")
    return lines


def all_of(names: list[str], everything: list[str], baseline: str | None = None) -> str:
    """The names, or in a word that they are all."""
    if len(names) > 1 and set(names) == set(everything):
        return "all runs"
    if len(names) > 1 and set(names) == set(everything) - {baseline}:
        return "all runs but the baseline"
    return ", ".join(names)
