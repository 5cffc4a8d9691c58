"""Influences of rows on target-task examples by gradients at the checkpoints of a warm-up (LESS, arXiv 2402.04333)."""

import logging
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from ..context import Context
from ..data.records import Records
from ..engines.gradients.projection import Projection
from ..engines.gradients.projection_error import PILOT
from ..engines.gradients.quantized import rank_correlation
from ..engines.subset.matchers import for_target
from ..engines.subset.target_similarity import Target, error_of_scores, highest, near_the_cut
from ..options import PositiveInt
from .gradients import SAMPLE, GradientFeatures, check_adapter, gradient_features
from .served import ServesTarget
from .target_rows import encode_target
from .tuning import WarmupOptions


logger = logging.getLogger(__name__)

#: Part of the rows to keep above which rows near the cut are warned of; about a fifth of them are on the wrong side.
CLOSE = 0.25


@dataclass
class Influences(WarmupOptions, ServesTarget):
    """
    Options and stages of methods by influence, those of [`~features.tuning.WarmupOptions`], and

    Args:
        projection (`str`, *optional*, defaults to `"auto"`):
            `"auto"`: none where the adapter has at most `projection_dim` numbers, or where whole gradients take a
            quarter of the free memory and disk at most (kept in the cache: a killed run goes on as it began);
            elsewhere a sketch. `"sketch"`: a sparse projection. `"rademacher"`: the paper's dense one; many times the
            cost, the same error. `"none"`: whole gradients: of each number of the adapter 2 bytes on disk a row and
            epoch, and in memory about 16 for each row of a batch and 6 for each target row (rank 128 on a 7B model has
            134 million). Where gradients are projected, the report has the estimated error of a score.
        projection_dim (`int` or `"auto"`, *optional*, defaults to `8192`):
            Dimensions of a projected gradient. `"auto"`: the smallest power of two from 512 to 65,536 at which the
            estimated error of the scores of 64 rows at the first checkpoint leaves a rank correlation of 0.9 with
            scores without a projection; costs a backward pass of these rows, and another of the target. Whole
            gradients have no width.
        gradient_bits (`int`, *optional*, defaults to `16`):
            Bits of each number of a candidate's gradient on disk, a row and epoch: 16, or 8, 4 or 1, with a scale for
            each row (QLESS, arXiv 2502.01703). Fewer than 16 cost a backward pass more of 64 rows an epoch, from which
            the report has the rank correlation with scores of 16 bits.
        momentum (`bool`, *optional*, defaults to `True`):
            Whether the features include Adam's first moment, which is the same for every row and outweighs their
            differences; the paper's way.
    """

    projection: Literal["auto", "sketch", "rademacher", "none"] = "auto"
    projection_dim: PositiveInt | Literal["auto"] = 8192
    gradient_bits: Literal[16, 8, 4, 1] = 16
    momentum: bool = True

    joins_examples: ClassVar[bool] = True

    def forecast(self, rows: int, target: int, kept: int) -> dict[str, int]:
        backward, sample = (rows + target) * self.warmup_epochs, min(SAMPLE, rows)
        backward += sample * self.warmup_epochs * (self.gradient_bits < 16)
        backward += (sample + target) * (self.projection_dim == "auto")
        return {"backward_rows": backward, "warmup_rows": self.rows_tuned_on(rows)}

    def featurize(self, records: Records, ctx: Context) -> dict[str, np.ndarray]:
        if not self.layers:
            check_adapter(ctx)
        # Of a candidate, the loss that it is trained by; of an example, that of its answers and their ends.
        encoded = ctx.trained(records)
        examples = encode_target(ctx, ctx.text_format(end_of_turn=True))
        auto, tuned_on, similarity = self.projection == "auto", self.warmup_rows(encoded, ctx), 0
        compete, groups, chosen = self.matcher == "max", self.columns_of(ctx).groups, self.projection_dim == "auto"
        dim = PILOT if chosen else self.projection_dim
        project = Projection("sketch" if auto else self.projection, dim, bits=self.gradient_bits)

        def width(pilot: GradientFeatures) -> tuple[int, float]:
            return pilot.choose_width(groups, self.momentum, compete)

        given = encoded, examples, tuned_on, ctx, self.warmup(ctx), project, auto
        with gradient_features(*given, width=width if chosen else None) as checkpoints:
            for checkpoint in checkpoints:
                target = Target(checkpoint.of_examples(), groups, "mean")
                influence = checkpoint.similarity(target, self.momentum)
                similarity = similarity + checkpoint.weight * influence
        features = {"similarity": similarity}
        if checkpoint.error is not None:
            features["error"] = checkpoint.error.of_groups(compete)
        if checkpoint.rounded:
            exact, few = (highest(sum(sides)) for sides in zip(*checkpoint.rounded, strict=True))
            name = f"rank correlation of scores of {self.gradient_bits} bits with those of 16, of {len(exact)} rows"
            ctx.account.figures[name] = f"{rank_correlation(few, exact):.3f}"
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
