"""LoRA layers that apply both factors in one operation, and give the rows' gradients of both in its backward pass."""

from collections.abc import Callable, Iterator

import torch
from torch import nn
from torch.nn.functional import linear

from ...compat.peft import lora_modules, plain_lora


def joined(model: nn.Module, places: dict[nn.Module, int]) -> Iterator[tuple[nn.Module, nn.Module, nn.Module, float]]:
    """
    LoRA layers of which no more than two factors apply: the layer, its factors A and B, which are both among `places`,
    and their scale.
    """
    for _, module in lora_modules(model):
        plain = plain_lora(module)
        if plain is not None and plain[0] in places and plain[1] in places:
            yield module, *plain


def join(module: nn.Module, a: nn.Module, b: nn.Module, scale: float, of_a: Callable, of_b: Callable) -> None:
    """
    Replace the `forward` of a LoRA layer. PEFT's has six operations, and as many more in its backward pass.

    Args:
        module, a, b, scale:
            As from [`joined`].
        of_a, of_b (`Callable`):
            Called in each forward pass; they return what takes the inputs and the output gradients of a factor.
    """
    before = module.forward

    def forward(inputs: torch.Tensor, *rest, **named) -> torch.Tensor:
        if not torch.is_grad_enabled():
            return before(inputs, *rest, **named)
        output = module.base_layer(inputs, *rest, **named)
        anchor = torch.zeros((), requires_grad=True)
        return _Joined.apply(output, inputs, a.weight, b.weight, anchor, scale, of_a(), of_b())

    module.forward = forward


class _Joined(torch.autograd.Function):
    """
    `output + scale * inputs A^T B^T`, computed in the dtype of the factors, as PEFT does: a layer that FSDP2 shards
    computes in another one than a new adapter's.
    """

    @staticmethod
    def forward(ctx, output, inputs, a, b, anchor, scale, receive_a, receive_b):
        low = linear(inputs.to(a.dtype), a)
        # Saved for autograd, so that gradient checkpointing can drop and recompute it.
        ctx.save_for_backward(inputs, low, a, b)
        ctx.scale, ctx.receive = scale, (receive_a, receive_b)
        product = torch.addmm(output.flatten(0, -2).to(b.dtype), low.flatten(0, -2), b.T, alpha=scale)
        return product.view(output.shape).to(output.dtype)

    @staticmethod
    def backward(ctx, gradient):
        inputs, low, a, b = ctx.saved_tensors
        receive_a, receive_b = ctx.receive
        of_product = gradient.to(b.dtype)
        receive_b(low * ctx.scale, of_product)
        of_low = (of_product @ b).mul_(ctx.scale)
        receive_a(inputs.to(a.dtype), of_low)
        return gradient, (of_low @ a).to(inputs.dtype) if ctx.needs_input_grad[1] else None, *[None] * 6
