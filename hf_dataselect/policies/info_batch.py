"""
Prune half of the rows that are learned better than average, anew each round (InfoBatch, arXiv 2303.04947).

The claim: on images, lossless with 40 % less training. The rows below the mean loss are thinned out at random, and
those of them that stay weigh as much more, so that the expected gradient is that of all rows.

    learned = last loss < mean of the last losses;   of these, int((1 - prune) n) stay and weigh 1 / (1 - prune)

A round ends when its rows are served; the last part of training (1 - `until`) is on all rows, with weight 1. The run
makes the updates that it was asked for: pruned rows make room for more rounds. To save time, ask for fewer (a lower
`num_train_epochs`, or `max_steps`); the learning-rate schedule then ends where training does.

Deviations: the authors' code leaves stale weights in the unpruned epochs unless epochs x 0.875 is whole; here they are
1. A row that was not seen yet, or has no label tokens, stays and is not in the mean. Rows of the step that ends a
round count with their loss of the round before. Weights multiply sums over tokens, not means of rows.

Relations: [`TailDrop`](tail_drop.py) compares with the loss before training, and saves no time.
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np

from ..card import Card
from ..context import Context
from ..data.records import Records
from ..options import Fraction, Interval
from ..policy import Policy, Seen


@dataclass
class InfoBatch(Policy):
    """
    Args:
        prune (`float`, *optional*, defaults to `0.5`):
            The part of the rows below the mean that is left out of a round.
        until (`float`, *optional*, defaults to `0.875`):
            The part of the training after which nothing is pruned.
    """

    prune: Annotated[float, Interval(0, 0.9)] = 0.5
    until: Fraction = 0.875

    card: ClassVar[Card] = Card(
        title="all rows but half of those below the mean loss, the other half of which weighs double",
        paper="2303.04947",
        label_source="last loss in training",
        features="model-oriented",
        steps=("keep the last loss of each row", "thin out rows below the mean, each round"),
        deviations=(
            "rows not seen yet stay",
            "weights are 1 in all unpruned rounds",
            "pruned rows make room for more rounds; fewer updates are asked for by the user",
        ),
        evidence="lossless on CIFAR and ImageNet by the authors; no replication for instruction tuning is known",
    )
    chooses: ClassVar[bool] = True

    def prepare(self, records: Records, rows: np.ndarray, ctx: Context) -> None:
        self.state["losses"] = np.full(len(records), np.nan)

    def observe(self, seen: Seen) -> None:
        self.state["losses"][seen.rows] = seen.losses

    def choose(
        self, rows: np.ndarray, progress: float, random: np.random.RandomState
    ) -> tuple[np.ndarray, np.ndarray]:
        losses = self.state["losses"][rows]
        if progress >= self.until or not np.isfinite(losses).any():
            return rows, np.ones(len(rows))
        learned = losses < losses[np.isfinite(losses)].mean()  # false for NaN
        kept = random.choice(rows[learned], int((1 - self.prune) * learned.sum()), replace=False)
        weights = np.repeat([1, 1 / (1 - self.prune)], [(~learned).sum(), len(kept)])
        return np.concatenate([rows[~learned], kept]), weights
