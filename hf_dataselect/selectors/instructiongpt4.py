"""
InstructionGPT-4 (arXiv 2308.12067): image-text rows for which a learned rule predicts a low loss, from every cluster.

The claim: 200 of MiniGPT-4's 3,439 image-text rows, 6 %, chosen so, fine-tune a better model than all of them.

1. Measure the indicators of each row: CLIP score, length, reward and a judge's rating of the answer, and principal
   components of the embeddings of image and text.
2. Predict the log loss by the rule, a small network with self-attention fitted to models fine-tuned on 30 subsets.
3. Cluster the rows spectrally by their embeddings, and keep the best of each cluster in proportion to its size.

    score = -predicted log loss

The authors' weights can't be used: they belong to principal components that are refitted to each subset.
`hf-dataselect fit-rule --regressor attention` fits a rule for a model and rows. `rule: mean`, not the paper's, needs
no fit: score = mean of the standardised indicators but the components.

Text-only rows have no CLIP score and no image to embed, which the log and `selection.json` say; all else is the same.
Columns of scores.parquet: the indicators.

Relations: [`InstructionMining`] is the same with a linear rule over indicators of text; [`AlpaGasus`] keeps by a
judge's rating only.
"""

import dataclasses
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np

from ..context import Context
from ..data.records import Records
from ..engines.subset.clusters import best_of_clusters, spectral_clusters
from ..features.clip import embed
from ..features.image_text import ImageTextSources
from ..fitted.rules.fitting import spread
from ..fitted.rules.rule import FittedRule, load_rule, named_by_rule
from ..options import Interval, PositiveInt
from ..selector import Card, Need, Scores, Selector, Split


logger = logging.getLogger(__name__)

#: Indicators of which a higher value is better.
_MEANT = ["clip", "len", "rew", "judge"]


