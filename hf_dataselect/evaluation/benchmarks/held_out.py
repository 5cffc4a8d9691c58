"""
Held-out rows: loss and token accuracy of the reference answers, and metrics of generated answers.

| setting | is | better |
|---|---|---|
| `answer_loss` | mean over rows of the mean loss of the label tokens, end of turn included, nats | lower |
| `token_accuracy` | mean over rows of the share of label tokens that the model ranks first | higher |
| `exact_match`, `rouge1`, ... | metrics of greedily generated answers, see [`metrics`] | depends on the metric |

One forward pass gives both loss and token accuracy.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ...context import Context
from ...data.records import Records
from ...features.image_loss import held_out_loss
from ..benchmark import Setting
from ..benchmark_rows import RowsBenchmark
from ..questions import REFUSED, check_metrics, greedy_answers, score_answers


@dataclass(kw_only=True)
class HeldOut(RowsBenchmark):
    """
    Settings of held-out rows, see the module docstring; for the rows see [`RowsBenchmark`].

    Args:
        metrics (`list[str]`, *optional*):
            Metrics of generated answers, names as in [`metrics`].
        max_new_tokens (`int`, *optional*, defaults to `256`):
            Maximum length of a generated answer.
    """

    metrics: list[str] = field(default_factory=list)
    max_new_tokens: int = 256
    records: Records = field(init=False, repr=False)
    with_images: ClassVar[bool] = True

    def __post_init__(self):
        super().__post_init__()
        self.metrics = list(self.metrics)
        if self.max_new_tokens < 1:
            raise ValueError(f"`max_new_tokens={self.max_new_tokens}` must be at least 1.")
        if self.columns:
            raise ValueError("`columns` is not supported: held-out rows have a layout of training rows. Remove it.")

    @classmethod
    def of(cls, records: Records, **options: Any) -> "HeldOut":
        """The benchmark on given records."""
        benchmark = cls(dataset=records.name, **options)
        benchmark.records = records
        benchmark._check()
        return benchmark

    def _check(self) -> None:
        check_metrics(self.metrics)
        if self.metrics and self.records.images:
            raise ValueError(
                f"`metrics={self.metrics}` need generated answers, which are not supported for rows with images "
                f"(`{self.dataset}`): remove `metrics`; the loss is evaluated without them."
            )

    def prepare(self) -> None:
        rows = self.read()
        self.records = Records(rows.select(self.limited(range(len(rows)))), name=f"benchmarks ({self.name})")
        if self.records.layout == "tokens":
            raise ValueError(f"`benchmarks` ({self.name}): {self.dataset!r} is already tokenized: give the texts.")
        self._check()

    def asked(self) -> Records:
        return self.records

    def protocol(self) -> dict[str, Any]:
        return {
            "rows": self.records.content_hash(),
            "metrics": sorted(self.metrics),
            "max_new_tokens": self.max_new_tokens if self.metrics else None,
        }

    def score(self, ctx: Context, folder: Path | None = None) -> dict[str, Setting]:
        return self._likelihood(ctx) | (self._generation(ctx) if self.metrics else {})

    def _likelihood(self, ctx: Context) -> dict[str, Setting]:
        loss = held_out_loss(self.records, ctx, label="Evaluating answers")
        with np.errstate(invalid="ignore", divide="ignore"):
            accuracy = np.where(np.isfinite(loss.mean), loss.hits / loss.tokens, np.nan)
        return {
            "answer_loss": Setting.of(loss.mean, higher_is_better=False),
            "token_accuracy": Setting.of(accuracy, higher_is_better=True),
        }

    def _generation(self, ctx: Context) -> dict[str, Setting]:
        prompts, references, text_format = [], [], ctx.text_format()
        for record in self.records:
            readable = record.problem is None and record.answer and record.answer_turns[-1] > 0
            try:
                prompts.append(text_format.prompt_ids(record) if readable else [])
            except Exception:  # a template may raise any error
                prompts.append(None)
            references.append([record.answer] if record.answer else [])
        ctx.account.note("unscorable", REFUSED, [row for row, prompt in enumerate(prompts) if prompt is None])
        # Prompt and answer must fit the training window.
        answers = greedy_answers(prompts, ctx, self.max_new_tokens, window=(ctx.max_length or 2**31) - 1)
        return score_answers(self.metrics, answers, references, ctx, taken=("answer_loss", "token_accuracy"))
