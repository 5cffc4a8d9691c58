"""How a command ends that can't go on: Ctrl-C, SIGTERM, an error here, an error in another rank."""

import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, NoReturn


#: Seconds after a signal in which the process ends by itself: in C code, no signal reaches it. Then it is ended.
GRACE = 1.5
#: Seconds that the orderly end after a signal may take (trackers that close their runs).
TO_CLEAN_UP = 10.0
#: Seconds that a rank which fails because of another leaves to that one, whose error is the one to see.
AFTER_YOU = 2.0

_SAID = {signal.SIGINT: "stopped by Ctrl-C (SIGINT)", signal.SIGTERM: "stopped by SIGTERM"}


class Stopped(BaseException):
    """A signal asks the process to end."""

    def __init__(self, number: int):
        self.number = signal.Signals(number)


@contextmanager
def ending() -> Iterator[None]:
    """
    A command, inside the block: Ctrl-C and SIGTERM end it with one line and exit code 130 or 143, within two seconds
    where nothing has to be cleaned up. An error in one of several ranks is told by that rank, with its traceback, and
    by the others in one line.
    """
    with _signals():
        try:
            yield
        except Stopped as stopped:
            _tell_others(_SAID[stopped.number])
            _end(_last_words(_SAID[stopped.number]), 128 + stopped.number)
        except SystemExit as left:
            if left.code not in (0, None):
                _record(left)
            raise
        except Exception as error:
            if (cause := _of_others(error)) is not None:
                _tell_others("")  # the error is another rank's
                time.sleep(AFTER_YOU)
                _end(str(cause), 1)
            _record(error)
            raise


@contextmanager
def _signals() -> Iterator[None]:
    """Raise [`Stopped`] for the signals that end a command; end the process if that can't be."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    reached = threading.Event()

    def stop(number: int, frame: Any) -> NoReturn:
        if reached.is_set():  # a second Ctrl-C does not wait for the cleaning up
            os._exit(128 + number)
        reached.set()
        raise Stopped(number)

    wake, woken = socket.socketpair()
    wake.setblocking(False)
    before = {number: signal.signal(number, stop) for number in _SAID}
    descriptor = signal.set_wakeup_fd(wake.fileno(), warn_on_full_buffer=False)

    def watch() -> None:
        while received := woken.recv(1):
            if received[0] in _SAID:
                if reached.wait(GRACE):
                    time.sleep(TO_CLEAN_UP)
                else:
                    _say(_last_words(_SAID[signal.Signals(received[0])]))
                os._exit(128 + received[0])

    threading.Thread(target=watch, daemon=True).start()
    try:
        yield
    finally:
        if not reached.is_set():  # else the rest of the process's life is watched, too
            signal.set_wakeup_fd(descriptor)
            for number, handler in before.items():
                signal.signal(number, handler)
            wake.close()


def _last_words(why: str) -> str:
    """Why this rank ends: the error of another one, if there is one, or what was given, and where it was."""
    told = _ranks()
    if told is not None and (failed := told.failed()):
        return failed
    from ..engines.runtime.phase import phase

    doing, seconds = phase()
    return f"{why}" + (f" at: {doing}, after {seconds:,.0f} s" if doing else "") + "."


def _end(why: str, code: int) -> NoReturn:
    _say(why)
    raise SystemExit(code)


def _say(why: str) -> None:
    told = _ranks()
    rank = f"rank {told.rank}: " if told is not None and told.world > 1 else ""
    print(f"\nhf-dataselect: {rank}{why}", file=sys.stderr, flush=True)


def _ranks() -> Any:
    """What the ranks do, if there are several; nothing is imported for it."""
    module = sys.modules.get("hf_dataselect.engines.runtime.ranks")
    return None if module is None else module.current()


def _of_others(error: Exception) -> Any:
    module = sys.modules.get("hf_dataselect.engines.runtime.ranks")
    return None if module is None else module.explained_by_ranks(error)


def _record(error: BaseException) -> None:
    """Tell the other ranks and the launcher that this rank failed by itself."""
    if isinstance(error, SystemExit) and error.__cause__ is not None:  # a user error, which is told in one line
        error = error.__cause__
    _tell_others(f"{type(error).__name__}: {error}")
    if "torch" in sys.modules:
        from ..compat.torch import record_failure

        with suppress(OSError):
            record_failure(error)


def _tell_others(error: str) -> None:
    if "hf_dataselect.engines.runtime.ranks" in sys.modules:
        from ..engines.runtime.ranks import leave_ranks

        leave_ranks(error)
