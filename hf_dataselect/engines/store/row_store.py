"""
Results of rows, keyed by content and appended as they come.

A store is a folder named after everything that decides its numbers (the namespace: engine and version of its formula,
identity of the model, options). Inside, each process appends to a file of its own: fixed-size records of a row's
content key, its values, the seconds they took and a checksum. So a killed run loses at most the current batch, two
runs can share a folder, a torn or foreign record is never read, and a row whose tokens changed has another key.
"""

import json
import logging
import uuid
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .checked import verified, write_json
from .files import check_cache
from .identity import digest, plain


logger = logging.getLogger(__name__)

#: Rows whose values are read at a time.
BLOCK = 4096
#: What a run knows of cache files, by name, see [`Account`].
CacheFiles = dict[str, np.ndarray | None]


class Stored(NamedTuple):
    """What a store knows of the rows asked for, in their order."""

    #: Values of each row, NaN where unknown: `(n, width)`.
    values: Any
    #: Which are known, bool `(n,)`.
    known: np.ndarray
    #: Seconds that each row took, float64 `(n,)`; 0 where unknown.
    seconds: np.ndarray
    #: The same, and 0 for what this run wrote: seconds that an earlier run spent.
    earlier: np.ndarray


class RecordStore:
    """
    Records of rows under one namespace. Files are memory-mapped; each record is read and checked once. In a cache
    folder that can only be read, nothing is kept.

    Args:
        folder (`Path` or `None`):
            The cache folder; `None` keeps nothing.
        namespace (`dict`):
            Everything that decides the values besides the row itself; written beside them in JSON. A damaged
            description is written again, as the name of the folder is the digest of the namespace.
        record (`np.dtype`):
            What is kept of a row, see [`record_of`].
        files (`dict`, *optional*):
            What this run knows of cache files, see [`Account`]; the name of this store's own is added.

    Raises:
        `ValueError`: the folder can't be made or read, is full, or holds another namespace under the same name.
    """

    def __init__(
        self,
        folder: Path | None,
        namespace: dict[str, Any],
        record: np.dtype,
        files: dict[str, np.ndarray | None] | None = None,
    ):
        self.record = record
        self.files = {} if files is None else files
        self.folder = self._file = None
        #: Whether results can be kept.
        self.writable = False
        # Records of each file as far as they were read; of the intact ones, keys in folded order and (file, record).
        self._parts: dict[Path, np.ndarray] = {}
        self._keys, self._places = np.zeros(0, "V16"), np.zeros((0, 2), np.int64)
        if folder is None:
            return
        self.folder = Path(folder) / digest(namespace)
        self.writable = check_cache(folder)
        if self.writable:
            self.folder.mkdir(parents=True, exist_ok=True)
        self._check_namespace(plain(namespace))

    def _check_namespace(self, namespace: dict[str, Any]) -> None:
        """Write what the folder is named for, or check that it holds that."""
        path = self.folder / "namespace.json"
        try:
            kept = verified(json.loads(path.read_bytes().decode()), unchecked=True)
        except FileNotFoundError:
            kept = None
        except (ValueError, RecursionError) as error:
            kept = logger.warning("%s is damaged (%s): it is written again.", path, error)
        if kept is None and self.writable:
            write_json(path, namespace)
        elif kept is not None and digest(kept) != self.folder.name:
            raise ValueError(f"`selection_cache_dir`: {self.folder} holds other results than it is named for.")

    def append(self, keys: np.ndarray, values: np.ndarray, seconds: np.ndarray | float, **more: np.ndarray) -> None:
        """
        Add rows. If the disk is full, a warning is logged, nothing more is saved, and the run goes on.

        Args:
            keys (`np.ndarray`):
                Content keys, `V16` `(n,)`.
            values (`np.ndarray`):
                `(n, width)`.
            seconds (`np.ndarray` or `float`):
                What each row took.
            more:
                Other fields of the record.
        """
        if not self.writable or len(keys) == 0:
            return
        records = np.zeros(len(keys), self.record)
        for name, column in {"key": keys, "values": values, "seconds": seconds, **more}.items():
            records[name] = column
        records["check"] = _checksums(records)
        try:
            if self._file is None:
                self._open()
            if self._file.write(records.tobytes()) < records.nbytes:  # the next record would be out of place
                raise OSError("no room for all of it")
        except OSError as error:
            self._give_up(error)

    def _open(self) -> Path:
        """Begin the file of this process."""
        path = self.folder / f"{uuid.uuid4().hex}.rows"
        self._file = open(path, "ab", buffering=0)  # noqa: SIM115
        self.files[path.name] = None
        return path

    def _give_up(self, error: OSError) -> None:
        logger.warning(
            "Results can't be saved in %s (%s): the run goes on, but what it computes from here on is computed again "
            "after a restart.",
            self.folder,
            error,
        )
        self.close()
        self.writable = False

    def find(self, keys: np.ndarray) -> Stored:
        """
        What is known of rows.

        Args:
            keys (`np.ndarray`):
                Content keys, `V16` `(n,)`.
        """
        places = self._locate(keys)
        known = places[:, 0] >= 0
        seconds = np.where(known, self._field("seconds", places), 0.0)
        return Stored(self._values(places), known, seconds, np.where(self._counted(places), 0.0, seconds))

    def _counted(self, places: np.ndarray) -> np.ndarray:
        """Whether the seconds of records are counted already, or this run's own, bool `(n,)`; now they are."""
        counted = np.ones(len(places), bool)
        for file, (path, records) in enumerate(self._parts.items()):
            before = self.files.setdefault(path.name, np.zeros(0, bool))
            if before is None:
                continue
            mine, after = places[:, 0] == file, np.zeros(len(records), bool)
            after[: len(before)] = before
            counted[mine] = after[places[mine, 1]]
            after[places[mine, 1]] = True
            self.files[path.name] = after
        return counted

    def _values(self, places: np.ndarray) -> Any:
        return self._field("values", places)

    def _field(self, name: str, places: np.ndarray) -> np.ndarray:
        return field_of([*self._parts.values()], self.record, name, places)

    def _locate(self, keys: np.ndarray) -> np.ndarray:
        """File and record of each key, int64 `(n, 2)`; -1 for unknown keys."""
        places = self._indexed(keys)
        if (places < 0).any():
            self._read_on()
            places = self._indexed(keys)
        return places

    def _indexed(self, keys: np.ndarray) -> np.ndarray:
        if len(self._keys) == 0:
            return np.full((len(keys), 2), -1)
        at = np.searchsorted(folded(self._keys), folded(keys))  # the first of several records of a row
        at = np.minimum(at, len(self._keys) - 1)
        return np.where((self._keys[at] == keys)[:, None], self._places[at], -1)

    def _read_on(self) -> None:
        """Index the records that were appended since the last look."""
        for path in sorted(self.folder.glob("*.rows")) if self.folder else []:
            size, seen = path.stat().st_size // self.record.itemsize, len(self._parts.get(path, ()))
            if size == seen:
                continue
            records = np.memmap(path, self.record, "r", shape=(size,))
            self._parts[path] = records
            file = list(self._parts).index(path)
            intact = self._intact(records[seen:])
            if damaged := len(intact) - int(intact.sum()):
                said = f"{damaged:,} of {len(intact):,} records are damaged"
                logger.warning("%s: %s, and left out: what is missing is computed again.", path, said)
            new = seen + np.flatnonzero(intact)
            keys = np.concatenate([self._keys, records["key"][new]])
            places = np.concatenate([self._places, np.column_stack([np.full(len(new), file), new])])
            order = self._order(keys, places)
            self._keys, self._places = keys[order], places[order]

    def _order(self, keys: np.ndarray, places: np.ndarray) -> np.ndarray:
        """Order of the index: by folded key, and of several records of a row, the one to read first."""
        return np.argsort(folded(keys), kind="stable")

    @staticmethod
    def _intact(records: np.ndarray) -> np.ndarray:
        """Which records' checksums hold, bool `(n,)`."""
        return _checksums(records) == records["check"]

    def close(self) -> None:
        """Close the file of this process."""
        if self._file is not None:
            self._file.close()
            self._file = None


