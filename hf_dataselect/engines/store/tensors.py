"""Tensors on disk with a checksum of all their bytes: what is damaged or foreign is told, never read."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from .files import written_atomic
from .vector_store import free_bytes


def save_tensors(path: Path, state: dict[str, torch.Tensor], facts: dict[str, Any]) -> None:
    """
    Write tensors, and facts in JSON, atomically. What a kill left of such a file is removed.

    Raises:
        `OSError`: there is no room for them, or they can't be written.
    """
    for torn in path.parent.glob(f".{path.name}.*"):
        torn.unlink(missing_ok=True)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    needed, free = sum(tensor.nbytes for tensor in tensors.values()), free_bytes(path.parent)
    if needed > free:  # the run may need what is left of the disk
        raise OSError(f"they take {needed / 1e9:.1f} GB, and {free / 1e9:.1f} GB are left")
    described = json.dumps(facts)
    metadata = {"facts": described, "checksum": _checksum(path.name, tensors, described)}
    try:
        with written_atomic(path) as temporary:
            save_file(tensors, temporary, metadata=metadata)
            temporary.chmod(path.parent.stat().st_mode & 0o666)  # it is made for its owner only
    except SafetensorError as error:
        raise OSError(str(error)) from error


def load_tensors(
    path: Path, tell: Callable[..., None] | None = None
) -> tuple[dict[str, torch.Tensor], dict[str, Any]] | None:
    """
    Tensors and facts from [`save_tensors`]; `None` if there are none, or not as they were written under this name.

    Args:
        tell (`Callable`, *optional*):
            Logs that a file is damaged or can't be read.
    """
    try:
        open(path, "rb").close()  # which says why it can't be read
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if "checksum" not in metadata:
            raise ValueError("it has no checksum")
        if metadata["checksum"] != _checksum(path.name, state, metadata.get("facts", "")):
            raise ValueError("its checksum is that of another content")
        return state, json.loads(metadata["facts"])
    except FileNotFoundError:
        return None
    except (SafetensorError, OSError, ValueError) as error:
        if tell is not None:
            what = "can't be read" if isinstance(error, OSError) else "is damaged"
            tell("%s %s (%s): what it held is computed again.", path, what, error)
        return None


def _checksum(name: str, state: dict[str, torch.Tensor], facts: str) -> str:
    """Hash of all that a file holds, and of the name that it is found by."""
    hasher = hashlib.blake2b(f"{name}\n{facts}\n".encode(), digest_size=16)
    for key, tensor in sorted(state.items()):
        hasher.update(f"{key}{tuple(tensor.shape)}{tensor.dtype}\n".encode())
        hasher.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy())
    return hasher.hexdigest()
