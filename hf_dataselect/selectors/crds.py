"""
CRDS (arXiv 2602.13773; code tdano1/CRDS): RDS+ on better representations of the same forward pass.

The claim: 3.5 % of 2M rows by whitened states beat all of them, and RDS+.

The states of a row are pooled as in [`RDS`], weighted by position. `representation` makes of them:

- `whitened` (CRDS-W): the `components` principal components of most variance, each divided by its standard deviation.
  What all texts have in common, which dominates a cosine of plain states, is gone;
- `concatenated` (CRDS-R): the states of `layers` layers, each projected at random to a part of its width;
- `centred`: the plain states less their mean, the cheap control of whitening.

    score = highest cosine to a target-task example; subtasks, or examples, choose in turn

Mean and components are those of the candidates; rows that differ in nothing have a similarity of 0.

Relations: [`RDS`] compares the plain states; [`TSDS`] asks for diversity, too.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from ..context import Context
from ..data.encoded import Encoded
from ..data.records import Records
from ..engines.subset.lazy_vectors import LazyVectors
from ..engines.subset.target_similarity import Similarity, Target, unit
from ..engines.subset.whitening import Whitening
from ..features.hidden_states import layer_vectors, unscaled_text_vectors
from ..features.served import ServesBySimilarity, VectorRule
from ..features.target_vectors import Vectors, target_vectors
from ..options import PositiveInt
from ..selector import Card, Selector


#: Of the paper.
COMPONENTS = 512


@dataclass
class CRDS(ServesBySimilarity, Selector):
    """
    Args:
        rule (`str`, *optional*, defaults to `"round_robin"`):
            `"round_robin"`: subtasks choose in turn, the paper's. The others are those of [`RDS`].
        representation (`str`, *optional*, defaults to `"whitened"`):
            `"whitened"`, `"concatenated"` or `"centred"`, see above.
        components (`int`, *optional*):
            For `"whitened"`: principal components to keep; by default 512, or a quarter of the rows if less.
            Nearly as many components as rows make all rows equally far apart.
        layers (`int`, *optional*, defaults to `6`):
            For `"concatenated"`: number of layers; more leave each a smaller part of the width. The authors
            take 18 of a model of 36.
        which (`str`, *optional*, defaults to `"last"`):
            For `"concatenated"`: the `"last"` layers, or `"spread"` over all, whose number `layers` must divide.
    """

    rule: VectorRule = "round_robin"
    representation: Literal["whitened", "concatenated", "centred"] = "whitened"
    components: PositiveInt | None = None
    layers: PositiveInt = 6
    which: Literal["last", "spread"] = "last"

    card: ClassVar[Card] = Card(
        title="rows whose whitened or many-layered representations are similar to a target's",
        paper="2602.13773",
        features="model-oriented",
        label_source="similarity of hidden states to those of target rows",
        steps=("embed rows and target", "whiten, or join layers", "cosines", "target rows or subtasks choose in turn"),
        llm_uses=1,
        model_free=False,
        multi_turn="the text of all turns",
        deviations=(
            "components are those of all candidates, where the code draws 500,000 of them, and fewer in a small pool",
            "projections and their sums are float32, where the code's float16 can overflow",
            "texts are rendered with the model's own chat template, not Tulu's",
            "a row without an answer in the window is not kept, as it can't be trained on",
        ),
        evidence="the authors' only: +0.71 over all rows; no replication found",
    )
    default_budget: ClassVar[float | int | str] = 0.035

    def check_model(self, config: Any) -> None:
        total = config.get_text_config().num_hidden_layers
        if self.representation == "concatenated" and (
            self.layers > total or (self.which == "spread" and total % self.layers)
        ):
            raise ValueError(
                f"`selection_kwargs`: layers={self.layers} of the model's {total}: give at most {total}, and for "
                "`which: spread` one that divides it."
            )

    def featurize(self, records: Records, ctx: Context) -> dict[str, Any]:
        candidates, target = target_vectors(records, ctx, self._states(ctx))
        vectors, width = candidates.vectors, candidates.vectors.shape[1]
        if self.representation == "concatenated":
            mapped, target = LazyVectors(vectors, _direction, width), _direction(target)
        else:
            kept = None
            if self.representation == "whitened":
                kept = self.components or min(COMPONENTS, max(1, int(candidates.usable.sum()) // 4))
            whiten = Whitening(vectors, candidates.usable, kept)
            if kept is not None:
                share = f"{whiten.components} of {width}, {whiten.explained:.1%} of the variance"
                ctx.account.figures["components"] = share
            mapped = LazyVectors(vectors, lambda rows: _direction(whiten(rows)), whiten.components)
            target = _direction(whiten(target))
        similarity = Similarity(mapped, Target(target, self.columns_of(ctx).groups, "max"))
        return {"similarity": similarity, "usable": candidates.usable, "vectors": mapped}

    def _states(self, ctx: Context) -> Callable[[Encoded, Context, str, bool], Vectors]:
        """What makes the vectors of encoded rows."""
        if self.representation != "concatenated":
            return unscaled_text_vectors
        self.check_model(ctx.model.config)
        total = ctx.model.config.get_text_config().num_hidden_layers
        step = 1 if self.which == "last" else total // self.layers
        layers = [total - step * place for place in reversed(range(self.layers))]

        def states(encoded: Encoded, ctx: Context, label: str, candidates: bool) -> Vectors:
            return layer_vectors(encoded, ctx, label, layers)

        return states


def _direction(vectors: np.ndarray) -> np.ndarray:
    """At length 1, float32; rows that differ in nothing from the mean stay zeros."""
    return unit(vectors, of_zeros=0).astype(np.float32)
