"""
Bootstrap interval of a [`PIR`]: examples are resampled in pairs, runs are perturbed by Student's distribution.

Scores of runs differ for two reasons: the runs themselves, and the noise of each run on the same examples. Resampling
the examples covers the second. The variance between runs is therefore what the observed one exceeds that noise by:

    variance between runs = max(0, observed variance of the runs' scores - variance of their residuals / examples)

pooled over both sides, with the degrees of freedom of the two-sample test; of two runs against one, nothing is
subtracted. With infinitely many examples this gives the t interval over runs. `benchmarks/intervals.py` measures
coverage and power.

`scipy.stats.bootstrap` can't replace it: examples are paired within a test set, but test sets of different sizes are
resampled independently, and runs are perturbed. Its BCa interval, the one with a bias correction, needs a jackknife
that is quadratic in the number of examples. With 20 examples its intervals cover 91 to 92 % (BCa, percentile), these
95 %.
"""

import math
import warnings
from typing import NamedTuple

import numpy as np
from scipy.stats import beta, norm, t


RESAMPLES = 2000
_LEVEL = 0.95
#: Draws in one chunk: their counts fit the cache of a core.
_DRAWS = 2**16


class Ratio(NamedTuple):
    """
    Ratio of two means over the same examples, float64 `(runs, examples)`, NaN = no value.

    Ratios with equal `rows` share their resampled examples. `paired`: both sides come from the same runs (wins and
    losses), which then have one chance for both.
    """

    model: np.ndarray
    baseline: np.ndarray
    rows: int | str
    higher_is_better: bool = True
    paired: bool = False


