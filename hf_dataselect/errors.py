"""Errors that are the user's to correct."""


class SelectionError(ValueError):
    """The rows or the run at hand leave nothing to select or to resume: for the user to mend."""
