"""The error that a projection adds to scores, estimated from projected vectors."""

import math

import numpy as np


#: Widths to choose from, and the rank correlation with scores without a projection that a width is to keep.
WIDTHS, KEEPS = tuple(2**power for power in range(9, 17)), 0.9
#: Width at which the error is estimated, from which that of others follows.
PILOT = 8192


def narrowest(deviation: float, error: float) -> tuple[int, float]:
    """
    The smallest of the [`WIDTHS`] that keeps the ranking, or the largest, and the rank correlation to expect there.

    The square of the error is in proportion to 1 / width. What the scores at the pilot's width differ by besides it is
    the signal; scores of this signal and normal errors have a rank correlation of 6 / pi asin(r / 2) with it, where
    r^2 = signal^2 / (signal^2 + error^2).

    Args:
        deviation, error (`float`):
            Standard deviation of the scores of a sample at the pilot's width, and their root mean square error.
    """
    signal = max(deviation**2 - error**2, 0)
    for width in WIDTHS:
        total = signal + error**2 * PILOT / width
        expected = 6 / math.pi * math.asin(math.sqrt(signal / total) / 2) if total > 0 else 0.0
        if expected >= KEEPS:
            break
    return width, expected


class ProjectionError:
    """
    Estimated error of a weighted sum over checkpoints of inner products of projected vectors.

    The error of an inner product of unit vectors is about 1 / sqrt(dim); less of it counts. What all rows share
    (Adam's first moment) errs for all alike: only the error of the difference from the mean row can reorder rows. A
    mean of target vectors that differ is shorter than 1. And one projection serves all checkpoints, so that errors
    add up where vectors resemble those of other checkpoints, and average out where they don't. With differences d_c
    from the mean row, target means y_c and weights w_c, the variance is the sum over pairs of checkpoints of

        w_c w_c' (<d_c, d_c'> <y_c, y_c'> + <d_c, y_c'> <d_c', y_c>) / dim

    whose inner products those of projected vectors estimate well enough. If groups compete for rows (the highest
    similarity counts), what all rows share errs for each group by another amount: the same sum for the mean row, and
    the difference of y_c from its mean over the groups that rows are most similar to. All of it is an upper estimate
    where a few coordinates hold most of a vector.

    Args:
        dim (`int`):
            Dimension of the projection.
    """

    def __init__(self, dim: int):
        self.dim, self.checkpoints = dim, []

    def add(self, weight: float, vectors: np.ndarray, target: np.ndarray) -> None:
        """
        Add a checkpoint.

        Args:
            weight (`float`):
                Its weight.
            vectors (`np.ndarray`):
                A sample of the rows' unit vectors, the same rows each time `(s, dim)`; NaN for unusable ones.
            target (`np.ndarray`):
                Mean unit vectors of each group of the target `(groups, dim)`.
        """
        self.checkpoints.append((weight, vectors, target.astype(vectors.dtype)))

    def of_groups(self, compete: bool = False) -> np.ndarray:
        """
        Root mean square error of a row's similarity to each group `(groups,)`; NaN with fewer than two rows. Between
        the rows of a group, or, if they `compete`, of all groups.
        """
        usable = np.all([np.isfinite(vectors).all(1) for _, vectors, _ in self.checkpoints], axis=0)
        if usable.sum() < 2:
            return np.full(len(self.checkpoints[0][2]), np.nan)
        checkpoints = [(w, x[usable].astype(np.float32), y.astype(np.float32)) for w, x, y in self.checkpoints]
        unbiased = usable.sum() / (usable.sum() - 1)  # the mean row is made of the sample
        variance = unbiased * _variances([(w, x - x.mean(0), y) for w, x, y in checkpoints]).mean(0)
        if compete:
            similarity = sum(w * x @ y.T for w, x, y in checkpoints)
            best = np.where(np.isnan(similarity), -np.inf, similarity).argmax(1)
            share = np.bincount(best, minlength=similarity.shape[1]) / len(best)
            apart = [(w, x.mean(0, keepdims=True), y - share @ np.nan_to_num(y)) for w, x, y in checkpoints]
            variance = variance + _variances(apart)[0]
        return np.sqrt(np.maximum(variance / self.dim, 0))


def _variances(checkpoints: list[tuple[float, np.ndarray, np.ndarray]]) -> np.ndarray:
    """The sum over pairs of checkpoints, for each row and group `(s, groups)`."""
    total = 0
    for w1, d1, y1 in checkpoints:
        for w2, d2, y2 in checkpoints:
            lengths = (d1 * d2).sum(1)[:, None] * (y1 * y2).sum(1)
            total = total + w1 * w2 * (lengths + (d1 @ y2.T) * (d2 @ y1.T))
    return total
