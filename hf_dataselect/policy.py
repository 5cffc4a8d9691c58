"""
The contract of a policy, which selects while the model trains: it weighs rows inside the training step by their own
loss (0 drops a row), or chooses the rows of each round.

A policy is a dataclass in a file of its own in `hf_dataselect/policies/`, as a selector is in `selectors/`. It is
written as if there were one process and one batch: the weights of a row follow from its loss in this step and from
what the policy knows of earlier ones, so that they are the same for any micro-batch, accumulation and number of ranks
(where packing does not split rows over lines: there each part has the loss of its own tokens).
"""

from abc import ABC
from collections.abc import Collection, Mapping
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from scipy.stats import norm

from .card import Card
from .context import Context
from .data.records import Records
from .options import check_declared


class Seen(NamedTuple):
    """What an optimizer step saw of its rows, those without label tokens excluded."""

    #: Number of the step, from 1, and of all steps of the run.
    step: int
    steps: int
    #: Rows of the candidate dataset, int64 `(k,)`, ascending.
    rows: np.ndarray
    #: Mean loss per label token, unweighted, nats, float64 `(k,)`.
    losses: np.ndarray
    #: Label tokens, float64 `(k,)`.
    tokens: np.ndarray

    @property
    def progress(self) -> float:
        """Where the next step is: 0 at the first, 1 at the last."""
        return progress_at(self.step, self.steps)


class Products(NamedTuple):
    """Inner products of what rows add to the gradient of an optimizer step, those without label tokens excluded."""

    #: Rows of the candidate dataset, int64 `(k,)`, ascending.
    rows: np.ndarray
    #: Label tokens, float64 `(k,)`.
    tokens: np.ndarray
    #: With the gradient of the mean loss of target-task examples, float64 `(k,)`.
    towards: np.ndarray
    #: With one another, float64 `(k, k)`.
    between: np.ndarray
    #: The learning rate of the step.
    rate: float


def progress_at(done: int, steps: int) -> float:
    """Where the next of some steps is, of which so many are done: 0 at the first, 1 at the last."""
    return min(1.0, done / max(1, steps - 1))


class Guarded(NamedTuple):
    """What the guard measured of a domain, see [`~evaluation.guard`]."""

    #: Loss of its held-out rows, relative to that before training, minus 1.
    change: float
    #: Whether it is HARMED.
    harmed: bool


class Policy(ABC):
    """
    What selects while the model trains; see the module docstring. Subclasses are dataclasses.

    | call | when |
    |---|---|
    | `check(records)` | before any weights load; raises |
    | `prepare(records, rows, ctx)` | once, before the first step: what has to be known of the rows |
    | `weights(rows, losses)` | in each forward pass: a factor of each row's loss |
    | `take(products)` | after a step's backward passes, if it `reads_gradients`: a factor of each row's gradient |
    | `observe(seen)` | after each optimizer step, with the rows of all ranks |
    | `guard(changes)` | at each evaluation, where `guard_dataset` names domains |
    | `choose(rows, progress, random)` | as a round begins, if it `chooses`: the rows it serves, and their factors |

    What it learns is in `self.state`: arrays, numbers and lists by name, which each checkpoint holds.
    """

    card: ClassVar[Card]
    #: Whether it scores rows before training, for which their texts are needed.
    reads_texts: ClassVar[bool] = False
    #: What becomes of rows that have no loss then.
    without_loss: ClassVar[str] = "weigh 1"
    #: Whether it chooses the rows of each round.
    chooses: ClassVar[bool] = False
    #: Whether it takes rows by their gradients, towards `examples` target-task examples a step.
    reads_gradients: ClassVar[bool] = False
    examples: int = 0

    def __post_init__(self):
        """Refuse, with a `ValueError`, options out of range. A subclass that checks more calls this first."""
        check_declared(self, "selection_policy_kwargs")
        self.state: dict[str, Any] = {}

    def check(self, records: Records) -> None:  # noqa: B027
        """Refuse rows that it can't be used on."""

    def check_guard(self, records: Records, domains: Collection[str]) -> None:  # noqa: B027
        """Refuse, or warn of, domains of the guard that it can't follow."""

    def prepare(self, records: Records, rows: np.ndarray, ctx: Context) -> None:  # noqa: B027
        """Learn what has to be known of the rows `(m,)` of the records that are trained on."""

    def weights(self, rows: np.ndarray, losses: torch.Tensor) -> torch.Tensor:
        """
        Factors of the losses of rows.

        Args:
            rows (`np.ndarray`):
                Rows of the candidate dataset, int64 `(r,)`.
            losses (`torch.Tensor`):
                Their mean losses per label token in this forward pass, without gradient, `(r,)`; NaN without one.

        Returns:
            `torch.Tensor`: `(r,)`, not negative, on the same device.
        """
        return torch.ones_like(losses)

    def take(self, products: Products) -> np.ndarray:
        """Factors `(k,)` of the gradients of the rows of a step; 0 drops a row from it."""
        return np.ones(len(products.rows))

    def observe(self, seen: Seen) -> None:  # noqa: B027
        """Learn from a whole optimizer step."""

    def guard(self, changes: Mapping[str, Guarded]) -> None:  # noqa: B027
        """Learn what training did to the domains that are guarded; a policy without use for it ignores it."""

    def choose(
        self, rows: np.ndarray, progress: float, random: np.random.RandomState
    ) -> tuple[np.ndarray, np.ndarray]:
        """
        The rows of the round that begins, of those `(m,)` that are trained on, and a factor of each one's loss
        wherever this round serves it, in a step that the next round shares, too. `weights` multiplies it.
        """
        return rows, np.ones(len(rows))


