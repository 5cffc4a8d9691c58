"""
GRAPE (arXiv 2502.04194): of several answers to a prompt, the one that the model to be trained finds most likely.

The claim: answers near to the model's own distribution teach it more than those of the strongest model, or than three
times as many rows.

    score = -(mean loss of the answer's tokens given the prompt, nats)

The best answer to each prompt is kept, of equal ones the one that the seed draws; the others are excluded. The paper
says nothing of which prompts to keep, so that all are by default; a lower budget keeps the likeliest answers. Column
of scores.parquet: `conditional_loss`.

Relations: [`IFD`] and [`Perplexity`] (`keep: top`) prefer the other end of the same loss; in a blend, give one of them
a negative weight.
"""

import hashlib
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ..context import Context
from ..data.layouts import Record
from ..data.records import Records
from ..features.loss import answer_loss
from ..selector import Card, Need, Scores, Selector, Split, Want


@dataclass
class GRAPE(Selector):
    """No options: rows whose texts before the last answer are equal are answers to one prompt."""

    card: ClassVar[Card] = Card(
        title="of several answers to a prompt the most likely one",
        paper="2502.04194",
        features="model-oriented",
        label_source="loss of the pending fine-tune model",
        steps=("score answers", "keep the best of each prompt"),
        llm_uses=1,
        code=False,
        model_free=False,
        multi_turn="answers to the same chat compete; the loss is over all assistant turns",
        deviations=("written from the paper's abstract: its code is not published",),
        evidence="the authors' on three models and two sources of several answers; no replication found",
    )
    splits: ClassVar[Split | None] = "rows"
    columns: ClassVar[tuple[str, ...] | None] = ("conditional_loss",)
    default_budget: ClassVar[float | int | str] = 1.0

    def needs(self) -> frozenset[Need]:
        return frozenset({"text", "prompt", "model"})

    def wants(self) -> frozenset[Want]:
        return frozenset({"loss"})

    def check(self, records: Records) -> None:
        if not _several(records):
            raise ValueError(
                "`selection_method='grape'` chooses among the answers to a prompt, and every prompt here has one: add "
                "rows with the same prompt and other answers, or choose another method."
            )

    def featurize(self, records: Records, ctx: Context) -> dict[str, np.ndarray]:
        keys = np.array([_key(record) for record in records], "V16")  # a row that can't be read has no loss
        return {"loss": answer_loss(records, ctx).mean, "prompt": np.unique(keys, return_inverse=True)[1].reshape(-1)}

    def score(self, features: dict[str, np.ndarray], ctx: Context) -> Scores:
        return Scores(-features["loss"].astype(np.float32), {"conditional_loss": features["loss"]})

    def exclude(self, scores: np.ndarray, features: dict[str, np.ndarray], ctx: Context) -> dict[str, np.ndarray]:
        prompt, ties = features["prompt"], ctx.ties(len(scores))
        order = np.lexsort((ties, -scores, prompt))  # NaN last
        order = order[np.isfinite(scores[order])]
        best = order[np.unique(prompt[order], return_index=True)[1]]
        worse = np.isfinite(scores)
        worse[best] = False
        return {"another answer to the prompt is more likely": worse}


def _key(record: Record) -> bytes:
    return hashlib.blake2b(record.prompt.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _several(records: Records) -> bool:
    seen = set()
    for record in records:
        if record.problem is not None:
            continue
        key = _key(record)
        if key in seen:
            return True
        seen.add(key)
    return False
