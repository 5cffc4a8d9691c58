"""
Keep rows by the perplexity of the answer under the model: the highest, the lowest, or those in the middle.

Score: exp(mean loss of the answer tokens, nats) for `keep="top"`, its negative for `"bottom"`. For `"middle"` it is
minus the distance between the row's perplexity rank and the middle rank, as a fraction of the scorable rows.

Relations: [`IFD`] divides the same loss by that of the answer without its prompt; both share one cached pass.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from scipy.stats import rankdata

from ..context import Context
from ..data.records import Records
from ..features.loss import answer_loss
from ..selector import Card, Selector


@dataclass
class Perplexity(Selector):
    """
    Args:
        keep (`str`, *optional*, defaults to `"middle"`):
            Which end of the ranking: `"top"` (hard or odd answers), `"bottom"` (what the model would say anyway) or
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
        needs=frozenset({"text", "model"}),
    )

    def featurize(self, records: Records, ctx: Context) -> np.ndarray:
        return answer_loss(records, ctx).mean

    def score(self, features: np.ndarray, ctx: Context) -> np.ndarray:
        # exp() is monotonous, so the rank may be taken of the loss; only the printed score is the perplexity.
        if self.keep == "middle":
            share = (rankdata(features, nan_policy="omit") - 0.5) / max(1, np.isfinite(features).sum())
            return -np.abs(share - 0.5).astype(np.float32)
        with np.errstate(over="ignore"):
            perplexity = np.minimum(np.exp(features), np.finfo(np.float32).max).astype(np.float32)
        return perplexity if self.keep == "top" else -perplexity
