"""Errors that are the user's to correct."""


class SelectionError(ValueError):
    """Nothing can be selected from these rows, or resumed: user error, and the message says what to change."""


class JudgeError(RuntimeError):
    """A judge can't go on: user error, and the message says what to change. Replies so far are kept."""
