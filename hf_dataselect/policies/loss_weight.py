"""
Weigh rows by how well the model knows them before training (FLOW, arXiv 2502.02797), so that it forgets less.

The claim: fine-tuning that leans on easy rows keeps more of what the model could do before, at little cost.

    weight = exp(-loss / temperature),   temperature = median of the losses

The loss is the mean over the row's label tokens under the model as it is before training; weights stay as they are.

Deviations: the authors print the median with 4 decimals and let the user pass it by hand (default 1.0); here it is
used as it is. Weights are not renormalised, as in their code, so that a row at the median weighs 0.368 and the
effective learning rate is lower by about e; `rescale` divides by the mean weight of a row instead. A row without a
loss before training weighs 1.

Relations: `tail_drop` compares the loss before training with that of each step.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch

from ..card import Card
from ..context import Context
from ..data.records import Records
from ..errors import SelectionError
from ..features.loss import trained_loss
from ..options import PositiveFloat
from ..policy import Policy


@dataclass
class LossWeight(Policy):
    """
    Args:
        temperature (`float`, *optional*):
            Loss at which a row weighs 1/e. Default: the median.
        rescale (`bool`, *optional*, defaults to `False`):
            Whether weights are divided by their mean over the scored rows (not over their tokens), so that the
            learning rate means what it says.
    """

    temperature: PositiveFloat | None = None
    rescale: bool = False

    card: ClassVar[Card] = Card(
        title="easy rows weigh more, to forget less",
        paper="2502.02797",
        label_source="loss of the model before training",
        features="model-oriented",
        steps=("score rows before training", "weigh their losses"),
        deviations=("the median is not rounded", "`rescale` is an addition"),
        evidence="the authors' own, on language and vision; not repeated by others as far as is known",
    )
    reads_texts: ClassVar[bool] = True

    def prepare(self, records: Records, rows: np.ndarray, ctx: Context) -> None:
        losses = trained_loss(records.subset(rows), ctx.of_rows(rows), "Scoring rows before training").mean
        weights, scored = weights_of(losses, self.temperature), np.isfinite(losses)
        if self.rescale and scored.any():
            weights[scored] /= weights[scored].mean()
        table = np.zeros(len(records))
        table[rows] = weights
        self.state["weights"] = table

    def weights(self, rows: np.ndarray, losses: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(self.state["weights"][rows]).to(losses)


def weights_of(losses: np.ndarray, temperature: float | None = None) -> np.ndarray:
    """
    Weights of losses `(n,)`; 1 for a row without one (NaN).

    Raises:
        [`SelectionError`]: the median is 0, or every scored row weighs 0.
    """
    scored, weights = np.isfinite(losses), np.ones(len(losses))
    if not scored.any():
        return weights
    median = float(np.median(losses[scored]))
    if temperature is None and median == 0:
        raise SelectionError(
            "`selection_policy='loss_weight'`: the median loss before training is 0, so that there is no default "
            "temperature: give `selection_policy_kwargs={'temperature': ...}`."
        )
    weights[scored] = np.exp(-losses[scored] / (median if temperature is None else temperature))
    if not weights[scored].any():
        raise SelectionError(
            f"`selection_policy_kwargs`: at temperature={temperature} every row weighs 0: give one near the median of "
            f"the losses, {median:.3g}."
        )
    return weights
