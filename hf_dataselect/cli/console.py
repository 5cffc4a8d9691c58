"""What the commands say on the console: logs, and errors in one line."""

import logging
import sys
from collections.abc import Callable
from typing import Any, NoReturn

from ..errors import SelectionError, UserErrors, explained


def log_to_console() -> None:
    """Log the package's messages to stderr, as the Hugging Face trainers do."""
    package = logging.getLogger("hf_dataselect")
    if not package.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("[hf_dataselect] %(message)s"))
        package.addHandler(handler)
        package.setLevel(logging.INFO)


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
    messages = [explained(one) if isinstance(one, Exception) else one for one in several]
    for message in messages:
        print(f"hf-dataselect: error: {message}", file=sys.stderr)
    raise SystemExit(2) from SelectionError("; ".join(messages))
