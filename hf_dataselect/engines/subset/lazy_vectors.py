"""Functions of vectors, computed as they are read: neither the vectors nor their images need to fit in memory."""

from collections.abc import Callable

import numpy as np

from ..store.vector_store import StoredVectors


class LazyVectors:
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
