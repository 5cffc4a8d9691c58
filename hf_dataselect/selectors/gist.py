"""
GIST (arXiv 2602.18584; code GuanghuiMin/GIST): rows whose gradients point where those of a target point, within the
few directions that the target spans.

The claim: what [`LESS`] projects to 8,192 random dimensions lies in some tens of directions, the target's own; within
them, rows are chosen as well, at 0.3 % of the storage and a quarter of the time (the authors' only; not repeated).

1. Warm-up fine-tuning with LoRA, as in LESS; of its checkpoints, the last one.
2. The target's gradients there, rows of a matrix G = U S V^T: the directions V_k with the largest singular values.
3. Each row's gradient g as V_k^T g, `dimensions` numbers, at length 1; the target's in U_k S_k, the mean of each
   subtask at length 1.

    score = highest cosine to a subtask (column `subtask` of the target)

So `dimensions` is the method. A row is compared by the part of its gradient that lies in the subspace, however short
that is: column `captured` has it, and the report its median. Where rows have next to nothing there, their order is
noise, and the fewer of the target's directions are kept, the less it is that of whole gradients.

The directions of repeated target rows, or beyond their number, have singular values of about 0, by which the authors'
code divides. Here only those above a thousandth of the largest count.

Relations: [`LESS`] compares Adam's updates in random directions, whose error it can estimate; [`RDS`] compares hidden
states.
"""

from collections import deque
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import numpy as np

from ..context import Context
from ..data.records import Records
from ..engines.gradients.projection import Projection
from ..engines.subset.matchers import for_target
from ..engines.subset.target_similarity import Target, highest, unit
from ..features.gradients import check_adapter, gradient_features
from ..features.served import ServesTarget
from ..features.target_rows import encode_target
from ..features.tuning import WarmupOptions
from ..options import Interval
from ..selector import Card, Scores, Selector


@dataclass
class GIST(WarmupOptions, ServesTarget, Selector):
    """
    The options of [`~features.tuning.WarmupOptions`], and

    Args:
        rule (`str`, *optional*, defaults to `"max"`):
            Which rows the target takes, as in [`LESS`]; besides, `"knn_kde"`: rows that are near to most examples,
            copies counting as one.
        dimensions (`int`, *optional*, defaults to `150`):
            Directions at most; no more than target rows. Each is a gradient in memory, of 4 bytes a number of the
            adapter, and 4 bytes a row on disk.
        checkpoints (`str`, *optional*, defaults to `"last"`):
            `"last"`: the end of the warm-up, the authors' way. `"all"`: the end of each epoch, weighted by its mean
            learning rate as in LESS; each costs a backward pass of every row.
    """

    rule: Literal[
        "max", "round_robin", "doubly_greedy", "round_robin_free", "optimal_transport", "knn_uniform", "knn_kde"
    ] = "max"
    dimensions: Annotated[int, Interval(2)] = 150
    checkpoints: Literal["last", "all"] = "last"

    card: ClassVar[Card] = Card(
        title="rows whose gradients align with a target's, within the target's own directions",
        paper="2602.18584",
        features="model-oriented",
        label_source="similarity of gradients to those of target-task examples, in the subspace of these",
        trained_llms=1,
        steps=("fine-tune on a random part", "directions of the target", "gradients within them", "keep the top k"),
        llm_uses=2,
        model_free=False,
        dataset_free=False,
        multi_turn="the loss is the mean over the label tokens of all turns",
        deviations=(
            "directions with a singular value below a thousandth of the largest are left out",
            "decomposed in float64 from float32 gradients; the authors' in float32 from bfloat16 ones",
            "texts are rendered with the model's own chat template, not Tulu's",
            "a target without a column `subtask` is one subtask; examples without an answer in the window don't count",
        ),
        evidence="the authors' only: equal to LESS or better on MMLU, BBH and TyDiQA at 5 %",
    )
    columns: ClassVar[tuple[str, ...] | None] = ("captured",)
    joins_examples: ClassVar[bool] = True

    def forecast(self, rows: int, target: int, kept: int) -> dict[str, int]:
        taken = 1 if self.checkpoints == "last" else self.warmup_epochs
        return {"backward_rows": (rows + target) * taken, "warmup_rows": self.rows_tuned_on(rows)}

    def check_target(self, target: Records) -> None:
        super().check_target(target)
        if len(target) < 2:
            raise ValueError(
                "`gist` needs 2 rows in `selection_target` at least, and some tens to tell rows apart, got 1: in one "
                "direction, every row's cosine is 1 or -1. Give more rows, or select with `less`."
            )

    def featurize(self, records: Records, ctx: Context) -> dict[str, np.ndarray]:
        if not self.layers:
            check_adapter(ctx)
        encoded, examples = ctx.trained(records), encode_target(ctx, ctx.text_format(end_of_turn=True))
        groups = self.columns_of(ctx).groups
        whole, tuned_on = Projection("none", dtype="float32"), self.warmup_rows(encoded, ctx)
        given = encoded, examples, tuned_on, ctx, self.warmup(ctx), whole
        parts, weights = [], []
        with gradient_features(*given, subspace=self.dimensions) as epochs:
            for epoch in epochs if self.checkpoints == "all" else deque(epochs, 1):
                space = epoch.subspace(self.dimensions)
                vectors, captured = epoch.within(space)
                means = unit(Target(space.examples, groups, "mean").vectors)
                similarity = Target(means, np.arange(len(means)), "max").similarity(vectors)
                parts.append((vectors, captured, similarity))
                weights.append(epoch.weight)
                ctx.account.figures["directions of the target"] = (
                    f"{space.dim} of the {space.spanned} that its {len(groups)} rows span, "
                    f"with {space.share:.1%} of their gradients' squares"
                )
        shares = np.array(weights) / sum(weights)
        vectors, captured, similarity = zip(*parts, strict=True)
        return {
            "similarity": sum(share * values for share, values in zip(shares, similarity, strict=True)),
            "captured": sum(share * values for share, values in zip(shares, captured, strict=True)),
            "vectors": np.concatenate([np.sqrt(s) * v for s, v in zip(shares, vectors, strict=True)], 1),
        }

    def score(self, features: dict[str, np.ndarray], ctx: Context) -> Scores:
        captured = features["captured"]
        if np.isfinite(captured).any():
            low, median, high = np.nanquantile(captured, [0.05, 0.5, 0.95])
            said = f"{median:.3f} at the median, {low:.3f} to {high:.3f} of nine in ten rows"
            ctx.account.figures["part of a row's gradient in the target's directions"] = said
        return Scores(
            highest(features["similarity"], self.columns_of(ctx).weighted), {"captured": captured.astype(np.float32)}
        )

    def select(
        self, scores: np.ndarray, records: Records, features: dict[str, np.ndarray], k: int, ctx: Context
    ) -> np.ndarray:
        ties, shares = ctx.ties(len(scores)), self.columns_of(ctx).shares
        return for_target(features["similarity"], scores, k, self.matcher, ties, shares, features["vectors"])
