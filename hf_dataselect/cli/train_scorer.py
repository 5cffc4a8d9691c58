"""`hf-dataselect train-scorer`: train a scorer for `deita` on rows that a judge evolves and scores."""

from collections.abc import Sequence

from ..fitted.scorers.train_scorer import train_scorer
from .console import checked, log_to_console


def run(argv: Sequence[str]) -> None:
    """Run the command."""
    log_to_console()
    checked(train_scorer, argv)
