"""The window of a model, and its state restored after scoring: modes, flags, hooks, `requires_grad`, dtype, seeds."""

import random
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from types import MethodType

import numpy as np
import torch
from torch import nn

from ...compat.accelerate import (
    ORIGINAL_FORWARD,
    PREPARED,
    PREPARED_MARK,
    device_of,
    shared_states,
    without_autocast,
)
from ...compat.bitsandbytes import REPACKS_FOR_CPU
from ...compat.torch import HOOKS, cpu_has_bfloat16
from ...compat.transformers import CAPTURING_FLAG, CHECKPOINTING_FLAGS, INPUT_GRADIENT_HOOKS
from ...errors import SelectionError
from .sharding import callable_by_parts, computing_dtype, sharding_of_model


_FLAGS = ("training", "forward", *HOOKS, *CHECKPOINTING_FLAGS, *INPUT_GRADIENT_HOOKS, CAPTURING_FLAG, *PREPARED)
_ABSENT = object()


def positions(model: nn.Module) -> int | None:
    """Positions that a model has; `None` where its config names no limit."""
    return getattr(model.config.get_text_config(), "max_position_embeddings", None)


@contextmanager
def preserved(model: nn.Module | None) -> Iterator[None]:
    """
    Restore on exit, also after an exception, all that scoring may change besides the weights: train or eval mode,
    gradient-checkpointing flags, patched `forward`s and hooks of every module, `requires_grad` and `grad` of every
    parameter, settings (`use_cache`, special tokens, generation), the random state of Python, NumPy and torch (all
    devices), and the state that all of `accelerate`'s accelerators share.
    """
    modules = list(model.modules()) if model is not None else []
    parameters = list(model.parameters()) if model is not None else []
    trainable = [(parameter.requires_grad, parameter.grad) for parameter in parameters]
    # `Trainer` writes the tokenizer's special tokens to these.
    configs = [getattr(model, name, None) for name in ("config", "generation_config")]
    configs += [config.get_text_config() for config in configs if hasattr(config, "get_text_config")]
    settings = [(config, dict(vars(config))) for config in configs if hasattr(config, "__dict__")]
    with preserved_random_state(), preserved_accelerate_state(), _preserved_attributes(modules, _FLAGS):
        try:
            yield
        finally:
            for parameter, (requires_grad, grad) in zip(parameters, trainable, strict=True):
                parameter.requires_grad_(requires_grad)
                parameter.grad = grad
            for config, values in settings:
                vars(config).clear()
                vars(config).update(values)


@contextmanager
def _preserved_attributes(modules: list[nn.Module], names: tuple[str, ...]) -> Iterator[None]:
    """Restore these attributes of each module instance, not those of its class."""
    saved = [{name: _copied(module.__dict__.get(name, _ABSENT)) for name in names} for module in modules]
    try:
        yield
    finally:
        for module, values in zip(modules, saved, strict=True):
            for name, value in values.items():
                if value is _ABSENT:
                    module.__dict__.pop(name, None)
                elif isinstance(value, OrderedDict):
                    hooks = module.__dict__[name]  # removal handles keep a reference to this dictionary
                    hooks.clear()
                    hooks.update(value)
                else:
                    module.__dict__[name] = value


def _copied(value):
    return OrderedDict(value) if isinstance(value, OrderedDict) else value


@contextmanager
def preserved_random_state() -> Iterator[None]:
    """Restore the random state of Python, NumPy and torch (CPU and CUDA), also after an exception."""
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else None
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])
        if cuda is not None:
            torch.cuda.set_rng_state_all(cuda)


@contextmanager
def preserved_accelerate_state() -> Iterator[None]:
    """
    Restore the state that all accelerators of the process share, also after an exception. A second
    [`~transformers.Trainer`] overwrites it: mixed precision, compilation, gradient synchronization. An accelerator
    that is created inside must not be used afterwards.
    """
    shared = shared_states()
    saved = [{name: list(value) if type(value) is list else value for name, value in d.items()} for d in shared]
    try:
        yield
    finally:
        for now, before in zip(shared, saved, strict=True):
            now.clear()
            now.update(before)


@contextmanager
def unprepared(model: nn.Module | None) -> Iterator[None]:
    """
    The model as if `accelerate` had never prepared it (for evaluation or training): without autocast, and ready to be
    prepared by another trainer. Restored afterwards.
    """
    modules = model.modules() if model is not None else ()
    prepared = [module for module in modules if not vars(module).keys().isdisjoint(PREPARED)]
    with _preserved_attributes(prepared, ("forward", *PREPARED)):
        for module in prepared:
            unprepare(module)
        yield


