"""
All rows: the baseline model (BM) is a run of this "method", and every PIR is measured against it.

Losses and gradient norms are those of plain `SFTTrainer`, step for step.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ..context import Context
from ..data.records import Records
from ..selector import Card, Selector


@dataclass
class Full(Selector):
    """Keep every row, in the order of the dataset."""

    card: ClassVar[Card] = Card(title="all rows: the baseline (BM)", steps=("keep all",))
    columns: ClassVar[tuple[str, ...] | None] = ()
    default_budget: ClassVar[float] = 1.0
    fixed_budget: ClassVar[bool] = True

    def score(self, features: Records, ctx: Context) -> np.ndarray:
        return np.zeros(len(features), np.float32)

    def select(self, scores: np.ndarray, records: Records, features: Records, k: int, ctx: Context) -> np.ndarray:
        return np.flatnonzero(np.isfinite(scores))
