"""A number for each token of rows, keyed by the content of the row: as many as it has."""

import logging
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .row_store import CacheFiles, RecordStore, folded, record_of


logger = logging.getLogger(__name__)


class StoredTokens(Sequence):
    """Float32 numbers of rows in the order asked for, read from the disk as they are indexed; empty if unknown."""

    def __init__(self, files: list[np.ndarray], places: np.ndarray):
        # `places`: file, first number and count of each row, int64 `(n, 3)`; file -1 for unknown rows.
        self._files, self._places = files, places

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, row: int) -> np.ndarray:  # type: ignore[override]  # no slices
        file, first, count = self._places[row]
        return np.array(self._files[file][first : first + count]) if file >= 0 else np.zeros(0, np.float32)


class RaggedStore(RecordStore):
    """
    As many float32 numbers a row as it has tokens: records say where in a file beside them these are, with a checksum.
    What can't be kept on disk is held in memory.

    Args:
        folder, namespace, files:
            As in [`RecordStore`].
    """

    def __init__(self, folder: Path | None, namespace: dict[str, Any], files: CacheFiles | None = None):
        self._numbers, self._written = None, 0
        #: Numbers by key, of what can't be kept on disk.
        self.memory: dict[bytes, np.ndarray] = {}
        self._damaged: dict[Path, np.ndarray] = {}
        super().__init__(folder, namespace, record_of([("values", "<i8", (2,)), ("numbers", "<u4")]), files)

    def append(self, keys: np.ndarray, values: Sequence[np.ndarray], seconds: np.ndarray | float, **_: Any) -> None:
        """Add rows, see [`RecordStore.append`]; `values` are an array `(tokens,)` of each."""
        if not self.writable:
            self.memory.update(zip(keys.tolist(), values, strict=True))
            return
        raw = [np.ascontiguousarray(row, "<f4").tobytes() for row in values]
        counts = np.array([len(row) // 4 for row in raw])
        firsts = self._written + np.cumsum(counts) - counts
        try:
            if self._numbers is None:
                path, self._written = self._open().with_suffix(".numbers"), 0
                self._numbers = open(path, "ab", buffering=0)  # noqa: SIM115
            if self._numbers.write(b"".join(raw)) < sum(map(len, raw)):
                raise OSError("no room for all of it")
        except OSError as error:
            self._give_up(error)
            self.memory.update(zip(keys.tolist(), values, strict=True))
            return
        self._written += int(counts.sum())
        checks = np.array([zlib.crc32(row) for row in raw], np.uint32)
        super().append(keys, np.column_stack([firsts, counts]), seconds, numbers=checks)

    def _values(self, places: np.ndarray) -> StoredTokens:
        files = [self._numbers_of(path) for path in self._parts]
        spans = np.zeros((len(places), 2), np.int64)
        for file, records in enumerate(self._parts.values()):
            mine = places[:, 0] == file
            spans[mine] = records["values"][places[mine, 1]]
        return StoredTokens(files, np.column_stack([places[:, 0], spans]))

    def in_memory(self, keys: np.ndarray) -> list[np.ndarray]:
        """Numbers of rows that were not kept on disk; empty if unknown."""
        return [self.memory.get(key, np.zeros(0, np.float32)) for key in keys.tolist()]

    def _numbers_of(self, path: Path) -> np.ndarray:
        beside = path.with_suffix(".numbers")
        size = beside.stat().st_size // 4 if beside.exists() else 0
        return np.memmap(beside, "<f4", "r", shape=(size,)) if size else np.zeros(0, np.float32)

    def _order(self, keys: np.ndarray, places: np.ndarray) -> np.ndarray:
        # Whole records first: of a row whose numbers are damaged, those that were computed again count.
        return np.lexsort((~self._whole(places), folded(keys)))

    def _locate(self, keys: np.ndarray) -> np.ndarray:
        places = super()._locate(keys)
        return np.where((places[:, :1] < 0) | self._whole(places)[:, None], places, -1)

    def _whole(self, places: np.ndarray) -> np.ndarray:
        """Whether the numbers of records are as they were written, bool `(n,)`."""
        whole = np.zeros(len(places), bool)
        for file, (path, records) in enumerate(self._parts.items()):
            seen = self._damaged.get(path, np.zeros(0, bool))
            if len(seen) < len(records):
                numbers, more = self._numbers_of(path), []
                for (first, count), check in zip(
                    records["values"][len(seen) :].tolist(), records["numbers"][len(seen) :].tolist(), strict=True
                ):
                    more.append(zlib.crc32(np.ascontiguousarray(numbers[first : first + count]).tobytes()) != check)
                if damaged := sum(more):
                    said = f"the numbers of {damaged:,} of {len(more):,} rows are damaged"
                    logger.warning("%s: %s, and left out: they are computed again.", path, said)
                seen = self._damaged[path] = np.concatenate([seen, np.array(more, bool)])
            mine = places[:, 0] == file
            whole[mine] = ~seen[places[mine, 1]]
        return whole

    def close(self) -> None:
        """Close the files of this process."""
        super().close()
        if self._numbers is not None:
            self._numbers.close()
            self._numbers = None
