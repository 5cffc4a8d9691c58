"""[`Account`]: the outcome of each row, and the cost of scoring."""

from collections.abc import Iterable
from typing import Any

import numpy as np


class Account:
    """Rows that are unscorable, dropped or truncated, by reason, and the cost of scoring."""

    def __init__(self):
        self._rows: dict[str, dict[str, set[int]]] = {"unscorable": {}, "dropped": {}, "truncated": {}}
        #: Rows and tokens of forward and backward passes, judge calls, and rows read from the cache.
        self.passes: dict[str, int] = {}
        #: Seconds of the steps of the last temporary fine-tuning.
        self.tuning_seconds = float("nan")
        #: Seconds that an earlier run spent on results read from the cache.
        self.cached_seconds = 0.0
        #: Cache files by name. `None` for those that this run wrote, whose results cost no earlier run anything; for
        #: others, which records' seconds are counted, bool `(records,)`: each counts once.
        self.cache_files: dict[str, np.ndarray | None] = {}
        #: Statistics and suspicious rows that a method reports, by name.
        self.figures: dict[str, Any] = {}

    def note(self, kind: str, reason: str, rows: Iterable[int]) -> None:
        """
        Record rows as `"unscorable"` (NaN), `"dropped"` (excluded by the method, or unusable) or `"truncated"`. The
        first reason for a row is kept; a dropped row is not recorded as unscorable, too.
        """
        before = [*self._rows[kind].values()]
        before += self._rows["dropped"].values() if kind == "unscorable" else []
        rows = {int(row) for row in rows}.difference(*before)
        if rows:
            self._rows[kind].setdefault(reason, set()).update(rows)

    def count(self, **passes: int) -> None:
        """Add to `passes`."""
        for name, number in passes.items():
            self.passes[name] = self.passes.get(name, 0) + int(number)

    def add_cached_seconds(self, seconds: float) -> None:
        """Add what an earlier run spent on results read from the cache."""
        self.cached_seconds += seconds

    def rows(self, kind: str) -> dict[str, list[int]]:
        """Rows by reason, sorted."""
        return {reason: sorted(rows) for reason, rows in self._rows[kind].items()}

    def of_rows(self, rows: np.ndarray) -> "Account":
        """This account for a view of some rows: what is noted of row `i` there is noted of `rows[i]` here."""
        return _OfRows(self, np.asarray(rows))

    def without_rows(self) -> "Account":
        """This account for costs and figures: nothing is noted of a row."""
        return _OfRows(self, None)


class _OfRows(Account):
    def __init__(self, whole: Account, rows: np.ndarray | None):
        self._whole, self._numbers, self._rows = whole, rows, whole._rows
        self.passes, self.cache_files, self.figures = whole.passes, whole.cache_files, whole.figures

    @property
    def cached_seconds(self) -> float:  # type: ignore[override]  # the whole account's
        return self._whole.cached_seconds

    def note(self, kind: str, reason: str, rows: Iterable[int]) -> None:
        if self._numbers is not None:
            self._whole.note(kind, reason, self._numbers[np.array([*rows], np.int64)])

    def add_cached_seconds(self, seconds: float) -> None:
        self._whole.add_cached_seconds(seconds)
