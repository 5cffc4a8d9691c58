"""
RDS+ (arXiv 2503.01807, "Large-Scale Data Selection for Instruction Tuning"; code
hamishivi/automated-instruction-selection).

The claim: on pools of millions of rows, similarity of plain representations to target-task examples beats more
expensive methods, several of which fall below random there; it costs one forward pass.

    embedding of a row = sum over positions i = 1..L of i x (last hidden state at i) / (1 + ... + L), L2-normalised
    score              = highest cosine to a target-task example

The examples of a subtask (column `subtask` of the target) count as one, by their highest similarity. Subtasks, or
examples without that column, choose in turn, each its next best row.

Relations: [`LESS`] needs the same target and compares gradients.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

from ..context import Context
from ..data.records import Records
from ..engines.subset.target_similarity import Similarity, Target
from ..features.served import ServesBySimilarity, VectorRule
from ..features.target_vectors import target_vectors
from ..selector import Card, Selector, Want


@dataclass
class RDS(ServesBySimilarity, Selector):
    """
    Args:
        rule (`str`, *optional*, defaults to `"round_robin"`):
            `"round_robin"`: subtasks choose in turn, the paper's. `"max"`: the rows most similar to any example. By
            examples, whatever their subtasks, and arXiv 2602.14696: `"round_robin_free"`: they choose in turn among
            the rows that are left. `"optimal_transport"`: rows by what they receive of the examples' mass.
            `"knn_uniform"`: rows that are near to most examples; `"knn_kde"`: copies counting as one.
    """

    rule: VectorRule = "round_robin"

    card: ClassVar[Card] = Card(
        title="rows whose representations are similar to those of a target task",
        paper="2503.01807",
        features="model-oriented",
        label_source="similarity of hidden states to those of target rows",
        steps=("embed rows and target", "cosines", "target rows or subtasks choose in turn"),
        llm_uses=1,
        model_free=False,
        multi_turn="the text of all turns",
        deviations=(
            "texts are rendered with the model's own chat template, not Tulu's",
            "a row without an answer in the window is not kept, as it can't be trained on",
        ),
    )

    def wants(self) -> frozenset[Want]:
        return frozenset({"position state"})

    def featurize(self, records: Records, ctx: Context) -> dict[str, Any]:
        candidates, target = target_vectors(records, ctx)
        similarity = Similarity(candidates.vectors, Target(target, self.columns_of(ctx).groups, "max"))
        return {"similarity": similarity, "usable": candidates.usable, "vectors": candidates.vectors}
