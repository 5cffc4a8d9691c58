"""
How well scores predict the losses of models trained on subsets (linear datamodeling score, LDS: arXiv 2303.14186).

    LDS of an evaluation row = Spearman over subsets of (sum of the scores of a subset, reduction of the row's loss)

The headline is the mean over evaluation rows; beside it stands the rank correlation with the reduction of the mean
loss.

Intervals leave out one subset after the other, with new ranks, in Fisher's z (jackknife, bias-corrected): subsets that
are drawn twice tie, and percentiles of such resamples cover too little near 1. Evaluation rows add the variance
between them beyond the noise of single losses, which leaving out subsets covers. `benchmarks/audit_intervals.py`
measures how often the intervals hold the truth.
"""

import math
from dataclasses import dataclass

import numpy as np
from scipy.stats import rankdata

from .estimate import Estimate, Part, cell_noise, half_width


#: Subsets below which the variance of a rank correlation can't be told.
MIN_SUBSETS = 8
#: Fisher's z of a correlation of 1 is infinite.
_LARGEST = 1 - 1e-9


@dataclass(frozen=True)
class Prediction:
    """
    Args:
        lds ([`Estimate`]):
            Mean over evaluation rows of the rank correlation of each.
        mean_loss ([`Estimate`]):
            Rank correlation with the reduction of the mean loss.
        by_row (`np.ndarray`):
            LDS of each evaluation row, `(rows,)`; NaN where all subsets have the same loss.
        subsets (`int`):
            Subsets with a sum.
    """

    lds: Estimate
    mean_loss: Estimate
    by_row: np.ndarray
    subsets: int


def subset_sums(scores: np.ndarray, subsets: np.ndarray) -> np.ndarray:
    """
    Sum of scores over each subset. A row without a score counts as the mean of the subset's others.

    Args:
        scores (`np.ndarray`):
            `(n,)`, or one column an evaluation row `(n, rows)`; NaN = no score.
        subsets (`np.ndarray`):
            Row numbers, `(subsets, k)`.

    Returns:
        `np.ndarray`: `(subsets,)` or `(subsets, rows)`; NaN for a subset without any score.
    """
    chosen = np.asarray(scores, np.float64)[subsets]
    known = np.isfinite(chosen)
    with np.errstate(invalid="ignore"):
        return subsets.shape[1] * np.where(known, chosen, 0).sum(1) / known.sum(1)


def predict(sums: np.ndarray, reductions: np.ndarray) -> Prediction:
    """
    LDS and rank correlation of subset sums.

    Args:
        sums (`np.ndarray`):
            From [`subset_sums`]: `(subsets,)` or `(subsets, rows)`.
        reductions (`np.ndarray`):
            By how much training on each subset reduces the loss of each evaluation row, `(subsets, rows)`, finite.

    Returns:
        [`Prediction`]: NaN with fewer than `MIN_SUBSETS` subsets that have a sum, or where all sums are equal.
    """
    sums = sums if sums.ndim == 2 else sums[:, None]
    known = np.isfinite(sums).all(1)
    x, y = sums[known], reductions[known]
    if len(x) < MIN_SUBSETS:
        return Prediction(Estimate(), Estimate(), np.full(reductions.shape[1], math.nan), len(x))
    by_row = _correlation(*_ranks(x, y))
    use = np.isfinite(by_row)
    lds = _estimate(x[:, use] if x.shape[1] > 1 else x, y[:, use])
    mean = y.mean(1, keepdims=True)
    average = x.mean(1, keepdims=True)
    return Prediction(lds, _estimate(average, mean, _row_part(average, y)), by_row, len(x))


def _estimate(x: np.ndarray, y: np.ndarray, rows: Part | None = None) -> Estimate:
    """Mean over columns of rank correlations; `rows` is the part of evaluation rows, if the columns are not these."""
    value, left_out = _jackknifed(x, y)
    if not np.isfinite(value).all() or not np.isfinite(left_out).all() or not len(value):
        return Estimate()
    n, mean = len(left_out), float(value.mean())
    if rows is None and len(value) > 1:
        pseudo = n * value - (n - 1) * left_out
        rows = Part(max(0.0, pseudo.mean(0).var(ddof=1) / len(value) - cell_noise(pseudo)), len(value) - 1)
    z = n * _z(mean) - (n - 1) * _z(left_out.mean(1))
    parts = [Part(z.var(ddof=1) / n, n - 1)]
    if rows is not None:
        parts.append(Part(rows.variance / (1 - min(abs(mean), _LARGEST) ** 2) ** 2, rows.freedom))
    half = half_width(parts)
    return Estimate(mean, math.tanh(z.mean() - half), math.tanh(z.mean() + half))


def _row_part(x: np.ndarray, y: np.ndarray) -> Part:
    """Variance of the rank correlation with the mean loss between sets of evaluation rows, to first order."""
    n, rows = y.shape
    mean = y.mean(1)
    if rows < 2 or not mean.std():
        return Part(0.0, 1)
    u, v = (_standard(values) for values in (rankdata(x[:, 0]), mean))
    weight = (u - (u @ v / n) * v) / (n * mean.std())  # of a subset's mean loss
    rest = weight[:, None] * (y - mean[:, None] - (y.mean(0) - y.mean()))
    between, noise = (rest.sum(0) ** 2).sum(), (rest**2).sum()
    return Part(max(0.0, float(between - noise)) / (rows * (rows - 1)), rows - 1)


def _standard(values: np.ndarray) -> np.ndarray:
    deviation = values.std()
    return (values - values.mean()) / (deviation or 1.0)


def _z(correlation: np.ndarray | float) -> np.ndarray:
    return np.arctanh(np.clip(correlation, -_LARGEST, _LARGEST))


def _ranks(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return rankdata(x, axis=0), rankdata(y, axis=0)


def _jackknifed(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rank correlation of each column, `(columns,)`, and without each subset, `(subsets, columns)`."""
    ranks = _ranks(x, y)
    left_out = [
        _correlation(*(_ranks_without(s, values, rank) for values, rank in zip((x, y), ranks, strict=True)))
        for s in range(len(x))
    ]
    return _correlation(*ranks), np.array(left_out)


def _ranks_without(s: int, values: np.ndarray, ranks: np.ndarray) -> np.ndarray:
    """Ranks of the others where line `s` is left out; ties have their mean rank."""
    others = np.delete(values, s, 0)
    return np.delete(ranks, s, 0) - (others > values[s]) - 0.5 * (others == values[s])


def _correlation(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Pearson correlation of columns; NaN for a constant one."""
    x, y = x - x.mean(0), y - y.mean(0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return (x * y).sum(0) / np.sqrt((x * x).sum(0) * (y * y).sum(0))
