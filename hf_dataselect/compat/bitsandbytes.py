"""What bitsandbytes does not document. Imports it only when asked."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Any

from .installed import imported


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
def as_repacked(model: Any) -> Iterator[None]:
    """
    Let `state_dict` give 4-bit weights as they are where bitsandbytes has repacked them for a CPU: it would repack
    them back, and not the same. By `quant_state.packing_format_for_cpu` of the parameters. Seen on bitsandbytes
    0.50.2; does nothing where it is missing, as nothing is repacked.
    """
    states = [getattr(parameter, "quant_state", None) for parameter in model.parameters()]
    repacked = [state for state in states if getattr(state, "packing_format_for_cpu", False)]
    try:
        for state in repacked:
            state.packing_format_for_cpu = False
        yield
    finally:
        for state in repacked:
            state.packing_format_for_cpu = True


def dequantized_moment(value: Any, state: dict[str, Any], number: str) -> Any:
    """
    An 8-bit moment of an optimizer in float32, with `absmax1` and `qmap1` (or 2) of its state: blocks of 256 by
    `bitsandbytes.functional.dequantize_blockwise`. Seen on bitsandbytes 0.50.2; raises `ImportError` where it is
    missing.
    """
    dequantize = imported("bitsandbytes", "bitsandbytes.functional", "dequantize_blockwise")
    return dequantize(value, absmax=state[f"absmax{number}"], code=state[f"qmap{number}"], blocksize=256)
