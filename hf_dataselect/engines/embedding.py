"""Row embeddings: the mean or the last of a causal model's last hidden states, or a sentence encoder's vectors."""

import hashlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import is_peft_model
from torch import nn

from ..selection import SelectionError
from . import batching, tokens
from .batching import map_batches
from .cache import code_version, model_identity
from .pretrained import check_pretrained
from .state import cast, evaluating, scoring_dtype
from .store import VectorStore
from .tokens import TokenRows


def hidden_state(
    model: nn.Module,
    rows: TokenRows,
    *,
    pool: Literal["mean", "last", "position"],
    batch_tokens: int = 4096,
    dtype: str = "auto",
    accelerator: Accelerator | None = None,
    progress: str | None = None,
) -> np.ndarray:
    """
    Last hidden state (after the final norm): its mean over all positions of a row, or that of the row's last token.

    Args:
        pool (`str`):
            `"mean"`; `"last"`; or `"position"`: the mean with position i (from 1) weighed by i, as in RDS+ (arXiv
            2503.01807), since in a causal model the later states have seen more.

    Returns:
        `np.ndarray`: float32 `(n, width)`; NaN for an empty row or one that did not fit in memory.
    """
    inner = model.get_base_model() if is_peft_model(model) else model
    device = next(model.parameters()).device

    def compute(batch: np.ndarray) -> np.ndarray:
        ids = [torch.from_numpy(ids.astype(np.int64)) for ids, _ in rows.take(batch)]
        padded = torch.nn.utils.rnn.pad_sequence(ids, batch_first=True).to(device)
        lengths = torch.tensor([[len(row)] for row in ids])
        if padded.shape[1] == 0:
            return np.full((len(ids), inner.config.get_text_config().hidden_size), np.nan, np.float32)
        hidden = inner.base_model(input_ids=padded, use_cache=False).last_hidden_state
        places = torch.arange(padded.shape[1])
        weights = (places == lengths - 1 if pool == "last" else places < lengths).float()
        weights = (weights * (places + 1) if pool == "position" else weights).to(hidden.device)
        total = (hidden.float() * weights[..., None]).sum(1)
        return (total / weights.sum(1, keepdim=True)).cpu().numpy()

    with torch.no_grad(), evaluating(model), cast(model, scoring_dtype(model, dtype)):
        return map_batches(
            compute,
            rows.lengths,
            inner.config.get_text_config().hidden_size,
            batch_tokens=batch_tokens,
            accelerator=accelerator,
            progress=progress,
            dtype=np.float32,
        )


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
