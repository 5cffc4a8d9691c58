"""
BM25 towards a target: rows that share rare words with target-task examples (arXiv 2410.16208, "Compute-Constrained
Data Selection").

The claim: with the cost of selecting counted, BM25 and embeddings are almost always on the Pareto front; perplexity
and gradients pay only where the trained model is several times larger than the one that scores.

    match of a row and a target row = BM25(target row as the query, row) / BM25(target row, itself)
    score                           = mean over subtasks (or target rows) of the mean match of their rows

BM25 is several formulas; this one has Lucene's inverse document frequency and counts each term of a query once, see
[`bm25`](../features/term_scores.py). Raw scores grow with the number of the query's terms, hence the division.

Relations: [`RDS`] needs the same target and compares hidden states; a method that needs a model has to beat this one.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from ..context import Context
from ..data.records import Records
from ..data.targets import check_target_text
from ..engines.subset.matchers import for_target
from ..engines.subset.target_similarity import highest, parts_of
from ..errors import SelectionError
from ..features.served import ServesTarget
from ..features.term_scores import TargetMatches
from ..selector import Card, Selector


@dataclass
class BM25(ServesTarget, Selector):
    """
    Args:
        rule (`str`, *optional*, defaults to `"mean"`):
            `"mean"`: the rows that match best on average, the paper's. `"round_robin"`: subtasks, or target rows
            without that column, choose in turn, and a row's score is its best match.
    """

    rule: Literal["mean", "round_robin"] = "mean"

    card: ClassVar[Card] = Card(
        title="rows that share rare words with a target task",
        paper="2410.16208",
        features="human-designed",
        label_source="BM25 of target rows as queries",
        steps=("count the terms of rows and target", "BM25", "keep the top k"),
        multi_turn="the text of all turns",
        deviations=(
            "Lucene's inverse document frequency, and each term of a query counts once; the authors' is Okapi's",
            "each target row is a query, where the code joins those of a subtask; terms have two characters or more",
            "the text of all turns, not the first message only",
            "a target row's scores are divided by what it scores itself",
        ),
    )

    def featurize(self, records: Records, ctx: Context) -> dict[str, TargetMatches]:
        check_target_text(ctx.target)
        matches = TargetMatches(records, ctx, self.columns_of(ctx).groups)
        if not matches.used.any():
            raise SelectionError("`selection_target`: none of its rows shares a word with a candidate.")
        return {"similarity": matches}

    def score(self, features: dict[str, Any], ctx: Context) -> np.ndarray:
        matches, shares = features["similarity"], self.columns_of(ctx).shares
        if self.rule != "mean":
            return highest(matches, self.columns_of(ctx).weighted)
        used = matches.used
        weights = None if shares is None else shares[used]
        means = [np.average(part[:, used], 1, weights) for _, part in parts_of(matches, None)]
        return np.concatenate(means).astype(np.float32)

    def select(
        self, scores: np.ndarray, records: Records, features: dict[str, Any], k: int, ctx: Context
    ) -> np.ndarray:
        rule, shares = "max" if self.rule == "mean" else self.rule, self.columns_of(ctx).shares
        return for_target(features["similarity"], scores, k, rule, ctx.ties(len(scores)), shares)
