"""
T-SHIRT (arXiv 2506.01317, "Token-Selective Hierarchical Data Selection"; code Dynamite321/T-SHIRT): IFD of the tokens
that matter, and of rows near which it stays as it is.

The claim: 5 % of Alpaca-GPT4 chosen so with GPT-2 beat all of it on eight benchmarks.

For each of `copies` noisy copies of a row (uniform noise on the embeddings), with d_t = loss of answer token t given
the prompt - its loss alone:

    S-IFD of a copy = exp(mean of d_t over its tokens with |d_t| above the threshold)
    threshold       = percentile 100 x (1 - `ratio`) of |d_t| over all rows and copies

Rows whose mean IFD over the copies is 1 or more are excluded. Of the others, the 2k of the highest mean S-IFD stay,
and of these the k whose S-IFD varies least between copies are kept, the steadiest first. Columns of scores.parquet:
`noisy_ifd`, and `sifd_std`, the deviation.

Relations: [`Superfiltering`] is this without noise and with all tokens.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ..context import Context
from ..data.records import Records
from ..engines.subset.percentile import percentile
from ..features.loss import check_scoring_model
from ..features.noisy_losses import prompt_deltas
from ..options import Fraction, NonNegativeFloat, PositiveInt
from ..selector import Card, Need, Scores, Selector, Split


#: Rows whose token losses are read together.
AT_A_TIME = 256


@dataclass
class TSHIRT(Selector):
    """
    Args:
        model (`str`, *optional*, defaults to `"gpt2"`):
            Scoring model by hub name or folder; never replaced by another.
        copies (`int`, *optional*, defaults to `30`):
            Noisy copies of each row; each costs two forwards.
        alpha (`float`, *optional*, defaults to `5.0`):
            Size of the noise: `alpha / sqrt(tokens x width)`.
        ratio (`float`, *optional*, defaults to `0.5`):
            Part of the tokens that count, those that the prompt changes most.
    """

    model: str = "gpt2"
    copies: PositiveInt = 30
    alpha: NonNegativeFloat = 5.0
    ratio: Fraction = 0.5

    card: ClassVar[Card] = Card(
        title="IFD of the tokens that the prompt changes most, where noise changes it least",
        paper="2506.01317",
        features="model-oriented",
        label_source="token losses of GPT-2 under noisy copies",
        small_llm=True,
        trained_llms=1,
        steps=("score noisy copies", "exclude IFD from 1", "the 2k highest", "of these the k steadiest"),
        llm_uses=1,
        model_free=False,
        dataset_free=False,
        multi_turn="all assistant turns: each given all before it, and each given nothing; their tokens are pooled",
        deviations=(
            "the noise of a row is drawn from its content and the seed, so that order and ranks do not change it",
            "the percentile is exact",
            "a row without a scored token is NaN and named, where the code gives it an S-IFD of 1",
        ),
        evidence="the authors' on two sets of instructions and eight benchmarks; no replication found",
    )
    splits: ClassVar[Split | None] = "rows"
    columns: ClassVar[tuple[str, ...] | None] = ("noisy_ifd", "sifd_std")
    nested: ClassVar[bool] = False

    def needs(self) -> frozenset[Need]:
        return frozenset({"text", "prompt"})

    def check(self, records: Records) -> None:
        check_scoring_model(self.model, "model")

    def forecast(self, rows: int, target: int, kept: int) -> dict[str, int]:
        return {"forward_rows": 2 * self.copies * rows}

    def featurize(self, records: Records, ctx: Context) -> dict[str, np.ndarray]:
        small = ctx.with_model(self.model)
        return selective_ifd(
            prompt_deltas(records, small, small.text_format(style="plain"), self.copies, self.alpha), self.ratio
        )

    def score(self, features: dict[str, np.ndarray], ctx: Context) -> Scores:
        columns = {name: features[name] for name in ("noisy_ifd", "sifd_std")}
        return Scores(features["sifd_mean"].astype(np.float32), columns)

    def exclude(self, scores: np.ndarray, features: dict[str, Any], ctx: Context) -> dict[str, np.ndarray]:
        return {"IFD of 1 or more under noise": (features["noisy_ifd"] >= 1) & np.isfinite(scores)}

    def select(self, scores: np.ndarray, records: Records, features: Any, k: int, ctx: Context) -> np.ndarray:
        highest = ctx.best(scores, 2 * k)
        steady = np.full(len(scores), np.nan)
        steady[highest] = -features["sifd_std"][highest]
        return ctx.best(steady, k)


def selective_ifd(deltas: Sequence[np.ndarray], ratio: float) -> dict[str, np.ndarray]:
    """`noisy_ifd`, `sifd_mean` and `sifd_std` of each row's `(copies, 1 + tokens)`; NaN for an empty one."""

    def sizes() -> Iterator[np.ndarray]:
        for first in range(0, len(deltas), AT_A_TIME):
            rows = range(first, min(first + AT_A_TIME, len(deltas)))
            yield np.abs(np.concatenate([deltas[row][:, 1:].ravel() for row in rows])).astype(np.float32)

    threshold = percentile(sizes, 100 * (1 - ratio))
    found = {name: np.full(len(deltas), np.nan) for name in ("noisy_ifd", "sifd_mean", "sifd_std")}
    for row, values in enumerate(deltas):
        if len(values) == 0:
            continue
        tokens = values[:, 1:].astype(np.float64)
        counted = np.abs(tokens) > threshold
        with np.errstate(over="ignore"):
            selective = np.exp(np.where(counted, tokens, 0).sum(1) / np.maximum(counted.sum(1), 1))
            numbers = np.exp(values[:, 0].astype(np.float64)).mean(), selective.mean(), selective.std()
        if np.isfinite(numbers).all():
            found["noisy_ifd"][row], found["sifd_mean"][row], found["sifd_std"][row] = numbers
    return found
