"""[`TargetGradients`]: the rows that a policy takes of each step by their gradients, towards target-task examples."""

from typing import Any

import numpy as np

from ...engines.gradients.in_step import StepGradients
from ...errors import SelectionError
from ...policy import Policy, Products


class TargetGradients:
    """
    What a policy that `reads_gradients` needs of a trainer.

    Args:
        trainer ([`DataSelectingTrainer`]):
            The trainer, with LoRA.
        policy ([`Policy`]):
            Takes the rows.
    """

    def __init__(self, trainer: Any, policy: Policy):
        self._trainer, self._policy = trainer, policy
        self._ranks = trainer.accelerator.num_processes
        try:
            self.rows = StepGradients(trainer.model, self._ranks)
        except SelectionError as error:
            raise ValueError(f"`selection_policy={trainer.args.selection_policy!r}`: {error}") from error

    def begin(self) -> None:
        """
        Read the examples.

        Raises:
            [`SelectionError`]: none has a label token in the window.
        """
        ctx = self._trainer.context()
        encoded = ctx.trained(ctx.target)
        self._examples = encoded.tokens.select(np.flatnonzero(encoded.label_tokens() > 0))
        if not len(self._examples):
            raise SelectionError("`selection_target`: none of its rows has an answer within `max_length`.")

    def take(self, rows: np.ndarray, tokens: np.ndarray) -> np.ndarray:
        """
        Make the gradient of the step that of the rows that the policy takes.

        Args:
            rows (`np.ndarray`):
                Rows with label tokens of all ranks, int64 `(k,)`, ascending.
            tokens (`np.ndarray`):
                Their label tokens, float64 `(k,)`.

        Returns:
            `np.ndarray`: factors of their gradients, float64 `(k,)`.
        """
        trainer = self._trainer
        scaler = getattr(trainer.accelerator, "scaler", None)
        scale = self._ranks * (1.0 if scaler is None else scaler.get_scale())
        known, towards, between = self.rows.products(self._target(), scale)
        places = np.searchsorted(known, rows)
        rate = trainer.optimizer.param_groups[0]["lr"]
        products = Products(rows, tokens, towards[places], between[np.ix_(places, places)], rate)
        factors = np.asarray(trainer.args.runtime(trainer.accelerator).broadcast(self._policy.take(products)))
        of_all = np.ones(len(known))
        of_all[places] = factors
        self.rows.weigh(known, of_all)
        return factors

    def _target(self) -> list[Any]:
        """The gradient of the examples of this step; each rank passes some of them."""
        trainer, count = self._trainer, min(self._policy.examples, len(self._examples))
        random = np.random.RandomState((trainer.args.seed + trainer.state.global_step) % 2**32)
        drawn = random.choice(len(self._examples), count, replace=False)
        mine = drawn[trainer.accelerator.process_index :: self._ranks]
        size = trainer.args.per_device_train_batch_size
        batches = [self._examples.take(mine[first : first + size]) for first in range(0, len(mine), size)]
        return self.rows.target(batches, count)
