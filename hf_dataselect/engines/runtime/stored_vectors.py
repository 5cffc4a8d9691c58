"""Vectors of rows: read from the store, or computed chunk by chunk."""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ...errors import SelectionError
from ..store.vector_store import StoredVectors, VectorStore, blocks, check_room
from .runtime import Runtime
from .shared_work import missing, of_part


class Vectors(NamedTuple):
    """Vectors of rows, in the requested order."""

    #: `(n, width)`, an array, or read from disk when indexed; NaN for rows without one.
    vectors: np.ndarray | StoredVectors
    #: Whether the vector is finite, bool `(n,)`.
    usable: np.ndarray

    def take(self, rows: np.ndarray) -> np.ndarray | StoredVectors:
        """Vectors of some rows, on disk where all of them are."""
        return self.vectors[rows] if isinstance(self.vectors, np.ndarray) else self.vectors.take(rows)

    def join(self, others: "Vectors") -> "Vectors":
        """These rows, and then others that are computed and kept in the same way."""
        in_memory = isinstance(self.vectors, np.ndarray)
        join = np.concatenate if in_memory else lambda parts: parts[0].join(parts[1])
        return Vectors(join([self.vectors, others.vectors]), np.concatenate([self.usable, others.usable]))

    def directed(self) -> np.ndarray:
        """Whether the vector is finite and not 0, bool `(n,)`; read in blocks."""
        parts = [self.vectors[part].any(1) for part in blocks(self.vectors.shape)]
        return self.usable & np.concatenate([np.zeros(0, bool), *parts])


def stored_vectors(
    store: VectorStore,
    keys: np.ndarray,
    compute: Callable[[np.ndarray], np.ndarray],
    runtime: Runtime,
    chunk: int = 2048,
    on_rows: Callable[[int], Any] = lambda rows: None,
) -> Vectors:
    """
    Vectors of rows: stored ones are read, the others computed (equal rows once) and stored chunk by chunk, so that no
    more than a chunk is in memory. Without a folder, all are held in memory.

    Args:
        store ([`VectorStore`]):
            A store of the runtime.
        keys (`np.ndarray`):
            Content keys `(n,)`.
        compute (`Callable`):
            Indices into the keys `(b,)` -> `(b, width)`, the same on all ranks; NaN for rows that did not fit in
            memory, which are not stored: they may fit another time.
        runtime ([`Runtime`]):
            Ranks, and the account of rows and seconds.
        chunk (`int`, *optional*, defaults to `2048`):
            Rows that are computed between two writes.
        on_rows (`Callable`, *optional*):
            Called with the number of rows completed since the last call.

    Returns:
        [`Vectors`]

    Raises:
        [`SelectionError`]: the disk has no space for them.
    """
    _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
    with missing(runtime, store, keys[first], "computing vectors of rows") as (_, known, _, earlier):
        todo, mine = np.sort(first[~known]), of_part(runtime, keys)
        usable, cached = known & mine[first], int(mine.sum()) - len(todo)
        on_rows(len(keys) - len(todo))
        check_room(store.folder and store.folder.parent, len(todo), store.record, "'none', which holds them in memory")
        in_memory = np.full((len(keys), store.width), np.nan, store.dtype) if store.folder is None else None
        for start in range(0, len(todo), chunk):
            indices, started = todo[start : start + chunk], time.perf_counter()
            vectors = compute(indices)
            spent = (time.perf_counter() - started) / len(indices)
            finite = np.isfinite(vectors).all(1)
            usable[inverse[indices]] = finite
            if in_memory is not None:
                in_memory[indices] = vectors
            elif runtime.is_main:
                store.append(keys[indices[finite]], vectors[finite], spent)
            on_rows(len(indices))
    usable, source = usable[inverse], first[inverse]
    if in_memory is not None:
        repeated = np.flatnonzero(source != np.arange(len(keys)))
        in_memory[repeated] = in_memory[source[repeated]]
    vectors = read_back(store, keys, usable, runtime) if in_memory is None else in_memory
    runtime.book(embedded_rows=len(todo), cached_rows=cached, cached_seconds=float(earlier.sum()))
    return Vectors(vectors, usable)


def read_back(store: VectorStore, keys: np.ndarray, wanted: np.ndarray, runtime: Runtime) -> StoredVectors:
    """
    Vectors of rows, once all ranks have written theirs.

    Args:
        wanted (`np.ndarray`):
            Rows that must be stored, bool `(n,)`.

    Raises:
        [`SelectionError`]: some are missing.
    """
    store.close()  # other machines see closed files only
    runtime.wait()
    stored = store.find(keys)
    if missing := int((wanted & ~stored.known).sum()):
        raise SelectionError(
            f"`selection_cache_dir`: {missing} vectors that other ranks wrote can't be seen here: give a folder that "
            "all nodes share."
        )
    return stored.values