def unprepare(module: nn.Module) -> None:
    """Remove, for good, what `accelerate` sets on a module to prepare it: its mark, and autocast around `forward`."""
    vars(module).pop(PREPARED_MARK, None)
    forward = vars(module).get("forward")
    own = without_autocast(forward)
    if own is not getattr(forward, "__func__", forward):
        del module.forward
        vars(module).pop(ORIGINAL_FORWARD, None)
        if own is not type(module).forward:  # patched by the user before
            module.forward = MethodType(own, module) if isinstance(forward, MethodType) else own


def broadcast_weights(model: nn.Module) -> None:
    """
    Broadcast the main process's parameters and buffers to all ranks, in place, as DDP does when training starts; not
    those that are sharded.
    """
    with torch.no_grad():
        for tensor in (*model.parameters(), *model.buffers()):
            if not hasattr(tensor, "to_local"):
                torch.distributed.broadcast(tensor, src=0)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[nn.Module]:
    """
    Every module in eval mode (no dropout, no gradient checkpointing); each module's mode is restored afterwards.

    On a CPU, the 4-bit layers of bitsandbytes do not repack their weights for faster inference, which would round the
    scales irreversibly.
    """
    saved = [
        (module, name, module.__dict__[name]) for module in model.modules() for name in _MODES if name in vars(module)
    ]
    model.eval()
    for module, name, _ in saved:
        if name != "training":
            setattr(module, name, False)
    try:
        yield model
    finally:
        for module, name, value in saved:
            setattr(module, name, value)


_MODES = ("training", REPACKS_FOR_CPU)


@contextmanager
def scoring(model: nn.Module, dtype: torch.dtype) -> Iterator[nn.Module]:
    """
    The model ready to score in its [`scoring_dtype`]: in eval mode and that dtype, and its backbone and its head can
    be called by themselves, also where it is sharded. Afterwards it is as before.
    """
    with evaluating(model), cast(model, dtype), callable_by_parts(model):
        yield model


@contextmanager
def cast(model: nn.Module, dtype: torch.dtype) -> Iterator[nn.Module]:
    """
    Compute in another dtype: floating-point weights are replaced by copies in `dtype`, and `accelerate`'s autocast is
    off. The model's own parameters are not modified, and are restored afterwards. Costs the memory of one copy in
    `dtype`. Buffers (rotary frequencies) keep their dtype, and so do parameters that a module holds elsewhere than
    under their names, and those of a sharded model, which computes in a dtype of its own.
    """
    # Not through `parameter.data`: a new dtype there makes autograd drop the node that accumulates the gradient, and
    # with it the hooks by which DDP averages gradients across ranks.
    copies: dict[int, nn.Parameter] = {}  # by parameter: tied weights stay tied
    replaced = [
        (module, name, parameter)
        for module in (model.modules() if sharding_of_model(model) is None else ())
        for name, parameter in module.named_parameters(recurse=False, remove_duplicate=False)
        if parameter.is_floating_point() and parameter.dtype != dtype
    ]
    for _, _, parameter in replaced:
        if id(parameter) not in copies:
            copies[id(parameter)] = nn.Parameter(parameter.detach().to(dtype), parameter.requires_grad)
    try:
        for module, name, parameter in replaced:
            setattr(module, name, copies[id(parameter)])
        with unprepared(model):
            yield model
    finally:
        for module, name, parameter in replaced:
            setattr(module, name, parameter)


def scoring_dtype(model: nn.Module, name: str = "auto") -> torch.dtype:
    """
    The dtype to score in: `"auto"` is bfloat16 for float32 models on hardware with native support, the model's own
    dtype otherwise; any other name is a torch dtype. Quantized models always keep their own, and sharded ones that of
    their mixed precision policy, or their own.

    Raises:
        [`SelectionError`]: another dtype than that of a sharded model.
    """
    if (sharded := computing_dtype(model)) is not None:
        if name not in ("auto", str(sharded)[6:]):
            raise SelectionError(
                f"`selection_dtype={name!r}`: the model is sharded, and computes in {str(sharded)[6:]}. Use 'auto', "
                "or load it in that dtype (`dtype`, mixed precision)."
            )
        return sharded
    own = getattr(model, "dtype", torch.float32)
    if getattr(model, "is_quantized", False):
        return own
    if name != "auto":
        return getattr(torch, name)
    return torch.bfloat16 if own == torch.float32 and has_fast_bfloat16(device_of(model)) else own


def has_fast_bfloat16(device: torch.device) -> bool:
    """Whether the device has native (not emulated) bfloat16 matrix products."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device)[0] >= 8 if torch.version.cuda else True
    if device.type == "cpu":
        return cpu_has_bfloat16()
    return device.type in ("xpu", "npu", "hpu", "tpu")
