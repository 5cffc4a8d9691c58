"""
Rows that cover the pool in the model's own representation, by greedy k-center (core-set selection; the step of
DiverseEvol, arXiv 2311.08182).

The claim: with under 8 % of the rows, chosen round by round by the model that was trained on those before, as good as
with all of them.

    vector of a row = mean of the last hidden states over its tokens
    next row        = the one that is farthest (Euclidean) from its nearest kept row

Under a `selection_schedule` that lets the rows grow (`{every: ..., grow: ...}`), those kept already are the first
centers: that is DiverseEvol. Without any, the first row is drawn. The score of a row is its distance from the nearest
row that is kept already, or from the mean of all.

Deviations: DiverseEvol draws its first 100 rows at random, and trains each round from the base model; here the first
are spread out, too, and training goes on. Its code takes near copies of kept rows first (roots of negative numbers are
NaN, which counts as the farthest); here they come last. Texts have the model's own chat template.

Relations: [`MoDS`] covers the prompts of well rated rows in the same way; [`QDIT`] maximises facility location.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ..context import Context
from ..data.encoded import Encoded
from ..data.records import Records
from ..engines.subset.choose import distances_to, k_center, mean_vector
from ..errors import SelectionError
from ..features.hidden_states import Vectors, cached_states, note_unusable
from ..selector import Card, Need, Selector, Split


@dataclass
class KCenter(Selector):
    """Keep rows that are far from one another; `seed` of the training arguments draws the first."""

    card: ClassVar[Card] = Card(
        title="rows that cover the pool, by k-center over the model's representations",
        paper="2311.08182",
        features="model-oriented",
        label_source="distance of hidden states to those of rows kept",
        steps=("embed rows", "take the row farthest from those kept, one by one"),
        llm_uses=1,
        model_free=False,
        multi_turn="the text of all turns",
        deviations=(
            "the first rows are spread out, not drawn",
            "training goes on, where the paper begins each round with the base model",
            "near copies of kept rows come last, where the code takes them first",
        ),
        evidence="the authors'; no replication found",
    )
    splits: ClassVar[Split | None] = "rows"
    columns: ClassVar[tuple[str, ...] | None] = ()
    spreads_out: ClassVar[bool] = True
    reads_kept: ClassVar[bool] = True

    def needs(self) -> frozenset[Need]:
        return frozenset({"text", "model"})

    def featurize(self, records: Records, ctx: Context) -> dict[str, Any]:
        encoded = ctx.encode(records)
        note_unusable(encoded, ctx)
        embedded = _embedded(encoded, ctx)
        if not embedded.usable.any():
            raise SelectionError("`k_center`: no row has an answer within the window and finite hidden states.")
        kept = None if ctx.kept is None else _embedded(ctx.encode(ctx.kept), ctx)
        return {"vectors": embedded, "kept": kept}

    def score(self, features: dict[str, Any], ctx: Context) -> np.ndarray:
        embedded, kept = features["vectors"], features["kept"]
        usable, distances = np.flatnonzero(embedded.usable), np.full(len(embedded.usable), np.nan, np.float32)
        vectors, before = embedded.take(usable), np.flatnonzero(kept.usable) if kept is not None else []
        distances[usable] = distances_to(vectors, kept.take(before)[:] if len(before) else mean_vector(vectors)[None])
        return distances

    def select(
        self, scores: np.ndarray, records: Records, features: dict[str, Any], k: int, ctx: Context
    ) -> np.ndarray:
        usable, embedded, kept = np.flatnonzero(np.isfinite(scores)), features["vectors"], features["kept"]
        if kept is None or not kept.usable.any():
            first = int(np.random.default_rng(ctx.seed).integers(len(usable)))
            return usable[k_center(embedded.take(usable), k, [first])[0]]
        before = np.flatnonzero(kept.usable)
        together = kept.join(embedded).take(np.concatenate([before, len(kept.usable) + usable]))
        rows, _ = k_center(together, len(before) + k, range(len(before)))
        return usable[rows[len(before) :] - len(before)]


def _embedded(encoded: Encoded, ctx: Context) -> Vectors:
    states = cached_states(encoded.tokens, ctx, "Embedding rows", pool="mean")
    return states._replace(usable=states.usable & ~encoded.problematic)
