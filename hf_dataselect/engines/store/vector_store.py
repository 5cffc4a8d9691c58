"""
Vectors of rows, kept on disk by content and read from there block by block: [`RowStore`] for what is too wide to be
held in memory.
"""

import shutil
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from accelerate import Accelerator

from ...errors import SelectionError
from ..runtime.batching import found_by_main
from .row_store import RowStore, _folded, places_of


#: Numbers of vectors that are read at a time.
READ = 2**24


class StoredVectors:
    """
    Rows of a [`VectorStore`] in the order asked for, read from the disk as they are indexed.

    Args:
        parts (`list[np.ndarray]`):
            Memory-mapped files of records.
        places (`np.ndarray`):
            File and record of each row, int64 `(n, 2)`; -1 where there is none, which reads as NaN.
        width (`int`):
            Numbers a vector.
        dtype (`np.dtype`):
            Of the vectors.
    """

    def __init__(self, parts: list[np.ndarray], places: np.ndarray, width: int, dtype: np.dtype):
        self.parts, self.places, self.dtype = parts, places, dtype
        self.shape = (len(places), width)

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, rows: slice | np.ndarray) -> np.ndarray:
        places = self.places[rows]
        found = np.full((len(places), self.shape[1]), np.nan, self.dtype)
        for file in np.unique(places[places[:, 0] >= 0, 0]):
            mine = np.flatnonzero(places[:, 0] == file)
            found[mine] = self.parts[file]["values"]["vector"][places[mine, 1]]
        return found


