"""Work that several runs on one cache folder need: one does it, the others wait for it and read what it kept."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from ..store.locks import WorkLock
from ..store.row_store import RecordStore, Stored
from .runtime import Runtime


@contextmanager
def alone(runtime: Runtime, path: Path, work: str) -> Iterator[None]:
    """
    Inside, no other run does the work that a file stands for: look first whether it is done. The main process waits
    for all ranks, and says so.

    Args:
        runtime ([`Runtime`]):
            Ranks.
        path (`Path`):
            The file that is locked, in the cache folder.
        work (`str`):
            What is done, for messages.
    """
    lock = WorkLock(path, work)
    try:
        runtime.on_main(lock.acquire)
        yield
    finally:
        lock.release()


def of_part(runtime: Runtime, keys: np.ndarray) -> np.ndarray:
    """Which rows the runtime's part holds, bool `(n,)`, see [`Part.holds`]; all where there are no parts."""
    return np.ones(len(keys), bool) if runtime.part is None else runtime.part.holds(keys)


@contextmanager
def missing(runtime: Runtime, store: RecordStore, keys: np.ndarray, work: str = "scoring rows") -> Iterator[Stored]:
    """
    What is known of rows, as from [`Runtime.find`]. Inside, no other run that was asked for the same rows computes
    those that are not known. Rows that are not of the runtime's part count as known, NaN where they are not.

    Args:
        runtime ([`Runtime`]):
            Ranks.
        store ([`RecordStore`]):
            A store of the runtime.
        keys (`np.ndarray`):
            Content keys, `V16` `(n,)`.
        work (`str`, *optional*, defaults to `"scoring rows"`):
            What is computed, for messages.
    """
    mine, stored = of_part(runtime, keys), runtime.find(store, keys)
    stored = stored._replace(known=stored.known | ~mine)
    if stored.known.all() or not runtime.broadcast(store.writable):
        yield stored
        return
    asked = hashlib.blake2b(keys[mine].tobytes(), digest_size=12).hexdigest()
    with alone(runtime, store.folder / f"{asked}.lock", work):
        again = runtime.find(store, keys)
        yield again._replace(known=again.known | ~mine, earlier=stored.earlier + again.earlier)
