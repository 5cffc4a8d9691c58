"""Vectors without what they have in common: mean taken off, or whitened by their principal components."""

import numpy as np

from ..store.vector_store import StoredVectors, blocks


#: Components of a smaller part of the largest variance are rounding, and dividing by it would make noise of them.
LEAST = 1e-10


class Whitening:
    """
    Principal components of vectors, divided by their standard deviation; fitted to all usable rows, read in blocks: in
    memory are a block and a matrix `(width, width)`.

    Args:
        vectors (`np.ndarray` or [`StoredVectors`]):
            `(n, width)`.
        usable (`np.ndarray`):
            Rows to fit, bool `(n,)`; their vectors are finite.
        components (`int` or `float`, *optional*):
            Components to keep, those of most variance; fewer where rows don't have as many. Below 1: as few as explain
            more than this part of the variance. `None` takes off the mean only.
    """

    def __init__(self, vectors: np.ndarray | StoredVectors, usable: np.ndarray, components: float | None):
        width, count = vectors.shape[1], int(usable.sum())
        total, products, origin = np.zeros(width), np.zeros((width, width)), None
        for part in blocks((len(usable), width)):
            rows = vectors[part][usable[part]].astype(np.float64)
            if len(rows) == 0:
                continue
            origin = rows.mean(0) if origin is None else origin  # near to the mean: the products lose fewer digits
            rows -= origin
            total += rows.sum(0)
            if components is not None:
                products += rows.T @ rows
        shift = total / max(1, count)
        self.mean, self.scale, self.explained = (0 if origin is None else origin) + shift, None, 1.0
        if components is None:
            return
        covariance = (products - count * np.outer(shift, shift)) / max(1, count - 1)
        variance, directions = np.linalg.eigh(covariance)
        order = np.argsort(-variance)[: max(0, count - 1)]
        order = order[variance[order] > LEAST * variance.max(initial=0)]
        shares = np.cumsum(variance[order]) / variance.sum()
        kept = components if components >= 1 else np.searchsorted(shares, components, side="right") + 1
        order, self.explained = order[: int(kept)], float(shares[: int(kept)].max(initial=0))
        self.deviation = np.sqrt(variance[order])
        self.scale = directions[:, order] / self.deviation

    @property
    def components(self) -> int:
        """Numbers of a vector that is whitened."""
        return len(self.mean) if self.scale is None else self.scale.shape[1]

    def __call__(self, vectors: np.ndarray) -> np.ndarray:
        """Vectors `(b, width)` whitened, float64 `(b, components)`."""
        centred = vectors - self.mean
        return centred if self.scale is None else centred @ self.scale