#: Weight of a step in the running means of a [`CutPolicy`], and how fast its cut is corrected.
_RECENT, _GAIN = 0.2, 0.2


class CutPolicy(Policy):
    """
    Drops the rows whose `value` is lowest, a given part of them. A step's backward passes begin before all its losses
    are known, so that the cut follows from the steps before:

        cut = mean + deviation (normal quantile of the part + correction)
        correction <- correction + gain (part - part that was dropped in the step)

    Running mean and deviation follow a loss that falls; the correction brings the part that is dropped over a training
    to the one that is asked for, whatever the distribution (online quantile tracking, arXiv 2307.16895). The rows that
    stay weigh as much more as was dropped lately, so that the mean weight of a token is about 1.
    """

    def value(self, rows: np.ndarray, losses: torch.Tensor) -> torch.Tensor:
        """By what rows are compared, `(r,)`; rows whose value is NaN weigh 1."""
        raise NotImplementedError

    def part(self, progress: float) -> float:
        """The part of the rows that is dropped, below 1."""
        raise NotImplementedError

    def weights(self, rows: np.ndarray, losses: torch.Tensor) -> torch.Tensor:
        if self.state.get("cut") is None:
            return torch.ones_like(losses)
        values = self.value(rows, losses)
        weights = torch.where(values < self.state["cut"], 0.0, self.state["factor"])
        return torch.where(values.isnan(), 1.0, weights).to(losses.dtype)

    def observe(self, seen: Seen) -> None:
        values = self.value(seen.rows, torch.from_numpy(seen.losses)).numpy()
        known = np.isfinite(values)
        if not known.any():
            return
        values, tokens, state = values[known], seen.tokens[known], self.state
        new = {"mean": float(values.mean()), "square": float((values**2).mean()), "kept": 1.0}
        if state.get("cut") is not None:
            dropped = values < state["cut"]
            state["correction"] += _GAIN * (state["part"] - float(dropped.mean()))
            new["kept"] = float(tokens[~dropped].sum() / tokens.sum())
        for name, value in new.items():
            state[name] = state.get(name, value) + _RECENT * (value - state.get(name, value))
        state["part"], state["correction"] = self.part(seen.progress), state.get("correction", 0.0)
        if state["part"] <= 0:
            state["cut"] = None
            return
        deviation = max(0.0, state["square"] - state["mean"] ** 2) ** 0.5
        state["cut"] = state["mean"] + deviation * (float(norm.ppf(state["part"])) + state["correction"])
        state["factor"] = 1 / max(state["kept"], (1 - state["part"]) / 2)
