"""Cached replies, appended as they come to one file that a kill can't corrupt and that several runs may share."""

import json
import logging
import math
import os
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from .checked import CHECKSUM, json_line, verified


logger = logging.getLogger(__name__)

#: Lines that a warning names.
LINES_NAMED = 8
#: Pause after a write that failed: a full disk is not tried at every reply.
SECONDS_BETWEEN_TRIES = 5.0


@dataclass(frozen=True)
class Reply:
    """
    A model's reply.

    Args:
        text (`str`, *optional*):
            `None` = no usable reply.
        problem (`str`, *optional*):
            Why the text is `None`.
        prompt_tokens, completion_tokens (`int`):
            As counted by the server or the tokenizer; 0 where a server does not say.
        cut (`bool`):
            Whether the text was cut off at `max_new_tokens`.
        seconds (`float`):
            Its share of the wall-clock time of the call that asked; the shares of all replies add up to it.
    """

    text: str | None
    problem: str | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cut: bool = False
    seconds: float = field(default=0.0, compare=False)

    def __post_init__(self):
        if self.text is not None:  # half a surrogate pair, where a reply was cut, can be neither written nor tokenized
            text = self.text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
            object.__setattr__(self, "text", text)


class ReplyStore:
    """
    The replies in `responses.jsonl`, by key.

    A record is one write of a JSON object with `key`, `judge`, the fields of [`Reply`] and a checksum, between line
    breaks. Appended writes do not interleave. What a kill tore or a disk damaged is on lines of its own, counted and
    named in a warning, and costs no other record. Records of earlier versions have no checksum, and are read.

    Args:
        folder (`Path` or `None`):
            Where `responses.jsonl` lies; `None` keeps replies in memory only.

    """

    def __init__(self, folder: Path | None):
        self.path = None if folder is None else Path(folder) / "responses.jsonl"
        self._memory: dict[str, Reply] = {}  # those that are not in the file
        self._unsaved: dict[str, bytes] = {}  # their lines, if they should be there
        self._own: list[tuple[int, int]] = []  # where the lines that this store wrote begin, and their bytes
        self._told, self._next_try = False, 0.0
        self._places: dict[bytes, tuple[int, int]] = {}  # where a key's record begins, and its bytes
        self._read = self._lines = 0  # of the file, so far
        self._indexed: tuple[int, int] | None = None  # which file that is
        self._file: int | None = None
        self._lock = threading.Lock()
        if self.path is not None:
            with suppress(OSError):  # a cache that can only be read has none, or needs none
                self.path.parent.mkdir(parents=True, exist_ok=True)

    def load(self, keys: Iterable[str]) -> dict[str, Reply]:
        """The replies known to any run, for those of the keys that have one."""
        keys = list(keys)
        replies = {key: self._memory[key] for key in keys if key in self._memory}
        if self.path is None or not self.path.is_file():
            return replies
        with suppress(FileNotFoundError), open(self.path, "rb") as file:  # deleted just now
            self._catch_up(file)
            for key in keys:
                if (place := self._places.get(bytes.fromhex(key))) is None:
                    continue
                file.seek(place[0])
                record = _record(file.read(place[1]))
                if record is not None and record["key"] == key:
                    if CHECKSUM not in record:
                        _tell_unchecked(self.path)
                    replies[key] = _reply(record)
        return replies

    def _catch_up(self, file: Any) -> None:
        """Index the records that were appended since the last call."""
        now = os.fstat(file.fileno())
        if self._indexed != (now.st_dev, now.st_ino) or now.st_size < self._read:  # another one took its place
            self._indexed, self._read, self._lines = (now.st_dev, now.st_ino), 0, 0
            self._places.clear()
        file.seek(self._read)
        damaged = []
        for line in file:
            record = _record(line) if line.strip() else None
            if record is None and not line.endswith(b"\n"):  # torn, or just being written: look again next time
                break
            start, self._read, self._lines = self._read, self._read + len(line), self._lines + 1
            if record is not None:
                self._places[bytes.fromhex(record["key"])] = start, len(line)
            elif line.strip():
                damaged.append(self._lines)
        if damaged:
            logger.warning(
                "%s: %s lines are torn or damaged (%s%s): the replies there are asked for again if needed.",
                self.path,
                f"{len(damaged):,}",
                ", ".join(map(str, damaged[:LINES_NAMED])),
                ", ..." if len(damaged) > LINES_NAMED else "",
            )

    def append(self, key: str, judge: str, reply: Reply) -> None:
        """
        Append a reply. Where it can't be written (a full disk, a folder that is gone) it is held in memory, with a
        warning, and written with a later one once that works again; the run goes on.
        """
        with self._lock:
            self._memory[key] = reply
            if self.path is not None:
                self._unsaved[key] = json_line({"key": key, "judge": judge, **asdict(reply)})
                if time.monotonic() >= self._next_try:
                    self._write()

    def save(self) -> None:
        """Try once more to write what could not be written, and say how much still can't be."""
        with self._lock:
            if self._unsaved:
                self._write()
            if self._unsaved:
                logger.warning("%s replies could not be saved in %s.", f"{len(self._unsaved):,}", self.path)

    def _write(self) -> None:
        """Write all that is not written yet, unless that fails."""
        try:
            file = self._opened()
            for key, line in list(self._unsaved.items()):
                if os.write(file, line) < len(line):
                    raise OSError("no room for all of it")
                self._own.append((os.lseek(file, 0, os.SEEK_CUR) - len(line), len(line)))
                del self._unsaved[key], self._memory[key]
        except OSError as error:
            if not self._told:
                logger.warning(
                    "Replies can't be saved in %s any more: %s. They are held in memory, and the run goes on.",
                    self.path,
                    error,
                )
            self._told, self._next_try = True, time.monotonic() + SECONDS_BETWEEN_TRIES

    def _opened(self) -> int:
        """The file to append to. One that was deleted meanwhile is made anew, with all that this store wrote."""
        if self._file is not None:
            with suppress(FileNotFoundError, NotADirectoryError):
                if os.path.samestat(os.fstat(self._file), os.stat(self.path)):
                    return self._file
            logger.warning("%s was deleted while it was written. This run's replies are written again.", self.path)
            for start, length in self._own:
                line = os.pread(self._file, length, start)
                if (record := _record(line)) is not None:
                    self._unsaved[record["key"]], self._memory[record["key"]] = line, _reply(record)
            self._own.clear()
            self.close()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
        return self._file

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            os.close(self._file)
            self._file = None


#: Types of the fields of a record that decide a reply.
_FIELDS: dict[str, tuple[type, ...]] = {
    "text": (str, type(None)),
    "problem": (str, type(None)),
    "prompt_tokens": (int,),
    "completion_tokens": (int,),
    "cut": (bool,),
    "seconds": (int, float),
}
_NAMES = {"key", "judge", CHECKSUM, *_FIELDS}


def _record(line: bytes) -> dict[str, Any] | None:
    """The record of a line, `None` if it is torn or damaged."""
    try:
        record = json.loads(line.decode())
        verified(record, unchecked=True)
        bytes.fromhex(record["key"])
        whole = {"text", "problem"} <= record.keys() <= _NAMES and math.isfinite(record.get("seconds", 0))
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    typed = all(isinstance(record[name], kinds) for name, kinds in _FIELDS.items() if name in record)
    return record if whole and typed else None


def _reply(record: dict[str, Any]) -> Reply:
    return Reply(**{name: record[name] for name in _FIELDS.keys() & record.keys()})


@cache
def _tell_unchecked(path: Path) -> None:
    """Once a process."""
    logger.warning("%s holds replies without a checksum, of an earlier version: they are read unchecked.", path)
