"""
[`PromptSampler`]: prompts for GRPO, drawn by what earlier rollouts say of their difficulty (MoPPS, arXiv 2507.04632).

The pass rate of each prompt has a Beta posterior, Beta(1, 1) before its first rollouts. Of some candidates for each
batch, those whose rate, drawn from the posterior (Thompson sampling), is nearest to `target` are taken. Their rollouts
then update it, with `n` rollouts, success rate `s` and `decay` d:

    alpha = d alpha + (1 - d) + s n,    beta = d beta + (1 - d) + (1 - s) n

Deviation: the authors' code learns nothing from one rollout a prompt, a fault of operator precedence; this one does.
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from accelerate.utils import gather_object
from torch.utils.data import Sampler


class PromptSampler(Sampler[int]):
    """
    A stateful sampler in the order that [`~trl.GRPOTrainer`] expects: each prompt of a batch `num_generations` times.

    Experimental: it may change in any release. Dataloaders fetch one batch ahead, so that a batch does not know of the
    rollouts of the one before.

    Args:
        n (`int`):
            Number of prompts.
        batch_size (`int`):
            Prompts of a generation batch: TRL's `generation_batch_size / num_generations`.
        num_generations (`int`):
            Rollouts of each.
        repeats (`int`, *optional*, defaults to `1`):
            Times that a batch is served: TRL's `num_iterations * steps_per_generation`.
        candidates (`int`, *optional*, defaults to `8`):
            Candidates of a batch, in multiples of it.
        target (`float`, *optional*, defaults to `0.5`):
            Pass rate that is looked for.
        decay (`float`, *optional*, defaults to `1.0`):
            How much earlier rollouts count after each update; below 1, the posterior follows a model that learns.
        success (`float`, *optional*, defaults to `1.0`):
            Reward from which a rollout counts as a success.
        seed (`int`, *optional*, defaults to `42`):
            Same seed and rewards, same prompts, on every rank.

    Raises:
        `ValueError`: an option out of range.
    """

    def __init__(
        self,
        n: int,
        batch_size: int,
        num_generations: int,
        repeats: int = 1,
        candidates: int = 8,
        target: float = 0.5,
        decay: float = 1.0,
        success: float = 1.0,
        seed: int = 42,
    ):
        for name, value in (("num_generations", num_generations), ("repeats", repeats), ("candidates", candidates)):
            if value < 1:
                raise ValueError(f"`{name}={value}` must be at least 1.")
        if not 1 <= batch_size <= n:
            raise ValueError(f"`batch_size={batch_size}` must be in [1, {n}], the number of prompts.")
        for name, share in (("target", target), ("decay", decay)):
            if not 0 <= share <= 1:
                raise ValueError(f"`{name}={share}` must be in [0, 1].")
        self.n, self.batch_size, self.num_generations, self.repeats = n, batch_size, num_generations, repeats
        self.candidates, self.target, self.decay, self.success = candidates, target, decay, success
        self.alpha, self.beta = np.ones(n), np.ones(n)
        self._random = np.random.RandomState(seed)

    def __len__(self) -> int:
        return self.n // self.batch_size * self.batch_size * self.num_generations * self.repeats

    def __iter__(self) -> Iterator[int]:
        for _ in range(self.n // self.batch_size):
            rows = self.pick(
                self._random.choice(self.n, min(self.n, self.candidates * self.batch_size), replace=False)
            )
            for _ in range(self.repeats):
                for row in rows.tolist():
                    yield from [row] * self.num_generations

    @property
    def pass_rates(self) -> np.ndarray:
        """Mean of each prompt's posterior, float64 `(n,)`."""
        return self.alpha / (self.alpha + self.beta)

    def pick(self, candidates: np.ndarray) -> np.ndarray:
        """The `batch_size` candidates whose rate, drawn from the posterior, is nearest to `target`."""
        drawn = self._random.beta(self.alpha[candidates], self.beta[candidates])
        return candidates[np.argsort((drawn - self.target) ** 2)[: self.batch_size]]

    def update(self, rows: np.ndarray, success_rate: np.ndarray, rollouts: int | np.ndarray) -> None:
        """Update the posterior of prompts `(k,)` by the success rates `(k,)` of their rollouts."""
        self.alpha[rows] = self.decay * self.alpha[rows] + (1 - self.decay) + success_rate * rollouts
        self.beta[rows] = self.decay * self.beta[rows] + (1 - self.decay) + (1 - success_rate) * rollouts

    def observing(self, reward: Callable[..., list[float]], column: str = "prompt_row") -> Callable[..., list[float]]:
        """
        A reward function for [`~trl.GRPOTrainer`] that also updates the posterior, on all ranks alike.

        Args:
            reward (`Callable`):
                The reward function.
            column (`str`, *optional*, defaults to `"prompt_row"`):
                Column of the dataset with the number of each prompt, from 0.
        """

        @functools.wraps(reward)
        def observed(**given: Any) -> list[float]:
            if column not in given:
                raise ValueError(f"`column={column!r}` is not in the dataset: add the number of each prompt, from 0.")
            rewards = reward(**given)
            self.observe(gather_object([*zip(given[column], rewards, strict=True)]))
            return rewards

        return observed

    def observe(self, rollouts: Sequence[tuple[int, float | None]]) -> None:
        """Update the posterior by pairs of a prompt and the reward of a rollout; `None` and NaN are left out."""
        scored = [(row, value) for row, value in rollouts if value is not None and value == value]
        if scored:
            rows, place, counts = np.unique([row for row, _ in scored], return_inverse=True, return_counts=True)
            won = np.bincount(place, [value >= self.success for _, value in scored], minlength=len(rows))
            self.update(rows, won / counts, counts)

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs: posterior and random state."""
        return {"alpha": self.alpha.copy(), "beta": self.beta.copy(), "random": self._random.get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """
        Go on from a [`state_dict`].

        Raises:
            `ValueError`: it is of another number of prompts.
        """
        if len(state["alpha"]) != self.n:
            raise ValueError(f"`state`: it has {len(state['alpha'])} prompts, and the dataset {self.n}.")
        self.alpha, self.beta = state["alpha"].copy(), state["beta"].copy()
        self._random.set_state(state["random"])
