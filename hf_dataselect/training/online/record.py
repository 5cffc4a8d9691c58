"""[`Record`]: what a policy did, for the run folder: drops, weights, shares and losses by source over time."""

from typing import Any

import numpy as np
from datasets import Dataset

from ...data.columns import groups_of
from ...policy import Seen


#: Entries of the history at most; a longer training has several steps in one.
ENTRIES = 100


class Record:
    """
    Counts of rows and sums over tokens.

    Args:
        dataset ([`~datasets.Dataset`]):
            The candidates.
        column (`str`):
            That of their sources; without it, all rows are of one.
    """

    def __init__(self, dataset: Dataset, column: str):
        self._names, self._of_row = ["all rows"], np.zeros(len(dataset), np.int32)
        if column in dataset.column_names:
            self._names, self._of_row = groups_of(dataset, column)
        self._times = {name: np.zeros(len(dataset), np.int32) for name in ("seen", "dropped")}
        self._history: list[dict[str, Any]] = []
        self._new: dict[str, float] = {}

    def observe(self, seen: Seen, weights: np.ndarray) -> None:
        """Count the rows of a step and their weights `(k,)`."""
        dropped = weights == 0
        self._times["seen"][seen.rows] += 1
        self._times["dropped"][seen.rows[dropped]] += 1
        first = 1 + (seen.step - 1) // (-(-seen.steps // ENTRIES)) * -(-seen.steps // ENTRIES)
        if not self._history or self._history[-1]["from_step"] != first:
            sums = dict.fromkeys(("tokens", "weighted", "loss"), [0.0] * len(self._names))
            self._history.append({"from_step": first} | sums)
            self._history[-1] |= {"rows": 0, "dropped": 0}
        entry, source = self._history[-1], self._of_row[seen.rows]
        parts = {"tokens": seen.tokens, "weighted": seen.tokens * weights, "loss": seen.tokens * seen.losses}
        for name, part in parts.items():
            entry[name] = (entry[name] + np.bincount(source, part, len(self._names))).tolist()
        entry["rows"] += len(seen.rows)
        entry["dropped"] += int(dropped.sum())
        mean = float(parts["weighted"].sum() / parts["tokens"].sum())
        now = {"weight": mean, "dropped": float(dropped.mean()), "steps": 1.0}
        self._new = {name: self._new.get(name, 0.0) + value for name, value in now.items()}

    def logs(self) -> dict[str, float]:
        """Mean weight of a token, and the part of the rows that was dropped, since the last call."""
        new, self._new = self._new, {}
        steps = new.pop("steps", 0)
        return {f"policy/{name}": value / steps for name, value in new.items()} if steps else {}

    def figures(self) -> dict[str, Any]:
        """Rows and how often they were dropped; by source, shares of the loss and mean losses over time."""
        seen, dropped = self._times["seen"], self._times["dropped"]
        return {
            "rows": {
                "served": int((seen > 0).sum()),
                "times": int(seen.sum()),
                "dropped": int((dropped > 0).sum()),
                "times_dropped": int(dropped.sum()),
                "always_dropped": int(((seen > 0) & (dropped == seen)).sum()),
            },
            "history": [
                {name: entry[name] for name in ("from_step", "rows", "dropped")}
                | {
                    "share": dict(zip(self._names, _parts(entry["weighted"]), strict=True)),
                    "loss": dict(zip(self._names, _ratios(entry["loss"], entry["tokens"]), strict=True)),
                }
                for entry in self._history
            ],
        }

    def state_dict(self) -> dict[str, Any]:
        """The counts."""
        return {"times": self._times, "history": self._history}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a [`state_dict`]."""
        self._times, self._history = state["times"], state["history"]


def _parts(values: list[float]) -> list[float]:
    return [value / (sum(values) or 1.0) for value in values]


def _ratios(sums: list[float], counts: list[float]) -> list[float | None]:
    return [part / count if count else None for part, count in zip(sums, counts, strict=True)]
