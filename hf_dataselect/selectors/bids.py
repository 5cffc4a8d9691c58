"""
BIDS (arXiv 2501.12147, "Improving Influence-based Instruction Tuning Data Selection for Balanced Learning of Diverse
Capabilities"; no code is published).

The claim: influences on some tasks are larger than on others for every row, so that the highest ones serve a few tasks
only; with influences made comparable, and each next row chosen for what is served least, 15 % of the rows train better
than all of them on seven benchmarks. Reviews of it note 0.4 points more than random rows, within the noise of seeds.

1. Influences of each row on each target-task example, as in [`LESS`].
2. Those on one example: minus their mean over the rows, divided by their standard deviation.
3. The next row is the one whose influence on some example exceeds most the mean influence of the rows chosen so far on
   that example.

    score = highest normalised influence on an example

It balances by example: a task with more examples gets more rows, so give as many of each.

Relations: [`LESS`] with `round_robin_free` gives each example as many rows, whatever they do for others.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from ..context import Context
from ..data.records import Records
from ..engines.subset.matchers import underserved
from ..features.influences import Influences
from ..selector import Card, Selector


#: Standard deviation, relative to the mean, below which influences on an example are the same but for rounding.
ROUNDING = 1e-6
#: Examples whose influences are normalised together.
AT_A_TIME = 8


@dataclass
class BIDS(Influences, Selector):
    """
    The options of [`~features.influences.Influences`], and

    Args:
        rule (`str`, *optional*, defaults to `"underserved"`):
            `"underserved"`: the paper's. `"doubly_greedy"`: the rows with the highest normalised influence on any
            example, without balance. Other rules of LESS go by the order of influences on an example, which
            normalising leaves as it is.
    """

    rule: Literal["underserved", "doubly_greedy"] = "underserved"

    card: ClassVar[Card] = Card(
        title="rows whose gradients align with what of a target is served least",
        paper="2501.12147",
        features="model-oriented",
        label_source="similarity of gradients to those of target-task examples, normalised for each",
        trained_llms=1,
        steps=("fine-tune on a random part", "gradients of rows and target", "inner products", "normalise")
        + ("choose for the most under-served example",),
        llm_uses=2,
        code=False,
        model_free=False,
        dataset_free=False,
        multi_turn="the loss is the mean over the label tokens of all turns",
        deviations=(
            "no code is published: the rule is re-stated, with the population's standard deviation",
            "influences are those of `less`, with its deviations",
            "an example on which all rows have the same influence counts 0",
        ),
        evidence="the authors' only; not repeated",
    )

    def featurize(self, records: Records, ctx: Context) -> dict[str, np.ndarray]:
        features = super().featurize(records, ctx)
        features["similarity"], deviation = normalised(features["similarity"])
        if "error" in features:
            features["error"] = features["error"] / deviation
        return features

    def select(
        self, scores: np.ndarray, records: Records, features: dict[str, np.ndarray], k: int, ctx: Context
    ) -> np.ndarray:
        if self.rule == "doubly_greedy":
            return super().select(scores, records, features, k, ctx)
        self.warn_of_errors(scores, features, k)
        weights = self.columns_of(ctx).weights
        return underserved(features["similarity"], k, scores, ctx.ties(len(scores)), weights)


def normalised(influence: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """
    Influences `(n, examples)`, each column with mean 0 and deviation 1 over the rows that have one, float32, and these
    deviations; a column without differences is 0, of deviation 1.
    """
    scaled, deviations = np.empty(influence.shape, np.float32), np.ones(influence.shape[1])
    for part in np.array_split(np.arange(len(deviations)), max(1, len(deviations) // AT_A_TIME)):
        columns = slice(part[0], part[-1] + 1)
        exact = influence[:, columns].astype(np.float64)
        known = np.isfinite(exact)
        count = np.maximum(known.sum(0), 1)
        mean = np.where(known, exact, 0).sum(0) / count
        deviation = np.sqrt(np.square(np.where(known, exact - mean, 0)).sum(0) / count)
        same = deviation <= ROUNDING * np.abs(mean)
        deviation[same] = 1
        scaled[:, columns] = np.where(same & known, 0, exact - mean) / deviation
        deviations[columns] = deviation
    return scaled, deviations
