"""Vectors of rows, keyed by content and kept on disk: what is too wide to be held in memory."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import SelectionError
from .files import check_cache
from .row_store import CacheFiles, RecordStore, field_of, record_of


#: Numbers of vectors that are read at a time.
READ = 2**24


class StoredVectors:
    """
    Rows of a [`VectorStore`] in the order asked for, read from the disk as they are indexed.

    Args:
        parts (`list[np.ndarray]`):
            Memory-mapped files of records.
        record (`np.dtype`):
            Of these.
        places (`np.ndarray`):
            File and record of each row, int64 `(n, 2)`; -1 for unknown rows, which read as NaN.
    """

    def __init__(self, parts: list[np.ndarray], record: np.dtype, places: np.ndarray):
        self.parts, self.record, self.places = parts, record, places
        self.dtype, self.shape = record["values"].base, (len(places), *record["values"].shape)

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, rows: slice | np.ndarray) -> np.ndarray:
        return self.field("values", rows)

    def take(self, rows: np.ndarray) -> "StoredVectors":
        """Some rows, on disk as they are."""
        return StoredVectors(self.parts, self.record, self.places[rows])

    def join(self, others: "StoredVectors") -> "StoredVectors":
        """These rows, and then others of the same width."""
        shift = np.where(others.places[:, :1] < 0, 0, [[len(self.parts), 0]])
        places = np.concatenate([self.places, others.places + shift])
        return StoredVectors([*self.parts, *others.parts], self.record, places)

    def field(self, name: str, rows: slice | np.ndarray = np.s_[:]) -> np.ndarray:
        """One field of some rows."""
        return field_of(self.parts, self.record, name, self.places[rows])


def blocks(shape: tuple[int, int]) -> Iterator[slice]:
    """Runs of rows, of about `READ` numbers each."""
    step = max(1, READ // max(1, shape[1]))
    return (slice(first, first + step) for first in range(0, shape[0], step))


class VectorStore(RecordStore):
    """
    A wide vector of each row, and a few exact numbers beside it.

    Args:
        width (`int`):
            Numbers a vector.
        facts (`int`, *optional*, defaults to `0`):
            Exact numbers (float64) a row, field `facts`.
        dtype (`str`, *optional*, defaults to `"float32"`):
            Of the vectors.
        folder, namespace, files:
            As in [`RecordStore`].
    """

    def __init__(
        self,
        folder: Path | None,
        namespace: dict[str, Any],
        width: int,
        facts: int = 0,
        dtype: str = "float32",
        files: CacheFiles | None = None,
    ):
        self.width, self.dtype = width, np.dtype(dtype)
        super().__init__(folder, namespace, vector_record(width, facts, dtype), files)

    def _give_up(self, error: OSError) -> None:
        # Vectors are read back from the disk: without it, the run can't go on.
        self.close()
        raise SelectionError(
            f"Vectors can't be written in {self.folder} ({error}): make room, or give another `selection_cache_dir`. "
            "What is there already is used again."
        ) from error

    def _values(self, places: np.ndarray) -> StoredVectors:
        return StoredVectors([*self._parts.values()], self.record, places)


def vector_record(width: int, facts: int = 0, dtype: str = "float32") -> np.dtype:
    """A record of a [`VectorStore`]."""
    return record_of([("values", np.dtype(dtype).newbyteorder("<"), (width,)), ("facts", "<f8", (facts,))])


def free_bytes(folder: Path) -> int:
    """Room on the disk of a folder, which need not exist yet."""
    whole = Path(folder).absolute()
    return shutil.disk_usage(next(parent for parent in (whole, *whole.parents) if parent.exists())).free


def check_room(folder: Path | None, rows: int, record: np.dtype, remedy: str) -> None:
    """
    Refuse vectors, which are read back from the disk, where it has no room for them or can't be written.

    Args:
        folder (`Path` or `None`):
            The cache folder.
        rows (`int`):
            Records to come.
        record (`np.dtype`):
            Of the store.
        remedy (`str`):
            What else to change than the folder, for the message.

    Raises:
        [`SelectionError`]: fewer bytes are free than `rows` records take, or the folder can't be written.
    """
    if folder is None or rows == 0:
        return
    if not check_cache(folder):
        raise SelectionError(
            f"`selection_cache_dir={str(folder)!r}` can't be written, and {rows:,} vectors are to be kept on disk: "
            "choose a folder that can be, or 'none', which holds them in memory."
        )
    needed, free = rows * record.itemsize, free_bytes(folder)
    if needed > free:
        raise SelectionError(
            f"`selection_cache_dir={str(folder)!r}` has {free / 1e9:.1f} GB left, and {rows:,} vectors take "
            f"{needed / 1e9:.1f} GB: choose a folder with room, or {remedy}."
        )
