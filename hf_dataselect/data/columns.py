"""Columns that options name: whether they are there, groups of rows that share a value, and numbers."""

from typing import Any

import numpy as np
from datasets import Dataset

from ..options import nearest


def check_column(option: str, column: str, dataset: Dataset) -> None:
    """Refuse, with a `ValueError`, a column that an option of a method names and the dataset lacks."""
    columns = dataset.column_names
    if column not in columns:
        raise ValueError(
            f"`selection_kwargs`: {option}: the dataset has no column {column!r}{nearest(column, columns)}"
        )


def groups_of(dataset: Dataset, column: str) -> tuple[list[str], np.ndarray]:
    """Values of a column as text, sorted, and the place there of each row's, int32 `(n,)`."""
    values = [str(value) for value in dataset.select_columns([column]).with_format(None)[column]]
    names, of_row = np.unique(np.array(values, str), return_inverse=True)
    return names.tolist(), of_row.astype(np.int32)


def number_of(value: Any) -> float:
    """A value as a number, also one that is written as text; NaN where it is none."""
    try:
        return np.nan if value is None else float(value)
    except (TypeError, ValueError):
        return np.nan
