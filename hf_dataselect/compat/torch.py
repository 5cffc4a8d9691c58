"""What PyTorch does not document."""

import os
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import torch
import torch.distributed

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


def whole_tensor(tensor: Any) -> Any:
    """A tensor that may be sharded across ranks, whole on each; all of them have to ask."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def local_part(tensor: Any) -> Any:
    """What this rank holds of a tensor that may be sharded, the tensor itself if it is not; without its gradient."""
    return tensor.detach().to_local() if hasattr(tensor, "to_local") else tensor.detach()


def part_of(tensor: Any, like: Any) -> Any:
    """What this rank holds of a whole tensor where it is sharded as another one is."""
    if not hasattr(like, "to_local"):
        return tensor
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(tensor.to(like.device), like.device_mesh, like.placements, src_data_rank=None).to_local()


#: What a module that is checkpointed by FSDP is called inside its wrapper. Seen on torch 2.13.0.
_CHECKPOINTED = "_checkpoint_wrapped_module"


def is_checkpointed(model: Any) -> bool:
    """Whether FSDP's activation checkpointing is applied: a layer has its wrapper; false where it has another name."""
    return any(hasattr(module, _CHECKPOINTED) for module in model.modules())


def unwrapped(name: str) -> str:
    """The name of a module or a parameter as it is without FSDP's activation checkpointing, and in a `state_dict`."""
    return name.replace(f".{_CHECKPOINTED}", "")


def after_optimizer_steps(function: Callable[..., None]) -> Any:
    """
    Call a function after each step of any optimizer, by `register_optimizer_step_post_hook` of
    `torch.optim.optimizer`; the handle's `remove` ends it. Seen on torch 2.13.0; raises `ImportError` where it is
    missing.
    """
    return imported("torch", "torch.optim.optimizer", "register_optimizer_step_post_hook")(function)


def process_group() -> Any:
    """
    The default process group, by the private `_get_default_group` of `torch.distributed.distributed_c10d`; `None`
    where there is none. Seen on torch 2.13.0; raises `ImportError` where it is missing.
    """
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return None
    return imported("torch", "torch.distributed.distributed_c10d", "_get_default_group")()


def shared_store() -> tuple[int, int, Any]:
    """
    Rank, number of ranks, and the key-value store of the default process group, by the private `_get_default_store` of
    `torch.distributed.distributed_c10d`; on a connection of its own, so that a call that waits does not hold up the
    process group, by `clone`, which is not documented. Seen on torch 2.13.0; without `clone` it is on the group's
    connection, without the other it raises `ImportError`.
    """
    store = imported("torch", "torch.distributed.distributed_c10d", "_get_default_store")()
    own = torch.distributed.PrefixStore("hf_dataselect", getattr(store, "clone", lambda: store)())
    return torch.distributed.get_rank(), torch.distributed.get_world_size(), own


def set_time_out(seconds: float) -> None:
    """
    Set the time-out of the default process group's collectives, by the private `_set_pg_timeout` of
    `torch.distributed.distributed_c10d`. Seen on torch 2.13.0; raises `ImportError` where it is missing.
    """
    imported("torch", "torch.distributed.distributed_c10d", "_set_pg_timeout")(timedelta(seconds=seconds))


def collective_failed(error: BaseException) -> bool:
    """Whether an error is one of a collective; Gloo's are told by their words, seen on torch 2.13.0."""
    if isinstance(error, torch.distributed.DistError):
        return True
    words = "gloo", "NCCL", "Connection closed by peer", "Application timeout caused pair closure"
    return isinstance(error, RuntimeError) and any(word in str(error) for word in words)


def record_failure(error: BaseException) -> None:
    """
    Leave an error to `torchrun` and `accelerate launch`, which show the one of the rank that failed first at the very
    end.
    """
    if "TORCHELASTIC_ERROR_FILE" not in os.environ:
        return
    from torch.distributed.elastic.multiprocessing.errors import get_error_handler

    try:
        raise error  # the handler writes the traceback of what is being handled
    except BaseException:
        get_error_handler().record_exception(error)
