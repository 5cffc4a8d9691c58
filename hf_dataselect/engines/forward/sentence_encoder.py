"""Row embeddings: the mean or the last of a causal model's last hidden states, or a sentence encoder's vectors."""

import hashlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import nn

from ...errors import SelectionError
from ..runtime import batching
from ..runtime import token_rows as tokens
from ..runtime.loading import check_pretrained
from ..store.identity import code_version, model_identity
from ..store.vector_store import VectorStore


def sentence_embeddings(
    texts: Sequence[str], encoder: str | Any, accelerator: Accelerator | None = None, unit: bool = True
) -> np.ndarray:
    """
    Vectors of a sentence-transformers encoder, float32 `(n, width)`; texts are dealt over the ranks.

    Args:
        encoder (`str` or [`~sentence_transformers.SentenceTransformer`]):
            Hub name or folder, or the encoder itself.
        unit (`bool`, *optional*, defaults to `True`):
            Whether they are scaled to length 1.

    Raises:
        `ImportError`: sentence-transformers is missing (extra `embed`).
    """
    model = load_sentence_encoder(encoder, accelerator) if isinstance(encoder, str) else encoder
    # A lone surrogate is no text to a tokenizer.
    texts = [text.encode("utf-8", "replace").decode() for text in texts]
    world, rank = (accelerator.num_processes, accelerator.process_index) if accelerator else (1, 0)
    shown = rank == 0 and isinstance(encoder, str)
    mine = model.encode(texts[rank::world], normalize_embeddings=unit, show_progress_bar=shown)
    vectors = np.zeros((len(texts), model.get_embedding_dimension()), np.float32)
    vectors[rank::world] = mine
    if world > 1:
        vectors = accelerator.reduce(torch.from_numpy(vectors).to(accelerator.device), "sum").cpu().numpy()
    return vectors


def check_sentence_encoder(encoder: str, group: str = "selection_kwargs") -> None:
    """
    Refuse, with a `ValueError`, what is no encoder, before its weights load: one of sentence-transformers, or a model
    that transformers knows. `group` is where the user named it.
    """
    from sentence_transformers.util import is_sentence_transformer_model

    if not is_sentence_transformer_model(encoder):
        check_pretrained(encoder, "encoder", group)


def load_sentence_encoder(encoder: str, accelerator: Accelerator | None = None) -> Any:
    """
    A sentence-transformers encoder on this rank's device.

    Raises:
        [`SelectionError`]: it can't be loaded.
    """
    from sentence_transformers import SentenceTransformer

    try:
        return SentenceTransformer(encoder, device=str(accelerator.device) if accelerator else None)
    except (OSError, ValueError) as error:
        raise SelectionError(f"encoder={encoder!r} can't be loaded: {error}") from error


def text_keys(texts: Sequence[str]) -> np.ndarray:
    """Content key of each text, `(n,)` of 16 bytes (`V16`)."""
    digests = (hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest() for text in texts)
    return np.frombuffer(b"".join(digests), dtype="V16")


def embedding_store(
    folder: Path | None, model: nn.Module, width: int, written: set[Path] | None = None, **options: Any
) -> VectorStore:
    """
    Where the vectors of an encoder are kept.

    Args:
        folder (`Path` or `None`):
            The cache folder; `None` keeps nothing.
        model ([`~torch.nn.Module`]):
            The encoder; its weights and its printed form name the store.
        width (`int`):
            Numbers a vector.
        written (`set[Path]`, *optional*):
            As in [`VectorStore`].
        **options:
            All else that decides the numbers.
    """
    described = {
        "engine": "embedding",
        "code": code_version(sys.modules[__name__], tokens, batching),
        "model": model_identity(model) if folder else None,
        "modules": str(model),
        **options,
    }
    return VectorStore(folder, described, width, written=written)
