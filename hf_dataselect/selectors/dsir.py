"""
DSIR (arXiv 2302.03169, "Data Selection for Language Models via Importance Resampling"; code p-lambda/dsir): rows drawn
so that their hashed n-grams are distributed as the target's. No model.

The claim: for pre-training towards a target domain it is as good as expert curation, at the cost of counting words.

    log weight = sum over n-grams of count x (log share of its bucket in the target - log share among the candidates)
    score      = log weight

Rows are drawn without replacement, in proportion to their weights: the `k` highest of log weight + Gumbel noise. Long
rows have the most extreme weights, and a target of few rows leaves most buckets empty, where a row pays ln(1e8) nats a
gram: rows of few grams are then kept. `smoothing` lessens it.

Relations: [`BM25`] reads the same words, and needs fewer target rows.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ..context import Context
from ..data.records import Records
from ..data.targets import check_target_text
from ..errors import SelectionError
from ..features.hashed_ngrams import hashed_ngrams, log_weights
from ..features.term_scores import row_texts
from ..options import NonNegativeFloat, PositiveInt
from ..selector import Card, Need, Selector


@dataclass
class DSIR(Selector):
    """
    Args:
        buckets (`int`, *optional*, defaults to `10_000`):
            Buckets of n-grams; fewer suit a small target.
        smoothing (`float`, *optional*, defaults to `0.0`):
            Added to each bucket's count in the target.
        draw (`bool`, *optional*, defaults to `True`):
            `False` keeps the highest weights.
    """

    buckets: PositiveInt = 10_000
    smoothing: NonNegativeFloat = 0.0
    draw: bool = True

    card: ClassVar[Card] = Card(
        title="rows whose words are distributed as those of a target task",
        paper="2302.03169",
        features="human-designed",
        label_source="importance weights of hashed n-grams",
        steps=("count hashed n-grams of rows and target", "weights", "draw k rows"),
        multi_turn="the text of all turns",
        deviations=(
            "no shortest length: the code drops rows below 100 tokens, which most instructions are",
            "the draw is seeded, where the code's is not",
            "a character of a script without spaces is a word, where the code takes a whole run for one",
        ),
        evidence="the authors' on pre-training corpora; for instruction data it is mostly a baseline that others beat",
    )
    columns: ClassVar[tuple[str, ...] | None] = ()

    def needs(self) -> frozenset[Need]:
        return frozenset({"text", "target"})

    def featurize(self, records: Records, ctx: Context) -> np.ndarray:
        check_target_text(ctx.target)
        texts, wanted = row_texts(records), [text or "" for text in row_texts(ctx.target)]
        missing = np.array([text is None for text in texts])
        ctx.account.note("unscorable", "no answer", np.flatnonzero(missing))
        target = hashed_ngrams(wanted, self.buckets)
        if target.nnz == 0:
            raise SelectionError("`selection_target`: none of its rows has an answer with a word.")
        weights = np.full(len(texts), np.nan)
        counts = hashed_ngrams((text for text in texts if text is not None), self.buckets)
        weights[~missing] = log_weights(counts, target, self.smoothing)
        return weights

    def score(self, features: np.ndarray, ctx: Context) -> np.ndarray:
        return features.astype(np.float32)

    def select(self, scores: np.ndarray, records: Records, features: np.ndarray, k: int, ctx: Context) -> np.ndarray:
        if not self.draw:
            return ctx.best(scores, k)
        noise = np.random.default_rng([ctx.seed, len(scores)]).gumbel(size=len(scores))
        return ctx.best(scores + noise, k)
