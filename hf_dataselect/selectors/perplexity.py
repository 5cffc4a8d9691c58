"""
Keep rows by the perplexity of the answer under the model: the highest, the lowest, or those in the middle.

    "top":    score = exp(conditional loss), the mean over the label tokens of the answer, nats
    "bottom": score = -exp(conditional loss)
    "middle": score = -|rank of the row / scorable rows - 1/2|

Column of scores.parquet: `conditional_loss`.

Relations: [`IFD`] divides the same loss by the unconditional one; both share one cached pass.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from scipy.stats import rankdata

from ..context import Context
from ..data.records import Records
from ..features.loss import answer_loss
from ..selector import Card, Need, Scores, Selector, Split, Want


@dataclass
class Perplexity(Selector):
    """
    Args:
        keep (`str`, *optional*, defaults to `"middle"`):
            Which end of the ranking: `"top"` (hard or unusual answers), `"bottom"` (what the model already knows) or
            `"middle"`.
    """

    keep: Literal["top", "middle", "bottom"] = "middle"

    card: ClassVar[Card] = Card(
        title="answers of high, middle or low perplexity",
        features="model-oriented",
        label_source="loss of the pending fine-tune model",
        steps=("score answers", "rank", "keep the top k"),
        llm_uses=1,
        model_free=False,
        multi_turn="all assistant turns, each with all before it as context",
    )
    splits: ClassVar[Split | None] = "rows"
    columns: ClassVar[tuple[str, ...] | None] = ("conditional_loss",)

    @property
    def by_row(self) -> bool:
        """The middle is that of all rows."""
        return self.keep != "middle"

    def needs(self) -> frozenset[Need]:
        return frozenset({"text", "model"})

    def wants(self) -> frozenset[Want]:
        return frozenset({"loss"})

    def featurize(self, records: Records, ctx: Context) -> np.ndarray:
        return answer_loss(records, ctx).mean

    def score(self, features: np.ndarray, ctx: Context) -> Scores:
        columns = {"conditional_loss": features}
        if self.keep == "middle":  # exp() is monotonic, so the rank may be taken of the loss
            share = (rankdata(features, nan_policy="omit") - 0.5) / max(1, np.isfinite(features).sum())
            return Scores(-np.abs(share - 0.5).astype(np.float32), columns)
        with np.errstate(over="ignore"):
            perplexity = np.minimum(np.exp(features), np.finfo(np.float32).max).astype(np.float32)
        return Scores(perplexity if self.keep == "top" else -perplexity, columns)
