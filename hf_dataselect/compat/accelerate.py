"""What accelerate does not document."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from accelerate.state import AcceleratorState, GradientState, PartialState
from accelerate.utils import align_module_device, has_offloaded_params

from ..errors import SelectionError
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


def own_optimizer(optimizer: Any) -> Any:
    """
    The optimizer of torch inside accelerate's wrapper, its `optimizer`. Seen on accelerate 1.15.0; an optimizer
    without one is not wrapped.
    """
    return getattr(optimizer, "optimizer", optimizer)


def is_offloaded(model: Any) -> bool:
    """Whether weights of the model are in main memory or on disk until they are needed (`device_map`)."""
    return any(map(has_offloaded_params, model.modules()))


def device_of(module: Any) -> torch.device:
    """
    Device that a module is run on: that of its first weight or, where that is offloaded, `execution_device` of its
    hook `_hf_hook`. Seen on accelerate 1.15.0; raises `ImportError` where they are missing.
    """
    device = next(module.parameters()).device
    hooked = next(filter(has_offloaded_params, module.modules()), None) if device.type == "meta" else None
    if hooked is None:
        return device
    hook = attribute("accelerate", hooked, "_hf_hook")
    return torch.device(attribute("accelerate", hook, "execution_device"))


@contextmanager
def forward_on_device(module: Any) -> Iterator[Callable]:
    """
    The forward of a module whose weights, if they are offloaded, stay on its device inside: that within the hook which
    reads and frees them at each call, `_old_forward`. Seen on accelerate 1.15.0; raises `ImportError` where it is
    missing.
    """
    with align_module_device(module):
        yield attribute("accelerate", module, "_old_forward") if has_offloaded_params(module) else module


def with_offloaded(model: Any, state: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """
    The state of a model by name, in the order of the names. Offloaded weights are read one module at a time, and freed
    when the next one is asked for.

    Raises:
        [`SelectionError`]: a weight without data, which is not offloaded either.
    """
    for name, tensor in sorted(state.items()):
        if not getattr(tensor, "is_meta", False):
            yield name, tensor
            continue
        path, _, own = name.rpartition(".")
        module = model.get_submodule(path)
        if not has_offloaded_params(module):
            raise SelectionError(f"`model`: {name!r} is on the device `meta`, without data: load the model's weights.")
        with align_module_device(module, "cpu"):
            yield name, getattr(module, own)
