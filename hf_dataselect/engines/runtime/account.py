"""[`Account`]: what became of each row, and what scoring cost."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any


class Account:
    """What became of the rows that were not simply scored, by reason, and what the scoring cost."""

    def __init__(self):
        self._rows: dict[str, dict[str, set[int]]] = {"unscorable": {}, "dropped": {}, "truncated": {}}
        #: Forward and backward passes and calls of a judge: rows and tokens of each, and rows that came from the cache
        #: instead.
        self.passes: dict[str, int] = {}
        #: Seconds that an earlier run spent on what came from the cache.
        self.cached_seconds = 0.0
        #: Files of the cache that this run wrote: what it finds there again was not an earlier run's.
        self.written: set[Path] = set()
        #: What a method has to tell besides (statistics, rows that look odd), by name; for the record.
        self.figures: dict[str, Any] = {}

    def note(self, kind: str, reason: str, rows: Iterable[int]) -> None:
        """
        Enter rows as `"unscorable"` (NaN), `"dropped"` (refused by the method, or unusable) or `"truncated"`. The
        first reason given for a row stands; one that is dropped already is not unscorable as well.
        """
        before = [*self._rows[kind].values()]
        before += self._rows["dropped"].values() if kind == "unscorable" else []
        rows = {int(row) for row in rows}.difference(*before)
        if rows:
            self._rows[kind].setdefault(reason, set()).update(rows)

    def count(self, **passes: int) -> None:
        """Add to the passes."""
        for name, number in passes.items():
            self.passes[name] = self.passes.get(name, 0) + int(number)

    def add_cached_seconds(self, seconds: float) -> None:
        """Add what an earlier run spent on results found in the cache."""
        self.cached_seconds += seconds

    def rows(self, kind: str) -> dict[str, list[int]]:
        """Rows by reason, sorted."""
        return {reason: sorted(rows) for reason, rows in self._rows[kind].items()}
