"""
Ranks tell each other what they do, so that one that stands still, fails or is gone is named; and they wait for the
main process without a collective, which would meet its time-out.

Each rank has a thread that writes a heartbeat to the key-value store of the process group, and reads those of the
others, on a connection of its own.
"""

import atexit
import json
import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from ...compat.torch import collective_failed, process_group, set_time_out, shared_store
from ...errors import RankError
from .phase import doing, phase, phase_of


logger = logging.getLogger(__name__)

#: Seconds between heartbeats; with many ranks more, so that the store answers all of them.
INTERVAL, RANKS_A_SECOND = 1.0, 64
#: Seconds that the store has to answer where a rank ends and can't wait for the next heartbeat.
TO_LISTEN = 0.5
#: Heartbeats that a rank may miss before it counts as lost, once a collective has failed.
MISSED = 3
#: Seconds of silence after which a rank is named, or, if that is less, this part of the time-out of the collectives.
NAMED_AFTER, NAMED_AT = 60.0, 1 / 3
#: How a rank that is done says so, instead of the error that ended it.
LEFT = ""


@dataclass
class _Heard:
    """The last heartbeat of a rank, and when it was heard."""

    at: float
    number: int = -1
    doing: str = ""
    seconds: float = 0.0
    ended: str | None = None
    missed: int = 0
    told: bool = False

    def __str__(self) -> str:
        return f"{self.doing or 'between two phases'}, for {self.seconds:,.0f} s"


class Ranks:
    """
    What the ranks of a process group do.

    Args:
        store (`torch.distributed.Store`):
            Where they tell it; used by the thread of this object only.
        rank, world (`int`):
            This rank, and how many there are.
        limit (`float`):
            Seconds of silence after which a rank that is waited for is given up: the collectives' time-out.
    """

    def __init__(self, store: Any, rank: int, world: int, limit: float):
        self._store, self.rank, self.world, self.limit = store, rank, world, limit
        self._heard = {other: _Heard(time.monotonic()) for other in range(world) if other != rank}
        self._number = self._calls = self._finished = 0
        self._next_beat = 0.0
        self._ended: str | None = None
        self._where: tuple[str, float] | None = None
        self._wake, self._closed, self._listened = threading.Event(), threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._tell_and_listen, name="ranks", daemon=True)
        self._thread.start()

    @property
    def named_after(self) -> float:
        """Seconds of silence after which a rank is named in the log."""
        return min(NAMED_AFTER, NAMED_AT * self.limit)

    @property
    def interval(self) -> float:
        """Seconds between heartbeats."""
        return max(min(INTERVAL, self.named_after / 8), self.world / RANKS_A_SECOND)

    # The thread

    def _tell_and_listen(self) -> None:
        while True:
            closing = self._closed.is_set()
            try:
                if closing or time.monotonic() >= self._next_beat:
                    self._beat()
                    self._next_beat = time.monotonic() + self.interval
                if self.rank and self._finished < self._calls and self._store.check(["finished"]):
                    self._finished = int(self._store.get("finished"))
                if not self.rank and self._finished:
                    self._store.set("finished", str(self._finished))
            except Exception:  # the store has gone, with the process that serves it: then nobody is heard of
                self._next_beat = time.monotonic() + self.interval
            if closing:
                return
            self._wake.wait(self.interval)
            self._wake.clear()

    def _beat(self) -> None:
        self._number += 1
        what, seconds = self._where or phase()
        self._store.set(f"rank {self.rank}", json.dumps([self._number, what, seconds, self._ended]))
        for rank, heard in self._heard.items():
            if heard.ended is None and self._store.check([f"rank {rank}"]):
                number, *said = json.loads(self._store.get(f"rank {rank}"))
                if number != heard.number:
                    if heard.told:
                        logger.warning("Rank %s is heard of again.", rank)
                    self._heard[rank] = _Heard(time.monotonic(), number, *said)
                else:
                    heard.missed += 1
        self._listened.set()
        self._name_silent()

    def _name_silent(self) -> None:
        for rank, heard in self._heard.items():
            if heard.ended is None and not heard.told and self._silence(rank) > self.named_after:
                heard.told = True
                logger.warning(
                    "%s. The others wait for it; without a sign of it the run ends after about %s s in all.",
                    self._described(rank),
                    f"{self.limit:,.0f}",
                )

    # What the others do

    def _silence(self, rank: int) -> float:
        return time.monotonic() - self._heard[rank].at

    def _described(self, rank: int) -> str:
        return f"Rank {rank} has not been heard of for {self._silence(rank):,.0f} s; it was at: {self._heard[rank]}"

    def _left(self, rank: int) -> str:
        return f"Rank {rank} has ended, and was at: {self._heard[rank].doing or 'between two phases'}."

    def listen(self) -> None:
        """Hear what the others have said until now, not only at the next heartbeat."""
        self._listened.clear()
        self._next_beat = 0.0
        self._wake.set()
        self._listened.wait(TO_LISTEN)

    def failed(self) -> str | None:
        """The rank that failed by itself, and its error; `None` if none did."""
        for rank, heard in self._heard.items():
            if heard.ended:
                return f"Rank {rank} failed at: {heard.doing or 'between two phases'}. {heard.ended}"
        return None

    def cause(self) -> RankError:
        """Why a collective failed: a rank that failed, or was not heard of, or what each was doing instead."""
        deadline = time.monotonic() + (MISSED + 2) * self.interval
        while time.monotonic() < deadline:
            lost = [rank for rank, heard in self._heard.items() if heard.ended is None and heard.missed >= MISSED]
            if (failed := self.failed()) or lost:
                return RankError(failed or f"{self._described(lost[0])}. It was killed, or its machine stands still.")
            time.sleep(self.interval / 10)
        for rank, heard in self._heard.items():
            if heard.ended is not None:
                return RankError(self._left(rank))
        known = {self.rank: "waiting for the others"} | {rank: str(heard) for rank, heard in self._heard.items()}
        each = "; ".join(f"rank {rank}: {what}" for rank, what in sorted(known.items()))
        return RankError(f"The ranks did not meet within {self.limit:,.0f} s. They were at: {each}.")

    # What this rank does

    def begin_on_main(self) -> int:
        """Number of a part that only the main process does; called by every rank for each."""
        self._calls += 1
        return self._calls

    def finish_on_main(self, number: int) -> None:
        """Tell the others, who wait in [`wait_for_main`]."""
        self._finished = number
        self._wake.set()

    def wait_for_main(self, number: int) -> None:
        """
        Wait until the main process has finished a part, however long it takes.

        Raises:
            [`RankError`]: it left, a rank failed, or it was not heard of for `limit` seconds.
        """
        pause = 0.002
        with doing("waiting for the main process"):
            while self._finished < number:
                main = self._heard[0]
                if failed := self.failed():
                    raise RankError(failed)
                if main.ended is not None:
                    raise RankError(self._left(0))
                self._name_silent()
                if self._silence(0) > self.limit:
                    raise RankError(f"{self._described(0)}. It was stopped or killed, or its machine stands still.")
                self._wake.set()
                time.sleep(pause)
                pause = min(2 * pause, 0.2)

    def leave(self, error: BaseException | None = None) -> None:
        """Say that this rank is done, or which error ended it; the others hear of it at once."""
        if not self._closed.is_set():
            self._ended = LEFT if error is None else f"{type(error).__name__}: {error}"
            self._where = error and phase_of(error)
            self._closed.set()
            self._wake.set()
        self._thread.join(2.0)


