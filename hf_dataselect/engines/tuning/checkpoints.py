"""States of a model and its optimizer at the end of each epoch."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn
from transformers import TrainerCallback

from ...compat.accelerate import own_optimizer
from ..gradients.adam import AdamState


@dataclass(frozen=True)
class Checkpoint:
    """
    State at the end of an epoch.

    Args:
        weights (`dict[str, torch.Tensor]`):
            The tuned weights, in main memory.
        adam ([`AdamState`]):
            The optimizer's moments, by parameter name of the tuned model.
        learning_rate (`float`):
            Mean over the updates of the epoch.
        load (`Callable`):
            Puts the weights into the tuned model.
    """

    weights: dict[str, torch.Tensor]
    adam: AdamState
    learning_rate: float
    load: Callable[[], None]


class EpochRecorder(TrainerCallback):
    """Appends a [`Checkpoint`] to `epochs` at the end of every epoch."""

    def __init__(self, tuned: nn.Module, weights: Callable, load: Callable, epochs: list[Checkpoint]):
        self.tuned, self.weights, self.load, self.epochs = tuned, weights, load, epochs
        self.rates = []

    def on_step_begin(self, args, state, control, lr_scheduler=None, **kwargs):
        self.rates.append(lr_scheduler.get_last_lr()[0])

    def on_epoch_end(self, args, state, control, optimizer=None, **kwargs):
        weights = {name: tensor.detach().to("cpu", copy=True) for name, tensor in self.weights().items()}
        moments = AdamState.of(own_optimizer(optimizer), self.tuned)
        rate = sum(self.rates) / len(self.rates)
        self.epochs.append(Checkpoint(weights, moments, rate, partial(self.load, weights)))
        self.rates = []


def packed(epochs: list[Checkpoint]) -> tuple[dict[str, torch.Tensor], list[dict]]:
    """All epochs as tensors of one file, and the numbers besides."""
    state, facts = {}, []
    for number, epoch in enumerate(epochs):
        parts = {"weight": epoch.weights, "exp_avg": epoch.adam.exp_avg, "exp_avg_sq": epoch.adam.exp_avg_sq}
        for part, tensors in parts.items():
            state |= {f"{number}/{part}/{name}": tensor for name, tensor in tensors.items()}
        options = [epoch.adam.beta1, epoch.adam.beta2, epoch.adam.eps]
        facts.append({"learning_rate": epoch.learning_rate, "adam": options})
    return state, facts


def unpacked(state: dict[str, torch.Tensor], facts: list[dict], load: Callable) -> list[Checkpoint]:
    """The epochs from [`packed`]; `load` puts weights into the model."""
    epochs = []
    for number, fact in enumerate(facts):
        parts = {"weight": {}, "exp_avg": {}, "exp_avg_sq": {}}
        for name, tensor in state.items():
            place, part, parameter = name.split("/", 2)
            if int(place) == number:
                parts[part][parameter] = tensor
        moments = AdamState(parts["exp_avg"], parts["exp_avg_sq"], *fact["adam"])
        epochs.append(Checkpoint(parts["weight"], moments, fact["learning_rate"], partial(load, parts["weight"])))
    return epochs
