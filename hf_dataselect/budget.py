"""
[`Budget`]: what to keep, of all rows or of each group.

| `selection_budget` | keeps |
|---|---|
| `0.05` | this fraction of the rows; `1.0` is all of them |
| `500` | this many rows |
| `2M tokens` | the best rows, up to the first whose tokens exceed it (`k`, `M` and `B` are factors of 1,000) |
| `score >= 4.5` | the rows whose score passes (`>=`, `>`, `<=`, `<`) |

A budget is a cap. What a method excludes by an option of its own (`threshold` of `alpagasus`, `nuggets`, `column`) is
gone before it; a method that keeps whatever passes its threshold has a `default_budget` of `1.0`.
"""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from .options import Interval, nearest, typed_options


_EXAMPLES = (
    "write a fraction such as 0.05 (1.0 is all rows), a count such as 500, tokens such as '2M tokens', or a threshold "
    "such as 'score >= 4.5'"
)
_FACTORS = {"": 1, "k": 10**3, "m": 10**6, "b": 10**9}
_TOKENS = re.compile(r"((?:\d{1,3}(?:[,_]\d{3})+|\d+)(?:\.\d+)?)\s*([kmb]?)\s*tokens?", re.IGNORECASE)
_SCORE = re.compile(r"score\s*(>=|>|<=|<)\s*(\S+)", re.IGNORECASE)
_WEIGHT = Interval(0, closed="left")
_COMPARE = {">=": np.greater_equal, ">": np.greater, "<=": np.less_equal, "<": np.less}


@dataclass(frozen=True)
class Groups:
    """
    Groups among which a budget is shared out (`selection_budget_by`). What a group can't fill goes to the others.

    Args:
        column (`str`):
            Column of the dataset that names the group of a row.
        how (`str` or `dict`, *optional*, defaults to `"proportional"`):
            `"proportional"`: each group keeps the same part of itself. `"equal"`: all groups keep as much. A mapping
            from groups to weights: in proportion to these; other groups keep nothing.
    """

    column: str = ""
    how: Literal["proportional", "equal"] | dict[str, float] = "proportional"

    def __post_init__(self):
        if not self.column:
            raise ValueError("`selection_budget_by`: name the `column` that holds the groups.")
        if isinstance(self.how, dict):
            for name, weight in self.how.items():
                if weight not in _WEIGHT:
                    raise ValueError(f"`selection_budget_by`: how: {name!r}={weight!r} must be {_WEIGHT}.")
            if not any(self.how.values()):
                raise ValueError("`selection_budget_by`: `how` gives no group a weight above 0.")

    @classmethod
    def parse(cls, value: "str | dict[str, Any] | Groups | None") -> "Groups | None":
        """Groups from a recipe: the name of a column, or a mapping (YAML, or JSON) of `column` and `how`."""
        if value is None or isinstance(value, Groups):
            return value
        named = isinstance(value, str) and not value.lstrip().startswith("{")
        return typed_options(cls, {"column": value} if named else value, "selection_budget_by")

    def of(self, columns: Any) -> tuple[list[str], np.ndarray]:
        """
        Names of the groups, sorted, and the number of each row's, `(n,)`.

        Args:
            columns ([`~datasets.Dataset`]):
                Where the column is.

        Raises:
            `ValueError`: no such column, or a weight for a group that is not in it.
        """
        if self.column not in columns.column_names:
            raise ValueError(
                f"`selection_budget_by`: the dataset has no column {self.column!r}"
                f"{nearest(self.column, columns.column_names)}"
            )
        values = [str(value) for value in columns.with_format(None)[self.column]]
        names, members = np.unique(np.array(values), return_inverse=True)
        for name in self.how if isinstance(self.how, dict) else ():
            if str(name) not in names:
                raise ValueError(
                    f"`selection_budget_by`: `{self.column}` has no group {name!r}{nearest(str(name), names.tolist())}"
                )
        return names.tolist(), members

    def __str__(self) -> str:
        if isinstance(self.how, dict):
            return f"{self.column} (" + ", ".join(f"{name}: {weight}" for name, weight in self.how.items()) + ")"
        return f"{self.column} ({self.how})"


