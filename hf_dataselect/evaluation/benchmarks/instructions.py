"""An instruction test set: answers are generated and saved for win rates."""

from dataclasses import dataclass
from pathlib import Path

from ...context import Context
from ..benchmark import Setting
from ..questions import QuestionsBenchmark


@dataclass(kw_only=True)
class Instructions(QuestionsBenchmark):
    """
    Answers to an instruction test set, written to `answers/NAME.jsonl` in the run folder. They have no score of their
    own: a judge compares those of two runs, see [`win_rate`]. For the options see [`QuestionsBenchmark`].
    """

    def score(self, ctx: Context, folder: Path | None = None) -> dict[str, Setting]:
        self.keep(folder and folder / "answers", ctx, self.ask(ctx))
        return {}
