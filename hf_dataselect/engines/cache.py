"""
Results keyed by content, appended as they come.

A store is a folder named after everything that decides its numbers (the namespace: model identity, engine and its
code, options). Inside, each process appends to a file of its own: fixed-size records of a row's content key, its
values and a checksum. So a killed run loses at most the batch at hand, two runs can share a folder, a torn or foreign
record is never read, and a row whose tokens changed has another key.
"""

import hashlib
import inspect
import json
import logging
import os
import uuid
import zlib
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import nn

from .. import __version__


logger = logging.getLogger(__name__)


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


class RowStore:
    """
    Numbers of rows under one namespace.

    Args:
        folder (`Path` or `None`):
            The cache folder; `None` keeps nothing.
        namespace (`dict`):
            Everything that decides the numbers besides the row itself; written beside them in plain JSON.
        width (`int`):
            Numbers a row, float64.

    Raises:
        `ValueError`: the folder cannot be written, or holds another namespace under the same name.
    """

    def __init__(self, folder: Path | None, namespace: dict[str, Any], width: int):
        self.record = np.dtype([("key", "V16"), ("values", "<f8", (width,)), ("check", "<u4")])
        self.folder = self._file = None
        if folder is None:
            return
        self.folder = Path(folder) / digest(namespace)
        check_writable(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(namespace, indent=1, sort_keys=True, default=str, ensure_ascii=False)
        described = self.folder / "namespace.json"
        if not described.exists():
            write_atomic(described, text)
        elif described.read_text() != text:
            raise ValueError(f"`selection_cache_dir`: {self.folder} holds other results than it is named for.")

    def load(self, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Stored values `(n, width)` of the given keys, and which of them are known, bool `(n,)`."""
        width = self.record["values"].shape[0]
        values = np.full((len(keys), width), np.nan)
        parts = sorted(self.folder.glob("*.rows")) if self.folder else []
        records = [self._intact(np.frombuffer(part.read_bytes(), np.uint8)) for part in parts]
        records = np.concatenate(records) if records else np.zeros(0, self.record)
        gaps = np.isnan(records["values"]).sum(1)
        if gaps.any():  # of several records of a row, the fullest counts
            records = records[np.argsort(gaps, kind="stable")]
        place = places_of(keys, records["key"])
        known = place >= 0
        values[known] = records["values"][place[known]]
        return values, known

    def _intact(self, data: np.ndarray) -> np.ndarray:
        """Records whose checksum holds; a record torn by a kill ends its file."""
        size = self.record.itemsize
        data = data[: len(data) // size * size]
        raw = data.tobytes()
        records = np.frombuffer(raw, self.record)
        checks = [zlib.crc32(raw[start : start + size - 4]) for start in range(0, len(raw), size)]
        return records[np.array(checks, np.uint32) == records["check"]]

    def append(self, keys: np.ndarray, values: np.ndarray) -> None:
        """Add rows. A full disk stops the saving, with a warning, but never the run."""
        if self.folder is None:
            return
        records = np.zeros(len(keys), self.record)
        records["key"], records["values"] = keys, values
        size = self.record.itemsize
        raw = records.tobytes()
        records["check"] = [zlib.crc32(raw[i : i + size - 4]) for i in range(0, len(raw), size)]
        try:
            if self._file is None:
                self._file = open(self.folder / f"{uuid.uuid4().hex}.rows", "ab", buffering=0)  # noqa: SIM115
            if (
                self._file.write(records.tobytes()) < records.nbytes
            ):  # the next record would not stand where it belongs
                raise OSError("no room for all of it")
        except OSError as error:
            logger.warning(
                "Results can't be saved in %s (%s): the run goes on, but what it computes from here on is computed "
                "again after a restart.",
                self.folder,
                error,
            )
            self.close()
            self.folder = None

    def close(self) -> None:
        """Close the file of this process."""
        if self._file is not None:
            self._file.close()
            self._file = None


def places_of(keys: np.ndarray, stored: np.ndarray) -> np.ndarray:
    """Where each of the keys stands among the stored ones (both `V16`), int64 `(n,)`; -1 for one that is not there."""
    if len(stored) == 0 or len(keys) == 0:
        return np.full(len(keys), -1)
    folded = _folded(stored)
    order = np.argsort(folded, kind="stable")
    place = np.searchsorted(folded, _folded(keys), sorter=order)
    place = order[np.minimum(place, len(order) - 1)]
    return np.where(stored[place] == keys, place, -1)


def _folded(keys: np.ndarray) -> np.ndarray:
    """Keys as single integers that sort fast; equal keys fold alike, and a match is checked on the whole key."""
    halves = np.frombuffer(keys.tobytes(), dtype="<u8").reshape(-1, 2)
    return halves[:, 0] ^ (halves[:, 1] * np.uint64(0x9E3779B97F4A7C15))


def check_writable(folder: Path | str) -> Path:
    """
    Make the folder and prove that a file can be written there.

    Raises:
        `ValueError`: it can't be made or written.
    """
    folder = Path(folder)
    probe = folder / f".probe-{uuid.uuid4().hex}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"probe")
        probe.unlink()
    except OSError as error:
        probe.unlink(missing_ok=True) if folder.is_dir() else None
        raise ValueError(
            f"`selection_cache_dir={str(folder)!r}` can't be written ({error.strerror or error}): choose a folder "
            "with room, or 'none' to keep no results."
        ) from error
    return folder


def write_atomic(path: Path, content: str | bytes) -> None:
    """Write a file so that a reader sees all of it or nothing."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    temporary.write_bytes(content.encode() if isinstance(content, str) else content)
    os.replace(temporary, path)
