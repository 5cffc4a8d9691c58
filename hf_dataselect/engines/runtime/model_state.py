"""The model a selector borrows goes back as it came: modes, flags, hooks, `requires_grad` and random state."""

import random
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import MethodType

import numpy as np
import torch
from accelerate.state import AcceleratorState, GradientState, PartialState
from accelerate.utils.operations import ConvertOutputsToFp32
from torch import nn


_FLAGS = ("training", "gradient_checkpointing", "_gradient_checkpointing_func", "forward", "_forward_hooks")
_FLAGS += ("_forward_pre_hooks", "_backward_hooks", "_require_grads_hook", "_require_grads_hooks")
# Said of a model whose hooks record hidden states; without them, and so said, it would give none.
_FLAGS += ("_output_capturing_hooks_installed",)
#: What `accelerate` notes on a model it has prepared. A model so marked is not prepared again: no autocast, no DDP.
_PREPARED = ("_is_accelerate_prepared", "_original_forward")
_FLAGS += _PREPARED
_ABSENT = object()


@contextmanager
def preserved(model: nn.Module | None) -> Iterator[None]:
    """
    Put back, at the end and after an exception, what selecting may touch besides the weights: train or eval mode,
    gradient-checkpointing flags, patched `forward`s and hooks of every module, `requires_grad` and `grad` of every
    parameter, settings (`use_cache`, special tokens, generation), the random state of Python, NumPy and torch (all
    devices), and the state that all of `accelerate`'s accelerators share.
    """
    modules = list(model.modules()) if model is not None else []
    parameters = list(model.parameters()) if model is not None else []
    trainable = [(parameter.requires_grad, parameter.grad) for parameter in parameters]
    # `Trainer` writes the tokenizer's special tokens into them.
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
    """These attributes of each module itself, those of its class apart, as they were."""
    saved = [{name: _copied(module.__dict__.get(name, _ABSENT)) for name in names} for module in modules]
    try:
        yield
    finally:
        for module, values in zip(modules, saved, strict=True):
            for name, value in values.items():
                if value is _ABSENT:
                    module.__dict__.pop(name, None)
                elif isinstance(value, OrderedDict):
                    hooks = module.__dict__[name]  # removal handles keep a reference to this very dictionary
                    hooks.clear()
                    hooks.update(value)
                else:
                    module.__dict__[name] = value


def _copied(value):
    return OrderedDict(value) if isinstance(value, OrderedDict) else value


@contextmanager
def preserved_random_state() -> Iterator[None]:
    """Random state of Python, NumPy and torch (CPU and CUDA) as it was, also after an exception."""
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
    State that all accelerators of the process share, as it was, also after an exception. A second
    [`~transformers.Trainer`] overwrites it: mixed precision, compilation, gradient synchronization. An accelerator
    that is made inside must not be used afterwards.
    """
    shared = [kind._shared_state for kind in (PartialState, AcceleratorState, GradientState)]
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
    prepared by another trainer. Afterwards it is prepared as it was.
    """
    modules = model.modules() if model is not None else ()
    prepared = [module for module in modules if not vars(module).keys().isdisjoint(_PREPARED)]
    with _preserved_attributes(prepared, ("forward", *_PREPARED)):
        for module in prepared:
            unprepare(module)
        yield


def unprepare(module: nn.Module) -> None:
    """Remove, for good, what `accelerate` sets on a module to prepare it: its mark, and autocast around `forward`."""
    vars(module).pop("_is_accelerate_prepared", None)
    forward = vars(module).get("forward")
    own = _without_autocast(forward)
    if own is not getattr(forward, "__func__", forward):
        del module.forward
        vars(module).pop("_original_forward", None)
        if own is not type(module).forward:  # patched by the user, before
            module.forward = MethodType(own, module) if isinstance(forward, MethodType) else own


def _without_autocast(forward: Callable | None) -> Callable | None:
    """The function inside `accelerate`'s autocast, which may be applied more than once."""
    function = getattr(forward, "__func__", forward)
    while isinstance(converted := getattr(function, "__wrapped__", None), ConvertOutputsToFp32):
        function = converted.model_forward.__wrapped__
    return function


def broadcast_weights(model: nn.Module) -> None:
    """Give the main process's parameters and buffers to all ranks, in place, as DDP does when training begins."""
    with torch.no_grad():
        for tensor in (*model.parameters(), *model.buffers()):
            torch.distributed.broadcast(tensor, src=0)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[nn.Module]:
    """
    Every module in eval mode (no dropout, no gradient checkpointing), then back to the mode each one had.

    On a CPU, the 4-bit layers of bitsandbytes are kept from repacking their weights, which they do for faster
    inference and which rounds the scales for good.
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


_MODES = ("training", "support_avx512bf16_for_cpu")


@contextmanager
def cast(model: nn.Module, dtype: torch.dtype) -> Iterator[nn.Module]:
    """
    Compute in another dtype: floating-point weights are replaced by copies in `dtype`, and `accelerate`'s autocast is
    off. The model's own parameters are not touched, and are back in their places afterwards. Costs the memory of one
    copy in `dtype`. Buffers (rotary frequencies) stay as they are, and so do parameters that a module keeps elsewhere
    than under their names.
    """
    # Never through `parameter.data`: another dtype there makes autograd forget the node that accumulates the gradient,
    # and with it the hooks by which DDP averages gradients over the ranks.
    copies: dict[int, nn.Parameter] = {}  # by parameter: tied weights stay tied
    replaced = [
        (module, name, parameter)
        for module in model.modules()
        for name, parameter in module._parameters.items()
        if parameter is not None and parameter.is_floating_point() and parameter.dtype != dtype
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
    The dtype to score in: `"auto"` is bfloat16 where the hardware multiplies in it, the model's own dtype otherwise
    and for quantized models and for float16 ones; `"float32"`, `"bfloat16"` and `"float16"` are taken at their word.
    """
    own = getattr(model, "dtype", torch.float32)
    if getattr(model, "is_quantized", False):
        return own
    if name != "auto":
        return getattr(torch, name)
    return torch.bfloat16 if own == torch.float32 and has_fast_bfloat16(next(model.parameters()).device) else own


def has_fast_bfloat16(device: torch.device) -> bool:
    """Whether the device has bfloat16 matrix products of its own (not emulated ones)."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device)[0] >= 8 if torch.version.cuda else True
    if device.type == "cpu":
        probes = (getattr(torch.cpu, f"_is_{name}_supported", None) for name in ("avx512_bf16", "amx_tile"))
        return any(probe() for probe in probes if probe)
    return device.type in ("xpu", "npu", "hpu", "tpu")
