"""How alike the runs chose: one matrix of rows that both kept, one of the correlation of their scores."""

from collections.abc import Iterator

import numpy as np

from ..comparison.comparison import Comparison
from .section import Section, Table, number


def overlap_matrices(comparison: Comparison) -> Iterator[Section]:
    """Both are symmetric; runs are numbered as in the rows."""
    pairs = list(comparison.overlaps())
    names = list(dict.fromkeys(group.name for pair in pairs for group in pair[:2]))
    shared = {(one.name, other.name): part for one, other, part, _ in pairs}
    text = "Rows that both runs kept / rows that either kept. "
    text += "Two random halves of a dataset share 1/3 of their rows, two random twentieths 1/39."
    yield _matrix("Overlap of the selections", text, names, shared)
    alike = {(one.name, other.name): value for one, other, _, value in pairs if value is not None}
    scored = [name for name in names if any(name in pair for pair in alike)]
    text = "Spearman's rank correlation of the scores of the rows that both runs have a score of."
    yield _matrix("Rank correlation of the scores", text, scored, alike)


def _matrix(title: str, text: str, names: list[str], values: dict[tuple[str, str], float]) -> Section:
    if not names:
        return Section(title)
    square = np.full((len(names), len(names)), np.nan)
    np.fill_diagonal(square, 1)
    for (one, other), value in values.items():
        i, j = names.index(one), names.index(other)
        square[i, j] = square[j, i] = value
    head = ["run", *(str(place) for place in range(1, len(names) + 1))]
    rows = [
        [f"{place} {name}", *(number(value, 2) for value in line)]
        for place, (name, line) in enumerate(zip(names, square, strict=True), start=1)
    ]
    shades = [[0.0, *np.nan_to_num(line)] for line in square]
    return Section(title, [text], Table(head, rows, shades=shades))
