"""
QDIT (arXiv 2311.14736, "Data Diversity Matters for Robust Instruction Tuning"): rows of high quality that represent
the instructions of the pool.

The claim: diversity beside quality raises the worst case of a model most, and its mean a little.

Row by row, take the one of the highest

    gain = (1 - alpha) x what it adds to the facility location / n + alpha x quality

    facility location = sum over the n rows of the highest cosine, at least 0, of its instruction to a row taken

The quality is that of any method (`quality`), from 0 to 1. With `alpha: 0` it is facility location alone, with 1 the
top rows by quality, and no row is embedded. Time grows with the square of the rows: in a large pool, set `neighbours`,
or let [`Cascade`] run a cheap method first.

    score = quality, as its method gives it

Relations: [`MIG`] covers tags in place of vectors; [`DEITA`] only keeps rows apart that are too near.
"""

from collections import Counter
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from scipy.stats import rankdata

from ..context import Context
from ..data.records import Records
from ..engines.subset.choose import cosine, facility_location
from ..engines.subset.nearest_graph import nearest_graph, represented
from ..engines.subset.target_similarity import directions
from ..features.sentence_vectors import EncoderOption, instruction_vectors
from ..options import Interval, PositiveInt
from ..rated import RatedSelector
from ..selector import Card, Need, Split, split_of


@dataclass
class QDIT(EncoderOption, RatedSelector):
    """
    Args:
        quality (`str`, *optional*, defaults to `"reward"`):
            Method that gives the quality: `"reward"` and `"alpagasus"` are those of the paper.
        quality_kwargs (`dict`, *optional*):
            Its options; `column` takes `{name: COLUMN}`, and `alpagasus` `{threshold: null}` to exclude no row.
        alpha (`float`, *optional*, defaults to `0.7`):
            Weight of the quality, from 0 to 1.
        scaling (`str`, *optional*, defaults to `"range"`):
            How a quality becomes a number from 0 to 1: by the `"range"` of the pool's, or by their `"ranks"`, which
            outliers don't move.
        encoder (`str`, *optional*, defaults to `"sentence-transformers/all-mpnet-base-v2"`):
            What instructions are embedded by: a sentence encoder by hub name or folder (extra `embed`), or `"model"`,
            the pending fine-tune model.
        neighbours (`int`, *optional*):
            Rows that may represent a row: as many nearest ones, which an index looks up (extra `faiss`), for pools of
            more than some 50,000 rows, where others may be kept than without. By default any row may.
    """

    quality: str = "reward"
    quality_kwargs: dict[str, Any] = field(default_factory=dict)
    alpha: Annotated[float, Interval(0, 1)] = 0.7
    scaling: Literal["range", "ranks"] = "range"
    encoder: str = "sentence-transformers/all-mpnet-base-v2"
    neighbours: PositiveInt | None = None

    card: ClassVar[Card] = Card(
        title="rows of high quality that represent the pool's instructions",
        paper="2311.14736",
        features="model-oriented",
        label_source="a reward model, or a judge's rating",
        steps=("rate each row", "embed the instructions", "take the row of the highest gain, one by one"),
        llm_uses=2,
        code=False,
        multi_turn="the quality is its method's; all turns before the last answer are embedded",
        deviations=(
            "the paper does not say how the two parts of the gain are put on one scale: here the facility location is "
            "divided by the number of rows, and the quality lies between 0 and 1",
            "the whole prompt is embedded, including a row's input",
            "of equal gains the row of higher quality, then the one that the seed draws",
        ),
        evidence="the authors', in the worst tenth more than on average; in MIG's table 53.12 against 51.81 of random "
        "rows",
    )
    spreads_out: ClassVar[bool] = True

    @property
    def embeds(self) -> bool:
        """Whether coverage counts."""
        return self.alpha != 1

    @property
    def splits(self) -> Split | None:
        """Where no row is embedded, as the quality."""
        return super().splits if self.embeds else split_of([self._rater])

    def needs(self) -> frozenset[Need]:
        return super().needs() | ({"prompt"} if self.embeds else set())

    def extras(self) -> dict[str, str]:
        index = {"faiss": "faiss"} if self.embeds and self.neighbours is not None else {}
        return super().extras() | index

    def forecast(self, rows: int, target: int, kept: int) -> dict[str, int]:
        passes = Counter(super().forecast(rows, target, kept))
        passes.update(self.embedded(rows))
        return dict(passes)

    def select(
        self, scores: np.ndarray, records: Records, features: dict[str, Any], k: int, ctx: Context
    ) -> np.ndarray:
        if self.alpha == 1:
            return ctx.best(scores, k)
        order = ctx.best(scores)
        rows = records.subset(order)
        embedded = instruction_vectors(rows, self.encoder, ctx.of_rows(order))
        usable = embedded.directed()
        ctx.account.note("dropped", "no finite embedding of its prompt", order[~usable])
        order, vectors = order[usable], embedded.take(np.flatnonzero(usable))
        quality = scaled(scores[order].astype(np.float64), self.scaling)
        # The gain times n / (1 - alpha).
        worth = self.alpha / (1 - self.alpha) * len(order) * quality
        if self.neighbours is None:
            return order[facility_location(directions(vectors), k, cosine, worth=worth)[0]]
        picked, _ = represented(nearest_graph(vectors, self.neighbours), k, worth)
        ctx.account.figures["rows that may represent one"] = f"its {self.neighbours} nearest, by an index"
        return order[ctx.agreed(picked)]


def scaled(values: np.ndarray, scaling: str) -> np.ndarray:
    """Values from 0 to 1; all 0 where there is one only."""
    values = rankdata(values) if scaling == "ranks" else values
    span = np.ptp(values) if len(values) else 0.0
    return (values - values.min()) / span if span > 0 else np.zeros(len(values))
