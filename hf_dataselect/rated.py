"""[`RatedSelector`]: a base for methods that join a quality, by any other method, with the coverage of the rows."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .context import Context
from .data.records import Records
from .registry import load_member
from .selector import Need, Scores, Selector, Split, Want, split_of


@dataclass
class RatedSelector(Selector):
    """
    A selector whose scores are those of the method `quality`, with the options `quality_kwargs`. What that method
    excludes is excluded. A subclass adds features of its own, by other names than `"quality"`, and selects.
    """

    quality: str
    quality_kwargs: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self):
        super().__post_init__()
        self._rater = load_member("quality", self.quality, self.quality_kwargs)

    @property
    def takes_target(self) -> bool:
        """Whether the quality does."""
        return self._rater.takes_target

    @property
    def weighs_tasks(self) -> bool:
        """Whether weights of tasks count in the quality."""
        return self._rater.weighs_tasks

    @property
    def splits(self) -> Split | None:
        """Where the quality does, or needs no model: the choice computes vectors."""
        return None if split_of([self._rater]) is None and self._rater.card.llm_uses else "selection"

    @property
    def largest_part(self) -> float:
        """What the quality leaves."""
        return self._rater.largest_part

    def needs(self) -> frozenset[Need]:
        return self._rater.needs()

    def wants(self) -> frozenset[Want]:
        return self._rater.wants()

    def extras(self) -> dict[str, str]:
        return self._rater.extras()

    def check(self, records: Records) -> None:
        self._rater.check(records)

    def check_target(self, target: Records) -> None:
        self._rater.check_target(target)

    def check_model(self, config: Any) -> None:
        self._rater.check_model(config)

    def forecast(self, rows: int, target: int, kept: int) -> dict[str, int]:
        return dict(Counter(self._rater.forecast(rows, target, kept)))

    def featurize(self, records: Records, ctx: Context) -> dict[str, Any]:
        return {"quality": self._rater.featurize(records, ctx)}

    def score(self, features: dict[str, Any], ctx: Context) -> Scores:
        return Scores.of(self._rater.score(features["quality"], ctx))

    def exclude(self, scores: np.ndarray, features: dict[str, Any], ctx: Context) -> dict[str, np.ndarray]:
        return self._rater.exclude(scores, features["quality"], ctx)
