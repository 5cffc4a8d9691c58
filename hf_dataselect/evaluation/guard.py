"""
The guard: what training does to domains, by the losses of held-out rows of each before it and now.

    change = mean loss now / mean loss before training - 1, over the rows that had a loss before

| verdict | where |
|---|---|
| `HARMED` | the lower bound of the change is above the largest harm allowed |
| `HELPED` | the upper bound of the change is below 0 |
| `NO DIFFERENCE` | neither |

Each bound is one-sided, of 95 %, by the bootstrap of a PIR ([`bootstrap`]): a row is drawn with both of its losses. It
covers the rows, not other trainings, and is not corrected for the number of domains and of evaluations.
"""

import math
from dataclasses import dataclass

import numpy as np

from .comparison.bootstrap import Ratio, bootstrap, interval_of, ratio_of


HELPED, NO_DIFFERENCE, HARMED = "HELPED", "NO DIFFERENCE", "HARMED"
#: Of each bound.
LEVEL = 0.95


@dataclass
class Change:
    """
    What training did to a domain.

    Args:
        loss (`float`):
            Mean loss now, over the rows that have one and had one before.
        change (`float`):
            Relative to that before.
        low, high (`float`):
            One-sided bounds of the change.
        verdict (`str`):
            `"HELPED"`, `"NO DIFFERENCE"` or `"HARMED"`.
        lost (`int`):
            Rows that had a loss before and have none now, as of a model whose losses are not finite: any is a harm.
    """

    loss: float
    change: float
    low: float
    high: float
    verdict: str
    lost: int = 0


def change_of(before: np.ndarray, now: np.ndarray, harm: float, seed: int = 0) -> Change:
    """
    What training did to a domain.

    Args:
        before, now (`np.ndarray`):
            Losses of its rows `(n,)`, NaN for a row without one. The mean before is above 0.
        harm (`float`):
            Largest harm allowed.
        seed (`int`, *optional*, defaults to `0`):
            Of the bootstrap.
    """
    known = np.isfinite(before)
    left = known & np.isfinite(now)
    if lost := int(known.sum() - left.sum()):
        loss = float(now[left].mean()) if left.any() else math.nan
        return Change(loss, math.inf, math.inf, math.inf, HARMED, lost)
    rows = int(known.sum())
    ratio = Ratio(now[None, known], before[None, known], rows)
    (drawn,), _ = bootstrap([ratio], seed)
    value = ratio_of(ratio)
    low, high = (end - 1 for end in interval_of(drawn, value, rows, 2 * LEVEL - 1))
    verdict = HARMED if low > harm else HELPED if high < 0 else NO_DIFFERENCE
    return Change(float(now[known].mean()), float(value) - 1, low, high, verdict)
