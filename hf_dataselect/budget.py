"""Budgets: how many rows to keep."""

from typing import Any

import numpy as np


def parse_budget(value: Any) -> float | int:
    """
    A budget from a recipe or the command line: at most 1 is a fraction, more is a count.

    Raises:
        `ValueError`: not positive, neither a fraction nor a whole count, or a bare `1`, which may mean either.
    """
    problem = "write a fraction such as 0.05 (1.0 is all rows) or a count such as 500"
    number = value
    if isinstance(value, str):
        try:
            number = int(value) if value.strip().lstrip("+-").isdigit() else float(value)
        except ValueError:
            raise ValueError(f"`selection_budget={value!r}` is not a number: {problem}.") from None
    if isinstance(number, bool) or not isinstance(number, (int, float, np.integer, np.floating)):
        raise ValueError(f"`selection_budget={value!r}` is not a number: {problem}.")
    if not number > 0 or number == float("inf"):
        raise ValueError(f"`selection_budget={value!r}` keeps nothing or can't be counted: {problem}.")
    if isinstance(number, (int, np.integer)):
        if number == 1:
            raise ValueError(f"`selection_budget={value!r}` may mean one row or all of them: write 1.0 for all rows.")
        return int(number)
    if number <= 1:
        return float(number)
    if number != int(number):
        raise ValueError(f"`selection_budget={value!r}` is neither a fraction nor a whole count: {problem}.")
    return int(number)


def rows_to_keep(budget: float | int, candidates: int) -> int:
    """
    Rows a budget means: a fraction (float up to 1.0, rounded, at least one row) or a count (integer from 2).

    Raises:
        `ValueError`: more rows than there are.
    """
    if isinstance(budget, float):
        return max(1, round(budget * candidates))
    if budget > candidates:
        raise ValueError(f"`selection_budget={budget}` asks for more rows than the {candidates} of the dataset.")
    return budget
