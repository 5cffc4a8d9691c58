"""
Begin with the rows that are easy for the model as it is, and add harder ones (self-paced learning, Kumar et al., NIPS
2010, "Self-Paced Learning for Latent Variable Models").

The claim: rows of high loss, learned too early, lead to worse optima; with noisy rows they are the faulty ones.

    a row weighs 1 if its loss is at most lambda, else 0;   lambda grows until all rows weigh 1

Deviations: lambda is not a number to be tuned: it follows from the steps before, see [`CutPolicy`](../policy.py), so
that the part that is trained on is `start`, and grows linearly to 1 at `full_at` of the training.

Relations: [`TailDrop`](tail_drop.py) drops the easy end.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch

from ..card import Card
from ..options import Fraction
from ..policy import CutPolicy


@dataclass
class SelfPaced(CutPolicy):
    """
    Args:
        start (`float`, *optional*, defaults to `0.5`):
            The part of the rows that is trained on at the beginning, those of the lowest losses.
        full_at (`float`, *optional*, defaults to `0.5`):
            The part of the training after which all rows are.
    """

    start: Fraction = 0.5
    full_at: Fraction = 0.5

    card: ClassVar[Card] = Card(
        title="easy rows first, then harder ones",
        label_source="loss in training",
        features="model-oriented",
        steps=("drop the highest losses of each step, fewer and fewer",),
        code=False,
        deviations=("the threshold follows from the share of rows to train on",),
        evidence="none known for instruction tuning",
    )

    def value(self, rows: np.ndarray, losses: torch.Tensor) -> torch.Tensor:
        return -losses

    def part(self, progress: float) -> float:
        return (1 - self.start) * max(0.0, 1 - progress / self.full_at)
