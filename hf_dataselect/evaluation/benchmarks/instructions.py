"""An instruction test set: answers are generated and kept, for win rates."""

from dataclasses import dataclass
from pathlib import Path

from ...context import Context
from ..benchmark import Setting
from ..questions import QuestionsBenchmark


@dataclass(kw_only=True)
class Instructions(QuestionsBenchmark):
    """
    Answers to the questions of an instruction test set, kept in the run folder and scored by nothing here: win rates
    are judged between the folders of runs. See [`QuestionsBenchmark`].

    Args:
        max_new_tokens (`int`, *optional*, defaults to `512`):
            Length of an answer at most.
    """

    def score(self, ctx: Context, folder: Path | None = None) -> dict[str, Setting]:
        self.keep(folder and folder / "answers", ctx, self.ask(ctx))
        return {}
