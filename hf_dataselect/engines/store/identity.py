"""Content hashes of values, models and weights."""

import hashlib
import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary, ref

import numpy as np
import torch
from torch import nn

from ...compat.accelerate import with_offloaded
from ...compat.bitsandbytes import quantized_as_they_are
from ...compat.deepspeed import gathered, is_gathered, own_part
from ...compat.peft import active_adapters
from ...compat.sharding import sharded_precision
from ...compat.torch import after_optimizer_steps, tensor_version, whole_tensor


def digest(value: Any) -> str:
    """Short hexadecimal hash of anything JSON can hold (unknown objects count by their `str`)."""
    text = json.dumps(value, sort_keys=True, default=_plain, ensure_ascii=False)
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=12).hexdigest()


def plain(value: Any) -> Any:
    """The value as it is read back from JSON; its digest is the same."""
    return json.loads(json.dumps(value, default=_plain))


def _plain(value: Any) -> Any:
    # The order of a set (PEFT's target modules) differs from process to process.
    return sorted(map(str, value)) if isinstance(value, (set, frozenset)) else str(value)


def model_identity(model: nn.Module) -> str:
    """
    Content hash of a model: its configuration and all its weights, adapters included.

    It is the same where the model is offloaded or sharded, unless FSDP2 computes in another dtype than that of the
    weights: each tensor is loaded or gathered in turn, so that all ranks have to ask.

    Each tensor counts with its name, shape, dtype, the exact integer sum of each row's bits (any single change and any
    exchange of rows shows, on any device, in any order of summation) and 256 evenly spaced elements.
    """
    hasher = hashlib.blake2b(_described(model).encode(), digest_size=16)
    return _hashed(hasher, with_offloaded(model, _state(model)))


#: Inside [`identities_remembered`]: of a model, hash of its configuration, marks of its tensors, identity.
_remembered: WeakKeyDictionary[nn.Module, tuple[str, list[tuple], str]] | None = None


@contextmanager
def identities_remembered() -> Iterator[None]:
    """
    Inside, [`identity_of`] hashes a model again only after it changed: another tensor, or a tensor with other memory
    or another version (which operations in place count up); and any step of an optimizer, since fused ones count
    nothing. Only writes through `.data` escape that, and to offloaded weights: what has to prove that weights are as
    before calls [`model_identity`].
    """
    global _remembered
    if _remembered is not None:
        yield
        return
    _remembered = WeakKeyDictionary()
    hook = after_optimizer_steps(lambda *_: _remembered.clear())
    try:
        yield
    finally:
        hook.remove()
        _remembered = None


def identity_of(model: nn.Module) -> str:
    """The [`model_identity`] of a model, or what [`note_identity`] took for it; see [`identities_remembered`]."""
    described, marks, identity = (_remembered or {}).get(model, ("", [], ""))
    if identity and described == _described(model) and _same(marks, _tensors(model)):
        return identity
    return note_identity(model, model_identity(model))


def note_identity(model: nn.Module, identity: str) -> str:
    """Remember this as the identity of the model as it is now, and return it."""
    tensors = _tensors(model)
    if _remembered is not None and not any(tensor.is_inference() for tensor in tensors):  # these have no version
        _remembered[model] = _described(model), [(ref(tensor), *_mark(tensor)) for tensor in tensors], identity
    return identity


def _tensors(model: nn.Module) -> list[torch.Tensor]:
    """Those that are in memory: of offloaded weights, each pass leaves other ones without data."""
    return [tensor for tensor in (*model.parameters(), *model.buffers()) if not tensor.is_meta]


def _mark(tensor: torch.Tensor) -> tuple:
    tensor = own_part(tensor)
    return tensor_version(tensor), tensor.data_ptr(), tensor.dtype


def _same(marks: list[tuple], tensors: list[torch.Tensor]) -> bool:
    return len(marks) == len(tensors) and all(
        known() is tensor and (*mark,) == _mark(tensor) for (known, *mark), tensor in zip(marks, tensors, strict=True)
    )


def _described(model: nn.Module) -> str:
    """
    Hash of all that decides a model's numbers besides its tensors: its configuration, that of its adapters, and the
    mixed precision of one that is sharded.
    """
    config = model.config.to_dict() if hasattr(model, "config") else {}
    adapters = {
        name: (name in active_adapters(model), {k: v for k, v in adapter.to_dict().items() if k not in _VOLATILE})
        for name, adapter in getattr(model, "peft_config", {}).items()
    }
    described = [{k: v for k, v in config.items() if k not in _VOLATILE}, adapters]
    return digest(described + [precision] if (precision := sharded_precision(model)) else described)


def weights_identity(weights: dict[str, torch.Tensor]) -> str:
    """Content hash of tensors by name, as that of [`model_identity`]."""
    return _hashed(hashlib.blake2b(digest_size=16), sorted(weights.items()))


def _hashed(hasher: Any, weights: Iterable[tuple[str, Any]]) -> str:
    """Hash of tensors by name, in the order of their names."""
    for name, tensor in weights:
        if isinstance(tensor, torch.Tensor):
            with gathered([tensor]):
                tensor = whole_tensor(tensor).detach()
            bits = tensor.contiguous().reshape(-1).view(_INTEGERS[tensor.element_size()])
            width = tensor.shape[-1] if tensor.dim() > 1 and tensor.shape[-1] > 1 else len(bits)
            hasher.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
            rows = bits.reshape(-1, max(1, width))
            for block in rows.split(max(1, 2**24 // max(1, width))):  # torch's sum makes an int64 copy of what it sums
                hasher.update(_row_sums(block).tobytes())
            hasher.update(bits[:: max(1, len(bits) // 256)].cpu().numpy().tobytes())
    return hasher.hexdigest()


def _row_sums(bits: torch.Tensor) -> np.ndarray:
    """Exact sum of each row, int64."""
    if bits.device.type == "cpu":  # torch copies them as int64 first
        return bits.numpy().sum(1, dtype=np.int64)
    return bits.sum(1, dtype=torch.int64).cpu().numpy()


_INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


#: Entries of a model's or an adapter's configuration that change no number.
_VOLATILE = {"_name_or_path", "transformers_version", "dtype", "torch_dtype", "use_cache", "architectures"}


_VOLATILE |= {"base_model_name_or_path", "revision", "inference_mode", "peft_version"}


def _state(model: nn.Module) -> dict[str, Any]:
    with quantized_as_they_are(model):
        state = model.state_dict()
    # It has no copies of parameters that ZeRO-3 shards, but empty tensors.
    sharded = {name: p for name, p in model.named_parameters(remove_duplicate=False) if not is_gathered(p)}
    return state | {name: sharded[name] for name in state.keys() & sharded.keys()}
