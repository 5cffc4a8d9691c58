"""[`RoundSampler`]: lines in rounds whose rows a policy chooses, the same on every rank."""

from typing import Any

import numpy as np

from ...policy import Policy
from .lines import Pool, Round


class RoundSampler:
    """
    A stateful, seeded sampler over the lines of a pool. A round serves each line of the rows that the policy chooses
    once, in a random order; the next one begins with the step that needs more.

    Args:
        pool ([`Pool`]):
            The rows.
        policy ([`Policy`]):
            Chooses the rows of each round.
        seed (`int`):
            Same seed and losses, same lines.
    """

    def __init__(self, pool: Pool, policy: Policy, seed: int):
        self._pool, self._policy, self._seed = pool, policy, seed
        self.round, self._served = 0, 0
        self._order = np.zeros(0, np.int64)
        self._now = Round(pool.lines, pool.rows, np.ones(len(pool.rows)))

    def take(self, count: int, progress: float) -> list[tuple[Round, int]]:
        """The next lines: the round of each, and its place there."""
        taken: list[tuple[Round, int]] = []
        while len(taken) < count:
            if self._served == len(self._order):
                self._begin(progress)
            some = self._order[self._served :][: count - len(taken)]
            self._served += len(some)
            taken += [(self._now, int(place)) for place in some]
        return taken

    def end_round(self) -> None:
        """Let the next step begin another round."""
        self._served = len(self._order)

    def _begin(self, progress: float) -> None:
        self.round += 1
        random = np.random.RandomState((self._seed + self.round) % 2**32)
        rows, weights = self._policy.choose(self._pool.rows, progress, random)
        ascending = np.argsort(rows)
        self._now, self._served = Round(self._pool.of(rows), rows[ascending], weights[ascending]), 0
        if len(self._now.lines) == 0:
            raise ValueError(f"`selection_policy`: none of the {len(rows)} rows of a round can be trained on.")
        self._order = np.arange(len(self._now.lines))
        random.shuffle(self._order)

    def state_dict(self) -> dict[str, Any]:
        """The round, its rows, their factors and order, and how far it is."""
        rows = {"rows": self._now.rows, "weights": self._now.weights}
        return {"round": self.round, "served": self._served, "order": self._order} | rows

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a [`state_dict`]."""
        self.round, self._served = state["round"], state["served"]
        self._order = state["order"]
        self._now = Round(self._pool.of(state["rows"]), state["rows"], state["weights"])
