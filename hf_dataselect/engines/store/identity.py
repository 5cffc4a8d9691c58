"""Content hashes of values, models and weights."""

import hashlib
import inspect
import json
from types import ModuleType
from typing import Any

import torch
from torch import nn

from ... import __version__


def digest(value: Any) -> str:
    """Short hexadecimal hash of anything JSON can hold (unknown objects count by their `str`)."""
    text = json.dumps(value, sort_keys=True, default=_plain, ensure_ascii=False)
    return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()


def _plain(value: Any) -> Any:
    # The order of a set (PEFT's target modules) differs from process to process.
    return sorted(map(str, value)) if isinstance(value, (set, frozenset)) else str(value)


def code_version(*modules: ModuleType) -> str:
    """Package version and a hash of the modules' source: a changed formula never meets old numbers."""
    return f"{__version__}+{digest([inspect.getsource(module) for module in modules])}"


def model_identity(model: nn.Module) -> str:
    """
    Content hash of a model: its configuration and all its weights, adapters included.

    Each tensor counts with its name, shape, dtype, the exact integer sum of each row's bits (any single change and any
    exchange of rows shows, on any device, in any order of summation) and 256 evenly spaced elements. About 0.1 s a GB.
    """
    config = model.config.to_dict() if hasattr(model, "config") else {}
    adapters = {
        name: (name in _active_adapters(model), {k: v for k, v in adapter.to_dict().items() if k not in _VOLATILE})
        for name, adapter in getattr(model, "peft_config", {}).items()
    }
    described = [{k: v for k, v in config.items() if k not in _VOLATILE}, adapters]
    hasher = hashlib.blake2b(digest(described).encode(), digest_size=16)
    return _hashed(hasher, _state(model))


def weights_identity(weights: dict[str, torch.Tensor]) -> str:
    """Content hash of tensors by name, as that of [`model_identity`]."""
    return _hashed(hashlib.blake2b(digest_size=16), weights)


def _hashed(hasher: Any, weights: dict[str, Any]) -> str:
    for name, tensor in sorted(weights.items()):
        if isinstance(tensor, torch.Tensor):
            bits = tensor.detach().contiguous().reshape(-1).view(_INTEGERS[tensor.element_size()])
            width = tensor.shape[-1] if tensor.dim() > 1 and tensor.shape[-1] > 1 else len(bits)
            hasher.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
            rows = bits.reshape(-1, max(1, width))
            for block in rows.split(max(1, 2**24 // max(1, width))):  # the sum makes an int64 copy of what it sums
                hasher.update(block.sum(1, dtype=torch.int64).cpu().numpy().tobytes())
            hasher.update(bits[:: max(1, len(bits) // 256)].cpu().numpy().tobytes())
    return hasher.hexdigest()


_INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


#: Entries of a model's or an adapter's configuration that change no number.
_VOLATILE = {"_name_or_path", "transformers_version", "dtype", "torch_dtype", "use_cache", "architectures"}


_VOLATILE |= {"base_model_name_or_path", "revision", "inference_mode", "peft_version"}


def _state(model: nn.Module) -> dict[str, Any]:
    # Where bitsandbytes has repacked 4-bit weights for a CPU, `state_dict` would repack them back, and not the same.
    states = [getattr(parameter, "quant_state", None) for parameter in model.parameters()]
    repacked = [state for state in states if getattr(state, "packing_format_for_cpu", False)]
    try:
        for state in repacked:
            state.packing_format_for_cpu = False
        return model.state_dict()
    finally:
        for state in repacked:
            state.packing_format_for_cpu = True


def _active_adapters(model: nn.Module) -> list[str]:
    active = model.active_adapters
    return active() if callable(active) else active
