"""
IFD of conversations: chats whose later answers need the earlier turns. This package's own; there is no paper, and no
evidence that it selects well.

With turns t = 1 .. T, and l_t(h) the mean loss of the tokens of answer t after the history h:

    context ratio of t = l_t(all turns before) / l_t(its own question only)       below 1: earlier turns help
    score              = 1 - mean of it over t >= 2, weighted by the answers' tokens (`aggregate: mean`)

so that chats of unrelated questions score 0 or less, and chats that pursue a common goal score high. `min` takes the
answer that the earlier turns help least (the whole chat has to hang together), `max` the one that they help most. A
system turn belongs to every question. Rows of one answer have no score.

Columns of scores.parquet: `context_ratio` and its least and largest over the turns, and `turn_ifd`, the same mean of
l_t(all turns before) / l_t(nothing): IFD, turn by turn.

Relations: [`IFD`] pools all answers of a row; [`DEITA`] sums scores over turns, so that long chats win.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from ..context import Context
from ..data.records import Records
from ..features.turn_losses import turn_losses
from ..selector import Card, Need, Scores, Selector, Split, Want


@dataclass
class ConversationIFD(Selector):
    """
    Args:
        aggregate (`str`, *optional*, defaults to `"mean"`):
            Over the later answers: `"mean"` (weighted by tokens), `"min"` or `"max"` of what earlier turns help.
    """

    aggregate: Literal["mean", "min", "max"] = "mean"

    card: ClassVar[Card] = Card(
        title="chats whose later answers need the earlier turns",
        features="model-oriented",
        label_source="loss of the pending fine-tune model, with and without the earlier turns",
        steps=("score answers in their chats", "after their own questions", "after nothing", "keep the top k"),
        llm_uses=3,
        code=False,
        model_free=False,
        multi_turn="the point of it: rows of one answer have no score",
        deviations=("nobody has published such a score: formula and aggregate are this package's",),
        evidence="none published, by anyone; compare it with random rows before relying on it",
    )
    splits: ClassVar[Split | None] = "rows"
    columns: ClassVar[tuple[str, ...] | None] = (
        "context_ratio",
        "turn_ifd",
        "least_context_ratio",
        "largest_context_ratio",
    )

    def needs(self) -> frozenset[Need]:
        return frozenset({"text", "prompt", "model"})

    def wants(self) -> frozenset[Want]:
        return frozenset({"token losses", "unconditional loss"})

    def forecast(self, rows: int, target: int, kept: int) -> dict[str, int]:
        return {"forward_rows": 3 * rows}

    def check(self, records: Records) -> None:
        if all(len(record.answer_turns) < 2 for record in records):
            raise ValueError(
                "`selection_method='conversation_ifd'` compares the answers of a chat, and every row here has at most "
                "one: give rows of several turns, or choose `ifd`."
            )

    def featurize(self, records: Records, ctx: Context) -> dict[str, np.ndarray]:
        losses, n = turn_losses(records, ctx), len(records)
        later = losses.turn > 0
        row, tokens = losses.row[later], losses.tokens[later]
        with np.errstate(invalid="ignore", divide="ignore"):
            ratios = (losses.given_all / losses.given_question)[later]
            ifd = (losses.given_all / losses.given_nothing)[later]

            def mean(values: np.ndarray) -> np.ndarray:
                return np.bincount(row, values * tokens, n) / np.bincount(row, tokens, n)

            features = {"context_ratio": mean(ratios), "turn_ifd": mean(ifd)}
        for name, extreme, start in (("least", np.fmin, np.inf), ("largest", np.fmax, -np.inf)):
            values = np.full(n, start)
            extreme.at(values, row, ratios)
            features[f"{name}_context_ratio"] = np.where(np.isinf(values), np.nan, values)
        odd = np.isin(np.arange(n), row) & ~np.isfinite(features["context_ratio"])
        ctx.account.note("unscorable", "a loss is 0 or not finite", np.flatnonzero(odd))
        return features

    def score(self, features: dict[str, np.ndarray], ctx: Context) -> Scores:
        name = {"mean": "context_ratio", "min": "largest_context_ratio", "max": "least_context_ratio"}[self.aggregate]
        scores = 1 - features[name]
        return Scores(np.where(np.isfinite(features["context_ratio"]), scores, np.nan).astype(np.float32), features)