def blocks(shape: tuple[int, int]) -> Iterator[slice]:
    """Runs of rows, of about `READ` numbers each."""
    step = max(1, READ // max(1, shape[1]))
    return (slice(first, first + step) for first in range(0, shape[0], step))


class VectorStore(RowStore):
    """
    A [`RowStore`] of wide vectors with a few exact numbers beside each: records are appended as they come, a torn one
    is never read, and reading maps the files instead of loading them.

    Args:
        folder (`Path` or `None`):
            The cache folder; `None` keeps nothing.
        namespace (`dict`):
            Everything that decides the numbers besides the row itself.
        width (`int`):
            Numbers a vector.
        facts (`int`, *optional*, defaults to `1`):
            Exact numbers (float64) a row.
        dtype (`str`, *optional*, defaults to `"float32"`):
            Of the vectors.
        written (`set[Path]`, *optional*):
            Files that this run wrote; by default those of this store alone. Its own are added.
    """

    def __init__(
        self,
        folder: Path | None,
        namespace: dict[str, Any],
        width: int,
        facts: int = 1,
        dtype: str = "float32",
        written: set[Path] | None = None,
    ):
        super().__init__(folder, namespace, width)
        self.written = set() if written is None else written
        self.width, self.dtype = width, np.dtype(dtype)
        self.record = record_of(width, facts, dtype)
        # What is known of the files so far: their records as far as they were read, and of those that are whole the
        # keys and places.
        self._parts: dict[Path, np.ndarray] = {}
        self._keys, self._places = np.zeros(0, "V16"), np.zeros((0, 2), np.int64)

    def append(self, keys: np.ndarray, vectors: np.ndarray, facts: np.ndarray) -> None:
        """
        Add rows.

        Raises:
            [`SelectionError`]: they can't be written; those before them are kept.
        """
        if self.folder is None:
            return
        values = np.empty(len(keys), self.record["values"])
        values["vector"], values["facts"] = vectors, facts
        folder = self.folder
        super().append(keys, values)
        if self._file is not None:
            self.written.add(Path(self._file.name))
        if self.folder is None:
            raise SelectionError(
                f"Vectors can't be written in {folder}: make room, or give another `selection_cache_dir`. What is "
                "there already is used again."
            )

    def find(self, keys: np.ndarray) -> tuple[StoredVectors, np.ndarray, np.ndarray]:
        """
        What is known of rows.

        Args:
            keys (`np.ndarray`):
                Content keys, `V16` `(n,)`.

        Returns:
            `tuple`: [`StoredVectors`] `(n, width)` and facts, float64 `(n, facts)`, both NaN where unknown; and which
            are known, bool `(n,)`. The last fact is the seconds that an earlier run spent: 0 for what this one wrote.
        """
        at = places_of(keys, self._keys)
        if (at < 0).any():
            self._read_on()
            at = places_of(keys, self._keys)
        known = at >= 0
        places = np.full((len(keys), 2), -1, np.int64)
        places[known] = self._places[at[known]]
        paths, parts = list(self._parts), list(self._parts.values())
        facts = np.full((len(keys), self.record["values"]["facts"].shape[0]), np.nan)
        for file in np.unique(places[known, 0]):
            mine = np.flatnonzero(places[:, 0] == file)
            facts[mine] = parts[file]["values"]["facts"][places[mine, 1]]
            if paths[file] in self.written:
                facts[mine, -1] = 0
        return StoredVectors(parts, places, self.width, self.dtype), facts, known

    def _read_on(self) -> None:
        """Look for records that came since, each of which is read and checked but once."""
        for path in sorted(self.folder.glob("*.rows")) if self.folder else []:
            size, seen = path.stat().st_size // self.record.itemsize, len(self._parts.get(path, ()))
            if size == seen:
                continue
            records = np.memmap(path, self.record, "r", shape=(size,))
            self._parts[path] = records
            file = list(self._parts).index(path)
            whole = np.array([self._whole(records[place]) for place in range(seen, size)])
            new = seen + np.flatnonzero(whole)
            keys = np.concatenate([self._keys, records["key"][new]])
            places = np.concatenate([self._places, np.column_stack([np.full(len(new), file), new])])
            order = np.argsort(_folded(keys), kind="stable")  # what is sorted already is sorted again in no time
            self._keys, self._places = keys[order], places[order]

    @staticmethod
    def _whole(record: np.void) -> bool:
        raw = record.tobytes()
        return zlib.crc32(raw[:-4]) == record["check"]

    def read(self, keys: np.ndarray, wanted: np.ndarray, accelerator: Accelerator | None) -> StoredVectors:
        """
        Vectors of rows that all ranks have written by now; each waits for the others.

        Args:
            wanted (`np.ndarray`):
                Rows that have to be there, bool `(n,)`.

        Raises:
            [`SelectionError`]: they are not.
        """
        if accelerator is not None and accelerator.num_processes > 1:
            self.close()  # other machines see no more than what is closed
            accelerator.wait_for_everyone()
        vectors, _, known = self.find(keys)
        if (wanted & ~known).any():
            raise SelectionError(
                f"`selection_cache_dir`: {int((wanted & ~known).sum())} vectors that other ranks wrote can't be seen "
                "here: give a folder that all nodes share."
            )
        return vectors


def record_of(width: int, facts: int = 1, dtype: str = "float32") -> np.dtype:
    """A record of a [`VectorStore`]."""
    values = np.dtype([("vector", np.dtype(dtype).newbyteorder("<"), (width,)), ("facts", "<f8", (facts,))])
    return np.dtype([("key", "V16"), ("values", values), ("check", "<u4")])


def free_bytes(folder: Path) -> int:
    """Room on the disk of a folder, which need not be there yet."""
    whole = Path(folder).absolute()
    return shutil.disk_usage(next(parent for parent in (whole, *whole.parents) if parent.exists())).free


def check_room(folder: Path | None, rows: int, record: np.dtype, remedy: str) -> None:
    """
    Refuse what the disk has no room for.

    Args:
        folder (`Path` or `None`):
            The cache folder.
        rows (`int`):
            Records to come.
        remedy (`str`):
            What else can be done than to make room, for the message.

    Raises:
        [`SelectionError`]: fewer bytes are free than `rows` records take.
    """
    if folder is None:
        return
    needed, free = rows * record.itemsize, free_bytes(folder)
    if needed > free:
        raise SelectionError(
            f"`selection_cache_dir={str(folder)!r}` has {free / 1e9:.1f} GB left, and {rows:,} vectors take "
            f"{needed / 1e9:.1f} GB: choose a folder with room, or {remedy}."
        )


class Vectors(NamedTuple):
    """Of rows, in the order asked for."""

    #: `(n, width)`, an array or read from the disk as they are indexed; NaN where there is none.
    vectors: np.ndarray | StoredVectors
    #: Which have a finite one, bool `(n,)`.
    usable: np.ndarray
    #: Rows that took no computing: read from the store, or equal to another row.
    cached: int
    #: Seconds that an earlier run spent on those read from the store.
    cached_seconds: float


def stored_vectors(
    store: VectorStore,
    keys: np.ndarray,
    compute: Callable[[np.ndarray], np.ndarray],
    accelerator: Accelerator | None = None,
    chunk: int = 2048,
    on_rows: Callable[[int], Any] = lambda rows: None,
) -> Vectors:
    """
    Vectors of rows: those that the store knows are read, the others computed, equal ones once, and added to it chunk
    by chunk, so that no more than a chunk is in memory. A store without a folder holds them all.

    Args:
        store ([`VectorStore`]):
            Where they are kept.
        keys (`np.ndarray`):
            Content keys `(n,)`.
        compute (`Callable`):
            Places among the keys `(b,)` -> `(b, width)`, the same on all ranks; NaN for what did not fit in memory,
            which is not kept: it may fit another time.
        chunk (`int`, *optional*, defaults to `2048`):
            Rows computed before they are saved.
        on_rows (`Callable`, *optional*):
            Called with the number of rows that are done since the last call.

    Returns:
        [`Vectors`]

    Raises:
        [`SelectionError`]: the disk has no room for them.
    """
    _, first, place = np.unique(keys, return_index=True, return_inverse=True)
    _, facts, known = store.find(keys[first])
    facts, known = found_by_main(accelerator, facts, known)
    main = accelerator is None or accelerator.is_main_process
    todo, usable = np.sort(first[~known]), known.copy()
    cached = len(keys) - len(todo)
    on_rows(cached)
    check_room(store.folder, len(todo), store.record, "'none', which holds them in memory")
    held = np.full((len(keys), store.width), np.nan, store.dtype) if store.folder is None else None
    for start in range(0, len(todo), chunk):
        places, started = todo[start : start + chunk], time.perf_counter()
        vectors = compute(places)
        seconds = (time.perf_counter() - started) / len(places)
        finite = np.isfinite(vectors).all(1)
        usable[place[places]] = finite
        if held is not None:
            held[places] = vectors
        elif main:
            store.append(keys[places[finite]], vectors[finite], np.full((int(finite.sum()), 1), seconds))
        on_rows(len(places))
    usable, source = usable[place], first[place]
    if held is not None:
        repeated = np.flatnonzero(source != np.arange(len(keys)))
        held[repeated] = held[source[repeated]]
    vectors = store.read(keys, usable, accelerator) if held is None else held
    return Vectors(vectors, usable, cached, float(facts[known, -1].sum()))
