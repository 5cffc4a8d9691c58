"""How a command ends that can't go on: Ctrl-C, SIGTERM, an error here, an error in another rank."""

import atexit
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, NoReturn

from ..errors import printable


#: Seconds after a signal in which the process ends by itself: in C code, no signal reaches it. Then it is ended.
GRACE = 1.5
#: Seconds that the orderly end after a signal may take (trackers that close their runs).
TO_CLEAN_UP = 10.0
#: Seconds that a rank which fails because of another leaves to that one, whose error is the one to see.
AFTER_YOU = 2.0

#: What the process exits with, once its end is told.
_code: int | None = None

_SAID = {signal.SIGINT: "stopped by Ctrl-C (SIGINT)", signal.SIGTERM: "stopped by SIGTERM"}


class Stopped(KeyboardInterrupt):
    """A signal asks the process to end."""

    def __init__(self, number: int):
        self.number = signal.Signals(number)
        super().__init__(_SAID[number])


@contextmanager
def ending() -> Iterator[None]:
    """
    A command, inside the block: Ctrl-C and SIGTERM end it with one line and exit code 130 or 143, within two seconds
    where nothing has to be cleaned up. An error in one of several ranks is told by that rank, with its traceback, and
    by the others in one line.
    """
    atexit.register(_leave)  # before the libraries register theirs, which come first then
    with _signals():
        try:
            with _told_to_others():
                yield
        except Stopped as stopped:
            said = _last_words(stopped)
            _tell_others(stopped)
            _end(said, 128 + stopped.number)


@contextmanager
def _told_to_others() -> Iterator[None]:
    try:
        yield
    except SystemExit as left:
        if left.code not in (0, None):
            _record(left)
        raise
    except Exception as error:
        if (cause := _of_others(error)) is None:
            _record(error)
            raise
    else:
        return
    _tell_others(None)
    if _ranks().failed() is None:  # none can tell: it was killed, or stands still
        _leave_to_launcher(cause)
    else:
        with suppress(Stopped):
            time.sleep(AFTER_YOU)
    _end(str(cause), 1)


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
            # A library may have its own handler by now, such as one that saves a checkpoint first.
            if received[0] in _SAID and signal.getsignal(received[0]) is stop:
                if reached.wait(GRACE):
                    time.sleep(TO_CLEAN_UP)
                else:
                    _say(_last_words(Stopped(received[0])))
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


def _last_words(stopped: Stopped) -> str:
    """Why this rank ends: the error of another one, if there is one, or the signal, and what it was doing."""
    told = _ranks()
    if told is not None:
        told.listen()  # the launcher stops all ranks as soon as one fails
        if (failed := told.failed()) and Stopped.__name__ not in failed:
            return failed
    from ..engines.runtime.phase import phase_of

    doing, seconds = phase_of(stopped)
    return f"{stopped}" + (f" at: {doing}, after {seconds:,.0f} s" if doing else "") + "."


def _end(why: str, code: int) -> NoReturn:
    global _code
    _say(why)
    _code = code
    raise SystemExit(code)


def _leave() -> None:
    """The last thing done at the exit: the interpreter takes another second or more to take the libraries apart."""
    if _code is not None:
        with suppress(OSError, ValueError):  # a pipe that nobody reads any more
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(_code)


def _say(why: str) -> None:
    told = _ranks()
    rank = f"rank {told.rank}: " if told is not None and told.world > 1 else ""
    print(f"\nhf-dataselect: {rank}{printable(why)}", file=sys.stderr, flush=True)


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
    _tell_others(error)
    _leave_to_launcher(error)


def _leave_to_launcher(error: BaseException) -> None:
    if "torch" in sys.modules:
        from ..compat.torch import record_failure

        with suppress(OSError):
            record_failure(error)


def _tell_others(error: BaseException | None) -> None:
    if _ranks() is not None:
        from ..engines.runtime.ranks import leave_ranks

        leave_ranks(error)
