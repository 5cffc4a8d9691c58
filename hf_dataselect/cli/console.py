"""What the commands say on the console: logs, and errors in one line."""

import logging
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn

from ..errors import SelectionError, UserErrors, explained, printable


def log_to_console() -> None:
    """Log the package's messages to stderr, as the Hugging Face trainers do."""
    package = logging.getLogger("hf_dataselect")
    if not package.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(_Printable("[hf_dataselect] %(message)s"))
        package.addHandler(handler)
        package.setLevel(logging.INFO)


@contextmanager
def alone_in(folder: Path | str) -> Iterator[None]:
    """Hold a run folder; a user error says that another process does."""
    from ..runs.lock import locked  # which loads torch

    with ExitStack() as stack:
        checked(stack.enter_context, locked(folder))
        yield


def without_dry_run(argv: Sequence[str]) -> tuple[list[str], bool]:
    """The command line without `--dry_run`, and whether it was there."""
    given = {"--dry_run", "--dry-run"}
    return [item for item in argv if item not in given], not given.isdisjoint(argv)


def without_part(argv: Sequence[str]) -> tuple[list[str], str | None]:
    """The command line without `--part`, and its value if it was there."""
    rest, given, items = [], None, iter(argv)
    for item in items:
        name, equals, value = item.partition("=")
        if name == "--part":
            given = value if equals else next(items, "")
        else:
            rest.append(item)
    return rest, given


class _Printable(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))


def say(text: str) -> None:
    """Print, on the first rank of a launch, what may hold texts of rows, names of folders or replies of a judge."""
    if os.environ.get("RANK", "0") == "0":
        print(printable(text))


def traceback_printable(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """For `sys.excepthook`: the traceback, with what its message quotes escaped."""
    print(printable("".join(traceback.format_exception(kind, error, trace))), end="", file=sys.stderr)


def checked(function: Callable, *arguments: Any, **options: Any) -> Any:
    """The result; a user error becomes one line and exit code 2, or raises where the log level is debug."""
    try:
        return function(*arguments, **options)
    except (ValueError, TypeError, ImportError, OSError) as error:
        if logging.getLogger("hf_dataselect").isEnabledFor(logging.DEBUG):
            raise
        refuse(error)


def refuse(error: Exception | str) -> NoReturn:
    """One line on stderr for each error, with what caused it, and exit code 2."""
    several = error.errors if isinstance(error, UserErrors) else [error]
    messages = [printable(explained(one) if isinstance(one, Exception) else one) for one in several]
    for message in messages:
        print(f"hf-dataselect: error: {message}", file=sys.stderr)
    raise SystemExit(2) from SelectionError("; ".join(messages))
