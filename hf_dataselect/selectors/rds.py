"""
RDS+ (arXiv 2503.01807, "Large-Scale Data Selection for Instruction Tuning"; code
hamishivi/automated-instruction-selection).

The claim: on pools of millions of rows, similarity of plain representations to rows of the target tasks beats dearer
methods, several of which fall below random there; it costs one forward pass.

    vector of a row = sum over positions i = 1..L of i x (last hidden state at i) / (1 + ... + L), scaled to length 1
    similarity      = cosine to each target row

Rows of one subtask (column `subtask` of the target) count as one, by their highest similarity. Subtasks, or target
rows where there is no such column, choose in turn, each its next best row.

Relations: [`LESS`] wants the same target and takes gradients.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from ..context import Context
from ..data.records import Records
from ..data.text import encode
from ..engines.subset.target_similarity import Similarity, Target, for_target, highest
from ..features.hidden_states import note_unusable, text_vectors
from ..features.target_rows import encode_target, refuse_without_target, subtasks
from ..selector import Card, Selector


@dataclass
class RDS(Selector):
    """
    Args:
        rule (`str`, *optional*, defaults to `"round_robin"`):
            `"round_robin"`: subtasks choose in turn, the paper's. `"max"`: the rows most similar to any target row.
    """

    rule: Literal["max", "round_robin"] = "round_robin"

    card: ClassVar[Card] = Card(
        title="rows that the model represents as it does rows of a target task",
        paper="2503.01807",
        features="model-oriented",
        label_source="similarity of hidden states to those of target rows",
        steps=("embed rows and target", "cosines", "target rows or subtasks choose in turn"),
        llm_uses=1,
        model_free=False,
        multi_turn="the text of all turns",
        needs=frozenset({"text", "model", "target"}),
        deviations=(
            "texts are written with the model's own chat template, not Tulu's",
            "a row without an answer in the window is not kept, as it can't be trained on",
            "equal similarities keep the order of the dataset",
        ),
    )

    def featurize(self, records: Records, ctx: Context) -> dict[str, np.ndarray]:
        text_format = ctx.text_format()
        encoded_target = encode_target(ctx, text_format)
        wanted = text_vectors(encoded_target, ctx, "Embedding the target")
        refuse_without_target(wanted.usable, encoded_target, ctx)
        target = wanted.vectors[:]
        target[~wanted.usable] = np.nan
        encoded = encode(records, text_format, num_proc=ctx.num_proc)
        note_unusable(encoded, ctx)
        found = text_vectors(encoded, ctx, "Embedding rows")
        unusable = np.flatnonzero(~found.usable)
        ctx.account.note("unscorable", "did not fit in memory, or no finite representation", unusable)
        groups = subtasks(ctx.target)
        groups = np.arange(len(ctx.target)) if groups is None else groups
        return {"similarity": Similarity(found.vectors, Target(target, groups, "max")), "usable": found.usable}

    def score(self, features: dict[str, Any], ctx: Context) -> np.ndarray:
        return np.where(features["usable"], highest(features["similarity"]), np.nan).astype(np.float32)

    def select(self, scores: np.ndarray, features: dict[str, Any], k: int, ctx: Context) -> np.ndarray:
        return for_target(features["similarity"], scores, k, self.rule)
