"""What one computation needs and nothing keeps: much of it lies in a file without a name, gone even after a kill."""

import mmap
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import IO

import numpy as np
import pyarrow as pa

from ...errors import SelectionError
from .files import check_cache
from .vector_store import check_room


#: Bytes that are held in memory.
HELD = 2**26


@contextmanager
def scratch(folder: Path | None, parts: Iterable[np.ndarray], shape: tuple[int, int]) -> Iterator[np.ndarray]:
    """
    Float32 `(n, width)`, given in parts, that may be changed and is gone afterwards: more than `HELD` bytes in a file,
    where the folder can be written.

    Raises:
        [`SelectionError`]: the disk has no space for it.
    """
    record = np.dtype((np.float32, shape[1:]))
    if not _in_file(folder, shape[0] * record.itemsize):
        yield np.concatenate([np.zeros((0, shape[1]), np.float32), *parts])
        return
    check_room(folder, shape[0], record, "'none', which holds them in memory")
    with tempfile.TemporaryFile(dir=folder) as file:
        for part in parts:
            with _writing("Vectors", folder, file):
                file.write(np.ascontiguousarray(part, np.float32))
        with _writing("Vectors", folder, file):
            file.flush()
        yield np.memmap(file, np.float32, "r+", shape=shape)


@contextmanager
def scratch_table(folder: Path | None, schema: pa.Schema, parts: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """
    Tables one below the other, gone afterwards: those of more than `HELD` bytes in a file that is memory-mapped, where
    the folder can be written.

    Raises:
        [`SelectionError`]: the disk has no space for them.
    """
    parts, held = iter(parts), [schema.empty_table()]
    while sum(part.nbytes for part in held) <= HELD and (part := next(parts, None)) is not None:
        held.append(part)
    if not _in_file(folder, sum(part.nbytes for part in held)):
        yield pa.concat_tables([*held, *parts])
        return
    with tempfile.TemporaryFile(dir=folder) as file:
        with _writing("Tokens", folder, file):
            writer = pa.ipc.new_stream(file, schema)
        for part in chain(held, parts):
            with _writing("Tokens", folder, file):
                writer.write_table(part)
        with _writing("Tokens", folder, file):
            writer.close()
            file.flush()
        mapped = pa.py_buffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        yield pa.ipc.open_stream(mapped).read_all()


def _in_file(folder: Path | None, size: int) -> bool:
    return folder is not None and size > HELD and check_cache(folder)


@contextmanager
def _writing(what: str, folder: Path | None, file: IO[bytes]) -> Iterator[None]:
    """Only around writing: what is computed of the parts has errors of its own."""
    try:
        yield
    except OSError as error:
        file.raw.close()  # what waits to be written would be refused once more
        raise SelectionError(
            f"{what} can't be written in {folder} ({error}): make room, or give another `selection_cache_dir`."
        ) from error
