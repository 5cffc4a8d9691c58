"""
Generated answers, scored against references.

Works on any dataset with a question and an answer. The columns of GSM8K (`question`, `answer`), BIG-Bench Hard
(`input`, `target`), Alpaca, prompt-completion data, and the test sets of Vicuna, Koala, WizardLM, Self-Instruct and
LIMA are recognized; others are named with `columns`. A list of answers, or a struct such as SQuAD's, holds several
right ones. Of a question with several turns, the answer to the last is scored. The answers are written to
`generated/NAME.jsonl` in the run folder.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from ...context import Context
from ..benchmark import Setting
from ..metrics import check_references
from ..questions import QuestionsBenchmark, check_metrics, score_answers


@dataclass(kw_only=True)
class Generation(QuestionsBenchmark):
    """
    Metrics of greedily generated answers; for the other options see [`QuestionsBenchmark`].

    Args:
        metrics (`list[str]`, *optional*, defaults to `["exact_match"]`):
            Names as in [`metrics`].
        max_new_tokens (`int`, *optional*, defaults to `256`):
            Maximum length of an answer.
    """

    metrics: list[str] = field(default_factory=lambda: ["exact_match"])
    max_new_tokens: int = 256
    with_answers: ClassVar[bool] = True

    def __post_init__(self):
        super().__post_init__()
        if not self.metrics:
            raise ValueError(
                "`metrics` is empty: name a metric, or use `kind: instructions`, which only saves the answers."
            )

    def prepare(self) -> None:
        check_metrics(self.metrics)
        super().prepare()
        references = [right for right in self._references() if right]
        if not references:
            raise ValueError(f"`benchmarks` ({self.name}): no row of {self.dataset!r} has a reference answer.")
        for metric in self.metrics:
            check_references(metric, references)

    def protocol(self) -> dict[str, Any]:
        return super().protocol() | {"metrics": sorted(self.metrics)}

    def score(self, ctx: Context, folder: Path | None = None) -> dict[str, Setting]:
        answers = self.ask(ctx)
        self.keep(folder and folder / "generated", ctx, answers)
        last = [None if None in said else said[-1] for said in answers]
        return score_answers(self.metrics, last, self._references(), ctx)

    def _references(self) -> Sequence[Sequence[str]]:
        """Right answers to the last turn of each question."""
        return [dict(enumerate(asked.references)).get(len(asked.turns) - 1, []) for asked in self.questions]
