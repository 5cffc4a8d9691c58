"""
Leave out the rows whose loss has fallen furthest since training began (TailSFT, arXiv 2608.25756).

The claim: rows that the model has learned go on pulling it towards memorising them; without them it stays better at
what comes after, reinforcement learning above all.

    margin = loss now - loss before training, both means over label tokens;   the lowest part of the margins is dropped

The part grows from 0 to `fraction` over the training (`ramp`), or is the same in all steps (`static`).

Deviations: the authors rank the rows of a micro-batch over all ranks, so that accumulation and the number of ranks
change the result; here the cut follows from the whole optimizer steps before, see [`CutPolicy`](../policy.py), and the
part holds over a training, not in each step. Rows that stay are weighed up by what was dropped lately, which is the
authors' mean over survivors on average.

Relations: [`SelfPaced`](self_paced.py) drops at the other end. [`InfoBatch`](info_batch.py) spends the time on others.
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import numpy as np
import torch

from ..card import Card
from ..context import Context
from ..data.records import Records
from ..features.loss import trained_loss
from ..options import Interval
from ..policy import CutPolicy


@dataclass
class TailDrop(CutPolicy):
    """
    Args:
        fraction (`float`, *optional*, defaults to `0.5`):
            The part of the rows that is dropped, at the end of training if it grows.
        schedule (`str`, *optional*, defaults to `"ramp"`):
            `"ramp"`, or `"static"` for the same part in all steps.
    """

    fraction: Annotated[float, Interval(0, 1, closed="left")] = 0.5
    schedule: Literal["ramp", "static"] = "ramp"

    card: ClassVar[Card] = Card(
        title="without rows whose loss has fallen furthest",
        paper="2608.25756",
        label_source="loss in training, against that before",
        features="model-oriented",
        steps=("score rows before training", "drop those that have fallen furthest, in each step"),
        deviations=("the cut follows from the whole optimizer steps before, not from a micro-batch",),
        evidence="the authors' own; TRL has an example and says that it is not reproduced outside the paper",
    )
    reads_texts: ClassVar[bool] = True

    def prepare(self, records: Records, rows: np.ndarray, ctx: Context) -> None:
        before = np.full(len(records), np.nan)
        before[rows] = trained_loss(records.subset(rows), ctx.of_rows(rows), "Scoring rows before training").mean
        self.state["before"] = before

    def value(self, rows: np.ndarray, losses: torch.Tensor) -> torch.Tensor:
        return losses - torch.from_numpy(self.state["before"][rows]).to(losses)

    def part(self, progress: float) -> float:
        return self.fraction * (progress if self.schedule == "ramp" else 1)