@dataclass
class InstructionGPT4(Selector):
    """
    Args:
        rule (`str`, *optional*):
            Path of a rule file that `hf-dataselect fit-rule` wrote, or `"mean"`: the mean of `indicators`,
            standardised. Required.
        indicators (`tuple[str]`, *optional*, defaults to `("clip", "len", "rew", "judge")`):
            Those that `rule: mean` averages. A rule file has its own.
        clip (`str`, *optional*):
            Encoder of images and texts: a CLIP, SigLIP or the like, by hub name or folder. This and the next two are
            by default what the rule file was fitted with, else `laion/CLIP-ViT-bigG-14-laion2B-39B-b160k`.
        reward_model (`str`, *optional*):
            Sequence-classification model with one label, by default `OpenAssistant/reward-model-deberta-v3-large-v2`.
        components (`int`, *optional*):
            Principal components that `fit-rule` weighs, by default 12.
        clusters (`int`, *optional*, defaults to `10`):
            Clusters of rows. Fewer different rows than that are each a cluster of their own.
        cluster_sample (`int`, *optional*, defaults to `10_000`):
            Rows that are clustered; others join the nearest of these. Time and memory grow with its square.
    """

    rule: str | None = None
    indicators: tuple[str, ...] = ("clip", "len", "rew", "judge")
    clip: str | None = None
    reward_model: str | None = None
    components: PositiveInt | None = None
    clusters: PositiveInt = 10
    cluster_sample: Annotated[int, Interval(2)] = 10_000

    card: ClassVar[Card] = Card(
        title="image-text rows for which a learned rule predicts a low loss, from every cluster",
        paper="2308.12067",
        features="human-designed and model-oriented",
        label_source="a network fitted to the loss of models fine-tuned on subsets",
        trained_llms=30,
        steps=(
            "fit a network to models fine-tuned on subsets",
            "measure the indicators",
            "predict the loss",
            "keep the lowest of each cluster",
        ),
        llm_uses=1,
        model_free=False,
        chatgpt_free=False,
        multi_turn="the last answer, but the length of all answers",
        images="CLIP score and embeddings of a row's images, their mean where there are several",
        deviations=(
            "a rule has to be fitted: the published weights go with principal components that the code refits to each "
            "subset; here they are fitted once and kept with the rule",
            "the network attends to the indicators of one row, so that no row's score depends on others; in the code, "
            "attention runs across the 30 subsets in training and across all rows in scoring",
            "the network takes a step a subset, with a decaying learning rate, in 20 passes, and its last weights are "
            "kept; the code means to keep the best weights and keeps the last",
            "scores are compared as floats; the code truncates them with int()",
            "subsets are drawn to lean towards high or low indicators, not as 30 clusters of images",
            "the rule predicts the log loss of held-out rows, in the paper the mean accuracy in four benchmarks",
            "principal components of image and text embeddings side by side, both by the CLIP; the code has 6 of a "
            "CLIP's and 6 of a language model's",
            "the CLIP score is a plain cosine with the mean of the first 10 sentences, and indicators are "
            "standardised, so that the code's factors do not matter",
            "the judge's prompt is reworded, asks for 0 to 100 and is read whole, where the code reads two "
            "characters (10 means 100) and puts 60 where it can't; a reply that can't be read is NaN",
            "the share of a cluster is floor(budget x its rows / all rows), one at least, and the rest of the budget "
            "goes to the best of the other rows; the code takes shares of 204 and cuts at 200",
            "beyond `cluster_sample` rows, others join the nearest clustered row",
            "`rule: mean` is not the paper's",
        ),
    )
    splits: ClassVar[Split | None] = "rows"
    spreads_out: ClassVar[bool] = True
    nested: ClassVar[bool] = False

    def __post_init__(self):
        super().__post_init__()
        unknown = set(self.indicators) - set(_MEANT)
        if unknown or not self.indicators or len(set(self.indicators)) < len(self.indicators):
            raise ValueError(
                f"`selection_kwargs`: indicators={list(self.indicators)} must be different names of "
                f"{', '.join(_MEANT)}: `rule: mean` is of those that are better the higher they are."
            )
        self.sources()

    def needs(self) -> frozenset[Need]:
        return frozenset({"text", "prompt"} | {"judge"} & set(self._names()))

    @cached_property
    def _rule(self) -> FittedRule | None:
        """The rule file, if it exists."""
        there = self.rule not in (None, "mean") and Path(self.rule).expanduser().is_file()
        return load_rule(self.rule, ImageTextSources) if there else None

    def _names(self) -> list[str]:
        rule = self._rule
        return rule.names if rule else list(self.indicators) if self.rule == "mean" else []

    def sources(self) -> ImageTextSources:
        """What computes the indicators: the options, else what the rule was fitted with, else the defaults."""
        names, rule = [item.name for item in dataclasses.fields(ImageTextSources)], self._rule
        given = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        return ImageTextSources(**{**(rule.sources if rule else {}), **given})

    def extras(self) -> dict[str, str]:
        return self.sources().extras(self._names())

    def check(self, records: Records) -> None:
        rule, sources = self._rule, self.sources()
        if rule is None and self.rule != "mean":
            missing = "no rule is given" if self.rule is None else f"there is no file {self.rule!r}"
            raise ValueError(
                f"`selection_kwargs`: rule={self.rule!r}: {missing}. Fit one with `hf-dataselect fit-rule --regressor "
                "attention` and give its path, or take `rule: mean`, which needs no fit (and is not the paper's)."
            )
        images = records.images is not None
        if rule and {"clip", "pca"} & set(rule.names) and rule.about.get("images") != images:
            raise ValueError(
                f"`selection_kwargs`: rule={self.rule!r} was fitted to rows {'without' if images else 'with'} images, "
                f"and `{records.name}` is {'with' if images else 'without'}: fit one for such rows."
            )
        names = sources.possible(self._names(), records)
        if not names:
            raise ValueError("`selection_kwargs`: indicators=['clip'] need rows with images.")
        with named_by_rule(self, rule):
            sources.check(names)

    def featurize(self, records: Records, ctx: Context) -> dict[str, Any]:
        rule, sources, wanted = self._rule, self.sources(), self._names()
        names = sources.possible(wanted, records)
        if records.images is None:
            left_out = ", ".join([*(name for name in wanted if name not in names), "images in embeddings"])
            ctx.account.figures["left out, as no row has an image"] = left_out
            logger.info("`instructiongpt4` leaves out, as no row has an image: %s.", left_out)
        embeddings = embed(records, ctx, sources.clip)
        tensors = rule.tensors if rule else {}
        basis = {name: tensors[name] for name in ("pca.mean", "pca.components") if name in tensors}
        measured = sources.columns(records, ctx, names, embeddings, basis)
        if rule:
            rule.warn_of_others(measured.identities)
        return {"indicators": measured.columns, "vectors": embeddings.joint}

    def score(self, features: Mapping[str, Any], ctx: Context) -> Scores:
        indicators, rule = features["indicators"], self._rule
        if rule:
            score = -rule.log_loss(indicators)
        else:
            score = _mean_of_standardised(np.column_stack(list(indicators.values())))
        # A row that can't be embedded can't be clustered either.
        score = np.where(np.isfinite(features["vectors"]).all(1), score, np.nan)
        return Scores(score.astype(np.float32), indicators)

    def select(
        self, scores: np.ndarray, records: Records, features: Mapping[str, Any], k: int, ctx: Context
    ) -> np.ndarray:
        usable = np.flatnonzero(np.isfinite(scores))
        if len(usable) == 0:
            return usable
        vectors = features["vectors"][usable]
        labels = ctx.agreed(spectral_clusters(vectors, self.clusters, self.cluster_sample, ctx.seed))
        sizes = sorted(np.bincount(labels).tolist(), reverse=True)
        ctx.account.figures["rows by cluster"] = {f"no. {i}": size for i, size in enumerate(sizes, 1)}
        order = ctx.best(scores[usable])
        return usable[order][best_of_clusters(scores[usable][order], labels[order], k)]


def _mean_of_standardised(values: np.ndarray) -> np.ndarray:
    whole = values[np.isfinite(values).all(1)]
    if len(whole) == 0:
        return np.full(len(values), np.nan)
    centre, scale = spread(whole)
    return ((values - centre) / scale).mean(1)
