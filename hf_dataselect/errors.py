"""Errors that are the user's to correct."""


class SelectionError(ValueError):
    """The rows or the run at hand leave nothing to select or to resume: for the user to mend."""


class JudgeError(RuntimeError):
    """A judge can't go on: user error, and the message says what to change. Replies so far are kept."""
