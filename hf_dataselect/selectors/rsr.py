"""
RSR, rank-surprisal ratio (arXiv 2601.14249; code UmeanNever/RankSurprisalRatio): answers that the model ranks high and
yet finds surprising.

The claim: over 11 teachers and 5 students, the ratio of a set of reasoning traces goes with the accuracy after
training on it (mean Spearman correlation 0.86).

    RSR = sum over answer tokens of min(rank, rank_clip) / sum of their losses, nats; the lowest are kept

The rank of a token is 1 + tokens with a strictly higher logit. Columns of scores.parquet: `mean_rank` (cut) and
`conditional_loss`. The ratio of the whole dataset, mean of the mean ranks / mean of the mean losses, is among the
figures: to compare sets of answers, as the paper does.

Relations: [`GRAPE`] reads the same losses alone, and prefers the least surprising answer.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ..context import Context
from ..data.records import Records
from ..features.loss import answer_loss
from ..features.token_values import answer_token_values
from ..options import PositiveInt
from ..selector import Card, Need, Scores, Selector, Split, Want


@dataclass
class RSR(Selector):
    """
    Args:
        rank_clip (`int`, *optional*, defaults to `100`):
            Ranks beyond it count as it: lower makes rare tokens count less.
    """

    rank_clip: PositiveInt = 100

    card: ClassVar[Card] = Card(
        title="answers whose tokens rank high and still surprise the model",
        paper="2601.14249",
        features="model-oriented",
        label_source="ranks and losses of the pending fine-tune model",
        steps=("score answers", "rank", "keep the top k"),
        llm_uses=1,
        model_free=False,
        multi_turn="all assistant turns, each with all before it as context; their tokens are pooled",
        deviations=(
            "answers are located in the training's own tokens, not by two known templates' headers",
            "a row without an answer token is NaN and named, where the code leaves it out",
            "ranks are of logits in the scoring dtype; in bfloat16 many are tied, in the answer's favour",
        ),
        evidence="the authors' on sets of reasoning traces; rows of one set, and other text, are not tested; no "
        "replication found",
    )
    by_row: ClassVar[bool] = True
    splits: ClassVar[Split | None] = "rows"
    columns: ClassVar[tuple[str, ...] | None] = ("mean_rank", "conditional_loss")

    def needs(self) -> frozenset[Need]:
        return frozenset({"text", "model"})

    def wants(self) -> frozenset[Want]:
        return frozenset({"loss", "token ranks"})

    def featurize(self, records: Records, ctx: Context) -> dict[str, np.ndarray]:
        loss = answer_loss(records, ctx).mean
        ranks = answer_token_values(records, ctx, "token ranks")
        total, tokens = ranks.sums(self.rank_clip)
        with np.errstate(invalid="ignore", divide="ignore"):
            return {"mean_rank": np.where(ranks.usable, total / tokens, np.nan), "conditional_loss": loss}

    def score(self, features: dict[str, np.ndarray], ctx: Context) -> Scores:
        mean_rank, loss = features["mean_rank"], features["conditional_loss"]
        known = np.isfinite(mean_rank) & np.isfinite(loss)
        if known.any():
            ctx.account.figures["rank-surprisal ratio of the dataset"] = (
                f"{mean_rank[known].mean() / loss[known].mean():.4g}"
            )
        with np.errstate(invalid="ignore", over="ignore"):
            ratio = np.minimum(mean_rank / np.maximum(loss, 1e-12), np.finfo(np.float32).max)
        return Scores(-ratio.astype(np.float32), features)
