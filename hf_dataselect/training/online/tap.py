"""[`Tap`]: gets the loss of each row out of the training step, and puts a policy's weights into it."""

from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from ...compat.trl import weighing
from ...policy import Policy
from .lines import RowBatch


class Tap:
    """
    Weighs the tokens of each row in the forward pass that trains, so that there is no second one.

    Args:
        policy ([`Policy`]):
            Gives the weights.
    """

    def __init__(self, policy: Policy):
        self._policy = policy
        self._expected: deque[RowBatch] = deque()
        self._seen: list[tuple[np.ndarray, torch.Tensor]] = []

    def expect(self, batches: list[RowBatch]) -> None:
        """The micro-batches of the step that begins, in their order."""
        self._expected = deque(batches)

    @property
    def next(self) -> RowBatch | None:
        """The next micro-batch of the step, if there is one."""
        return self._expected[0] if self._expected else None

    def model(self, model: Any) -> Callable[..., Any]:
        """The model, for one forward pass of [`~trl.SFTTrainer.compute_loss`]."""
        return weighing(model, self._weigh)

    def _weigh(self, losses: torch.Tensor, counted: torch.Tensor) -> torch.Tensor:
        rows, of_round, of_token = self._expected.popleft()
        if of_token[:, 1:].shape != losses.shape:
            raise ValueError(
                f"`selection_policy`: the losses of {tuple(losses.shape)} tokens are not those of lines of "
                f"{tuple(of_token.shape)} tokens, so that rows can't be told apart. Remove it."
            )
        places = of_token[:, 1:].reshape(-1).to(losses.device)
        exact = torch.float32 if losses.device.type == "mps" else torch.float64  # sums that no order of adding changes
        sums, tokens = (
            torch.zeros(len(rows) + 1, dtype=exact, device=losses.device).index_add_(0, places, part.reshape(-1))
            for part in (losses.to(exact), counted.to(exact))
        )
        weights = self._policy.weights(rows, (sums / tokens)[:-1]) * torch.from_numpy(of_round).to(sums)
        self._seen.append((rows, torch.stack([sums[:-1], tokens[:-1], weights.to(exact)])))
        weights = torch.cat([weights, weights.new_ones(1)]).to(losses.dtype)
        return weights[places].view_as(losses)

    def taken(self) -> tuple[np.ndarray, np.ndarray]:
        """Rows `(k,)` of this process since the last call; sums of their losses, label tokens, weights, `(3, k)`."""
        seen, self._seen = self._seen, []
        if not seen:
            return np.zeros(0, np.int64), np.zeros((3, 0))
        return np.concatenate([rows for rows, _ in seen]), torch.cat(
            [part for _, part in seen], 1
        ).double().cpu().numpy()
