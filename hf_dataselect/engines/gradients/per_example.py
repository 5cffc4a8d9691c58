"""
Per-example gradients of a batch in one backward pass.

A linear layer's weight gradient is a sum over tokens of output gradient times input. So one backward pass of the *sum*
of the rows' mean losses, with hooks on each layer's input and output gradient, gives every row's own gradient, since
rows of a batch are independent. LoRA's two factors are such layers, as are the linear layers of full fine-tuning. Each
layer's gradients are converted to features (Adam's, as in LESS), projected, and freed before the next layer's.

Further savings: no weight gradient is accumulated; the backward pass ends at the lowest layer; the head runs on label
tokens only, in slices.
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

from ...compat.accelerate import device_of
from ...errors import SelectionError
from ..forward.likelihood import LOGIT_BYTES, Batch, logit_scale, same_logits
from .adam import AdamFeature
from .lora import join, joined
from .projection import Projector


#: Elements of a layer's per-example gradients in memory at a time.
SLICE = 2**22
#: Loss scale for float16 gradients, which underflow below 6e-8; each layer's gradient is unscaled.
FLOAT16_SCALE = 2.0**10


def recompute_layers(model: nn.Module) -> None:
    """
    Enable gradient checkpointing in eval mode: transformers recomputes layers in train mode only, where some (OPT's)
    apply dropout. [`preserved`] restores the `forward`s.
    """
    from transformers import GradientCheckpointingLayer  # a slow import

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
    dtype: torch.dtype,
) -> Iterator[Callable[[Batch], tuple[torch.Tensor, torch.Tensor]]]:
    """
    A function from a batch of `(ids, spans)` to its rows' mean losses, float32 `(rows,)`, and projected gradients,
    float32 `(rows, width + extra)`. Freezes all parameters and replaces `forward`s; see [`preserved`]. The model
    computes in `dtype`, which need not be that of the layers' weights.
    """
    backward_of = _losses_and_backward(model, layers)
    device = device_of(model)
    filler = 1 if getattr(model.config, "pad_token_id", None) == 0 else 0  # padding ids only cause warnings
    half = torch.float16 in {dtype, *(layer.weight.dtype for layer in layers.values())}
    collected = _Collector(names, feature, projector, FLOAT16_SCALE if half else 1.0)
    model.requires_grad_(False)
    places = {layer: place for place, layer in enumerate(layers.values())}
    for module, a, b, factor in list(joined(model, places)):
        join(module, a, b, factor, *(partial(collected.called, places.pop(layer)) for layer in (a, b)))
    handles = [layer.register_forward_hook(partial(collected.tap, place)) for layer, place in places.items()]

    def differentiate(batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        labels = [
            np.concatenate([np.arange(max(first, 1), min(end, len(ids))) for first, end in spans])
            for ids, spans in batch
        ]
        width = max(part.max() for part in labels)  # the last label token is not read, nor what follows it
        padded = np.full((len(batch), width), filler, np.int64)  # on the right, where no label token attends to it
        positions, targets, owners = [], [], []
        for row, ((ids, _), label_positions) in enumerate(zip(batch, labels, strict=True)):
            padded[row, : len(ids)] = ids[:width]
            positions.append(row * width + label_positions - 1)  # the hidden state before a token predicts it
            targets.append(ids[label_positions].astype(np.int64))
            owners.append(np.full(len(label_positions), row))
        tokens = torch.tensor([len(part) for part in positions], dtype=torch.float32, device=device)
        positions, targets, owners = (
            torch.from_numpy(np.concatenate(parts)).to(device) for parts in (positions, targets, owners)
        )
        collected.begin(padded.shape, device)
        with torch.enable_grad():
            weights = collected.scale / tokens[owners]
            losses = backward_of(torch.from_numpy(padded).to(device), positions, targets, weights, collected)
        total = torch.zeros(len(batch), device=device).index_add_(0, owners, losses.to(device))
        return total / tokens, collected.take()

    try:
        yield differentiate
    finally:
        for handle in handles:
            handle.remove()


class LayerTap(torch.autograd.Function):
    """Passes a linear layer's input and output gradient to `receive` in the backward pass, and changes neither."""

    @staticmethod
    def forward(ctx, output, inputs, anchor, receive):
        # Saved for autograd, so that gradient checkpointing can drop and recompute it.
        ctx.save_for_backward(inputs)
        ctx.receive = receive
        return output.view_as(output)

    @staticmethod
    def backward(ctx, gradient):
        ctx.receive(ctx.saved_tensors[0], gradient)
        return gradient, None, None, None


class _Collector:
    """Accumulates the projected gradients of one batch, layer by layer during the backward pass."""

    def __init__(self, names: Sequence[str], feature: AdamFeature | None, projector: Projector, scale: float):
        self.names, self.feature, self.projector, self.scale = names, feature, projector, scale
        self.anchor = torch.zeros((), requires_grad=True)  # makes a tapped layer's output require a gradient

    def begin(self, shape: tuple[int, int], device: torch.device) -> None:
        self.shape, self.forward = shape, True
        self.result = torch.zeros(shape[0], self.projector.width + self.projector.extra, device=device)
        self.calls, self.parts = [0] * len(self.names), {}

    def take(self) -> torch.Tensor:
        result, self.result = self.result, None
        return result

    def tap(self, place: int, layer: nn.Linear, inputs: tuple, output: torch.Tensor) -> torch.Tensor | None:
        if not torch.is_grad_enabled():
            return None
        return LayerTap.apply(output, inputs[0], self.anchor, self.called(place))

    def called(self, place: int) -> Callable[[torch.Tensor, torch.Tensor], None]:
        """What takes the inputs and output gradients of this call of a layer."""
        self.calls[place] += self.forward  # not counted when checkpointing recomputes it
        return partial(self.receive, place)

    def receive(self, place: int, inputs: torch.Tensor, gradient: torch.Tensor) -> None:
        rows, tokens = self.shape
        # A dimension of one besides (DeepSeek's single key head) changes no order.
        seen = [size for size in inputs.shape[:-1] if size > 1]
        if seen not in ([size for size in self.shape if size > 1], [rows * tokens]):
            raise SelectionError(
                f"`{self.names[place]}` sees {tuple(inputs.shape[:-1])} of {rows} x {tokens} tokens: gradients "
                "of a layer that does not see every token (experts) can't be told apart by row. Leave it out."
            )
        inputs, gradient = inputs.reshape(rows, tokens, -1), gradient.reshape(rows, tokens, -1)
        self.calls[place] -= 1
        size = inputs.shape[-1] * gradient.shape[-1]
        step = max(1, SLICE // size)
        for first in range(0, rows, step):
            part = slice(first, first + step)
            pair = gradient[part].mT, inputs[part]
            if self.scale != 1:
                pair = pair[0].float() / self.scale, pair[1].float()
            gradients = torch.bmm(*pair).flatten(1).float()
            if (place, first) in self.parts:
                gradients += self.parts.pop((place, first))
            if self.calls[place]:  # a layer that is applied more than once
                self.parts[place, first] = gradients
                continue
            gradients = gradients if self.feature is None else self.feature(self.names[place], gradients)
            self.add(place, gradients, part)

    def add(self, place: int, gradients: torch.Tensor, part: slice) -> None:
        out = self.result[part]
        if gradients.device == out.device:
            self.projector.add(place, gradients, out)
        else:  # a model split over devices
            local = torch.zeros(out.shape, device=gradients.device)
            self.projector.add(place, gradients, local)
            out += local.to(out.device)


def _losses_and_backward(model: nn.Module, layers: dict[str, nn.Linear]) -> Callable:
    """
    A function `(ids, positions, targets, weights, collected)` that returns the loss at each position, float32 `(p,)`,
    and runs the backward pass of their weighted sum.

    The fast way takes the backbone's hidden states at the positions, and differentiates each slice of logits at once.
    It is used if its logits match the model's own on a short row, and none of the layers is in the head.
    """
    inner = model.get_base_model() if is_peft_model(model) else model
    config = inner.config.get_text_config()
    head, backbone = inner.get_output_embeddings(), getattr(inner, "base_model", None)
    scale, cap = logit_scale(config), getattr(config, "final_logit_softcapping", None)
    device = device_of(model)
    chunk = max(16, LOGIT_BYTES.get(device.type, 2**28) // (4 * config.vocab_size))

    def logits_of(hidden: torch.Tensor) -> torch.Tensor:
        logits = head(hidden.to(device_of(head)))
        logits = logits * scale if scale != 1 else logits
        return torch.tanh(logits / cap) * cap if cap else logits

    def fast(ids, positions, targets, weights, collected):
        hidden = backbone(input_ids=ids, use_cache=False).last_hidden_state.flatten(0, 1)
        collected.forward = False
        hidden = hidden[positions.to(hidden.device)]
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

    def plain(ids, positions, targets, weights, collected):
        logits = model(input_ids=ids, use_cache=False).logits.flatten(0, 1)
        collected.forward = False
        loss = cross_entropy(logits[positions.to(logits.device)].float(), targets.to(logits.device), reduction="none")
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
        own = model(input_ids=probe, use_cache=False).logits[0]
        logits = logits_of(backbone(input_ids=probe, use_cache=False).last_hidden_state[0])
    return fast if same_logits(own, logits) else plain
