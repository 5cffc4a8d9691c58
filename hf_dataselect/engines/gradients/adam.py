"""Adam's optimizer state by parameter name, and the update that a row's gradient would cause."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import nn

from ...compat.bitsandbytes import dequantized_moment
from ...compat.torch import unwrapped, whole_tensor
from ...errors import SelectionError


@dataclass(frozen=True)
class AdamState:
    """
    First and second moments of Adam or AdamW.

    Args:
        exp_avg, exp_avg_sq (`dict[str, torch.Tensor]`):
            Moments by parameter name, in the parameter's shape.
        beta1, beta2, eps (`float`, *optional*):
            Hyper-parameters of the optimizer, by default 0.9, 0.999 and 1e-8.
    """

    exp_avg: dict[str, torch.Tensor]
    exp_avg_sq: dict[str, torch.Tensor]
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8

    @classmethod
    def of(cls, optimizer: torch.optim.Optimizer, model: nn.Module) -> "AdamState":
        """
        The state of an optimizer, as float32 copies in CPU memory; 8-bit states of bitsandbytes are dequantized.

        Raises:
            [`SelectionError`]: the optimizer lacks a moment, or has not taken a step.
        """
        names = {parameter: unwrapped(name) for name, parameter in model.named_parameters()}
        first, second, options = {}, {}, optimizer.param_groups[0]
        for parameter, state in optimizer.state.items():
            exp_avg, exp_avg_sq = _moment(state, "exp_avg", "1"), _moment(state, "exp_avg_sq", "2")
            if parameter in names and exp_avg is not None and exp_avg_sq is not None:
                first[names[parameter]], second[names[parameter]] = exp_avg, exp_avg_sq
        if not first or "betas" not in options:
            raise SelectionError(
                f"The optimizer {type(optimizer).__name__} holds no first and second moments: use Adam or AdamW."
            )
        return cls(first, second, *options["betas"][:2], options["eps"])

    @property
    def identity(self) -> str:
        """Content hash."""
        hasher = hashlib.blake2b(repr((self.beta1, self.beta2, self.eps)).encode(), digest_size=12)
        for moments in (self.exp_avg, self.exp_avg_sq):
            for name in sorted(moments):
                hasher.update(name.encode())
                hasher.update(moments[name].float().cpu().contiguous().numpy().tobytes())
        return hasher.hexdigest()


def _moment(state: dict, name: str, number: str) -> torch.Tensor | None:
    value = state.get(name, state.get(f"state{number}"))
    if value is None:
        return None
    if value.dtype == torch.uint8:
        value = dequantized_moment(value, state, number)
    return whole_tensor(value.detach()).to("cpu", torch.float32, copy=True)


@dataclass
class AdamFeature:
    """
    The update that a row's gradient g would cause (LESS, arXiv 2402.04333, as in its code: epsilon inside the root, no
    bias correction):

        (beta1 m + (1 - beta1) g) / sqrt(beta2 v + (1 - beta2) g^2 + eps)

    Args:
        state ([`AdamState`]):
            m and v.
        momentum (`bool`, *optional*, defaults to `True`):
            Whether to include beta1 m, which is the same for all rows and dominates their differences; without it,
            features are centered.
    """

    state: AdamState
    momentum: bool = True
    _on_device: dict = field(default_factory=dict, repr=False)

    def check(self, names: Sequence[str]) -> None:
        """Raise a [`SelectionError`] for parameters without optimizer state."""
        missing = [name for name in names if name not in self.state.exp_avg]
        if missing:
            raise SelectionError(f"The optimizer has no state of {len(missing)} parameters, such as {missing[0]!r}.")

    @property
    def identity(self) -> list:
        """What determines the features, for cache keys."""
        return [self.state.identity, self.momentum]

    def __call__(self, name: str, gradients: torch.Tensor) -> torch.Tensor:
        """Features of the gradients of a parameter, float32 `(rows, size)`, computed in place."""
        key = name, gradients.device
        if key not in self._on_device:
            first, second = (m[name].flatten() for m in (self.state.exp_avg, self.state.exp_avg_sq))
            scaled = self.state.beta1 * first, self.state.beta2 * second + self.state.eps
            self._on_device[key] = [tensor.to(gradients.device, torch.float32) for tensor in scaled]
        first, second = self._on_device[key]
        rest1, rest2 = 1 - self.state.beta1, 1 - self.state.beta2
        root = torch.square(gradients).mul_(rest2).add_(second).sqrt_()
        gradients.mul_(rest1)
        if self.momentum:
            gradients.add_(first)
        return gradients.div_(root)
