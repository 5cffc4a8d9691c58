"""
Shift weight to the domains that learn least, by multiplicative weights that are tied to the domains' own shares.

    ratio_d  = smoothed loss of domain d / its loss at the beginning
    log w_d <- (1 - anchor) log w_d + rate (ratio_d - mean of the ratios by share)
    weight of a row of d = prefer_d w_d / mean over tokens

A domain whose loss falls less than the others' gains weight; where all fall alike, the anchor takes the weights back
to 1, and so to the shares that the rows have. The mean weight of a token is 1, so that no step is larger or smaller
for it; before the first step, in which tokens are not counted yet, the mean over the rows kept.

The update is that of exponentiated gradient, as in DoReMi (arXiv 2305.10429) with the loss before training in place of
a reference model; the prior as an anchor is from DynamixSFT (arXiv 2508.12116, read in the abstract). It is ours: no
paper has tested it in this form.

Relations: `selection_budget_by` fixes the shares of domains before training.
"""

import logging
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar

import numpy as np
import torch

from ..card import Card
from ..context import Context
from ..data.groups import groups_of
from ..data.records import Records
from ..options import Fraction, Interval, PositiveFloat, nearest
from ..policy import Policy, Seen


logger = logging.getLogger(__name__)


@dataclass
class Domains(Policy):
    """
    Args:
        column (`str`, *optional*, defaults to `"source"`):
            Column of the rows that names their domain.
        rate (`float`, *optional*, defaults to `0.5`):
            How fast weights follow the losses.
        anchor (`float`, *optional*, defaults to `0.1`):
            How fast they go back to 1, in [0, 1].
        smoothing (`float`, *optional*, defaults to `0.1`):
            Weight of a step in the smoothed loss of a domain.
        prefer (`dict`, *optional*):
            Domains whose rows weigh more (or less) than the others', with their factor: `{math: 3}`.
    """

    column: str = "source"
    rate: PositiveFloat = 0.5
    anchor: Annotated[float, Interval(0, 1)] = 0.1
    smoothing: Fraction = 0.1
    prefer: dict[str, Any] = field(default_factory=dict)

    card: ClassVar[Card] = Card(
        title="domains that learn least weigh more",
        label_source="losses of the domains in training",
        features="model-oriented",
        steps=("follow the loss of each domain", "weigh the domains' rows"),
        code=False,
        deviations=("a form of our own of DoReMi's update, anchored to the shares of the rows",),
        evidence="none; DoReMi's is for pre-training",
    )

    def __post_init__(self):
        super().__post_init__()
        for name, factor in self.prefer.items():
            if factor not in Interval(0, closed="neither"):
                raise ValueError(f"`selection_policy_kwargs`: prefer[{name!r}]={factor!r} must be a positive number.")

    def check(self, records: Records) -> None:
        columns = records.dataset.column_names
        if self.column not in columns:
            raise ValueError(
                f"`selection_policy_kwargs`: column={self.column!r} is not in `{records.name}`"
                f"{nearest(self.column, columns)}"
            )
        names = groups_of(records.dataset, self.column)[0]
        if unknown := sorted(self.prefer.keys() - {*names}):
            raise ValueError(
                f"`selection_policy_kwargs`: prefer names {unknown[0]!r}, which no row has{nearest(unknown[0], names)}"
            )
        if len(names) < 2:
            raise ValueError(f"`selection_policy='domains'`: all rows are of one `{self.column}`, {names[0]!r}.")

    def prepare(self, records: Records, rows: np.ndarray, ctx: Context) -> None:
        names, of_row = groups_of(records.dataset, self.column)
        zeros = np.zeros(len(names))
        self.state |= {"names": names, "of_row": of_row, "tokens": zeros, "log": zeros}
        self.state |= {"start": np.full(len(names), np.nan), "smoothed": np.full(len(names), np.nan)}
        shares = np.bincount(of_row[rows], minlength=len(names)) / len(rows)
        self.state["by_domain"] = self._normalized(zeros, shares)
        kept = [name for name, share in zip(names, shares, strict=True) if share]
        if len(kept) == 1:
            logger.warning("`selection_policy='domains'`: all rows kept are of %r, and weigh 1.", kept[0])
        if without := sorted(self.prefer.keys() - {*kept}):
            logger.warning("`selection_policy_kwargs`: prefer names %s, of which no row was kept.", ", ".join(without))

    def _normalized(self, log: np.ndarray, shares: np.ndarray) -> np.ndarray:
        weights = np.exp(log - log.max()) * [float(self.prefer.get(name, 1)) for name in self.state["names"]]
        return weights / (weights * shares).sum()

    def weights(self, rows: np.ndarray, losses: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(self.state["by_domain"][self.state["of_row"][rows]]).to(losses)

    def observe(self, seen: Seen) -> None:
        state, domain = self.state, self.state["of_row"][seen.rows]
        count = len(state["names"])
        tokens = np.bincount(domain, seen.tokens, count)
        sums = np.bincount(domain, seen.tokens * seen.losses, count)
        here = tokens > 0
        means = sums[here] / tokens[here]
        fresh = np.isnan(state["start"][here])
        state["start"][here] = np.where(fresh, means, state["start"][here])
        before = np.where(fresh, means, state["smoothed"][here])
        state["smoothed"][here] = before + self.smoothing * (means - before)
        state["tokens"] = state["tokens"] + tokens
        shares = state["tokens"] / state["tokens"].sum()
        ratio = np.nan_to_num(state["smoothed"] / state["start"], nan=1.0, posinf=1.0)
        state["log"] = (1 - self.anchor) * state["log"] + self.rate * (ratio - (ratio * shares).sum())
        state["by_domain"] = self._normalized(state["log"], shares)
