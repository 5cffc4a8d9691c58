"""
Of the rows of each step, train on those whose gradients do most for examples of a target task (GREATS, Wang et al.,
NeurIPS 2024; code Jiachen-T-Wang/GREATS).

The claim: lower loss and better answers on the target in as many steps, with half of each batch.

    gain of a row = <g, target> - rate x sum over the rows taken of <g, g taken>;   the row of most gain, one by one

g is what a row adds to the gradient of the step, target the gradient of the mean loss of some target-task examples,
drawn anew each step; the second term is that of a Hessian of 1. At usual learning rates it is next to nothing, and
the rows are those of the largest first term.

Gradients are those of the step's own backward passes: there is no second pass over its rows. Rows that are not taken
are subtracted before the gradient is clipped; those that are weigh as much more, so that a token weighs 1 on average.
The loss that is logged is of all rows.

Deviations: rows are chosen of the whole optimizer step and of all ranks, not of a micro-batch. g is of the row's
tokens divided by those of the step, as training weighs it, where the authors take the mean over a row's own. The
examples are passed without dropout, and apart from the rows.

Relations: `less` and `gist` compare gradients before training. [`SelfPaced`](self_paced.py) drops by the loss.
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np

from ..card import Card
from ..options import Interval, PositiveInt
from ..policy import Policy, Products


@dataclass
class Greats(Policy):
    """
    Args:
        keep (`float`, *optional*, defaults to `0.5`):
            The part of the rows of a step that is trained on.
        examples (`int`, *optional*, defaults to `2`):
            Target-task examples whose gradient is taken in each step. More cost as many rows more a step.
    """

    keep: Annotated[float, Interval(0, 1, closed="right")] = 0.5
    examples: PositiveInt = 2

    card: ClassVar[Card] = Card(
        title="rows of a step whose gradients do most for target-task examples",
        label_source="gradients of the step and of target-task examples",
        features="model-oriented",
        steps=("keep the gradients of the rows", "take the row of most gain, one by one", "step without the others"),
        deviations=(
            "rows of the whole optimizer step compete, not of a micro-batch",
            "a row's gradient is weighed by its tokens, as training does",
            "examples are passed without dropout",
        ),
        evidence="the authors', NeurIPS 2024; not repeated by others as far as is known",
    )
    reads_gradients: ClassVar[bool] = True

    def take(self, products: Products) -> np.ndarray:
        factors = np.ones(len(products.rows))
        if not (np.isfinite(products.towards).all() and np.isfinite(products.between).all()):
            return factors  # of a step that overflowed, which is not made
        kept = best(products, max(1, int(self.keep * len(factors))))
        factors[:] = 0
        factors[kept] = products.tokens.sum() / products.tokens[kept].sum()
        return factors


def best(products: Products, k: int) -> list[int]:
    """Places of the `k` rows of most gain, the first one first."""
    gain, taken = products.towards, []
    for _ in range(k):
        taken.append(int(np.argmax(gain)))
        gain = gain - products.rate * products.between[taken[-1]]
        gain[taken] = -np.inf
    return taken
