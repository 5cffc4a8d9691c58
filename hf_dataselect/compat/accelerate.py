"""What accelerate does not document."""

from collections.abc import Callable
from typing import Any

import torch
from accelerate.state import AcceleratorState, GradientState, PartialState
from accelerate.utils import align_module_device

from .installed import attribute, imported


#: The mark on a module that is prepared. A marked module is not prepared again: no autocast, no DDP.
PREPARED_MARK = "_is_accelerate_prepared"
#: The `forward` that a prepared module had before.
ORIGINAL_FORWARD = "_original_forward"
#: What `Accelerator.prepare` sets on a module besides its `forward`. Seen on accelerate 1.15.0; one that is missing is
#: no attribute of any module.
PREPARED = (PREPARED_MARK, ORIGINAL_FORWARD)


def shared_states() -> list[dict[str, Any]]:
    """
    The dictionaries that all accelerators of a process share: `_shared_state` of [`~accelerate.state.PartialState`],
    `AcceleratorState` and `GradientState`. Seen on accelerate 1.15.0; raises `ImportError` where they are missing.
    """
    return [attribute("accelerate", kind, "_shared_state") for kind in (PartialState, AcceleratorState, GradientState)]


def several_processes() -> bool:
    """
    Whether an accelerator has been made and there are several processes; makes no state where there is none, as
    [`~accelerate.state.PartialState`] does, by its private `_shared_state`. Seen on accelerate 1.15.0; raises
    `ImportError` where it is missing.
    """
    return bool(attribute("accelerate", PartialState, "_shared_state")) and PartialState().num_processes > 1


def out_of_memory(error: Exception) -> bool:
    """
    Whether an error says that memory ran out, by `accelerate.utils.memory.should_reduce_batch_size`. Seen on
    accelerate 1.15.0; raises `ImportError` where it is missing.
    """
    ran_out = imported("accelerate", "accelerate.utils.memory", "should_reduce_batch_size")
    return ran_out(error) or isinstance(error, MemoryError)


def without_autocast(forward: Callable | None) -> Callable | None:
    """
    The function inside the autocast that `Accelerator.prepare` puts around a `forward`, which may be applied more than
    once: `accelerate.utils.operations.ConvertOutputsToFp32`, its `model_forward` and the `__wrapped__` of both. Seen
    on accelerate 1.15.0; raises `ImportError` where it is missing.
    """
    kind = imported("accelerate", "accelerate.utils.operations", "ConvertOutputsToFp32")
    function = getattr(forward, "__func__", forward)
    while isinstance(converted := getattr(function, "__wrapped__", None), kind):
        function = converted.model_forward.__wrapped__
    return function


def device_of(module: Any) -> torch.device:
    """
    Where a model or a layer takes its inputs: the device of its first parameter, or the `execution_device` of the hook
    `_hf_hook` where that is offloaded, on no device but while it computes. Seen on accelerate 1.15.0; where the hook
    is missing, the device is `meta`.
    """
    device = next(module.parameters()).device
    if device.type != "meta":
        return device
    hooks = (getattr(part, "_hf_hook", None) for part in module.modules())
    devices = (getattr(hook, "execution_device", None) for hook in hooks)
    return torch.device(next((given for given in devices if given is not None), device))


def is_offloaded(model: Any) -> bool:
    """Whether `device_map` keeps weights of a model in main memory or on disk, and loads each layer as it computes."""
    return any(parameter.is_meta for parameter in model.parameters())


def offloaded_tensor(model: Any, name: str) -> Any:
    """A parameter or buffer, by its name in the state, of a layer that is offloaded, in main memory."""
    owner, _, own = name.rpartition(".")
    module = model.get_submodule(owner)
    with align_module_device(module, "cpu"):
        return getattr(module, own).detach()


def own_optimizer(optimizer: Any) -> Any:
    """
    The optimizer of torch inside accelerate's wrapper, its `optimizer`. Seen on accelerate 1.15.0; an optimizer
    without one is not wrapped.
    """
    return getattr(optimizer, "optimizer", optimizer)
