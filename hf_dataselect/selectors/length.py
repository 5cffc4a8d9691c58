"""
Keep the rows with the longest answers (arXiv 2402.04833, "Long Is More for Alignment").

The claim: the 1,000 longest answers of Alpaca are a baseline that is hard to beat.

    score = tokens of all answers of the row, before truncation

Deviation: length is counted with the model's own tokenizer; the authors publish the chosen rows but no script.

Relations: compare any method that favours long answers, such as [`IFD`], with this one.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ..context import Context
from ..data.records import Records
from ..features.text_statistics import answer_tokens
from ..selector import Card, Need, Selector


@dataclass
class Length(Selector):
    """Quality label: tokens of the answer."""

    card: ClassVar[Card] = Card(
        title="longest answers",
        paper="2402.04833",
        features="human-designed",
        label_source="answer length",
        steps=("count answer tokens", "keep the top k"),
        code=False,
        multi_turn="tokens of all assistant turns",
        deviations=("counted with the model's own tokenizer; the authors publish no script",),
    )
    by_row: ClassVar[bool] = True
    columns: ClassVar[tuple[str, ...] | None] = ()

    def needs(self) -> frozenset[Need]:
        return frozenset({"text"})

    def featurize(self, records: Records, ctx: Context) -> np.ndarray:
        return answer_tokens(records, ctx)

    def score(self, features: np.ndarray, ctx: Context) -> np.ndarray:
        return features.astype(np.float32)