_current: tuple[Any, Ranks] | None = None


def current() -> Ranks | None:
    """What the ranks of this process group do, if anyone has asked before."""
    return _current and _current[1]


def ranks(time_out: float | None = None) -> Ranks | None:
    """
    What the ranks of this process group do, told from now on; `None` where there is no process group.

    Args:
        time_out (`float`, *optional*):
            Seconds that the collectives' time-out is set to; by default it stays what it is.
    """
    global _current
    group = process_group()
    if group is None:
        return None
    if _current is None or _current[0] is not group:
        if _current is None:
            atexit.register(lambda: _current and _current[1].leave())
        else:
            _current[1].leave()
        rank, world, store = shared_store()
        _current = group, Ranks(store, rank, world, store.timeout.total_seconds())
    if time_out is not None:
        set_time_out(time_out)
        _current[1].limit = time_out
    return _current[1]


def explained_by_ranks(error: BaseException) -> RankError | None:
    """The error of a collective as what went wrong in another rank; `None` for any other error."""
    if isinstance(error, RankError):
        return error
    told = current()
    return told.cause() if told is not None and collective_failed(error) else None


@contextmanager
def meeting() -> Iterator[None]:
    """A collective: where it fails because of another rank, [`RankError`] names it."""
    try:
        yield
    except Exception as error:
        if (cause := explained_by_ranks(error)) is None:
            raise
        raise cause from error


@contextmanager
def training_phase(trainer: Any, what: str) -> Iterator[None]:
    """A training by [`~transformers.Trainer`], whose ranks meet in every step; its step is told."""
    with meeting(), doing(lambda: f"{what} (step {trainer.state.global_step:,} of {trainer.state.max_steps:,})"):
        yield


def leave_ranks(error: BaseException | None = None) -> None:
    """Tell the other ranks, if there are any, that this one ends, or which error ends it."""
    if (told := current()) is not None:
        with suppress(Exception):
            told.leave(error)
