"""
[`PromptSampler`]: prompts for GRPO, drawn by what earlier rollouts say of their difficulty (MoPPS, arXiv 2507.04632).

The pass rate of each prompt has a Beta posterior, Beta(1, 1) before its first rollouts. Of some candidates for each
batch, those whose rate, drawn from the posterior (Thompson sampling), is nearest to `target` are taken. Their rollouts
then update it, with `n` rollouts, success rate `s` and `decay` d:

    alpha = d alpha + (1 - d) + s n,    beta = d beta + (1 - d) + (1 - s) n

Deviations: the authors' code learns nothing where one rollout of a prompt is scored, a fault of operator precedence;
this one does. Theirs reloads its state on resume for some tasks only, and draws the resumed epoch anew.
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from accelerate.utils import gather_object
from torch.utils.data import Sampler

from .checkpointed import Checkpointed


#: In each checkpoint: the state of the sampler.
STATE = "prompt_sampler.json"
#: A reward function as TRL takes it.
Reward = Callable[..., list[float | None]]


class PromptSampler(Sampler[int], Checkpointed):
    """
    A stateful sampler in the order that [`~trl.GRPOTrainer`] expects: each prompt of a batch `num_generations` times.
    Given to the trainer as a callback, too, it is saved with each checkpoint, and a resumed run draws the same prompts
    as one that was not interrupted.

    Experimental: it may change in any release. Dataloaders fetch one batch ahead, so that a batch does not know of the
    rollouts of the one before.

    Args:
        n (`int`):
            Number of prompts.
        batch_size (`int`):
            Prompts of a generation batch: TRL's `generation_batch_size / num_generations`.
        num_generations (`int`):
            Rollouts of each, at least 2: one has no advantage.
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

    FILE = STATE

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
        for name, value, least in (
            ("num_generations", num_generations, 2),
            ("repeats", repeats, 1),
            ("candidates", candidates, 1),
        ):
            if value < least:
                raise ValueError(f"`{name}={value}` must be at least {least}.")
        if not 1 <= batch_size <= n:
            raise ValueError(f"`batch_size={batch_size}` must be in [1, {n}], the number of prompts.")
        for name, share in (("target", target), ("decay", decay)):
            if not 0 <= share <= 1:
                raise ValueError(f"`{name}={share}` must be in [0, 1].")
        self.n, self.batch_size, self.num_generations, self.repeats = n, batch_size, num_generations, repeats
        self.candidates, self.target, self.decay, self.success = candidates, target, decay, success
        self.alpha, self.beta = np.ones(n), np.ones(n)
        self._random = np.random.RandomState(seed)
        self._picked: list[list[int]] = []  # batches of this epoch
        self._resuming = False

    def __len__(self) -> int:
        return self.n // self.batch_size * self.batch_size * self.num_generations * self.repeats

    def __iter__(self) -> Iterator[int]:
        if not self._resuming:
            self._picked = []
        self._resuming = False
        for batch in range(self.n // self.batch_size):
            if batch == len(self._picked):  # else it is a batch that the trainer skips, or had fetched before
                among = min(self.n, self.candidates * self.batch_size)
                self._picked.append(self.pick(self._random.choice(self.n, among, replace=False)).tolist())
            for _ in range(self.repeats):
                for row in self._picked[batch]:
                    yield from [row] * self.num_generations
        self._picked = []

    def pick(self, candidates: np.ndarray) -> np.ndarray:
        """The `batch_size` candidates whose rate, drawn from the posterior, is nearest to `target`."""
        drawn = self._random.beta(self.alpha[candidates], self.beta[candidates])
        return candidates[np.argsort((drawn - self.target) ** 2)[: self.batch_size]]

    def update(self, rows: np.ndarray, success_rate: np.ndarray, rollouts: int | np.ndarray) -> None:
        """Update the posterior of prompts `(k,)` by the success rates `(k,)` of their rollouts."""
        self.alpha[rows] = self.decay * self.alpha[rows] + (1 - self.decay) + success_rate * rollouts
        self.beta[rows] = self.decay * self.beta[rows] + (1 - self.decay) + (1 - success_rate) * rollouts

    def observing(self, reward: Reward, column: str = "prompt_row") -> Reward:
        """
        A reward function for [`~trl.GRPOTrainer`] that also updates the posterior, on all ranks alike.

        Args:
            reward (`Callable`):
                The reward function.
            column (`str`, *optional*, defaults to `"prompt_row"`):
                Column of the dataset with the number of each prompt, from 0; `None` in rows to evaluate on.
        """

        @functools.wraps(reward)
        def observed(**given: Any) -> list[float | None]:
            if column not in given:
                raise ValueError(
                    f"`column={column!r}` is not in the dataset: add the number of each prompt, from 0, and `None` to "
                    "rows that are only evaluated on."
                )
            rewards = reward(**given)
            self.observe(gather_object([*zip(given[column], rewards, strict=True)]))
            return rewards

        return observed

    def observe(self, rollouts: Sequence[tuple[int | None, float | None]]) -> None:
        """Update the posterior by pairs of a prompt and the reward of a rollout; `None` and NaN are left out."""
        scored = [(row, value) for row, value in rollouts if None not in (row, value) and value == value]
        if scored:
            rows, place, counts = np.unique([row for row, _ in scored], return_inverse=True, return_counts=True)
            won = np.bincount(place, [value >= self.success for _, value in scored], minlength=len(rows))
            self.update(rows, won / counts, counts)

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs, as JSON: posterior, random state and the batches of this epoch."""
        kind, keys, *rest = self._random.get_state()
        return {
            **self._shape(),
            "alpha": self.alpha.tolist(),
            "beta": self.beta.tolist(),
            "picked": [*self._picked],
            "random": [kind, keys.tolist(), *rest],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """
        Go on from a [`state_dict`]: the next epoch starts with its batches.

        Raises:
            `ValueError`: it is of other prompts or batches.
        """
        for name, value in self._shape().items():
            if state[name] != value:
                raise ValueError(f"`state`: its `{name}` is {state[name]}, and that of the sampler {value}.")
        self.alpha, self.beta = np.array(state["alpha"]), np.array(state["beta"])
        self._picked, self._resuming = [*state["picked"]], True
        self._random.set_state(tuple(state["random"]))

    def _shape(self) -> dict[str, int]:
        return {name: getattr(self, name) for name in ("n", "batch_size", "num_generations", "repeats")}
