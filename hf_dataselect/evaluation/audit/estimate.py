"""[`Estimate`]: a number with its 95 % interval, by Student's distribution from parts of its variance."""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.stats import t


LEVEL = 0.95


class Part(NamedTuple):
    """A part of the variance of an estimate, and its degrees of freedom."""

    variance: float
    freedom: float


@dataclass(frozen=True)
class Estimate:
    """
    Args:
        value (`float`):
            The estimate; NaN if nothing can be estimated.
        low, high (`float`):
            Interval, of 95 % unless said otherwise; NaN without one.
    """

    value: float = math.nan
    low: float = math.nan
    high: float = math.nan

    @property
    def verdict(self) -> str:
        """`"above 0"`, `"below 0"`, `"not different from 0"` (the interval holds 0) or `"unknown"`."""
        if math.isnan(self.low) or math.isnan(self.high):
            return "unknown"
        return "above 0" if self.low > 0 else "below 0" if self.high < 0 else "not different from 0"


def half_width(parts: list[Part], level: float = LEVEL) -> float:
    """
    Half of the interval (95 % by default) of an estimate whose variance is the sum of independent parts (degrees of
    freedom by Welch and Satterthwaite); NaN if a part has none.
    """
    variance = sum(part.variance for part in parts)
    if any(part.freedom < 1 for part in parts) or not math.isfinite(variance):
        return math.nan
    spread = sum(part.variance**2 / part.freedom for part in parts)
    freedom = variance**2 / spread if spread else 1.0
    return float(t.ppf((1 + level) / 2, freedom) * math.sqrt(variance))


def cell_noise(table: np.ndarray) -> float:
    """
    Variance of the mean of a table `(a, b)` that comes from its cells, beyond effects of lines and of columns: it is
    in the variance between the means of lines and in that between the means of columns, and must count once.
    """
    lines, columns = table.shape
    if min(lines, columns) < 2:
        return 0.0
    rest = table - table.mean(1, keepdims=True) - table.mean(0) + table.mean()
    return float((rest**2).sum() / ((lines - 1) * (columns - 1) * table.size))
