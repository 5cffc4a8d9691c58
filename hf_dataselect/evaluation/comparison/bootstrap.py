"""
Resampling for the interval of a [`PIR`]: a paired bootstrap over examples, and Student's spread over runs.

Few runs drawn with replacement would show too little of the chance between them, so theirs is drawn from Student's
distribution instead (each run's deviation times a random weight): with endless examples, that gives the t interval
over runs.
"""

import math
from typing import NamedTuple

import numpy as np
from scipy.stats import beta, norm, t


RESAMPLES = 2000
_LEVEL = 0.95
#: Random draws at a time: 8 MiB of weights.
_DRAWS = 2**20


class Ratio(NamedTuple):
    """
    A ratio of two means over the same examples, float64 `(runs, examples)` with NaN where an example has no value.

    Ratios of equal `rows` share the draw of examples. `paired`: both sides come from the same runs (wins and losses),
    so a run is drawn for both.
    """

    mine: np.ndarray
    other: np.ndarray
    rows: int | str
    higher_is_better: bool = True
    paired: bool = False


def bootstrap(ratios: list[Ratio], seed: int) -> np.ndarray:
    """Mean of the ratios in each resample, float64 `(RESAMPLES,)`; NaN where one of them is 0 / 0."""
    rng = np.random.default_rng(seed)
    runs = [len(ratios[0].mine)] if ratios[0].paired else [len(ratios[0].mine), len(ratios[0].other)]
    mine, other = (2 * _run_weights(rng, *runs))[:2]  # of a pair, one draw for both sides
    total = np.zeros(RESAMPLES)
    for rows in dict.fromkeys(ratio.rows for ratio in ratios):
        together = [ratio for ratio in ratios if ratio.rows == rows]
        size = together[0].mine.shape[1]
        own, its = _Columns.of([r.mine for r in together]), _Columns.of([r.other for r in together])
        at_once = max(1, _DRAWS // size)
        for start in range(0, RESAMPLES, at_once):
            part = slice(start, min(start + at_once, RESAMPLES))
            drawn = _row_weights(rng, part.stop - start, size)
            scores = zip(together, own.means(drawn, mine[part]), its.means(drawn, other[part]), strict=True)
            for ratio, model, baseline in scores:
                above, below = (model, baseline) if ratio.higher_is_better else (baseline, model)
                with np.errstate(divide="ignore", invalid="ignore"):
                    # Rounded, so that two copies of a run differ by nothing but the order of summation: not at all.
                    total[part] += np.round(above / np.where(below < 0, np.nan, below), 12)
    return total / len(ratios)


class _Columns(NamedTuple):
    """Settings of the same rows, side by side: values `(examples, settings * runs)`, 0 where not known."""

    values: np.ndarray
    known: np.ndarray | None

    @classmethod
    def of(cls, settings: list[np.ndarray]) -> "_Columns":
        stacked = np.concatenate(settings).T
        known = np.isfinite(stacked)
        return cls(np.where(known, stacked, 0.0), None if known.all() else known.astype(np.float64))

    def means(self, rows: np.ndarray, runs: np.ndarray) -> np.ndarray:
        """Means over examples, then over runs, by weights `(resamples, ...)`; `(settings, resamples)`."""
        with np.errstate(invalid="ignore"):
            found = (rows @ self.values) / (len(self.values) if self.known is None else rows @ self.known)
        return np.einsum("bsr,br->sb", found.reshape(len(rows), -1, runs.shape[1]), runs)


def _row_weights(rng: np.random.Generator, resamples: int, n: int) -> np.ndarray:
    """How often each of `n` rows is drawn, `(resamples, n)`: products with it are faster than gathering the rows."""
    drawn = rng.integers(n, size=(resamples, n)) + n * np.arange(resamples)[:, None]
    return np.bincount(drawn.ravel(), minlength=resamples * n).reshape(resamples, n).astype(np.float64)


def _run_weights(rng: np.random.Generator, *sides: int) -> list[np.ndarray]:
    """
    Weights of each side's runs, `(RESAMPLES, runs)`: weighted means spread about the plain one as Student's t does.
    Degrees of freedom of the sides add up, as in the test for two samples.
    """
    freedom = max(1, sum(sides) - len(sides))
    scale = np.sqrt(rng.chisquare(freedom, (RESAMPLES, 1)) / freedom)
    found = []
    for runs in sides:
        spread = rng.standard_normal((RESAMPLES, runs))
        spread -= spread.mean(1, keepdims=True)  # of one run: 0
        found.append(1 / runs + spread / (scale * math.sqrt(runs * max(1, runs - 1))))
    return found


def interval_of(drawn: np.ndarray, value: float, n: int) -> tuple[float, float]:
    """
    95 % interval of a value of `n` examples from its resamples; those without a ratio count at both ends.

    The percentiles are corrected for bias (Efron): a mean of ratios comes out too high, and once more in the
    resamples, which would call too many equal models better. And they lie a little further out, as Student's interval
    is wider than the normal one (Hesterberg, arXiv 1411.5279: expanded percentiles).
    """
    tail = t.ppf((1 - _LEVEL) / 2, n - 1) * math.sqrt(n / (n - 1))
    side = np.nan_to_num(np.sign(np.round(drawn - value, 9)))
    bias = norm.ppf(np.clip((1 - side.mean()) / 2, 1 / len(drawn), 1 - 1 / len(drawn)))
    low = np.quantile(np.where(np.isnan(drawn), 0.0, drawn), norm.cdf(2 * bias + tail), method="lower")
    high = np.quantile(np.where(np.isnan(drawn), np.inf, drawn), norm.cdf(2 * bias - tail), method="higher")
    return float(max(low, 0.0)), float(high)


def exact_interval(tests: list[np.ndarray]) -> tuple[float, float]:
    """Clopper-Pearson interval of wins / losses over all test sets; runs of the same examples are no new examples."""
    wins, losses = (sum((found == outcome).mean(0).sum() for found in tests) for outcome in (1, -1))
    tail = (1 - _LEVEL) / 2
    low = beta.ppf(tail, wins, losses + 1) if wins else 0.0
    high = beta.ppf(1 - tail, wins + 1, losses) if losses else 1.0
    return float(low / (1 - low)), float(high / (1 - high)) if losses else math.inf
