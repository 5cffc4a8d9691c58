"""Row embeddings of an encoder, with a cache and a progress bar."""

from collections.abc import Callable
from typing import Any

import numpy as np
from torch import nn

from ..runtime.runtime import Runtime
from ..runtime.stored_vectors import Vectors, stored_vectors


def vectors_namespace(runtime: Runtime, encoder: nn.Module, options: dict[str, Any]) -> dict[str, Any]:
    """Everything that decides the vector of a row besides the row."""
    # Raise the version when the vector of an unchanged row and encoder changes by more than rounding, in
    # `hidden_states` or `sentence_encoder`.
    own = {"engine": "embedding", "version": 1, "model": runtime.identity(encoder), "modules": str(encoder)}
    return own | options


class CachedVectors:
    """
    A function from content keys to [`Vectors`]; a context manager, which closes the cache on exit.

    Args:
        runtime ([`Runtime`]):
            Ranks, cache, and the account of embedded rows.
        encoder ([`~torch.nn.Module`]):
            The encoder; its weights and its `str` are part of the cache key.
        width (`int`):
            Size of a vector.
        label (`str`, *optional*):
            Label of the progress bar.
        total (`int`, *optional*):
            Total number of rows, for the progress bar.
        **options:
            Everything else that determines the vectors.
    """

    def __init__(
        self, runtime: Runtime, encoder: nn.Module, width: int, label: str | None = None, total=None, **options: Any
    ):
        self.runtime, self._store = runtime, runtime.vector_store(vectors_namespace(runtime, encoder, options), width)
        self._bar = runtime.progress(total, label)

    def __call__(self, keys: np.ndarray, compute: Callable[[np.ndarray], np.ndarray]) -> Vectors:
        """Vectors of rows; `compute` returns those that are not cached, see [`stored_vectors`]."""
        return stored_vectors(self._store, keys, compute, self.runtime, on_rows=self._bar.update)

    def __enter__(self) -> "CachedVectors":
        return self

    def __exit__(self, *error: Any) -> None:
        self.close()

    def close(self) -> None:
        """Close the progress bar and the cache."""
        self._bar.close()
        self._store.close()
