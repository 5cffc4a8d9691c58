"""What bitsandbytes does not document. Imports it only when asked."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import TYPE_CHECKING, Any

from .installed import imported


if TYPE_CHECKING:
    import torch  # takes a second, and the package imports this module


class _Later(ModuleType):
    """A module that is imported when something of it is asked for."""

    def __getattr__(self, name: str) -> Any:
        if name == "__file__":  # which `inspect` asks all modules for
            raise AttributeError(name)
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        return getattr(import_module(self.__name__), name)


@contextmanager
def bitsandbytes_later() -> Iterator[None]:
    """
    Let libraries that are imported inside import bitsandbytes when they use it, not at once: `peft.helpers` does so
    for one function, which costs a second, 125 MB and a message about kernels. Seen on PEFT 0.21.2, bitsandbytes
    0.50.2; does nothing where either is imported already, or bitsandbytes is not installed.
    """
    name = "bitsandbytes"
    spec = None if {name, "peft"} & sys.modules.keys() else find_spec(name)
    if spec is None:
        yield
        return
    later = _Later(name)
    later.__spec__ = spec
    sys.modules[name] = later
    try:
        yield
    finally:
        if sys.modules.get(name) is later:
            del sys.modules[name]


#: The attribute of a 4-bit layer that lets it repack its weights for a CPU, for faster inference; that rounds their
#: scales for good. Seen on bitsandbytes 0.50.2; one that is missing is no attribute of any module.
REPACKS_FOR_CPU = "support_avx512bf16_for_cpu"


@contextmanager
def quantized_as_they_are(model: Any) -> Iterator[None]:
    """
    Let `state_dict` give 4-bit weights as they are: where bitsandbytes has repacked them for a CPU, it would repack
    them back, and not the same; where FSDP2 has sharded them, it would leave out their scales, which only the layer
    then holds. By `quant_state` of parameters and layers, and its `packing_format_for_cpu`. Seen on bitsandbytes
    0.50.2; does nothing where they are missing.
    """
    layers = [layer for layer in model.modules() if getattr(layer, "quant_state", None) is not None]
    sharded = [layer for layer in layers if getattr(layer.weight, "quant_state", None) is None]
    states = [getattr(parameter, "quant_state", None) for parameter in model.parameters()]
    repacked = [state for state in states if getattr(state, "packing_format_for_cpu", False)]
    try:
        for layer in sharded:
            layer.weight.quant_state = layer.quant_state
        for state in repacked:
            state.packing_format_for_cpu = False
        yield
    finally:
        for layer in sharded:
            del layer.weight.quant_state
        for state in repacked:
            state.packing_format_for_cpu = True


def quantized_storage(model: Any) -> "set[torch.dtype]":
    """
    The dtypes as whose numbers 4-bit weights are kept, where FSDP2 shards them: `bnb_4bit_quant_storage` unless it is
    one of integers. By `quant_storage` of the parameters. Seen on bitsandbytes 0.50.2; none where it is missing.
    """
    kept = {getattr(parameter, "quant_storage", None) for parameter in model.parameters()}
    return {dtype for dtype in kept if dtype is not None and dtype.is_floating_point}


def dequantized_moment(value: Any, state: dict[str, Any], number: str) -> Any:
    """
    An 8-bit moment of an optimizer in float32, with `absmax1` and `qmap1` (or 2) of its state: blocks of 256 by
    `bitsandbytes.functional.dequantize_blockwise`. Seen on bitsandbytes 0.50.2; raises `ImportError` where it is
    missing.
    """
    dequantize = imported("bitsandbytes", "bitsandbytes.functional", "dequantize_blockwise")
    return dequantize(value, absmax=state[f"absmax{number}"], code=state[f"qmap{number}"], blocksize=256)
