"""
Results keyed by content, appended as they come.

A store is a folder named after everything that decides its numbers (the namespace: model identity, engine and its
code, options). Inside, each process appends to a file of its own: fixed-size records of a row's content key, its
values and a checksum. So a killed run loses at most the batch at hand, two runs can share a folder, a torn or foreign
record is never read, and a row whose tokens changed has another key.
"""

import json
import logging
import uuid
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from .files import check_writable, write_atomic
from .identity import digest


logger = logging.getLogger(__name__)


class RowStore:
    """
    Numbers of rows under one namespace.

    Args:
        folder (`Path` or `None`):
            The cache folder; `None` keeps nothing.
        namespace (`dict`):
            Everything that decides the numbers besides the row itself; written beside them in plain JSON.
        width (`int`):
            Numbers a row, float64.

    Raises:
        `ValueError`: the folder cannot be written, or holds another namespace under the same name.
    """

    def __init__(self, folder: Path | None, namespace: dict[str, Any], width: int):
        self.record = np.dtype([("key", "V16"), ("values", "<f8", (width,)), ("check", "<u4")])
        self.folder = self._file = None
        if folder is None:
            return
        self.folder = Path(folder) / digest(namespace)
        check_writable(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(namespace, indent=1, sort_keys=True, default=str, ensure_ascii=False)
        described = self.folder / "namespace.json"
        if not described.exists():
            write_atomic(described, text)
        elif described.read_text() != text:
            raise ValueError(f"`selection_cache_dir`: {self.folder} holds other results than it is named for.")

    def load(self, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Stored values `(n, width)` of the given keys, and which of them are known, bool `(n,)`."""
        width = self.record["values"].shape[0]
        values = np.full((len(keys), width), np.nan)
        parts = sorted(self.folder.glob("*.rows")) if self.folder else []
        records = [self._intact(np.frombuffer(part.read_bytes(), np.uint8)) for part in parts]
        records = np.concatenate(records) if records else np.zeros(0, self.record)
        gaps = np.isnan(records["values"]).sum(1)
        if gaps.any():  # of several records of a row, the fullest counts
            records = records[np.argsort(gaps, kind="stable")]
        place = places_of(keys, records["key"])
        known = place >= 0
        values[known] = records["values"][place[known]]
        return values, known

    def _intact(self, data: np.ndarray) -> np.ndarray:
        """Records whose checksum holds; a record torn by a kill ends its file."""
        size = self.record.itemsize
        data = data[: len(data) // size * size]
        raw = data.tobytes()
        records = np.frombuffer(raw, self.record)
        checks = [zlib.crc32(raw[start : start + size - 4]) for start in range(0, len(raw), size)]
        return records[np.array(checks, np.uint32) == records["check"]]

    def append(self, keys: np.ndarray, values: np.ndarray) -> None:
        """Add rows. A full disk stops the saving, with a warning, but never the run."""
        if self.folder is None:
            return
        records = np.zeros(len(keys), self.record)
        records["key"], records["values"] = keys, values
        size = self.record.itemsize
        raw = records.tobytes()
        records["check"] = [zlib.crc32(raw[i : i + size - 4]) for i in range(0, len(raw), size)]
        try:
            if self._file is None:
                self._file = open(self.folder / f"{uuid.uuid4().hex}.rows", "ab", buffering=0)  # noqa: SIM115
            if (
                self._file.write(records.tobytes()) < records.nbytes
            ):  # the next record would not stand where it belongs
                raise OSError("no room for all of it")
        except OSError as error:
            logger.warning(
                "Results can't be saved in %s (%s): the run goes on, but what it computes from here on is computed "
                "again after a restart.",
                self.folder,
                error,
            )
            self.close()
            self.folder = None

    def close(self) -> None:
        """Close the file of this process."""
        if self._file is not None:
            self._file.close()
            self._file = None


def places_of(keys: np.ndarray, stored: np.ndarray) -> np.ndarray:
    """Where each of the keys stands among the stored ones (both `V16`), int64 `(n,)`; -1 for one that is not there."""
    if len(stored) == 0 or len(keys) == 0:
        return np.full(len(keys), -1)
    folded = _folded(stored)
    order = np.argsort(folded, kind="stable")
    place = np.searchsorted(folded, _folded(keys), sorter=order)
    place = order[np.minimum(place, len(order) - 1)]
    return np.where(stored[place] == keys, place, -1)


def _folded(keys: np.ndarray) -> np.ndarray:
    """Keys as single integers that sort fast; equal keys fold alike, and a match is checked on the whole key."""
    halves = np.frombuffer(keys.tobytes(), dtype="<u8").reshape(-1, 2)
    return halves[:, 0] ^ (halves[:, 1] * np.uint64(0x9E3779B97F4A7C15))
