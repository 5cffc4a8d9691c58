"""
The control: a random subset of the same size, which a method has to beat.

Relations: [`Full`] is the baseline that PIR divides by; the control separates the choice of rows from their number.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ..context import Context
from ..data.records import Records
from ..selector import Card, Selector


@dataclass
class Random(Selector):
    """Keep rows drawn without replacement; `seed` of the training arguments decides which."""

    card: ClassVar[Card] = Card(title="random rows: the control", steps=("draw k rows",))
    columns: ClassVar[tuple[str, ...] | None] = ()

    def score(self, features: Records, ctx: Context) -> np.ndarray:
        # Ranks of a permutation: exact in float32 up to 2**24 rows, and all different below it.
        return np.random.default_rng(ctx.seed).permutation(len(features)).astype(np.float32)
