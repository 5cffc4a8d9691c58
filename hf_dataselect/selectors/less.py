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

import logging
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from ..context import Context
from ..data.records import Records
from ..engines.gradients.projection import Projection
from ..engines.subset.matchers import for_target
from ..engines.subset.target_similarity import Target, error_of_scores, highest, near_the_cut
from ..features.gradients import check_adapter, gradient_features
from ..features.served import ServesTarget
from ..features.target_rows import encode_target
from ..features.tuning import WarmupOptions
from ..options import PositiveInt
from ..selector import Card, Need, Selector


logger = logging.getLogger(__name__)

#: Part of the rows to keep above which rows near the cut are warned of; about a fifth of them are on the wrong side.
CLOSE = 0.25


@dataclass
class LESS(WarmupOptions, ServesTarget, Selector):
    """
    The options of [`~features.tuning.WarmupOptions`], and

    Args:
        rule (`str`, *optional*, defaults to `"max"`):
            `"max"`: the rows with the highest influence on any subtask, the paper's. `"round_robin"`: subtasks choose
            in turn, found better where few rows are kept (arXiv 2602.14696). By examples, whatever their subtasks, and
            that paper: `"doubly_greedy"`: the rows with the highest influence on any example. `"round_robin_free"`:
            examples choose in turn among the rows that are left. `"optimal_transport"`: rows by what they receive of
            the examples' mass. `"knn_uniform"`: rows that are near to most examples.
        projection (`str`, *optional*, defaults to `"auto"`):
            `"auto"`: none where the adapter has at most `projection_dim` numbers, or where whole gradients take a
            quarter of the free memory and disk at most (kept in the cache: a killed run goes on as it began);
            elsewhere a sketch. `"sketch"`: a sparse projection. `"rademacher"`: the paper's dense one; many times the
            cost, the same error. `"none"`: whole gradients: of each number of the adapter 2 bytes on disk a row and
            epoch, and in memory about 16 for each row of a batch and 6 for each target row (rank 128 on a 7B model has
            134 million). Where gradients are projected, the report has the estimated error of a score.
        projection_dim (`int`, *optional*, defaults to `8192`):
            Dimensions of a projected gradient, 2 bytes each, a row and epoch.
        momentum (`bool`, *optional*, defaults to `True`):
            Whether the features include Adam's first moment, which is the same for every row and outweighs their
            differences; the paper's way.
    """

    rule: Literal["max", "round_robin", "doubly_greedy", "round_robin_free", "optimal_transport", "knn_uniform"] = (
        "max"
    )
    projection: Literal["auto", "sketch", "rademacher", "none"] = "auto"
    projection_dim: PositiveInt = 8192
    momentum: bool = True

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
    columns: ClassVar[tuple[str, ...] | None] = ()

    weighs_tasks: ClassVar[bool] = True
    joins_examples: ClassVar[bool] = True

    def needs(self) -> frozenset[Need]:
        return frozenset({"text", "model", "target"})

    def forecast(self, rows: int, target: int, kept: int) -> dict[str, int]:
        return {"backward_rows": (rows + target) * self.warmup_epochs, "warmup_rows": self.rows_tuned_on(rows)}

    def featurize(self, records: Records, ctx: Context) -> dict[str, np.ndarray]:
        if not self.layers:
            check_adapter(ctx)
        # Of a candidate, the loss that it is trained by; of an example, that of its answers and their ends.
        encoded = ctx.trained(records)
        examples = encode_target(ctx, ctx.text_format(end_of_turn=True))
        auto, tuned_on, similarity = self.projection == "auto", self.warmup_rows(encoded, ctx), 0
        project = Projection("sketch" if auto else self.projection, self.projection_dim)
        with gradient_features(encoded, examples, tuned_on, ctx, self.warmup(ctx), project, auto) as checkpoints:
            for checkpoint in checkpoints:
                target = Target(checkpoint.of_examples(), self.columns_of(ctx).groups, "mean")
                influence = checkpoint.similarity(target, self.momentum)
                similarity = similarity + checkpoint.weight * influence
        features = {"similarity": similarity}
        if checkpoint.error is not None:
            features["error"] = checkpoint.error.of_groups(compete=self.matcher == "max")
        return features

    def score(self, features: dict[str, np.ndarray], ctx: Context) -> np.ndarray:
        scores = highest(features["similarity"], self.columns_of(ctx).weighted)
        if "error" in features:
            figures, error = ctx.account.figures, _mean_error(features, scores)
            known = f"{error:.2g}" if np.isfinite(error) else "not known, of fewer than two rows"
            figures["error of a score by the projection, estimated"] = known
            figures["standard deviation of the scores"] = f"{np.nanstd(scores):.2g}"
        return scores

    def select(
        self, scores: np.ndarray, records: Records, features: dict[str, np.ndarray], k: int, ctx: Context
    ) -> np.ndarray:
        self.warn_of_errors(scores, features, k)
        shares = self.columns_of(ctx).shares
        return for_target(features["similarity"], scores, k, self.matcher, ctx.ties(len(scores)), shares)

    def warn_of_errors(self, scores: np.ndarray, features: dict[str, np.ndarray], k: int) -> None:
        """Warn where errors of the projection decide a good part of the rows kept."""
        if "error" in features:
            near = near_the_cut(features["similarity"], scores, k, self.matcher, features["error"]).sum()
            if near > CLOSE * k:
                logger.warning(
                    "The projection of the gradients errs by about %.2g a score (standard deviation %.2g), and %s "
                    "rows are less than that from the cut at %s: which of them are kept is partly chance. Use a "
                    "larger `projection_dim` (%s), `projection: none`, or a smaller adapter (`lora_r`).",
                    *(_mean_error(features, scores), np.nanstd(scores), near, k, self.projection_dim),
                )


def _mean_error(features: dict[str, np.ndarray], scores: np.ndarray) -> float:
    """Root mean square of the errors of the scores."""
    errors = error_of_scores(features["similarity"], features["error"])[np.isfinite(scores)]
    return float(np.sqrt(np.square(errors).mean())) if len(errors) else float("nan")
