"""
TSDS (arXiv 2410.11303, "TSDS: Data Selection for Task-Specific Model Finetuning"; code ZifanL/TSDS): rows drawn so
that they are distributed as the target's, with near-duplicates sharing what one of them would get.

The claim: selecting is a transport from the target to the candidates, with a regulariser that asks for diversity; 1 %
of the rows chosen so beat all of them.

1. Find the `neighbours` nearest rows of each target row, and the density around each of these:

    density = sum over its nearest rows of max(0, 1 - distance^2 / sigma^2)

2. Each target row gives its mass to its nearest rows, 1 / density to each, down to a depth that `alpha` sets: the more
   the distance counts, the fewer rows share the mass.
3. Draw rows by their probability, the sum of what target rows give them.

    score = probability

Of a target with several tasks, each has mass by its weight, and its target rows have equal parts of that.

Rows that no target row reaches have a probability of 0 and are excluded, so that fewer rows than the budget may be
kept. Lower `alpha` then, and, of more than 50,000 candidates, raise `neighbours`. Of fewer, a target row reaches a
tenth at most, whatever `neighbours` says: give more target rows, or select with `rds` and `rule: knn_kde`.

Relations: [`RDS`] lets target rows choose in turn, without a density; [`DSIR`] draws by the distribution of words.
"""

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import numpy as np

from ..context import Context
from ..data.records import Records
from ..engines.subset.transport import densities_around, nearest_rows, transport_probabilities
from ..features.sentence_vectors import EncoderOption
from ..features.served import equal_share, note_unserved, several_tasks
from ..features.target_rows import columns
from ..features.target_vectors import target_sentence_vectors, target_vectors
from ..options import Interval, NonNegativeFloat, PositiveFloat, PositiveInt
from ..selector import Card, Need, Selector, Split, Want


@dataclass
class TSDS(EncoderOption, Selector):
    """
    Args:
        alpha (`float`, *optional*, defaults to `0.6`):
            Weight of the distance against that of diversity, between 0 and 1; lower reaches more rows.
        scale (`float`, *optional*, defaults to `5.0`):
            What distances are divided by (C of the paper).
        sigma (`float`, *optional*, defaults to `0.75`):
            Distance within which rows crowd each other, for vectors of length 1; 0 takes no notice of it.
        neighbours (`int`, *optional*, defaults to `5000`):
            Rows that a target row may reach; at most a tenth of the candidates.
        density_neighbours (`int`, *optional*, defaults to `1000`):
            Rows that a density is made of; at most a tenth of the candidates.
        draw (`bool`, *optional*, defaults to `True`):
            `False` keeps the highest probabilities.
        encoder (`str`, *optional*, defaults to `"model"`):
            What rows are compared by: `"model"` (hidden states of the pending fine-tune model, as in [`RDS`]), or a
            sentence encoder by hub name or folder (extra `embed`).
    """

    alpha: Annotated[float, Interval(0, 1, closed="neither")] = 0.6
    scale: PositiveFloat = 5.0
    sigma: NonNegativeFloat = 0.75
    neighbours: PositiveInt = 5000
    density_neighbours: PositiveInt = 1000
    draw: bool = True
    encoder: str = "model"

    card: ClassVar[Card] = Card(
        title="rows distributed as a target, near-duplicates sharing one place",
        paper="2410.11303",
        features="model-oriented",
        label_source="optimal transport from target rows to their neighbours",
        steps=("embed rows and target", "neighbours and densities", "move the target's mass", "draw k rows"),
        llm_uses=1,
        model_free=False,
        multi_turn="the text of all turns",
        deviations=(
            "rows are drawn without replacement, where the code repeats a row as often as it draws it",
            "neighbours are exact, where the code's index searches some cells only",
            "rows are embedded by the pending fine-tune model, at length 1",
            "`alpha` is 0.6 by default, 0.5 in the code's configuration",
            "of equally near rows the seed draws the order",
        ),
        evidence="the authors'; a later study (2602.14696) finds its matching no better than taking turns",
    )
    splits: ClassVar[Split | None] = "rows"
    columns: ClassVar[tuple[str, ...] | None] = ()
    weighs_tasks: ClassVar[bool] = True
    default_budget: ClassVar[float | int | str] = 0.01

    def needs(self) -> frozenset[Need]:
        return super().needs() | {"target"}

    def wants(self) -> frozenset[Want]:
        return frozenset({"position state"} if self.encoder == "model" else ())

    def forecast(self, rows: int, target: int, kept: int) -> dict[str, int]:
        return self.embedded(rows + target)

    def featurize(self, records: Records, ctx: Context) -> dict[str, Any]:
        if self.encoder == "model":
            candidates, target = target_vectors(records, ctx)
        else:
            candidates, target = target_sentence_vectors(records, ctx, self.encoder)
        shares, known = columns(ctx.target, "examples").shares, np.isfinite(target).all(1)
        target = target[known]
        usable = int(candidates.usable.sum())
        reach, around = (min(usable, max(2, min(n, usable // 10))) for n in (self.neighbours, self.density_neighbours))
        if usable == 0:
            return {"usable": candidates.usable}
        rows, distances = nearest_rows(
            candidates.vectors, candidates.usable, target, reach, ctx.ties(len(candidates.usable))
        )
        density = densities_around(candidates.vectors, rows, self.sigma, around)
        features = {"usable": candidates.usable, "rows": rows, "distances": distances, "density": density}
        features["known"] = known
        return features if shares is None else features | {"shares": shares[known] / shares[known].sum()}

    def score(self, features: dict[str, np.ndarray], ctx: Context) -> np.ndarray:
        usable = features["usable"]
        if not usable.any():
            return np.full(len(usable), np.nan, np.float32)
        given = features["rows"], features["distances"], features["density"]
        probability = transport_probabilities(*given, self.alpha, self.scale, len(usable), features.get("shares"))
        reached = int((probability > 0).sum())
        ctx.account.figures["rows that the target reaches"] = f"{reached:,} of {int(usable.sum()):,}"
        return np.where(usable, probability, np.nan).astype(np.float32)

    def exclude(self, scores: np.ndarray, features: Any, ctx: Context) -> dict[str, np.ndarray]:
        return {"a probability of 0: the target does not reach that far": scores == 0}

    def select(self, scores: np.ndarray, records: Records, features: Any, k: int, ctx: Context) -> np.ndarray:
        if not self.draw:
            return ctx.best(scores, k)
        noise = np.random.default_rng([ctx.seed, len(scores)]).gumbel(size=len(scores))
        with np.errstate(invalid="ignore"):
            return ctx.best(np.log(scores) + noise, k)

    def describe(self, chosen: np.ndarray, scores: np.ndarray, records: Records, features: Any, ctx: Context) -> None:
        held = columns(ctx.target, "round_robin")
        if not several_tasks(held) or len(chosen) == 0:
            return
        nearest, groups = features["rows"][:, : equal_share(chosen, held)], held.groups[features["known"]]
        note_unserved([nearest[groups == column] for column in range(len(held.names))], chosen, held, ctx)
