"""
The gradient of each row of a batch, by one backward pass.

A linear layer's weight gradient is a sum over tokens of output gradient times input. So one backward pass of the *sum*
of the rows' mean losses, in which each layer's input and output gradient are seen, holds every row's own gradient: the
rows of a batch never meet. LoRA's two factors are such layers, and so are the plain ones of a full fine-tune. Each
layer's gradients become features (Adam's, as in LESS), are projected, and are gone before the next layer's come.

What is saved besides: no gradient of a weight is summed up, trained or not; the pass ends at the lowest of the layers;
the head sees answer tokens only, its logits in slices.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import numpy as np
import torch
from accelerate.utils import is_peft_model
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint

from ...errors import SelectionError
from ..forward.likelihood import LOGIT_BYTES, _logit_scale
from .adam import AdamFeature
from .projection import Projector


#: Numbers of a layer's gradients that are held at a time.
SLICE = 2**22
#: Float16 gradients would vanish below 6e-8: the loss is multiplied by this, and each layer's gradient divided again.
FLOAT16_SCALE = 2.0**10

Batch = list[tuple[np.ndarray, np.ndarray]]


def recompute_layers(model: nn.Module) -> None:
    """
    Gradient checkpointing in eval mode: transformers recomputes a layer in train mode only, where some (OPT's) drop
    out by themselves. [`preserved`] puts the `forward`s back.
    """
    from transformers.modeling_layers import GradientCheckpointingLayer  # takes a second that a card need not wait

    for module in model.modules():
        if isinstance(module, GradientCheckpointingLayer):
            module.forward = partial(checkpoint, module.forward, use_reentrant=False)


@contextmanager
def differentiated(
    model: nn.Module,
    layers: dict[str, nn.Linear],
    names: Sequence[str],
    feature: AdamFeature | None,
    projector: Projector,
) -> Iterator[Callable[[Batch], tuple[torch.Tensor, torch.Tensor]]]:
    """
    Lend out a function from a batch of `(ids, spans)` to its rows' mean losses, float32 `(rows,)`, and projected
    gradients, float32 `(rows, width)`. Leaves nothing trainable and no `grad`; see [`preserved`].
    """
    backward_of = _losses_and_backward(model, layers)
    device = next(model.parameters()).device
    filler = 1 if getattr(model.config, "pad_token_id", None) == 0 else 0  # padding ids only cause warnings
    half = any(layer.weight.dtype == torch.float16 for layer in layers.values())
    collected = _Collector(names, feature, projector, FLOAT16_SCALE if half else 1.0)
    model.requires_grad_(False)
    taps = [partial(collected.tap, place) for place in range(len(layers))]
    handles = [layer.register_forward_hook(tap) for layer, tap in zip(layers.values(), taps, strict=True)]

    def differentiate(batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        width = max(len(ids) for ids, _ in batch)
        padded = np.full((len(batch), width), filler, np.int64)  # on the right, where no counted token can see it
        places, targets, owners = [], [], []
        for row, (ids, spans) in enumerate(batch):
            padded[row, : len(ids)] = ids
            positions = np.concatenate([np.arange(max(first, 1), min(end, len(ids))) for first, end in spans])
            places.append(row * width + positions - 1)  # the hidden state before a token predicts it
            targets.append(ids[positions].astype(np.int64))
            owners.append(np.full(len(positions), row))
        tokens = torch.tensor([len(part) for part in places], dtype=torch.float32, device=device)
        places, targets, owners = (
            torch.from_numpy(np.concatenate(parts)).to(device) for parts in (places, targets, owners)
        )
        collected.begin(padded.shape, device)
        with torch.enable_grad():
            weights = collected.scale / tokens[owners]
            losses = backward_of(torch.from_numpy(padded).to(device), places, targets, weights, collected)
        total = torch.zeros(len(batch), device=device).index_add_(0, owners, losses.to(device))
        return total / tokens, collected.take()

    try:
        yield differentiate
    finally:
        for handle in handles:
            handle.remove()


class _Tap(torch.autograd.Function):
    """Lets a linear layer's input and output gradient be seen in the backward pass, and changes neither."""

    @staticmethod
    def forward(ctx, output, entry, anchor, receive):
        # Saved as autograd saves: gradient checkpointing can drop it and compute it again.
        ctx.save_for_backward(entry)
        ctx.receive = receive
        return output.view_as(output)

    @staticmethod
    def backward(ctx, gradient):
        ctx.receive(ctx.saved_tensors[0], gradient)
        return gradient, None, None, None


class _Collector:
    """What the layers' gradients of one batch add up to, as the backward pass reaches one layer after the other."""

    def __init__(self, names: Sequence[str], feature: AdamFeature | None, projector: Projector, scale: float):
        self.names, self.feature, self.projector, self.scale = names, feature, projector, scale
        self.anchor = torch.zeros((), requires_grad=True)  # what a tapped layer's output owes its gradient to

    def begin(self, shape: tuple[int, int], device: torch.device) -> None:
        self.shape, self.forward = shape, True
        self.result = torch.zeros(shape[0], self.projector.width, device=device)
        self.calls, self.parts = [0] * len(self.names), {}

    def take(self) -> torch.Tensor:
        result, self.result = self.result, None
        return result

    def tap(self, place: int, layer: nn.Linear, inputs: tuple, output: torch.Tensor) -> torch.Tensor | None:
        if not torch.is_grad_enabled():
            return None
        self.calls[place] += self.forward  # and not where checkpointing runs it again
        return _Tap.apply(output, inputs[0], self.anchor, partial(self.receive, place))

    def receive(self, place: int, entry: torch.Tensor, gradient: torch.Tensor) -> None:
        rows, tokens = self.shape
        if entry.shape[:-1] not in (self.shape, (rows * tokens,)):
            raise SelectionError(
                f"`{self.names[place]}` sees {tuple(entry.shape[:-1])} of {rows} x {tokens} tokens: gradients "
                "of a layer that does not see every token (experts) can't be told apart by row. Leave it out."
            )
        entry, gradient = entry.reshape(rows, tokens, -1), gradient.reshape(rows, tokens, -1)
        self.calls[place] -= 1
        size = entry.shape[-1] * gradient.shape[-1]
        step = max(1, SLICE // size)
        for first in range(0, rows, step):
            part = slice(first, first + step)
            pair = gradient[part].mT, entry[part]
            if self.scale != 1:
                pair = pair[0].float() / self.scale, pair[1].float()
            found = torch.bmm(*pair).flatten(1).float()
            if (place, first) in self.parts:
                found += self.parts.pop((place, first))
            if self.calls[place]:  # a layer that is applied more than once
                self.parts[place, first] = found
                continue
            found = found if self.feature is None else self.feature(self.names[place], found)
            self.add(place, found, part)

    def add(self, place: int, found: torch.Tensor, part: slice) -> None:
        out = self.result[part]
        if found.device == out.device:
            self.projector.add(place, found, out)
        else:  # a model split over devices
            there = torch.zeros(out.shape, device=found.device)
            self.projector.add(place, found, there)
            out += there.to(out.device)


def _losses_and_backward(model: nn.Module, layers: dict[str, nn.Linear]) -> Callable:
    """
    A function `(ids, places, targets, weights, collected)` that gives the loss at each place, float32 `(places,)`, and
    runs the backward pass of their weighted sum.

    The fast way takes the backbone's hidden states at the places, and of each slice of logits the gradient at once. It
    is used where it proves equal to the model's own logits on a short row, and no layer lies in the head.
    """
    inner = model.get_base_model() if is_peft_model(model) else model
    config = inner.config.get_text_config()
    head, backbone = inner.get_output_embeddings(), getattr(inner, "base_model", None)
    scale, cap = _logit_scale(config), getattr(config, "final_logit_softcapping", None)
    device = next(model.parameters()).device
    chunk = max(16, LOGIT_BYTES.get(device.type, 2**28) // (4 * config.vocab_size))

    def logits_of(hidden: torch.Tensor) -> torch.Tensor:
        logits = head(hidden.to(next(head.parameters()).device))
        logits = logits * scale if scale != 1 else logits
        return torch.tanh(logits / cap) * cap if cap else logits

    def fast(ids, places, targets, weights, collected):
        hidden = backbone(input_ids=ids, use_cache=False).last_hidden_state.flatten(0, 1)
        collected.forward = False
        hidden = hidden[places.to(hidden.device)]
        losses, derivatives = [], []
        for part, target, weight in zip(
            hidden.detach().split(chunk), targets.split(chunk), weights.split(chunk), strict=True
        ):
            part.requires_grad_(True)
            logits = logits_of(part).float()
            loss = cross_entropy(logits, target.to(logits.device), reduction="none")
            derivatives += torch.autograd.grad((loss * weight.to(loss.device)).sum(), part)
            losses.append(loss.detach())
            del logits, loss
        if hidden.requires_grad:
            hidden.backward(torch.cat(derivatives))
        return torch.cat(losses)

    def plain(ids, places, targets, weights, collected):
        logits = model(input_ids=ids, use_cache=False).logits.flatten(0, 1)
        collected.forward = False
        loss = cross_entropy(logits[places.to(logits.device)].float(), targets.to(logits.device), reduction="none")
        if loss.requires_grad:
            (loss * weights.to(loss.device)).sum().backward()
        return loss.detach()

    if head is None or backbone is None or backbone is inner:
        return plain
    inside = set(head.modules())
    if any(layer in inside for layer in layers.values()):
        return plain
    with torch.no_grad():
        probe = torch.arange(3, 11, device=device)[None] % config.vocab_size
        own = model(input_ids=probe, use_cache=False).logits[0].float()
        mine = logits_of(backbone(input_ids=probe, use_cache=False).last_hidden_state[0]).float().to(own.device)
    tolerance = 1e-4 if next(head.parameters()).dtype == torch.float32 else 2e-2
    equal = torch.allclose(own, mine, rtol=tolerance, atol=tolerance * float(own.abs().max()))
    return fast if equal or not torch.isfinite(own).all() else plain
