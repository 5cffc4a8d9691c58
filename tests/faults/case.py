"""A fault as data: the runs, what happens in them, what happens to files between them, and what must come out."""

from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True)
class At:
    """
    Something that happens inside a run.

    Args:
        phase: one of `inject.PHASES`, or `"writing NAME"`, just before a file of that name (a pattern) is in place.
        call: at which call of it, from 1.
        action: a signal that the process sends itself (`kill`, `term`, `int`, `stop`), an error (`raise`, `full`:
            no space left), or `wait`, see [`GoOn`].
        rank: where.
        pause: seconds that this call takes before, so that others can hear of it.
    """

    phase: str
    call: int
    action: Literal["kill", "term", "int", "stop", "raise", "full", "wait"]
    rank: int = 0
    pause: float = 0.0


@dataclass(frozen=True)
class Nan:
    """The model gives NaN for every text that holds a character (`~`, which is in row 4 only)."""

    character: str = "~"


@dataclass(frozen=True)
class Signal:
    """What a terminal sends to all ranks, once the server of the case was called so often."""

    name: Literal["int", "term"]
    calls: int


@dataclass(frozen=True)
class Run:
    """A command of `hf-dataselect`; `options` override those of the laboratory, `None` removes one."""

    command: str = "select"
    method: str = "ifd"
    inject: At | Nan | Signal | None = None
    options: dict[str, Any] = field(default_factory=dict)
    folder: str = "run"
    ranks: int = 1


@dataclass(frozen=True)
class Damage:
    """
    What happens to the files of a pattern between two runs.

    Args:
        files: pattern below the folder of the case.
        how: one of `conduct.DAMAGE`; `delete`; `copy`, to the files that are like `by`; or a pattern in the content,
            to be replaced by `by`.
        at: where a bit is flipped or the file is cut, as a fraction.
    """

    files: str
    how: str
    by: str = ""
    at: float = 0.5


@dataclass(frozen=True)
class Room:
    """A folder of the case is a disk of its own, of this size from here on; `"full"` or `"read-only"` makes it so."""

    folder: str
    size: str


@dataclass(frozen=True)
class GoOn:
    """A run that waits at its fault goes on, to its end; without this step it does once the next run has ended."""


@dataclass(frozen=True)
class Server:
    """
    A judge's server.

    Args:
        fault: of `tests.faulty_server`.
        calls: how many calls of a question it meets.
        share: which share of the questions.
        delay: seconds before each answer.
        reply: text at the end of every reply.
    """

    fault: str = ""
    calls: int = 10**9
    share: float = 1.0
    delay: float = 0.0
    reply: str = ""


@dataclass(frozen=True)
class Case:
    """
    Args:
        fault: what happens, in words.
        where: at what, in words.
        kind: the section of the table.
        steps: in this order; what the last run leaves behind is compared with an undisturbed run.
        expected: `recovered`: the same rows, scores and evaluation as undisturbed. `recomputed`: the same, the log
            says so, and what was damaged is computed anew. `refused`: one line and exit code 2, no traceback.
            `named`: the log, or the run folder, says what happened.
        says: pattern of what is said.
        absent: pattern that is in no log and on no page of the case.
        clean: whether the log of the run that meets the fault has no traceback.
        unscorable: rows that are, and no others.
        within: seconds from the fault, or from the start, to the end of the run that meets it.
        server: of the judge, if it is not an honest one.
        short: whether the short form runs it.
    """

    fault: str
    where: str
    kind: str
    steps: tuple[Run | Damage | Room | GoOn, ...]
    expected: Literal["recovered", "recomputed", "refused", "named"]
    says: str = ""
    absent: str = ""
    clean: bool = False
    unscorable: tuple[int, ...] | None = None
    within: float | None = None
    server: Server = Server()
    short: bool = False

    @property
    def name(self) -> str:
        return f"{self.fault}: {self.where}"
