"""
Benchmarks whose questions are answered freely: scored against references, or kept for a judge.

Any dataset with a question and an answer will do: the columns of GSM8K (`question`, `answer`), BIG-Bench Hard
(`input`, `target`), Alpaca rows, prompts and completions, and the instruction test sets of Vicuna, Koala, WizardLM,
Self-Instruct and LIMA are known, others are named in `columns`. The run folder keeps answers for a judge in
`answers/NAME.jsonl` and scored ones in `generated/NAME.jsonl`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from ...context import Context
from ..benchmark import Setting
from ..questions import QuestionsBenchmark, check_metrics, score_answers


@dataclass(kw_only=True)
class Generation(QuestionsBenchmark):
    """
    Greedy answers, compared with references by metrics; for the rest see [`QuestionsBenchmark`].

    Args:
        metrics (`list[str]`, *optional*, defaults to `["exact_match"]`):
            Names of [`metrics`], or what `evaluate.load` takes.
        max_new_tokens (`int`, *optional*, defaults to `256`):
            Length of an answer at most.
    """

    metrics: list[str] = field(default_factory=lambda: ["exact_match"])
    max_new_tokens: int = 256
    with_answers: ClassVar[bool] = True

    def __post_init__(self):
        super().__post_init__()
        if not self.metrics:
            raise ValueError("`metrics` names none: `kind: instructions` only keeps the answers.")

    def prepare(self) -> None:
        check_metrics(self.metrics)
        super().prepare()
        if not any(question.references and question.references[0] for question in self.questions):
            raise ValueError(f"`benchmarks` ({self.name}): no row of {self.dataset!r} has a reference answer.")

    def protocol(self) -> dict[str, Any]:
        return super().protocol() | {"metrics": sorted(self.metrics)}

    def score(self, ctx: Context, folder: Path | None = None) -> dict[str, Setting]:
        answers = self.ask(ctx)
        self.keep(folder and folder / "generated", ctx, answers)
        return score_answers(self.metrics, answers, self._references(), ctx)

    def _references(self) -> Sequence[str | None]:
        return [question.references[0] if question.references else None for question in self.questions]
