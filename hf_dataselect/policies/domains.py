"""
Shift weight to the domains that learn least, by multiplicative weights that are tied to the domains' own shares.

    ratio_d  = smoothed loss of domain d / its loss at the beginning
    log w_d <- (1 - anchor) log w_d + rate (ratio_d - mean of the ratios by share)
    weight of a row of d = prefer_d w_d / mean over tokens

A domain that is guarded (`guard_dataset`) goes by the loss of its held-out rows at the last evaluation / their loss
before training, from the first evaluation on. One that is HARMED weighs `harmed` times as much from there, once more
at each evaluation in which it is, and as much less again at each in which it is not: the multiplier of a constraint.

A domain whose loss falls less than the others' gains weight; where all fall alike, the anchor takes the weights back
to 1, and so to the shares that the rows have. The mean weight of a token is 1, so that no step is larger or smaller
for it; before the first step, in which tokens are not counted yet, the mean over the rows kept.

The update is that of exponentiated gradient, as in DoReMi (arXiv 2305.10429) with the loss before training in place of
a reference model; the prior as an anchor, and what was learned as the reward, are from DynamixSFT (arXiv 2508.12116,
read in the abstract), which looks one step ahead on the domain's own rows. It is ours: no paper has tested it in this
form.

Relations: `selection_budget_by` fixes the shares of domains before training.
"""

import logging
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar

import numpy as np
import torch

from ..card import Card
from ..context import Context
from ..data.columns import groups_of
from ..data.records import Records
from ..options import Fraction, Interval, PositiveFloat, nearest
from ..policy import Guarded, Policy, Seen


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
        harmed (`float`, *optional*, defaults to `2.0`):
            What multiplies the weight of a guarded domain at each evaluation in which it is HARMED.
    """

    column: str = "source"
    rate: PositiveFloat = 0.5
    anchor: Annotated[float, Interval(0, 1)] = 0.1
    smoothing: Fraction = 0.1
    prefer: dict[str, Any] = field(default_factory=dict)
    harmed: Annotated[float, Interval(1)] = 2.0

    card: ClassVar[Card] = Card(
        title="domains that learn least weigh more",
        label_source="losses of the domains in training, or of guarded held-out rows",
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

    def check_guard(self, records: Records, domains: Collection[str]) -> None:
        names = groups_of(records.dataset, self.column)[0]
        for domain in sorted(set(domains) - {*names}):
            logger.warning(
                "`guard_dataset` names %r, which no row has in `%s`: no weight can follow it%s",
                domain,
                self.column,
                nearest(domain, names),
            )

    def prepare(self, records: Records, rows: np.ndarray, ctx: Context) -> None:
        names, of_row = groups_of(records.dataset, self.column)
        zeros = np.zeros(len(names))
        self.state |= {"names": names, "of_row": of_row, "tokens": zeros, "log": zeros}
        unknown = np.full(len(names), np.nan)
        self.state |= {"start": unknown, "smoothed": unknown.copy(), "held_out": unknown.copy(), "harm": zeros.copy()}
        shares = np.bincount(of_row[rows], minlength=len(names)) / len(rows)
        self.state["shares"] = shares
        self._weigh()
        kept = [name for name, share in zip(names, shares, strict=True) if share]
        if len(kept) == 1:
            logger.warning("`selection_policy='domains'`: all rows kept are of %r, and weigh 1.", kept[0])
        if without := sorted(self.prefer.keys() - {*kept}):
            logger.warning("`selection_policy_kwargs`: prefer names %s, of which no row was kept.", ", ".join(without))

    def _weigh(self) -> None:
        log, shares = self.state["log"] + self.state["harm"], self.state["shares"]
        weights = np.exp(np.clip(log - log[shares > 0].max(), -50, 50))  # of a domain without rows, it may be any
        weights *= [float(self.prefer.get(name, 1)) for name in self.state["names"]]
        self.state["by_domain"] = weights / (weights * shares).sum()

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
        state["shares"] = shares = state["tokens"] / state["tokens"].sum()
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = state["smoothed"] / state["start"]
        ratio = np.where(np.isnan(state["held_out"]), ratio, state["held_out"])
        ratio = np.nan_to_num(ratio, nan=1.0, posinf=1.0)
        state["log"] = (1 - self.anchor) * state["log"] + self.rate * (ratio - (ratio * shares).sum())
        self._weigh()

    def guard(self, changes: Mapping[str, Guarded]) -> None:
        state = self.state
        for place, name in enumerate(state["names"]):
            if name in changes:
                state["held_out"][place] = 1 + changes[name].change
                step = math.log(self.harmed) * (1 if changes[name].harmed else -1)
                state["harm"][place] = max(0.0, state["harm"][place] + step)
        self._weigh()
