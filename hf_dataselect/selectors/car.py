"""
CaR (arXiv 2402.18191, "Clustering and Ranking"; code IronBeliever/CaR): the best rows, and the best of each cluster.

The claim: 2 % of Alpaca chosen so fine-tune LLaMA better than all of it: quality leads, and no region is left out.

1. Rate each row (`quality`). The authors train a regressor on experts' revisions, IQS; any method serves.
2. Embed instruction and answer together, keep the principal components that explain `variance`, and cluster them by
   k-means: the square root of half of the rows is the number of clusters.
3. Keep the best row of each cluster, and beside these the best of all, as the budget allows. Where there are more
   clusters than the budget has rows, the best rows among those of the clusters are kept.

    score = quality

Relations: [`QDIT`] weighs quality and coverage row by row; `selection_diversity: filter` only keeps rows apart.
"""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from ..context import Context
from ..data.records import Records
from ..engines.subset.clusters import principal_clusters
from ..features.row_vectors import RowVectors
from ..features.sentence_vectors import EncoderOption
from ..options import Fraction, PositiveInt
from ..rated import RatedSelector
from ..selector import Card


@dataclass
class CaR(EncoderOption, RatedSelector):
    """
    Args:
        quality (`str`, *optional*, defaults to `"reward"`):
            Method that gives the quality.
        quality_kwargs (`dict`, *optional*):
            Its options; `column` takes `{name: COLUMN}`.
        clusters (`int`, *optional*):
            Number of clusters; by default the square root of half of the rows.
        variance (`float`, *optional*, defaults to `0.95`):
            Part of the variance that the principal components explain; 1 clusters the vectors themselves.
        encoder (`str`, *optional*, defaults to `"sentence-transformers/all-MiniLM-L6-v2"`):
            What rows are embedded by: a sentence encoder by hub name or folder (extra `embed`), or `"model"`, the
            pending fine-tune model.
    """

    quality: str = "reward"
    quality_kwargs: dict[str, Any] = field(default_factory=dict)
    clusters: PositiveInt | None = None
    variance: Fraction = 0.95
    encoder: str = "sentence-transformers/all-MiniLM-L6-v2"

    card: ClassVar[Card] = Card(
        title="the best rows, and the best of each cluster",
        paper="2402.18191",
        features="model-oriented",
        label_source="a regressor of instruction quality (IQS), or any method's scores",
        trained_llms=1,
        small_llm=True,
        steps=("rate each row", "embed", "cluster", "keep the best of all and of each cluster"),
        llm_uses=2,
        dataset_free=False,
        multi_turn="the quality is its method's; the prompt and the last answer are embedded",
        deviations=(
            "the quality is a reward model's by default: the authors' regressor is no model of transformers",
            "the budget is met by as many of the best rows as it leaves, where the code takes 1,000",
            "k-means starts once, from the run's seed; the code's starts depend on the version of scikit-learn",
            "the part of the variance is that of the candidates' vectors without unusable rows",
        ),
        evidence="the authors', and MIG's table: 53.10 against 51.81 of random rows",
    )
    default_budget: ClassVar[float | int | str] = 0.0196
    spreads_out: ClassVar[bool] = True

    def forecast(self, rows: int, target: int, kept: int) -> dict[str, int]:
        passes = Counter(super().forecast(rows, target, kept))
        passes.update(self.embedded(rows))
        return dict(passes)

    def select(
        self, scores: np.ndarray, records: Records, features: dict[str, Any], k: int, ctx: Context
    ) -> np.ndarray:
        order = ctx.best(scores)
        vectors_of = RowVectors(records, ctx, self.encoder)
        try:
            embedded = vectors_of.stored(order)
        finally:
            vectors_of.close()
        usable = np.flatnonzero(embedded.usable)
        order, clusters = order[usable], self.clusters or max(1, int(np.sqrt(len(usable) / 2)))
        given = embedded.take(usable), clusters, self.variance, ctx.seed
        labels = ctx.agreed(principal_clusters(*given, ctx.runtime))
        _, best = np.unique(labels, return_index=True)
        ctx.account.figures["clusters"] = len(best)
        first = np.sort(best)
        return order[np.concatenate([first, np.setdiff1d(np.arange(len(order)), first)])][:k]
