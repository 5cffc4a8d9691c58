"""
Gradients of the rows of a training step, out of its own backward passes, and steps of some of the rows only.

A hook on each factor of LoRA keeps what every row adds to the factor's gradient, as [`per_example`] does: the step's
own passes are as they would be without. Factors are small, so that the rows of a whole step fit in memory, and the
gradient of any of them is a sum of what is there.
"""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from accelerate.utils import gather, pad_across_processes, reduce
from torch import nn

from ...compat.trl import token_losses
from ...errors import SelectionError
from ..runtime.model_state import evaluating
from .layers import left_out, lora_layers
from .per_example import FLOAT16_SCALE, Batch, LayerTap


class _Pass(NamedTuple):
    """The rows of a micro-batch, and what each adds to the gradient of every factor, `(r, size)`."""

    rows: np.ndarray
    #: `(line, first token, end, place in rows)` of the tokens of each row, in the order of the lines.
    parts: list[tuple[int, int, int, int]]
    #: Lines and places of the rows, where each is of one row; else the parts are taken one by one.
    whole: tuple[torch.Tensor, torch.Tensor] | None
    shape: torch.Size
    gradients: list[torch.Tensor | None]


class StepGradients:
    """
    Keeps the gradients of the rows of each step.

    Args:
        model ([`~peft.PeftModel`]):
            The model that is trained.
        world (`int`):
            Ranks, each of which has some of the rows.

    Raises:
        [`SelectionError`]: no plain LoRA layers, or trained parameters besides them.
    """

    def __init__(self, model: nn.Module, world: int):
        layers = lora_layers(model)
        if others := left_out(model, layers):
            raise SelectionError(
                f"{len(others)} trained parameters are not factors of linear layers by LoRA ({others[0]!r}), and rows "
                "can't be dropped from their gradients: leave them out of the adapter."
            )
        self._model, self._world, self._names = model, world, list(layers)
        self.weights = [layer.weight for layer in layers.values()]
        self._now: _Pass | None = None
        self._passes: list[_Pass] = []
        for place, layer in enumerate(layers.values()):
            layer.register_forward_hook(partial(self._tap, place))

    def begin(self, rows: np.ndarray, of_token: torch.Tensor) -> None:
        """
        A forward and backward pass of some rows begins.

        Args:
            rows (`np.ndarray`):
                Their numbers, int64 `(r,)`.
            of_token (`torch.Tensor`):
                Place in `rows` of each token, `(lines, tokens)`; `r` for padding.
        """
        parts = []
        for line, places in enumerate(of_token.numpy()):
            borders = [0, *(np.flatnonzero(np.diff(places)) + 1).tolist(), len(places)]
            for first, end in zip(borders, borders[1:], strict=False):
                if places[first] < len(rows):
                    parts.append((line, first, end, int(places[first])))
        lines, places = ([part[i] for part in parts] for i in (0, 3))
        on_device = partial(torch.tensor, dtype=torch.int64, device=self.weights[0].device)
        whole = (on_device(lines), on_device(places)) if len({*lines}) == len(lines) else None
        self._now = _Pass(rows, parts, whole, of_token.shape, [None] * len(self.weights))
        self._passes.append(self._now)

    def pause(self) -> None:
        """The backward pass is done; other passes of the model are none of the step's."""
        self._now = None

    def _tap(self, place: int, layer: nn.Linear, inputs: tuple, output: torch.Tensor) -> torch.Tensor | None:
        if self._now is None or not torch.is_grad_enabled():
            return None
        return LayerTap.apply(output, inputs[0], None, partial(self._receive, self._now, place))

    def _receive(self, now: _Pass, place: int, inputs: torch.Tensor, gradient: torch.Tensor) -> None:
        if inputs[..., 0].numel() != now.shape.numel():
            raise SelectionError(
                f"`{self._names[place]}` sees {tuple(inputs.shape[:-1])} of {tuple(now.shape)} tokens, so that rows "
                "can't be told apart. Leave it out of `target_modules`."
            )
        inputs, gradient = (part.reshape(*now.shape, -1) for part in (inputs, gradient))
        if now.gradients[place] is None:
            now.gradients[place] = self._zeros(place, len(now.rows))
        given = now.gradients[place]
        if now.whole is None:
            for line, first, end, row in now.parts:
                part = gradient[line, first:end].mT @ inputs[line, first:end].to(gradient.dtype)
                given[row] += part.flatten()
        else:  # padding has no gradient
            lines, rows = (part.to(given.device) for part in now.whole)
            if len(lines) < len(inputs):
                inputs, gradient = inputs[lines], gradient[lines]
            products = torch.bmm(gradient.mT, inputs.to(gradient.dtype)).flatten(1)
            given.index_add_(0, rows, products.to(given.dtype))

    def _zeros(self, place: int, count: int) -> torch.Tensor:
        return self.weights[place].new_zeros(count, self.weights[place].numel(), dtype=torch.float32)

    def _of_factor(self, place: int) -> torch.Tensor:
        """What each row of this rank adds to the gradient of a factor, `(parts, size)`."""
        given = ((one.gradients[place], one.rows) for one in self._passes)
        return torch.cat([self._zeros(place, len(rows)) if part is None else part for part, rows in given])

    @property
    def rows(self) -> np.ndarray:
        """Rows of this rank since the last step, in the order of the passes; one may be there several times."""
        return np.concatenate([one.rows for one in self._passes])

    def products(self, target: Sequence[torch.Tensor], scale: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """
        Inner products of what the rows of all ranks add to the gradient of the step.

        Args:
            target (`Sequence[torch.Tensor]`):
                A gradient of each factor.
            scale (`float`):
                What the loss was multiplied by, and the ranks' gradients are divided by when they are averaged.

        Returns:
            `tuple`: rows `(k,)`, ascending; products with the target `(k,)` and with one another `(k, k)`, float64.
        """
        count = torch.tensor([len(self.rows)], device=self.weights[0].device)
        counts = gather(count).tolist() if self._world > 1 else [len(self.rows)]
        parts = torch.from_numpy(self.rows).to(count.device)
        rows = self._gathered(parts, counts).cpu().numpy()
        towards = np.zeros(len(rows))
        between = np.zeros((len(rows), len(rows)))
        for place, one in enumerate(target):
            gradients = self._gathered(self._of_factor(place), counts) / scale
            towards += (gradients @ one.flatten().to(gradients)).cpu().double().numpy()
            between += (gradients @ gradients.T).cpu().double().numpy()
        known, places = np.unique(rows, return_inverse=True)
        member = np.zeros((len(known), len(rows)))
        member[places, np.arange(len(rows))] = 1
        return known, member @ towards, member @ between @ member.T

    def _gathered(self, part: torch.Tensor, counts: list[int]) -> torch.Tensor:
        if self._world == 1:
            return part
        padded = gather(pad_across_processes(part)).split(max(counts))
        return torch.cat([one[:count] for one, count in zip(padded, counts, strict=True)])

    def weigh(self, rows: np.ndarray, factors: np.ndarray) -> None:
        """Make the gradient of the step that of the rows by these factors, `(k,)` each; rows are ascending."""
        if (factors != 1).any():
            mine = torch.from_numpy(factors[np.searchsorted(rows, self.rows)]).float()
            for place, weight in enumerate(self.weights):
                gradients = self._of_factor(place)
                summed = mine.to(gradients.device) @ gradients
                summed = reduce(summed, "mean") if self._world > 1 else summed
                if weight.grad is not None:
                    weight.grad.copy_(summed.view_as(weight))
        self._passes = []

    def target(self, batches: Sequence[Batch], examples: int) -> list[torch.Tensor]:
        """
        The gradient of the mean loss of rows, each the mean of its label tokens', without dropout.

        Args:
            batches (`Sequence[Batch]`):
                Those of this rank: token ids and spans of label tokens.
            examples (`int`):
                Rows of all ranks.
        """
        device = self.weights[0].device
        summed = [torch.zeros_like(weight, dtype=torch.float32) for weight in self.weights]
        with evaluating(self._model), torch.enable_grad():
            for batch in batches:
                length = max(len(ids) for ids, _ in batch)
                inputs = {name: torch.zeros(len(batch), length, dtype=torch.int64) for name in ("ids", "mask")}
                labels = torch.full_like(inputs["ids"], -100)
                for row, (ids, spans) in enumerate(batch):
                    inputs["ids"][row, : len(ids)] = torch.from_numpy(ids.astype(np.int64))
                    inputs["mask"][row, : len(ids)] = 1
                    for first, end in spans:
                        labels[row, first:end] = inputs["ids"][row, first:end]
                given = (part.to(device) for part in (inputs["ids"], inputs["mask"], labels))
                losses, counted = token_losses(self._model, *given)
                mean = (losses.sum(1) / counted.sum(1).clamp(min=1)).sum() / examples
                # A power of two: exact in other dtypes than float16, which the model may compute in.
                parts = torch.autograd.grad(mean * FLOAT16_SCALE, self.weights, allow_unused=True)
                for total, part in zip(summed, parts, strict=True):
                    if part is not None:
                        total += part / FLOAT16_SCALE
        return [reduce(total, "sum") for total in summed] if self._world > 1 else summed
