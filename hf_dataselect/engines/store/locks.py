"""Locks of work that one process at a time should do; the system frees those of a process that ends or is killed."""

import logging
import os
import socket
import time
from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout


logger = logging.getLogger(__name__)

#: Seconds between two messages of a process that waits.
TELL = 30.0


class WorkLock:
    """
    The right to do some work, for one process at a time.

    Args:
        path (`Path`):
            The file that is locked; it says who holds it, and is removed when the work is done.
        work (`str`):
            What is done, for messages.
    """

    def __init__(self, path: Path, work: str):
        self.path, self.work = path, work
        self._lock: FileLock | None = FileLock(path)

    def acquire(self) -> None:
        """
        Wait for the right. Who is waited for is told at once and every 30 seconds. Where files can't be locked, a
        warning says so, and the right is there.
        """
        began, seconds = time.monotonic(), 0.0
        while True:
            try:
                self._lock.acquire(timeout=seconds, poll_interval=0.2)
            except Timeout as error:
                place = self.path if self.path.exists() else self.path.parent
                if not os.access(place, os.W_OK):  # which filelock takes for held by another process
                    return self._without(error)
                self._tell(time.monotonic() - began)
                seconds = TELL
            except (OSError, NotImplementedError) as error:
                return self._without(error)
            else:
                return self._held()

    def release(self) -> None:
        """End the work."""
        if self._lock is not None and self._lock.is_locked:
            with suppress(OSError):  # first removed, then freed: no other process removes the file of a third one
                self.path.unlink()
            self._lock.release()

    def _held(self) -> None:
        with suppress(OSError):
            self.path.write_text(f"process {os.getpid()} on {socket.gethostname()}", encoding="utf-8")

    def _without(self, error: Exception) -> None:
        logger.warning("%s can't be locked (%s): another run may do the same work at the same time.", self.path, error)
        self._lock = None

    def _tell(self, waited: float) -> None:
        try:
            holder = self.path.read_text(encoding="utf-8", errors="replace")
        except OSError:
            holder = ""
        logger.warning(
            "Another run (%s) is %s, which this run needs too: it waits, %.0f s so far (%s). To work apart, give "
            "another `selection_cache_dir`.",
            *(holder or "its process is not known", self.work, waited, self.path),
        )


def is_locked(path: Path) -> bool:
    """Whether another process holds the lock of a file; `False` where files can't be locked."""
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    except (OSError, NotImplementedError):
        return False
    lock.release()
    return False
