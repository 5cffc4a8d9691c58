"""Adam's view of a gradient: optimizer state by parameter name, and the update that one row would cause."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import nn

from ...errors import SelectionError


@dataclass(frozen=True)
class AdamState:
    """
    First and second moments of Adam or AdamW.

    Args:
        exp_avg, exp_avg_sq (`dict[str, torch.Tensor]`):
            By parameter name, in the parameter's shape.
        beta1, beta2, eps (`float`, *optional*):
            The optimizer's, by default 0.9, 0.999 and 1e-8.
    """

    exp_avg: dict[str, torch.Tensor]
    exp_avg_sq: dict[str, torch.Tensor]
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8

    @classmethod
    def of(cls, optimizer: torch.optim.Optimizer, model: nn.Module) -> "AdamState":
        """
        The state of an optimizer on its way, float32 copies in main memory; 8-bit states of bitsandbytes are spelled
        out.

        Raises:
            [`SelectionError`]: it is no Adam, or has made no step yet.
        """
        names = {parameter: name for name, parameter in model.named_parameters()}
        first, second, options = {}, {}, optimizer.param_groups[0]
        for parameter, state in optimizer.state.items():
            m, v = _moment(state, "exp_avg", "1"), _moment(state, "exp_avg_sq", "2")
            if parameter in names and m is not None and v is not None:
                first[names[parameter]], second[names[parameter]] = m, v
        if not first or "betas" not in options:
            raise SelectionError(
                f"The optimizer {type(optimizer).__name__} holds no first and second moments: tune with Adam or AdamW."
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
        from bitsandbytes.functional import dequantize_blockwise

        value = dequantize_blockwise(
            value, absmax=state[f"absmax{number}"], code=state[f"qmap{number}"], blocksize=256
        )
    return value.detach().to("cpu", torch.float32, copy=True)


@dataclass
class AdamFeature:
    """
    The update that a row's gradient g would give (LESS, arXiv 2402.04333, as in its code: the epsilon inside the root,
    no bias correction):

        (beta1 m + (1 - beta1) g) / sqrt(beta2 v + (1 - beta2) g^2 + eps)

    Args:
        state ([`AdamState`]):
            m and v.
        momentum (`bool`, *optional*, defaults to `True`):
            Whether beta1 m is in it. It is the same for all rows and outweighs what tells them apart; without it the
            features are centred.
    """

    state: AdamState
    momentum: bool = True
    _on_device: dict = field(default_factory=dict, repr=False)

    def check(self, names: Sequence[str]) -> None:
        """Refuse, with a `ValueError`, parameters that the optimizer has no state of."""
        missing = [name for name in names if name not in self.state.exp_avg]
        if missing:
            raise SelectionError(f"The optimizer has no state of {len(missing)} parameters, such as {missing[0]!r}.")

    @property
    def identity(self) -> list:
        """What decides the numbers."""
        return [self.state.identity, self.momentum]

    def __call__(self, name: str, gradients: torch.Tensor) -> torch.Tensor:
        """Features `(rows, size)` of the gradients of a parameter, float32 `(rows, size)`, which are overwritten."""
        key = name, gradients.device
        if key not in self._on_device:
            first, second = (m[name].flatten() for m in (self.state.exp_avg, self.state.exp_avg_sq))
            moved = self.state.beta1 * first, self.state.beta2 * second + self.state.eps
            self._on_device[key] = [tensor.to(gradients.device, torch.float32) for tensor in moved]
        first, second = self._on_device[key]
        rest1, rest2 = 1 - self.state.beta1, 1 - self.state.beta2
        root = torch.square(gradients).mul_(rest2).add_(second).sqrt_()
        gradients.mul_(rest1)
        if self.momentum:
            gradients.add_(first)
        return gradients.div_(root)
