"""Cached replies, appended as they come to one file that a kill can't corrupt and that several runs may share."""

import json
import logging
import math
import os
import threading
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
        self._memory: dict[str, Reply] = {}
        self._places: dict[bytes, tuple[int, int]] = {}  # where a key's record begins, and its bytes
        self._read = self._lines = 0  # of the file, so far
        self._file: int | None = None
        self._lock = threading.Lock()
        if self.path is not None:
            with suppress(OSError):  # a cache that can only be read has none, or needs none
                self.path.parent.mkdir(parents=True, exist_ok=True)

    def load(self, keys: Iterable[str]) -> dict[str, Reply]:
        """The replies known to any run, for those of the keys that have one."""
        keys = list(keys)
        replies = {key: self._memory[key] for key in keys if key in self._memory}
        if self.path is None or not self.path.exists():
            return replies
        with open(self.path, "rb") as file:
            self._catch_up(file)
            for key in keys:
                if (place := self._places.get(bytes.fromhex(key))) is None:
                    continue
                file.seek(place[0])
                record = _record(file.read(place[1]))
                if record is not None and record["key"] == key:
                    if CHECKSUM not in record:
                        _tell_unchecked(self.path)
                    replies[key] = Reply(**{name: record[name] for name in _FIELDS.keys() & record.keys()})
        return replies

    def _catch_up(self, file: Any) -> None:
        """Index the records that were appended since the last call."""
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
        """Append a reply. On a full disk, later replies are held in memory, with a warning; the run goes on."""
        with self._lock:
            if self.path is None:
                self._memory[key] = reply
                return
            data = json_line({"key": key, "judge": judge, **asdict(reply)})
            try:
                if self._file is None:
                    self._file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
                if os.write(self._file, data) < len(data):
                    raise OSError("no room for all of it")
            except OSError as error:
                logger.warning("Replies can't be saved in %s any more: %s. The run goes on.", self.path, error)
                self.close()
                self.path, self._memory[key] = None, reply

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


@cache
def _tell_unchecked(path: Path) -> None:
    """Once a process."""
    logger.warning("%s holds replies without a checksum, of an earlier version: they are read unchecked.", path)
