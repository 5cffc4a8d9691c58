"""Vectors without what they have in common: mean taken off, or whitened by their principal components."""

from collections.abc import Callable

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
        components (`int`, *optional*):
            Components to keep, those of most variance; fewer where rows don't have as many. `None` takes off the mean
            only.
    """

    def __init__(self, vectors: np.ndarray | StoredVectors, usable: np.ndarray, components: int | None):
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
        order = np.argsort(-variance)[: min(components, max(0, count - 1))]
        order = order[variance[order] > LEAST * variance.max(initial=0)]
        self.scale = directions[:, order] / np.sqrt(variance[order])
        self.explained = float(variance[order].sum() / variance.sum()) if len(order) else 0.0

    @property
    def components(self) -> int:
        """Numbers of a vector that is whitened."""
        return len(self.mean) if self.scale is None else self.scale.shape[1]

    def __call__(self, vectors: np.ndarray) -> np.ndarray:
        """Vectors `(b, width)` whitened, float64 `(b, components)`."""
        centred = vectors - self.mean
        return centred if self.scale is None else centred @ self.scale


class Mapped:
    """
    A function of vectors, computed as they are indexed.

    Args:
        vectors (`np.ndarray` or [`StoredVectors`]):
            `(n, width)`.
        function (`Callable`):
            `(b, width) -> (b, size)`.
        size (`int`):
            Numbers of each.
    """

    def __init__(self, vectors: np.ndarray | StoredVectors, function: Callable[[np.ndarray], np.ndarray], size: int):
        self.vectors, self.function, self.shape = vectors, function, (len(vectors), size)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice | np.ndarray) -> np.ndarray:
        return self.function(self.vectors[rows])
