"""JSON with a checksum in each object: what is damaged on the disk is told, never read as if it were whole."""

import json
import logging
from pathlib import Path
from typing import Any

from ...errors import DamagedFile
from .files import write_atomic
from .identity import digest


logger = logging.getLogger(__name__)

#: Entry of an object with the hash of all its other entries.
CHECKSUM = "checksum"
_KIND = "blake2b:"


def with_checksum(described: dict[str, Any]) -> dict[str, Any]:
    """The object, and the checksum of its content as the last entry."""
    described = json.loads(json.dumps(described))  # as it will be read: names of entries are text
    return described | {CHECKSUM: _KIND + digest(described)}


def verified(described: Any, unchecked: bool = False) -> dict[str, Any]:
    """
    An object without its checksum.

    Args:
        described (`Any`):
            What was read as JSON.
        unchecked (`bool`, *optional*, defaults to `False`):
            Whether an object that never had a checksum is taken as it is.

    Raises:
        `ValueError`: it is no object, lacks a checksum, or has another content.
    """
    if not isinstance(described, dict):
        raise ValueError(f"it holds {type(described).__name__}, not an object")
    content = {name: value for name, value in described.items() if name != CHECKSUM}
    if CHECKSUM not in described:
        # A damaged name of the entry still leaves its value.
        damaged = any(isinstance(value, str) and value.startswith(_KIND) for value in content.values())
        if unchecked and not damaged:
            return content
        raise ValueError("it has no checksum")
    if described[CHECKSUM] != _KIND + digest(content):
        raise ValueError("its checksum is that of another content")
    return content


def write_json(path: Path, described: dict[str, Any]) -> None:
    """Write an object, with a checksum, atomically. One line an entry: long lists stay readable."""
    lines = (f" {json.dumps(key)}: {json.dumps(value)}" for key, value in with_checksum(described).items())
    write_atomic(path, "{\n" + ",\n".join(lines) + "\n}\n")


def read_json(path: Path, remedy: str | None = None, unchecked: bool | None = None) -> dict[str, Any]:
    """
    An object from [`write_json`]. One without a checksum, as earlier versions wrote it, is read with a warning.

    Args:
        path (`Path`):
            The file.
        remedy (`str`, *optional*):
            What to do about a damaged one, for the message.
        unchecked (`bool`, *optional*):
            Whether one without a checksum is read without the warning, or refused.

    Raises:
        [`DamagedFile`]: it is not as it was written.
        `OSError`: it can't be read.
    """
    try:
        described = json.loads(path.read_bytes().decode())
        content = verified(described, unchecked is not False)
    except (ValueError, RecursionError) as error:
        raise DamagedFile(path, error, *([remedy] if remedy else [])) from error
    if unchecked is None and CHECKSUM not in described:
        logger.warning(
            "%s has no checksum (an earlier version wrote it, or it was edited): it is read unchecked.", path
        )
    return content


def json_line(record: dict[str, Any]) -> bytes:
    """A record of a file of JSON lines, with its checksum; the line break before it ends a line that a kill tore."""
    return b"\n" + json.dumps(with_checksum(record)).encode() + b"\n"


def read_line(line: bytes, unchecked: bool = False) -> dict[str, Any] | None:
    """The record of a line from [`json_line`]; `None` if it is torn or damaged. `unchecked` as in [`verified`]."""
    try:
        return verified(json.loads(line.decode()), unchecked)
    except (ValueError, RecursionError):
        return None


def read_lines(path: Path, unchecked: bool = False) -> list[dict[str, Any]]:
    """
    The whole records of a file of [`json_line`]s, none if there is no file; how many are damaged is logged.
    `unchecked` as in [`verified`].
    """
    lines = [line for line in path.read_bytes().split(b"\n") if line.strip()] if path.is_file() else []
    records = [read_line(line, unchecked) for line in lines]
    if damaged := records.count(None):
        logger.warning("%s: %s of %s lines are damaged, and left out.", path, f"{damaged:,}", f"{len(lines):,}")
    return [record for record in records if record is not None]
