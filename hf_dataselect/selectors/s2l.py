"""
S2L, small to large (arXiv 2403.07384; code BigML-CS-UCLA/S2L): rows of all ways of being learned, by the losses of a
small model that learns them.

The claim: rows whose losses fall alike have like gradients, so that as many of each kind do; 11 % of MathInstruct
equal all of it.

1. Fine-tune a small model on all rows; the losses of a row before it and after each epoch are its trajectory.
2. Within each source, cluster the trajectories (k-means, `clusters`, Euclidean).
3. Share the budget out: to sources, then to clusters, the smallest first and all alike; rows are drawn.

    score = -(rows in the row's cluster): rows of rare trajectories come first

Relations: [`Perplexity`] reads one point of the trajectory.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from sklearn.cluster import KMeans

from ..context import Context
from ..data.columns import check_column, groups_of
from ..data.records import Records
from ..engines.subset.clusters import even_rows, members_of
from ..engines.tuning.warm_up import WarmupSettings
from ..features.loss import check_scoring_model
from ..features.loss_trajectories import loss_trajectories
from ..options import PositiveFloat, PositiveInt
from ..selector import Card, Need, Scores, Selector, Split


@dataclass
class S2L(Selector):
    """
    Args:
        model (`str`, *optional*, defaults to `"EleutherAI/pythia-70m"`):
            The small model by hub name or folder; never replaced by another.
        source (`str`, *optional*):
            Column of the dataset that names the source of a row; by default all are of one.
        clusters (`int`, *optional*, defaults to `100`):
            k-means clusters of each source.
        warmup (`str`, *optional*, defaults to `"full"`):
            How the small model is fine-tuned: `"full"`, or `"lora"` (a temporary adapter).
        epochs (`int`, *optional*, defaults to `3`):
            Passes over the rows; each adds a point to the trajectories, and costs a training and a scoring pass.
        learning_rate (`float`, *optional*, defaults to `2e-5`):
            Of the small model.
        batch_size (`int`, *optional*, defaults to `8`):
            Rows of a batch on one device.
        gradient_accumulation (`int`, *optional*, defaults to `16`):
            Batches of an optimizer step.
    """

    model: str = "EleutherAI/pythia-70m"
    source: str | None = None
    clusters: PositiveInt = 100
    warmup: Literal["full", "lora"] = "full"
    epochs: PositiveInt = 3
    learning_rate: PositiveFloat = 2e-5
    batch_size: PositiveInt = 8
    gradient_accumulation: PositiveInt = 16

    card: ClassVar[Card] = Card(
        title="as many rows of each loss trajectory of a small model that learns them",
        paper="2403.07384",
        features="model-oriented",
        label_source="clusters of loss trajectories of Pythia-70M",
        trained_llms=1,
        small_llm=True,
        steps=("train a small model", "score at each epoch", "cluster within sources", "draw as many of each"),
        llm_uses=2,
        dataset_free=False,
        multi_turn="all assistant turns, in plain text",
        deviations=(
            "the loss before the training and at the end of each epoch, where the code has one every 500 steps",
            "a row without a loss is NaN, where the code takes 0 for it, the loss of a row learned perfectly",
            "scikit-learn's k-means on all rows, where the code's uses at most 256 a cluster; the draws are seeded",
        ),
        evidence="the authors' on two sets of a domain (mathematics, medicine); others only use it as a baseline",
    )
    splits: ClassVar[Split | None] = "features"
    columns: ClassVar[tuple[str, ...] | None] = ("first_loss", "last_loss")
    default_budget: ClassVar[float | int | str] = 0.11
    spreads_out: ClassVar[bool] = True
    nested: ClassVar[bool] = False

    def needs(self) -> frozenset[Need]:
        return frozenset({"text", "prompt"})

    def check(self, records: Records) -> None:
        if self.source is not None:
            check_column("source", self.source, records.dataset)
        check_scoring_model(self.model, "model")

    def forecast(self, rows: int, target: int, kept: int) -> dict[str, int]:
        return {"forward_rows": (1 + self.epochs) * rows, "warmup_rows": self.epochs * rows}

    def featurize(self, records: Records, ctx: Context) -> dict[str, np.ndarray]:
        small = ctx.with_model(self.model)
        settings = WarmupSettings(
            method=self.warmup,
            epochs=self.epochs,
            learning_rate=self.learning_rate,
            batch_size=self.batch_size,
            gradient_accumulation=self.gradient_accumulation,
            seed=ctx.seed,
        )
        losses = loss_trajectories(records, small, small.text_format(style="plain"), settings)
        sources, labels = np.zeros(len(records), np.int32), np.full(len(records), -1)
        if self.source is not None:
            _, sources = groups_of(records.dataset, self.source)
        usable = np.flatnonzero(np.isfinite(losses).all(1))
        for places in members_of(sources[usable]):
            rows = usable[places]
            clusters = min(self.clusters, len(np.unique(losses[rows], axis=0)))
            labels[rows] = KMeans(clusters, random_state=ctx.seed).fit_predict(losses[rows])
        return {"losses": losses, "source": sources, "cluster": ctx.agreed(labels)}

    def score(self, features: dict[str, np.ndarray], ctx: Context) -> Scores:
        labels, sources = features["cluster"], features["source"]
        _, kind, sizes = np.unique(np.column_stack([sources, labels]), axis=0, return_inverse=True, return_counts=True)
        scores = np.where(labels >= 0, -sizes[kind.reshape(-1)].astype(np.float32), np.nan)
        return Scores(
            scores.astype(np.float32), {"first_loss": features["losses"][:, 0], "last_loss": features["losses"][:, -1]}
        )

    def select(self, scores: np.ndarray, records: Records, features: Any, k: int, ctx: Context) -> np.ndarray:
        rows, numbers = np.flatnonzero(np.isfinite(scores)), np.random.default_rng([ctx.seed, len(scores)])

        def draw(members: np.ndarray, count: int) -> np.ndarray:
            return numbers.choice(members, count, replace=False)

        return rows[even_rows(features["cluster"][rows], features["source"][rows], k, draw)]
