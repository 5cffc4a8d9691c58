"""Cached replies, appended as they come to one file that a kill can't corrupt and that several runs may share."""

import json
import logging
import os
import threading
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


logger = logging.getLogger(__name__)


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

    A record is one write of a line break and a JSON object with `key`, `judge` and the fields of [`Reply`]. Appended
    writes do not interleave; a record torn by a kill is on a line of its own, is not valid JSON, and is ignored.

    Args:
        folder (`Path` or `None`):
            Where `responses.jsonl` lies; `None` keeps replies in memory only.

    Raises:
        `OSError`: the folder can't be made.
    """

    def __init__(self, folder: Path | None):
        self.path = None if folder is None else Path(folder) / "responses.jsonl"
        self._memory: dict[str, Reply] = {}
        self._places: dict[bytes, tuple[int, int]] = {}  # where a key's record begins, and its bytes
        self._read = 0
        self._file: int | None = None
        self._lock = threading.Lock()
        if self.path is not None:
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
                if (place := self._places.get(bytes.fromhex(key))) is not None:
                    file.seek(place[0])
                    record = json.loads(file.read(place[1]))
                    fields = record.keys() & Reply.__dataclass_fields__.keys()
                    replies[key] = Reply(**{name: record[name] for name in fields})
        return replies

    def _catch_up(self, file: Any) -> None:
        """Index the records that were appended since the last call."""
        file.seek(self._read)
        for line in file:
            start, self._read = self._read, self._read + len(line)
            try:
                record = json.loads(line) if line.strip() else None
            except ValueError:
                if not line.endswith(b"\n"):  # torn, or just being written: look again next time
                    self._read = start
                continue
            if isinstance(record, dict) and {"key", "text", "problem"} <= record.keys():
                self._places[bytes.fromhex(record["key"])] = start, len(line)

    def append(self, key: str, judge: str, reply: Reply) -> None:
        """Append a reply. On a full disk, later replies are held in memory, with a warning; the run goes on."""
        with self._lock:
            if self.path is None:
                self._memory[key] = reply
                return
            data = b"\n" + json.dumps({"key": key, "judge": judge, **asdict(reply)}).encode()
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
