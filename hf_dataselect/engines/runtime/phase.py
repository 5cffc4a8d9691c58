"""What this process is doing, for messages that say where a run was when it ended or stood still."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakMethod


#: What is being done, the outermost first: its name, and the time at which it began.
_doing: list[tuple[str | Callable[[], str], float]] = []


@contextmanager
def doing(what: str | Callable[[], str]) -> Iterator[None]:
    """Inside the block, this is what the process is doing; a function gives the text as it is at the time."""
    entry = what, time.monotonic()
    _doing.append(entry)
    try:
        yield
    except BaseException as error:
        _keep_phase(error)
        raise
    finally:
        _doing.remove(entry)


def _keep_phase(error: BaseException) -> None:
    """Let an error know the innermost phase that it ended."""
    if not hasattr(error, "phase"):
        error.phase = phase()


def phase_of(error: BaseException) -> tuple[str, float]:
    """What this process was doing when an error came, and for how many seconds."""
    return getattr(error, "phase", None) or phase()


def phase() -> tuple[str, float]:
    """What this process is doing, and for how many seconds."""
    for what, since in reversed(_doing):
        try:
            return (what if isinstance(what, str) else what()), time.monotonic() - since
        except Exception:  # it is told from another thread, and may be gone by now
            continue
    return "", 0.0


class Phased:
    """Makes a progress bar, the base after it, also the phase of this process, where it is not shown, too."""

    def __init__(self, *arguments: Any, **options: Any):
        self._done, self._phase = 0, None
        super().__init__(*arguments, **options)
        if label := options.get("desc"):
            self._total, self._unit = options.get("total"), options.get("unit")
            described = WeakMethod(self._described)  # a bar that an error left open is forgotten with its last user
            self._label, self._phase = label, (lambda: described()(), time.monotonic())
            _doing.append(self._phase)

    def update(self, n: float | None = 1) -> bool | None:
        self._done += n or 0
        return super().update(n)

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        if error is not None and self._phase is not None:
            _keep_phase(error)
        super().__exit__(kind, error, traceback)

    def close(self) -> None:
        if self._phase in _doing:
            _doing.remove(self._phase)
        super().close()

    def _described(self) -> str:
        if self._total is None:
            return f"{self._label} ({self._done:,} {self._unit}s)"
        return f"{self._label} ({min(self._done, self._total):,} of {self._total:,} {self._unit}s)"
