"""
LESS (arXiv 2402.04333, "Selecting Influential Data for Targeted Instruction Tuning"; code princeton-nlp/LESS).

The claim: the rows whose gradients, as the optimizer would apply them, align with those of a few target-task examples
train that task best; 5 % chosen so often beat all of the data.

1. Warm-up fine-tuning with LoRA on a random 5 % for four epochs, with a checkpoint of the weights and Adam's state
   after each; the model is restored bit for bit.
2. At each checkpoint, the Adam update of every candidate row and the gradient of every target-task example, both
   projected to 8,192 dimensions (unless they are small, see `projection`) and L2-normalised.
3. Mean influence over the examples of a subtask (column `subtask` of the target), then the highest over subtasks.
4. Keep the highest.

    influence = sum over checkpoints of learning rate x <Adam update of the candidate, gradient of the example>

On several ranks it chooses the rows that it chooses on one, if an update has as many rows (divide
`warmup_gradient_accumulation` by the number of ranks) and the warm-up's rows divide by the batches of all ranks, since
dropout is drawn for each row by itself. Of 60 rows on a tiny model, 1, 2 and 3 ranks kept the same 12; 2 and 3 ranks
kept 10 of them with dropout drawn on each rank. The report says how updates were made on several ranks.

Gradients of whole batches are taken by hooks in the same run. With adapters of 3,000, 29,000 and 296,000 numbers on
tiny models, a sketch of 8,192 keeps 27, 26 and 24 of the 30 rows of 600 that whole gradients keep.

Relations: [`RDS`] needs the same target, costs one forward pass, and at large scale was found to choose better.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

from ..features.influences import Influences
from ..selector import Card, Selector


@dataclass
class LESS(Influences, Selector):
    """
    The options of [`~features.influences.Influences`], and

    Args:
        rule (`str`, *optional*, defaults to `"max"`):
            `"max"`: the rows with the highest influence on any subtask, the paper's. `"round_robin"`: subtasks choose
            in turn, found better where few rows are kept (arXiv 2602.14696). By examples, whatever their subtasks, and
            that paper: `"doubly_greedy"`: the rows with the highest influence on any example. `"round_robin_free"`:
            examples choose in turn among the rows that are left. `"optimal_transport"`: rows by what they receive of
            the examples' mass. `"knn_uniform"`: rows that are near to most examples.
    """

    rule: Literal["max", "round_robin", "doubly_greedy", "round_robin_free", "optimal_transport", "knn_uniform"] = (
        "max"
    )

    card: ClassVar[Card] = Card(
        title="rows whose gradients align with those of a target task",
        paper="2402.04333",
        features="model-oriented",
        label_source="similarity of gradients to those of target-task examples",
        trained_llms=1,
        steps=("fine-tune on a random part", "gradients of rows and target", "inner products", "keep the top k"),
        llm_uses=2,
        model_free=False,
        dataset_free=False,
        multi_turn="the loss is the mean over the label tokens of all turns",
        deviations=(
            "small gradients are not projected, others by a sparse projection; `projection: rademacher` is dense",
            "texts are rendered with the model's own chat template, not Tulu's",
            "warm-up in the precision of the run, gradients in that of `selection_dtype`, Adam's update in float32",
            "candidates have the labels that TRL trains on: in `messages`, those of all turns, not of answers only",
            "of a row that packing splits, the first part with label tokens counts",
            "a target without a column `subtask` is one subtask; examples without an answer in the window don't count",
            "of a user's adapter, only the factors of its linear layers count, not biases or `modules_to_save`",
        ),
    )
