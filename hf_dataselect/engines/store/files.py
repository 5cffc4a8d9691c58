"""Files that are written whole or not at all."""

import errno
import logging
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path


logger = logging.getLogger(__name__)

#: Bytes that prove that there is room.
PROBE = 1 << 20
#: What a folder, or its file system, that can be read but not written says.
_READ_ONLY = (errno.EROFS, errno.EACCES, errno.EPERM)
#: What one without room says.
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def default_cache_dir() -> str:
    """Where results are kept by default: the environment's `HF_DATASELECT_CACHE`, or `~/.cache/hf_dataselect`."""
    return os.environ.get("HF_DATASELECT_CACHE") or "~/.cache/hf_dataselect"


def cache_folder(name: str | Path | None) -> Path | None:
    """`selection_cache_dir` as a path; `None` and `"none"` disable the cache."""
    return None if name is None or str(name).lower() == "none" else Path(name).expanduser()


def check_writable(folder: Path | str, option: str = "selection_cache_dir", make: bool = True) -> Path:
    """
    Make the folder and prove that a file of 1 MiB can be written there; without `make`, in the folder that it would be
    made in, so that nothing is left of a run that is refused.

    Raises:
        `ValueError`: it can't be made or written.
    """
    folder = Path(folder)
    there = folder if make else next(path for path in (folder, *folder.absolute().parents) if path.exists())
    probe = there / f".probe-{uuid.uuid4().hex}"
    try:
        there.mkdir(parents=True, exist_ok=True)
        with open(probe, "wb") as file:  # to the disk: a full one may not refuse a few bytes that wait in memory
            file.write(bytes(PROBE))
            file.flush()
            os.fsync(file.fileno())
        probe.unlink()
    except OSError as error:
        with suppress(OSError):  # a file system that can only be read refuses that, too
            probe.unlink()
        why = "it is a file" if folder.is_file() else error.strerror or error
        raise ValueError(
            f"`{option}={str(folder)!r}` can't be written ({why}): choose a folder with room"
            + (", or 'none' to keep no results." if option == "selection_cache_dir" else ".")
        ) from error
    return folder


def check_cache(folder: Path | str, begun: bool = True) -> bool:
    """
    Make the folder of cached results; whether results can be kept there. Where they can't, as it can be read only, a
    warning says so once a process.

    Args:
        begun (`bool`, *optional*, defaults to `True`):
            Whether the run is under way: then a full folder only means that nothing more is kept.

    Raises:
        `ValueError`: it can't be made or read, or is full before the run begins.
    """
    folder, refused = Path(folder), None
    try:
        check_writable(folder)
    except ValueError as error:
        refused = error.__cause__
        if refused.errno not in _READ_ONLY + FULL * begun or not folder.is_dir():
            raise
    if not os.access(folder, os.R_OK | os.X_OK):
        raise ValueError(
            f"`selection_cache_dir={str(folder)!r}` can't be read: choose another one, or 'none' to keep no results."
        )
    if refused is not None:
        _tell_kept_no_more(folder.absolute(), refused.strerror)
    return refused is None


@cache
def _tell_kept_no_more(folder: Path, why: str) -> None:
    logger.warning(
        "`selection_cache_dir=%r` can't be written (%s): the results there are used, and what is computed now is not "
        "kept.",
        str(folder),
        why,
    )


def in_bytes(number: float) -> str:
    """A number of bytes, for people."""
    size, unit = next(((size, unit) for size, unit in ((1e9, "GB"), (1e6, "MB")) if number >= 0.1 * size), (1e3, "kB"))
    return f"{number / size:,.1f} {unit}"


def write_atomic(path: Path, content: str | bytes) -> None:
    """Write a file so that a reader sees all of it or nothing, also after the machine lost power."""
    with written_atomic(path) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)


@contextmanager
def written_atomic(path: Path) -> Iterator[Path]:
    """Yield a path to write to; what lies there when the block ends is synced and takes the place of `path`."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        yield temporary
        sync(temporary)
        os.replace(temporary, path)
        sync(path.parent)
    except OSError as error:
        if error.errno is None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error  # else it names no file, or the temporary one
    finally:
        temporary.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Wait until a file, or the entries of a folder, are on the disk."""
    try:
        opened = os.open(path, os.O_RDONLY)
    except PermissionError:  # Windows opens no folders
        return
    try:
        os.fsync(opened)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # a file system that can't sync folders
            raise
    finally:
        os.close(opened)
