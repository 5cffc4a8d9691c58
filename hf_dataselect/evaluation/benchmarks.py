"""
Benchmarks: a model's score on held-out rows, setting by setting.

| setting | is | better |
|---|---|---|
| `answer_loss` | mean over rows of the mean loss of the answer's tokens, end of turn included, nats | lower |
| `token_accuracy` | mean over rows of the share of answer tokens that the model ranks first | higher |
| `exact_match`, `rouge1`, ... | metrics of greedily generated answers, see [`metrics`] | as the metric says |

Both likelihood settings come from one pass of the likelihood engine.
"""

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from ..engines.generation import generate
from ..preprocessing.model import answer_loss
from ..preprocessing.records import Records
from ..selector import Context


@dataclass
class Setting:
    """
    A model's score in one setting.

    Args:
        score (`float`):
            Mean over rows, or a corpus metric; NaN if no row could be scored.
        higher_is_better (`bool`):
            Direction.
        examples (`list[float]`, *optional*):
            Score of each row, NaN = unscorable; none for a corpus metric.
    """

    score: float
    higher_is_better: bool
    examples: list[float] | None = None

    @classmethod
    def of(cls, examples: np.ndarray, higher_is_better: bool) -> "Setting":
        """The mean over the rows that have a score."""
        score = float(np.nanmean(examples)) if np.isfinite(examples).any() else float("nan")
        return cls(score, higher_is_better, [float(value) for value in examples])


@dataclass
class Benchmark:
    """
    What is measured on a set of held-out rows.

    Args:
        records ([`Records`]):
            The rows.
        metrics (`list[str]`, *optional*):
            Metrics of generated answers: names of [`metrics`] or what `evaluate.load` takes.
        max_new_tokens (`int`, *optional*, defaults to `256`):
            Length of a generated answer at most.
        prefix (`str`, *optional*, defaults to `""`):
            Put before the names of the settings, to tell several sets of rows apart.
    """

    records: Records
    metrics: list[str] = field(default_factory=list)
    max_new_tokens: int = 256
    prefix: str = ""

    def protocol(self) -> dict[str, Any]:
        """What two evaluations must share to be compared: rows, metrics, length of answers."""
        return {
            "rows": self.records.content_hash(),
            "metrics": sorted(self.metrics),
            "max_new_tokens": self.max_new_tokens if self.metrics else None,
        }

    def run(self, ctx: Context) -> dict[str, Setting]:
        """Score the model of the context; nothing is cached, since a model is evaluated once at each step."""
        settings = {**self._likelihood(ctx), **(self._generation(ctx) if self.metrics else {})}
        return {f"{self.prefix}{name}": setting for name, setting in settings.items()}

    def _likelihood(self, ctx: Context) -> dict[str, Setting]:
        found = answer_loss(self.records, ctx, ctx.text_format(end_of_turn=True), label="Evaluating answers")
        with np.errstate(invalid="ignore", divide="ignore"):
            accuracy = np.where(np.isfinite(found.mean), found.hits / found.tokens, np.nan)
        return {
            "answer_loss": Setting.of(found.mean, higher_is_better=False),
            "token_accuracy": Setting.of(accuracy, higher_is_better=True),
        }

    def _generation(self, ctx: Context) -> dict[str, Setting]:
        from .metrics import score_texts

        prompts, references = [], []
        text_format = ctx.text_format()
        # A prompt and its longest answer have to fit the model, and a prompt the window that it was trained with.
        positions = getattr(ctx.model.config.get_text_config(), "max_position_embeddings", None) or 2**31
        window = min((ctx.max_length or 2**31) - 1, positions - self.max_new_tokens)
        skipped = []
        for record in self.records:
            readable = record.problem is None and record.answer and record.answer_turns[-1] > 0
            ids = text_format.prompt_ids(record) if readable else []
            if not 0 < len(ids) <= window:
                skipped.append(record.index)
                continue
            prompts.append(ids)
            references.append(record.answer)
        ctx.account.note("unscorable", "no prompt to generate from, or one that is too long", skipped)
        if not prompts:
            return {}
        answers = generate(
            ctx.model,
            ctx.tokenizer,
            prompts,
            max_new_tokens=self.max_new_tokens,
            batch_tokens=ctx.batch_tokens,
            accelerator=ctx.accelerator,
            progress="Generating answers",
        )
        scores = {}
        for metric in self.metrics:
            for name, found in score_texts(metric, answers, references).items():
                scores[name] = Setting(found.score, found.higher_is_better, found.examples)
        return scores


def as_json(settings: dict[str, Setting]) -> dict[str, Any]:
    """Settings for `eval.json`."""
    return {name: asdict(setting) for name, setting in settings.items()}


def from_json(described: dict[str, Any]) -> dict[str, Setting]:
    """Settings of an `eval.json`."""
    nan = float("nan")
    return {
        name: Setting(
            nan if item["score"] is None else item["score"],
            item["higher_is_better"],
            None if item["examples"] is None else [nan if value is None else value for value in item["examples"]],
        )
        for name, item in described.items()
    }