@dataclass(frozen=True)
class Budget:
    """
    How much is kept; see the module docstring. Made by [`Budget.parse`].

    Args:
        value (`float` or `int`):
            The number.
        unit (`str`):
            What it counts: `"fraction"`, `"rows"`, `"tokens"` or `"score"`.
        relation (`str`, *optional*):
            Of a score to the value: `">="`, `">"`, `"<="` or `"<"`.
        groups ([`Groups`], *optional*):
            Groups among which it is shared out.
    """

    value: float | int
    unit: Literal["fraction", "rows", "tokens", "score"]
    relation: str = ""
    groups: Groups | None = None

    @classmethod
    def parse(cls, value: Any, groups: Any = None) -> "Budget":
        """
        A budget from a recipe or the command line: of numbers, at most 1 is a fraction, more is a count.

        Args:
            value (`float`, `int`, `str` or [`Budget`]):
                See the module docstring.
            groups (`str`, `dict` or [`Groups`], *optional*):
                See [`Groups`].

        Raises:
            `ValueError`: not a budget, nothing to keep, or a bare `1`, which may mean one row or all of them.
        """
        if isinstance(value, Budget):
            return value if groups is None else replace(value, groups=Groups.parse(groups))
        groups, text = Groups.parse(groups), value.strip() if isinstance(value, str) else ""
        try:
            if match := _TOKENS.fullmatch(text):
                tokens = round(float(re.sub("[,_]", "", match[1])) * _FACTORS[match[2].lower()])
                return cls(_positive(tokens, value), "tokens", groups=groups)
            if match := _SCORE.fullmatch(text):
                return cls._threshold(match[1], float(match[2]), value, groups)
            number = value
            if isinstance(value, str):
                number = int(text) if text.lstrip("+-").isdigit() else float(text)
        except ValueError as error:
            if "selection_budget" in str(error):
                raise
            raise ValueError(f"`selection_budget={value!r}` is not a budget: {_EXAMPLES}.") from None
        if isinstance(number, bool) or not isinstance(number, (int, float, np.integer, np.floating)):
            raise ValueError(f"`selection_budget={value!r}` is not a budget: {_EXAMPLES}.")
        number = _positive(number, value)
        if isinstance(number, (int, np.integer)):
            if number == 1:
                raise ValueError(
                    f"`selection_budget={value!r}` may mean one row or all of them: write 1.0 for all rows."
                )
        elif number <= 1:
            return cls(float(number), "fraction", groups=groups)
        elif number != int(number):
            raise ValueError(f"`selection_budget={value!r}` is neither a fraction nor a whole count: {_EXAMPLES}.")
        return cls(int(number), "rows", groups=groups)

    @classmethod
    def _threshold(cls, relation: str, number: float, value: Any, groups: Groups | None) -> "Budget":
        if not math.isfinite(number):
            raise ValueError(f"`selection_budget={value!r}` compares with no finite number: {_EXAMPLES}.")
        if groups is not None:
            raise ValueError(
                f"`selection_budget={value!r}` keeps what passes in every group alike: remove `selection_budget_by`, "
                "or give a fraction, a count or tokens."
            )
        return cls(number, "score", relation)

    @property
    def plain(self) -> float | int | str:
        """As it is written in recipes and in selection.json: a number for a fraction or a count of all rows."""
        return str(self) if self.unit in ("tokens", "score") or self.groups else self.value

    def __str__(self) -> str:
        exact = repr(self.value).removesuffix(".0")
        amount = {"tokens": f"{self.value} tokens", "score": f"score {self.relation} {exact}"}
        return amount.get(self.unit, str(self.value)) + (f" by {self.groups}" if self.groups else "")

    def rows(self, candidates: int) -> int | None:
        """
        Rows that it means (a fraction is rounded, and one row at least); `None` where that depends on the rows.

        Raises:
            `ValueError`: more rows than candidates.
        """
        if self.unit == "fraction":
            return max(1, round(self.value * candidates))
        if self.unit != "rows":
            return None
        if self.value > candidates:
            raise ValueError(
                f"`selection_budget={self.value}` asks for more rows than the {candidates} of the dataset."
            )
        return int(self.value)

    def exclude(self, scores: np.ndarray) -> dict[str, np.ndarray]:
        """Rows that a threshold excludes, as a mask `(n,)` by reason."""
        if self.unit != "score":
            return {}
        passes = _COMPARE[self.relation](scores, self.value)
        return {f"not {self}, the budget": np.isfinite(scores) & ~passes}

    def choose(
        self,
        scores: np.ndarray,
        best: Callable[[np.ndarray, int], np.ndarray],
        groups: tuple[list[str], np.ndarray] | None = None,
        tokens: np.ndarray | None = None,
    ) -> np.ndarray:
        """
        Rows to keep, best first.

        Args:
            scores (`np.ndarray`):
                `(n,)`; NaN for rows that can't be kept.
            best (`Callable`):
                Scores and a number of rows -> at most as many rows, best first, none without a score.
            groups (`tuple`, *optional*):
                Names of the groups and the group of each row, see [`Groups.of`].
            tokens (`np.ndarray`, *optional*):
                Tokens of each row, `(n,)`.
        """
        amount = int(self.value) if self.unit == "tokens" else self.rows(len(scores)) or len(scores)
        if groups is None or self.groups is None:
            return self._fill(scores, amount, best, tokens)
        (names, members), how = groups, self.groups.how
        size = np.ones(len(scores), np.int64) if tokens is None else tokens
        room = np.bincount(members, size * np.isfinite(scores)).astype(np.int64)
        if isinstance(how, dict):
            given = {str(name): weight for name, weight in how.items()}
            weights = np.array([given.get(name, 0.0) for name in names])
        else:
            weights = np.bincount(members, size) if how == "proportional" else np.ones(len(names))
        kept = [
            self._fill(np.where(members == group, scores, np.nan), share, best, tokens)
            for group, share in enumerate(shares(amount, weights, room))
            if share > 0
        ]
        rows = np.concatenate([np.zeros(0, np.int64), *kept])
        return rows[np.argsort(-scores[rows], kind="stable")]

    def _fill(self, scores: np.ndarray, amount: int, best: Callable, tokens: np.ndarray | None) -> np.ndarray:
        if tokens is None:
            return best(scores, int(amount))
        order = best(scores, len(scores))
        return order[: int(np.searchsorted(np.cumsum(tokens[order]), amount, side="right"))]


def shares(total: int, weights: np.ndarray, room: np.ndarray) -> np.ndarray:
    """
    Whole shares of a total in proportion to weights, `(groups,)`, by largest remainders; what exceeds the room of one
    is shared out among the others.
    """
    given, total = np.zeros(len(weights), np.int64), min(total, int(room[weights > 0].sum()))
    while (left := total - given.sum()) > 0:
        weights = np.where(given < room, weights, 0)
        exact = left * weights / weights.sum()
        part = np.floor(exact).astype(np.int64)
        part[np.argsort(part - exact, kind="stable")[: left - part.sum()]] += 1
        given = np.minimum(given + part, room)
    return given


def _positive(number: Any, value: Any) -> Any:
    if not number > 0 or number == math.inf:
        raise ValueError(f"`selection_budget={value!r}` keeps nothing or can't be counted: {_EXAMPLES}.")
    return number