class RowStore(RecordStore):
    """
    A few exact numbers of each row; of several records of a row, the one with the fewest NaN counts.

    Args:
        width (`int`):
            Numbers a row, float64.
        folder, namespace, files:
            As in [`RecordStore`].
    """

    def __init__(
        self,
        folder: Path | None,
        namespace: dict[str, Any],
        width: int,
        files: CacheFiles | None = None,
    ):
        super().__init__(folder, namespace, record_of([("values", "<f8", (width,))]), files)

    def _order(self, keys: np.ndarray, places: np.ndarray) -> np.ndarray:
        # Of all tasks of all rows, the values would not fit in memory.
        parts = np.split(places, range(BLOCK, len(places), BLOCK))
        missing = [np.isnan(self._field("values", part)).sum(1) for part in parts]
        return np.lexsort((np.concatenate(missing), folded(keys)))


def record_of(fields: list[tuple]) -> np.dtype:
    """A record of a [`RecordStore`] with these fields, `values` among them."""
    return np.dtype([("key", "V16"), *fields, ("seconds", "<f8"), ("check", "<u4")])


def field_of(parts: list[np.ndarray], record: np.dtype, name: str, places: np.ndarray) -> np.ndarray:
    """One field of the records at `places` (file and record, `(n, 2)`), NaN where they are -1, or 0 of integers."""
    kind, _ = record.fields[name]
    values = np.full((len(places), *kind.shape), np.nan if kind.base.kind == "f" else 0, kind.base)
    for file in np.unique(places[places[:, 0] >= 0, 0]):
        mine = np.flatnonzero(places[:, 0] == file)
        values[mine] = parts[file][name][places[mine, 1]]
    return values


def _checksums(records: np.ndarray) -> np.ndarray:
    """Of all of each record but its checksum, uint32 `(n,)`."""
    size, sums = records.dtype.itemsize, []
    step = max(1, 2**18 // size)  # a file of vectors may be larger than memory
    for first in range(0, len(records), step):
        raw = memoryview(records[first : first + step].tobytes())
        sums += [zlib.crc32(raw[start : start + size - 4]) for start in range(0, len(raw), size)]
    return np.array(sums, np.uint32)


def folded(keys: np.ndarray) -> np.ndarray:
    """Keys as single integers that sort fast; equal keys fold alike, and a match is checked on the whole key."""
    halves = np.frombuffer(keys.tobytes(), dtype="<u8").reshape(-1, 2)
    return halves[:, 0] ^ (halves[:, 1] * np.uint64(0x9E3779B97F4A7C15))
