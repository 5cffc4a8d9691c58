"""What PyTorch does not document."""

from collections.abc import Callable
from typing import Any

import torch

from .installed import attribute, imported


#: Where a module keeps its hooks, ordered dictionaries. Seen on torch 2.13.0; one that is missing is no attribute of
#: any module.
HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks")


def cpu_has_bfloat16() -> bool:
    """
    Whether the CPU multiplies in bfloat16, by the private `torch.cpu._is_avx512_bf16_supported` and
    `_is_amx_tile_supported`. Seen on torch 2.13.0; false where both are missing: then scoring is in the model's dtype.
    """
    probes = (getattr(torch.cpu, f"_is_{name}_supported", None) for name in ("avx512_bf16", "amx_tile"))
    return any(probe() for probe in probes if probe)


def tensor_version(tensor: Any) -> int:
    """
    How often a tensor was written in place, its private `_version`. Seen on torch 2.13.0; raises `ImportError` where
    it is missing.
    """
    return attribute("torch", tensor, "_version")


def after_optimizer_steps(function: Callable[..., None]) -> Any:
    """
    Call a function after each step of any optimizer, by `register_optimizer_step_post_hook` of
    `torch.optim.optimizer`; the handle's `remove` ends it. Seen on torch 2.13.0; raises `ImportError` where it is
    missing.
    """
    return imported("torch", "torch.optim.optimizer", "register_optimizer_step_post_hook")(function)
