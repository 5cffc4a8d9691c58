"""
Superfiltering (arXiv 2402.00530; code tianyi-lab/Superfiltering): IFD with a small, untuned model.

The claim: a weak model ranks rows by difficulty as a strong one does, so GPT-2 can filter for a 7B model, about 20
times as fast. Texts are plain: prompt, newline, answer, no chat template.

    IFD = perplexity of the answer given its prompt / perplexity of the answer = exp(conditional - unconditional loss)

Rows at or above 1 are excluded, the highest others kept. `diversity=True` is the paper's Superfiltering.D: of the best
`diversity_pool` rows, facility location over sentence embeddings picks the ones to keep. Columns of scores.parquet:
`conditional_loss` and `unconditional_loss`, nats a token.

Relations: [`IFD`] uses the pending fine-tune model, after a warm-up, and the ratio of losses.
"""

from collections import Counter
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ..context import Context
from ..data.records import Records
from ..engines.subset.choose import exponential_distance, facility_location
from ..errors import Checks
from ..features.loss import answer_loss, check_scoring_model
from ..features.row_vectors import RowVectors
from ..features.sentence_vectors import EncoderOption
from ..options import Fraction
from ..selector import Card, Need, Scores, Selector, Split


@dataclass
class Superfiltering(EncoderOption, Selector):
    """
    Args:
        model (`str`, *optional*, defaults to `"gpt2"`):
            Scoring model by hub name or folder; never replaced by another. A bigger one costs more and agrees better
            with the pending fine-tune model.
        diversity (`bool`, *optional*, defaults to `False`):
            Whether facility location picks among the best rows.
        diversity_pool (`float`, *optional*, defaults to `0.2`):
            Part of the dataset that it picks from; its time grows with the square.
        encoder (`str`, *optional*, defaults to `"sentence-transformers/all-MiniLM-L6-v2"`):
            What it compares rows by: a sentence encoder by hub name or folder (extra `embed`), or `"model"`, the
            pending fine-tune model.
    """

    model: str = "gpt2"
    diversity: bool = False
    diversity_pool: Fraction = 0.2
    encoder: str = "sentence-transformers/all-MiniLM-L6-v2"

    card: ClassVar[Card] = Card(
        title="IFD under a small model, optionally spread out by facility location",
        paper="2402.00530",
        features="model-oriented",
        label_source="loss of GPT-2",
        trained_llms=1,
        small_llm=True,
        steps=("score answers with and without their prompt", "exclude ratios from 1", "keep the top k"),
        llm_uses=1,
        model_free=False,
        dataset_free=False,
        multi_turn="all assistant turns: each given all before it, and each given nothing; one ratio of means",
        deviations=(
            "the paper's table counts GPT-2 as one trained model, although it is used as published",
            "rows that can't be scored are NaN, where the code ranks them last with 0",
            "the budget is a part of this dataset, where the code takes 52,002 rows for granted",
        ),
    )
    columns: ClassVar[tuple[str, ...] | None] = ("conditional_loss", "unconditional_loss")

    @property
    def embeds(self) -> bool:
        """With facility location."""
        return self.diversity

    @property
    def spreads_out(self) -> bool:
        """With its own facility location."""
        return self.diversity

    @property
    def nested(self) -> bool:
        """Without facility location."""
        return not self.diversity

    @property
    def by_row(self) -> bool:
        return not self.diversity

    def needs(self) -> frozenset[Need]:
        return super().needs() | {"text", "prompt"}

    def check(self, records: Records) -> None:
        checks = Checks()
        checks(check_scoring_model, self.model, "model")
        checks(super().check, records)
        checks.finish()

    def forecast(self, rows: int, target: int, kept: int) -> dict[str, int]:
        passes = Counter(forward_rows=2 * rows)
        passes.update(self.embedded(max(kept, round(self.diversity_pool * rows))))
        return dict(passes)

    @property
    def splits(self) -> Split:
        """With `diversity`, the vectors too."""
        return "selection" if self.diversity else "rows"

    def featurize(self, records: Records, ctx: Context) -> dict[str, np.ndarray]:
        small = ctx.with_model(self.model)
        plain = small.text_format(style="plain")
        return {
            "conditional_loss": answer_loss(records, small, plain).mean,
            "unconditional_loss": answer_loss(records, small, plain, unconditional=True).mean,
        }

    def score(self, features: dict[str, np.ndarray], ctx: Context) -> Scores:
        with np.errstate(over="ignore"):
            ratio = np.exp(features["conditional_loss"] - features["unconditional_loss"])
        return Scores(np.where(np.isfinite(ratio), ratio, np.nan).astype(np.float32), features)

    def exclude(self, scores: np.ndarray, features: dict[str, np.ndarray], ctx: Context) -> dict[str, np.ndarray]:
        return {"IFD of 1 or more: the prompt does not help": scores >= 1}

    def select(
        self, scores: np.ndarray, records: Records, features: dict[str, np.ndarray], k: int, ctx: Context
    ) -> np.ndarray:
        if not self.diversity:
            return ctx.best(scores, k)
        pool = ctx.best(scores, max(k, round(self.diversity_pool * len(scores))))
        vectors_of = RowVectors(records, ctx, self.encoder)
        embedded = vectors_of.stored(pool)
        vectors_of.close()
        usable = np.flatnonzero(embedded.usable)
        picked, _ = facility_location(embedded.take(usable), k, exponential_distance)
        return pool[usable][picked]
