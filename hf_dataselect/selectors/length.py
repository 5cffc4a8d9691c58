"""
Keep the rows with the longest answers (arXiv 2402.04833, "Long Is More for Alignment").

The paper keeps the 1,000 longest answers of Alpaca and finds them hard to beat: any selector that favours long answers
(IFD does) should be compared with this one.

Deviation: the authors' repository ships the chosen rows but no script; length is counted here in the model's own
tokens, over all assistant turns, before the cut at the window.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ..context import Context
from ..data.records import Records
from ..features.text_statistics import answer_tokens
from ..selector import Card, Selector


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
        needs=frozenset({"text"}),
        deviations=("counted with the model's own tokenizer; the authors publish no script",),
    )

    def featurize(self, records: Records, ctx: Context) -> np.ndarray:
        return answer_tokens(records, ctx)

    def score(self, features: np.ndarray, ctx: Context) -> np.ndarray:
        return features.astype(np.float32)