def bootstrap(ratios: list[Ratio], seed: int) -> tuple[np.ndarray, np.ndarray]:
    """
    Resamples of ratios.

    Returns:
        `tuple`: each ratio, float64 `(ratios, RESAMPLES)`, and their mean, `(RESAMPLES,)`; NaN where a ratio is 0 / 0.
    """
    rng = np.random.default_rng(seed)
    drawn = np.zeros((len(ratios), RESAMPLES))
    for rows in dict.fromkeys(ratio.rows for ratio in ratios):
        places = [place for place, ratio in enumerate(ratios) if ratio.rows == rows]
        group = [ratios[place] for place in places]
        size = group[0].model.shape[1]
        model, baseline = _Columns.of([r.model for r in group]), _Columns.of([r.baseline for r in group])
        chunk = max(1, _DRAWS // size)
        for start in range(0, RESAMPLES, chunk):
            part = slice(start, min(start + chunk, RESAMPLES))
            counts = _row_counts(rng, part.stop - start, size)
            means = model.means(counts, len(group)), baseline.means(counts, len(group))
            for place, ratio, mine, its in zip(places, group, *means, strict=True):
                above, below = (mine, its) if ratio.higher_is_better else (its, mine)
                with np.errstate(divide="ignore", invalid="ignore"):
                    # Rounded: two copies of a run differ in the order of summation only and must give 1.
                    drawn[place, part] = np.round(above / np.where(below < 0, np.nan, below), 12)
    freedom = max(1, sum(_freedom(ratios[0])))
    chance = rng.standard_normal(RESAMPLES) * np.sqrt(freedom / rng.chisquare(freedom, RESAMPLES))
    perturbed = [draws * _perturbation([ratio], chance) for ratio, draws in zip(ratios, drawn, strict=True)]
    return np.array(perturbed), drawn.mean(0) * _perturbation(ratios, chance)


class _Columns(NamedTuple):
    """Settings of the same rows side by side: values `(examples, settings * runs)`, 0 where unknown."""

    values: np.ndarray
    known: np.ndarray | None

    @classmethod
    def of(cls, settings: list[np.ndarray]) -> "_Columns":
        stacked = np.concatenate(settings).T
        known = np.isfinite(stacked)
        return cls(np.where(known, stacked, 0.0), None if known.all() else known.astype(np.float64))

    def means(self, counts: np.ndarray, settings: int) -> np.ndarray:
        """Means over examples drawn `counts` times `(resamples, examples)`, and runs; `(settings, resamples)`."""
        with np.errstate(invalid="ignore"):
            means = (counts @ self.values) / (len(self.values) if self.known is None else counts @ self.known)
        return means.reshape(len(counts), settings, -1).mean(2).T


def _freedom(ratio: Ratio) -> list[int]:
    """Degrees of freedom of the runs of each side; wins and losses are one."""
    return [len(side) - 1 for side in ((ratio.model,) if ratio.paired else (ratio.model, ratio.baseline))]


def _perturbation(ratios: list[Ratio], chance: np.ndarray) -> np.ndarray:
    """Factor of the mean of ratios by the chance of the runs, `(RESAMPLES,)`."""
    return np.exp(np.clip(chance * math.sqrt(run_variance(ratios)), -50, 50))


def run_variance(ratios: list[Ratio]) -> float:
    """
    Variance of the mean of ratios, relative to it, that comes from the runs and not from the noise of their examples;
    0 with one run a side. A side with one run is taken to vary as the other.
    """
    values = np.array([ratio_of(ratio) for ratio in ratios])
    if not np.isfinite(values).all() or not values.any():
        return 0.0
    sides = [[(1, 0), (-1, 1)]] if ratios[0].paired else [[(1, 0)], [(-1, 1)]]
    observed = noise = 0.0
    for side in sides:
        deviations, residuals = np.zeros(1), dict.fromkeys((ratio.rows for ratio in ratios), np.zeros((1, 1)))
        for share, ratio in zip(values / values.sum(), ratios, strict=True):
            for sign, place in side:
                means, rest = _residuals(ratio[place])
                scale = share * sign * (1 if ratio.higher_is_better else -1)
                deviations = deviations + scale * means
                residuals[ratio.rows] = residuals[ratio.rows] + scale * rest
        observed += float((deviations**2).sum())
        noise += sum(float((rest**2).mean(1).sum() / rest.shape[1]) for rest in residuals.values())
    freedom = _freedom(ratios[0])
    # Two runs against one look alike by chance too often to tell their variance from that noise.
    excess = observed if freedom in ([1, 0], [0, 1]) else max(0.0, observed - noise)
    return excess / max(1, sum(freedom)) * sum(1 / (one + 1) for one in freedom)


def ratio_of(ratio: Ratio) -> float:
    """The ratio itself."""
    above, below = (np.nanmean(side, 1).mean() for side in ratio[:2])
    above, below = (above, below) if ratio.higher_is_better else (below, above)
    return above / below if below else math.nan


def _residuals(side: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """
    Of a side `(runs, examples)`, relative to its mean: deviations of the runs' means `(runs,)`, and what is left of
    the values without means of runs and of examples `(runs, examples)`, 0 where unknown.
    """
    means = np.nanmean(side, 1)
    whole = means.mean() or 1.0
    scaled = (side - means[:, None]) / whole
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # an example without any value
        rest = scaled - np.nanmean(scaled, 0)
    return (means - means.mean()) / whole, np.nan_to_num(rest)


def _row_counts(rng: np.random.Generator, resamples: int, n: int) -> np.ndarray:
    """
    How often each of `n` rows is drawn, `(resamples, n)`. Multiplying by counts serves all settings at once and is
    faster than gathering the rows of each.
    """
    drawn = rng.integers(n, size=(resamples, n)) + n * np.arange(resamples)[:, None]
    return np.bincount(drawn.ravel(), minlength=resamples * n).reshape(resamples, n).astype(np.float64)


def interval_of(drawn: np.ndarray, value: float, n: int, level: float = _LEVEL) -> tuple[float, float]:
    """
    Interval (of 95 %) of a value of `n` examples from its resamples; resamples without a ratio count at both ends.

    The percentiles are bias-corrected (Efron): a mean of ratios is biased upwards, in the resamples once more, and too
    many equal models would be called better. They are also expanded, as Student's interval is wider than the normal
    one (Hesterberg, arXiv 1411.5279).
    """
    tail = t.ppf((1 - level) / 2, n - 1) * math.sqrt(n / (n - 1))
    side = np.nan_to_num(np.sign(np.round(drawn - value, 9)))
    bias = norm.ppf(np.clip((1 - side.mean()) / 2, 1 / len(drawn), 1 - 1 / len(drawn)))
    low = np.quantile(np.where(np.isnan(drawn), 0.0, drawn), norm.cdf(2 * bias + tail), method="lower")
    high = np.quantile(np.where(np.isnan(drawn), np.inf, drawn), norm.cdf(2 * bias - tail), method="higher")
    return float(max(low, 0.0)), float(high)


def exact_interval(tests: list[np.ndarray]) -> tuple[float, float]:
    """Clopper-Pearson interval of wins / losses over all test sets; runs on the same examples add no examples."""
    wins, losses = (sum((outcomes == outcome).mean(0).sum() for outcomes in tests) for outcome in (1, -1))
    tail = (1 - _LEVEL) / 2
    low = beta.ppf(tail, wins, losses + 1) if wins else 0.0
    high = beta.ppf(1 - tail, wins + 1, losses) if losses else 1.0
    return float(low / (1 - low)), float(high / (1 - high)) if losses else math.inf
