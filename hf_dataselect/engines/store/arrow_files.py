"""Maps of datasets, whose cache files are checked: damaged ones are named and made again."""

import hashlib
import logging
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
from datasets import Dataset

from .files import write_atomic


logger = logging.getLogger(__name__)


def checked_map(dataset: Dataset, function: Callable, **options: Any) -> Dataset:
    """
    As [`~datasets.Dataset.map`]. Beside each cache file, which datasets itself does not check, lies its checksum; a
    file without one, as other programs leave it, gets one.
    """
    try:
        mapped = dataset.map(function, **options)
        damaged = [path for path in _files(mapped) if not _whole(path)]
    except (pa.ArrowException, OSError) as error:
        if not dataset.cache_files:  # nothing was read
            raise
        damaged = [error]
    if damaged:
        logger.warning("Cached rows are damaged, and made again: %s.", ", ".join(map(str, damaged)))
        mapped = dataset.map(function, **options, load_from_cache_file=False)
        for path in _files(mapped):
            _note(path)
    return mapped


def _files(dataset: Dataset) -> list[Path]:
    return [Path(file["filename"]) for file in dataset.cache_files]


def _note(path: Path) -> None:
    with suppress(OSError):  # a folder that can only be read
        write_atomic(_beside(path), _checksum(path))


def _whole(path: Path) -> bool:
    """Whether a file is as it was noted; notes one that was not."""
    try:
        noted = _beside(path).read_text(encoding="utf-8")
    except (OSError, ValueError):
        _note(path)
        return True
    return noted == _checksum(path)


def _beside(path: Path) -> Path:
    return path.with_name(f"{path.name}.blake2b")


def _checksum(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
