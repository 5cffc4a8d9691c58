"""Errors that are the user's to correct, and how they, and texts of rows, are told."""

import pickle
import re
from collections.abc import Callable
from typing import Any


#: Controls of a terminal but line breaks and tabs, what reorders text, and half surrogate pairs, which no file holds.
_STEERING = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: Any) -> str:
    """A text for a terminal, a log or a page: characters that steer it are escaped, as `\\u001b`."""
    return _STEERING.sub(lambda found: f"\\u{ord(found[0]):04x}", str(text))


#: `https://user:password@host`, the parameter of a URL that signs it, and what looks like a key wherever it is.
_CREDENTIALS = re.compile(
    r"(?<=://)[^/\s\"'<>]+@"
    r"|(?<=[?&#])(?:[\w.-]*(?:token|key|signature|secret|passw(?:or)?d|pwd|credential)|sig)=[^&#\s\"']*&?"
    r"|\bhf_[a-z0-9]{20,}|\bsk-[\w-]{20,}|\bbearer\s+(?=\S*[\d_])[\w.~+/=-]+",
    re.IGNORECASE,
)


def without_credentials(text: str) -> str:
    """A text without the keys, and the credentials of URLs, in it."""
    return _CREDENTIALS.sub("", text)


class SelectionError(ValueError):
    """Nothing can be selected from these rows, or resumed: user error, and the message says what to change."""

    def __init__(self, message: Any):
        super().__init__(printable(message))


class NoUsableRow(SelectionError):
    """None of the rows can be scored, or fine-tuned on; the same on all ranks."""


class AllExcluded(SelectionError):
    """Every row that has a score is excluded, by an option of the method or a threshold of the budget."""


class TrainingDiverged(SelectionError):
    """Training gave weights that are not finite, or no loss of held-out rows."""


class JudgeError(RuntimeError):
    """A judge can't go on: user error, and the message says what to change. Replies so far are kept."""

    def __init__(self, message: Any):
        super().__init__(printable(message))


class RankError(RuntimeError):
    """Another rank failed, or was not heard of: the message names it and says what it was doing."""


class HubError(OSError):
    """The Hub is not reached, or refuses: the message names the option, and what to do."""

    def __init__(self, message: Any):
        super().__init__(printable(message))


class DamagedFile(ValueError):
    """A file of an earlier run that is damaged: the message names it, and says what to do."""

    def __init__(self, path: Any, why: Any, remedy: str = "Delete it, and make it anew."):
        super().__init__(printable(f"{path} is damaged ({why}). {remedy}"))
        self.path, self.why, self.remedy = path, why, remedy

    def __reduce__(self):  # ranks send errors to each other
        return type(self), (str(self.path), str(self.why), self.remedy)


class UserErrors(ValueError):
    """Several user errors, found at once: one a line, and each in `errors`."""

    def __init__(self, errors: list[Exception]):
        self.errors = errors
        super().__init__(printable("\n".join(map(explained, errors))))


class Checks:
    """
    Independent checks: each is called, and [`finish`] raises what they refused, all of it at once.

    ```python
    checks = Checks()
    selector = checks(load_selector, method, kwargs)  # `None` if it was refused
    options = checks(typed_options, JudgeOptions, judge_kwargs, "judge_kwargs")
    checks.finish()
    ```
    """

    def __init__(self):
        self.errors: list[Exception] = []

    def __call__(self, function: Callable[..., Any], /, *arguments: Any, **options: Any) -> Any:
        try:
            return function(*arguments, **options)
        except UserErrors as several:
            self.errors += several.errors
        except (ValueError, TypeError, ImportError, OSError) as error:
            self.errors.append(error)
        return None

    def finish(self) -> None:
        """Raise the error that was found, or [`UserErrors`] of several; the same message is not said twice."""
        errors = list({explained(error): error for error in self.errors}.values())
        if len(errors) == 1:
            raise errors[0]
        if errors:
            raise UserErrors(errors)


def explained(error: BaseException) -> str:
    """
    The message of an error, and that of the error at its root, which libraries wrap: "An error occurred while
    generating the dataset" says nothing without its cause.
    """
    said = str(error).strip() or type(error).__name__
    root = error
    while root.__cause__ is not None:
        root = root.__cause__
    cause = (getattr(root, "strerror", None) or str(root).strip() or type(root).__name__).splitlines()[0]
    return said if cause in said else f"{said} ({cause})"


def sendable(error: Exception) -> Exception:
    """The error, or its text where other processes can't unpickle it."""
    try:
        pickle.loads(pickle.dumps(error))
        return error
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
