"""One run at a time in a folder."""

import functools
import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from filelock import FileLock, Timeout


logger = logging.getLogger(__name__)

#: Held while a run writes to its folder; the operating system frees that of a killed process. The Hub gets no `_*`.
LOCK = "_run.lock"
_locks: dict[Path, FileLock] = {}
_made: set[Path] = set()


@contextmanager
def locked(folder: Path | str, option: str = "output_dir") -> Iterator[None]:
    """
    Hold a folder for one run. The main process holds it; inside, the same process may do so again.

    Args:
        folder (`Path` or `str`):
            The run folder; made if needed, and if it was made here, it is removed if it is empty in the end.
        option (`str`, *optional*, defaults to `"output_dir"`):
            Where the folder came from, for the message.

    Raises:
        `ValueError`: another process holds it, on every rank.
    """
    state, lock, refused = PartialState(), None, [None]
    if state.is_main_process:
        path = Path(folder).resolve()
        lock = _locks.setdefault(path, FileLock(path / LOCK, timeout=0))
        try:
            if not path.exists():
                path.mkdir(parents=True, exist_ok=True)
                _made.add(path)
            lock.acquire()
        except Timeout:
            refused[0] = (
                f"`{option}={str(folder)!r}` is in use: another process selects or trains there. Wait until it ends, "
                "or choose another folder."
            )
        except (OSError, NotImplementedError) as error:
            lock = None
            if path.is_dir():  # else writing there tells
                _warn(f"`{option}={str(folder)!r}` can't be locked ({error}): keep other runs out of it.")
    if state.num_processes > 1:
        broadcast_object_list(refused)
    if refused[0] is not None:
        raise ValueError(refused[0])
    try:
        yield
    finally:
        if lock is not None:
            _release(lock)


@functools.lru_cache
def _warn(message: str) -> None:
    logger.warning(message)


def _release(lock: FileLock) -> None:
    path = Path(lock.lock_file)
    if lock.lock_counter == 1:
        _locks.pop(path.parent, None)
        with suppress(OSError):  # Windows removes no open file
            path.unlink(missing_ok=True)
    lock.release()
    if not lock.is_locked and path.parent in _made:
        _made.remove(path.parent)
        with suppress(OSError):  # it holds a run
            path.parent.rmdir()
