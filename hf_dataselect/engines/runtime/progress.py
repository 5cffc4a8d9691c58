"""Progress: bars on a terminal, lines elsewhere, and how long the rest of a series of runs takes."""

import math
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tqdm.auto import tqdm
from tqdm.std import tqdm as plain_tqdm

from .phase import Phased


#: Seconds between two lines of the same pass.
EVERY = 15.0


class Lines(plain_tqdm):
    """A bar as lines in a log: the first after 15 seconds, one every 15 seconds, the last at the end."""

    def __init__(self, **options: Any):
        shape = "{desc}: {percentage:3.0f}%, {n_fmt} of {total_fmt} [{elapsed}<{remaining}, {rate_fmt}{postfix}]"
        options |= {"bar_format": shape, "mininterval": EVERY, "maxinterval": 0, "delay": EVERY, "miniters": 1}
        super().__init__(**options)

    def display(self, msg: str | None = None, pos: int | None = None) -> bool:
        """Write a line."""
        self.fp.write(f"{self if msg is None else msg}\n")
        self.fp.flush()
        return True

    def clear(self, *args: Any, **kwargs: Any) -> None:
        """Nothing: a line stays."""

    def close(self) -> None:
        """Write the last line, where there was one before it and it says more."""
        said = not self.disable and self.last_print_t > self.start_t and self.n > self.last_print_n
        self.delay = math.inf  # nothing on a screen to clear
        super().close()
        if said:
            self.display()


class PhasedBar(Phased, tqdm):
    """For a terminal or a notebook."""


class PhasedLines(Phased, Lines):
    """For a log."""


def progress_bar(total: int | None, label: str | None, unit: str = "row", disable: bool = False) -> Phased:
    """A bar on a terminal and in a notebook, else [`Lines`]."""
    kind = PhasedBar if in_notebook(tqdm) or sys.stderr.isatty() else PhasedLines
    return kind(total=total, desc=label, unit=unit, disable=disable, smoothing=0.05)


def in_notebook(bar: type) -> bool:
    """Whether a kind of bars is that of notebooks, which `tqdm.auto` gives there."""
    return any(kind.__module__ == "tqdm.notebook" for kind in bar.__mro__)


@dataclass
class Task:
    """
    A run of a series.

    Args:
        name (`str`):
            Its name.
        kind (`str`, *optional*):
            Runs of a kind take equally long apart from their work.
        work (`float`, *optional*):
            Rows or updates to train on, in any unit; `None` where only a run of the same `size` tells.
        size (`str`, *optional*):
            Runs of a size do as much work.
    """

    name: str
    kind: str = ""
    work: float | None = 1.0
    size: str = ""


@dataclass
class Finished:
    """A run that this series carried out from its beginning: its work, the seconds in proportion to it, the others."""

    kind: str
    work: float
    proportional: float
    other: float


class Series:
    """
    Says which run of a series begins, and about how long the rest takes.

    The estimate is made of runs that this process carried out from their beginning, never of runs that it found
    finished or resumed: seconds of training by the work done, and the other seconds (selecting, evaluating) of the
    runs of the same kind, or else of all. Without such a run there is no estimate.

    Args:
        tasks (`Sequence[Task]`):
            The runs in their order.
        clock (`Callable[[], float]`, *optional*):
            Seconds.
    """

    def __init__(self, tasks: Sequence[Task], clock: Callable[[], float] = time.monotonic):
        self.tasks, self.clock = list(tasks), clock
        self.finished: list[Finished] = []
        self._open = set(range(len(self.tasks)))
        self._began = clock()

    def begin(self, number: int) -> str:
        """Start the clock of a run, from 0; gives the line that says so, and about how long it and the rest take."""
        self._began = self.clock()
        return f"run {number + 1}/{len(self.tasks)} {self.tasks[number].name}{self.left}"

    def skip(self, number: int, work: float | None = None) -> None:
        """The run was finished before; `work` was done in it."""
        self._open.discard(number)
        for task in self.tasks:
            if task.work is None and task.size == self.tasks[number].size:
                task.work = work

    def end(
        self, number: int, work: float | None = None, proportional: float | None = None, resumed: bool = False
    ) -> None:
        """
        The run is over.

        Args:
            number (`int`):
                Of the run, from 0.
            work (`float`, *optional*):
                Work that was done; by default what was planned.
            proportional (`float`, *optional*):
                Seconds that grow with the work; by default all.
            resumed (`bool`, *optional*):
                Whether a part of it was done before: then it says nothing of the others.
        """
        seconds, task = self.clock() - self._began, self.tasks[number]
        work = task.work if work is None else work
        self.skip(number, work)
        if work and not resumed:
            proportional = seconds if proportional is None else min(proportional, seconds)
            self.finished.append(Finished(task.kind, work, proportional, seconds - proportional))

    @property
    def left(self) -> str:
        """`, about 12 min left`; empty without an estimate and at the end."""
        seconds = self.seconds_left() if self._open else None
        return "" if seconds is None else f", about {in_words(seconds)} left"

    def seconds_left(self) -> float | None:
        """About how many seconds the runs take that are not over; `None` where nothing tells."""
        works = [self.tasks[number].work for number in self._open]
        if not self.finished or None in works:
            return None
        rate = sum(run.proportional for run in self.finished) / sum(run.work for run in self.finished)
        return rate * sum(works) + sum(self._others(self.tasks[number].kind) for number in self._open)

    def _others(self, kind: str) -> float:
        alike = [run.other for run in self.finished if run.kind == kind] or [run.other for run in self.finished]
        return sum(alike) / len(alike)


def in_words(seconds: float) -> str:
    """A duration to two digits: `40 s`, `12 min`, `3.5 h`, `1.6 days`."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    if seconds < 5400:
        return f"{round(seconds / 60)} min"
    return f"{seconds / 3600:.1f} h" if seconds < 129600 else f"{seconds / 86400:,.1f} days"
