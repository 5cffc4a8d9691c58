"""Gradients of rows, kept on disk by content: [`RowStore`] for what is too wide to be held in memory."""

import shutil
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from .cache import RowStore


class StoredVectors:
    """
    Rows of a [`GradientStore`] in the order asked for, read from the disk block by block.

    Args:
        parts (`list[np.ndarray]`):
            Memory-mapped files of records.
        places (`np.ndarray`):
            File and record of each row, int64 `(n, 2)`; -1 where there is none, which reads as NaN.
        width (`int`):
            Numbers a vector.
    """

    def __init__(self, parts: list[np.ndarray], places: np.ndarray, width: int):
        self.parts, self.places = parts, places
        self.shape = (len(places), width)
        self.dtype = parts[0]["values"]["vector"].dtype if parts else np.dtype(np.float16)

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, rows: slice | np.ndarray) -> np.ndarray:
        places = self.places[rows]
        found = np.full((len(places), self.shape[1]), np.nan, self.dtype)
        for file in np.unique(places[places[:, 0] >= 0, 0]):
            mine = np.flatnonzero(places[:, 0] == file)
            found[mine] = self.parts[file]["values"]["vector"][places[mine, 1]]
        return found


class GradientStore(RowStore):
    """
    A [`RowStore`] of wide, compact vectors with a few exact numbers beside each: records are appended as they come, a
    torn one is never read, and reading maps the files instead of loading them.

    Args:
        folder (`Path`):
            The cache folder.
        namespace (`dict`):
            Everything that decides the numbers besides the row itself.
        width (`int`):
            Numbers a vector.
        facts (`int`):
            Exact numbers (float64) a row.
        dtype (`np.dtype`, *optional*, defaults to `np.float16`):
            Of the vectors.
    """

    def __init__(self, folder: Path, namespace: dict[str, Any], width: int, facts: int, dtype: np.dtype = np.float16):
        super().__init__(folder, namespace, width)
        values = np.dtype([("vector", np.dtype(dtype).newbyteorder("<"), (width,)), ("facts", "<f8", (facts,))])
        self.record = np.dtype([("key", "V16"), ("values", values), ("check", "<u4")])

    def check_room(self, rows: int) -> None:
        """
        Refuse what the disk has no room for.

        Raises:
            `ValueError`: fewer bytes are free than `rows` records take.
        """
        needed, free = rows * self.record.itemsize, shutil.disk_usage(self.folder).free
        if needed > free:
            raise ValueError(
                f"`selection_cache_dir={str(self.folder.parent)!r}` has {free / 1e9:.1f} GB left, and {rows:,} "
                f"gradients take {needed / 1e9:.1f} GB: choose a folder with room, or a smaller `projection_dim`."
            )

    def append(self, keys: np.ndarray, vectors: np.ndarray, facts: np.ndarray) -> None:
        """
        Add rows.

        Raises:
            `OSError`: they can't be written; those before them are kept.
        """
        values = np.empty(len(keys), self.record["values"])
        values["vector"], values["facts"] = vectors, facts
        folder = self.folder
        super().append(keys, values)
        if self.folder is None:
            raise OSError(
                f"Gradients can't be written in {folder}: make room, or give another `selection_cache_dir`. What is "
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
            are known, bool `(n,)`.
        """
        values = self.record["values"]
        facts, known = np.full((len(keys), values["facts"].shape[0]), np.nan), np.zeros(len(keys), bool)
        parts, where = [], {}
        for path in sorted(self.folder.glob("*.rows")):
            size = path.stat().st_size // self.record.itemsize
            if size == 0:
                continue
            records = np.memmap(path, self.record, "r", shape=(size,))
            parts.append(records)
            for place, check in enumerate(records["check"].tolist()):
                raw = records[place].tobytes()
                if zlib.crc32(raw[:-4]) == check:
                    where[raw[:16]] = (len(parts) - 1, place)
        places = np.full((len(keys), 2), -1, np.int64)
        for row, key in enumerate(keys):
            place = where.get(key.tobytes())
            if place is not None:
                known[row], facts[row] = True, parts[place[0]]["values"]["facts"][place[1]]
                places[row] = place
        return StoredVectors(parts, places, values["vector"].shape[0]), facts, known


#: Numbers of vectors that are read at a time.
READ = 2**26


def inner_products(vectors: np.ndarray | StoredVectors, others: np.ndarray | StoredVectors):
    """Inner products of two sets of vectors, float32 `(n, m)`, reading the first block by block; NaN for NaN."""
    others = others[:].astype(np.float32)
    block = max(1, READ // max(1, others.shape[1]))
    found = np.empty((len(vectors), len(others)), np.float32)
    for first in range(0, len(vectors), block):
        found[first : first + block] = vectors[first : first + block].astype(np.float32) @ others.T
    return found
