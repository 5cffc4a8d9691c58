"""Embeddings of texts by a sentence-transformers encoder."""

import hashlib
from collections.abc import Iterable
from typing import Any

import numpy as np

from ...compat.sharding import not_launched_sharded
from ...errors import SelectionError
from ..runtime.loading import check_pretrained
from ..runtime.runtime import Runtime


def sentence_embeddings(texts: Iterable[str], encoder: str | Any, runtime: Runtime, unit: bool = True) -> np.ndarray:
    """
    Embeddings of a sentence-transformers encoder, float32 `(n, width)`; texts are sharded across ranks.

    Args:
        encoder (`str` or [`~sentence_transformers.SentenceTransformer`]):
            Hub name or folder, or the encoder itself.
        unit (`bool`, *optional*, defaults to `True`):
            Whether to normalize them to length 1.

    Raises:
        `ImportError`: sentence-transformers is missing (extra `embed`).
    """
    model = load_sentence_encoder(encoder, runtime) if isinstance(encoder, str) else encoder
    # Tokenizers reject lone surrogates.
    texts = [text.encode("utf-8", "replace").decode() for text in texts]
    shard = slice(runtime.rank, None, runtime.world)
    show = runtime.is_main and isinstance(encoder, str)
    embedded = model.encode(texts[shard], normalize_embeddings=unit, show_progress_bar=show)
    vectors = np.zeros((len(texts), model.get_embedding_dimension()), np.float32)
    vectors[shard] = embedded
    return runtime.sum(vectors)


def check_sentence_encoder(encoder: str, group: str = "selection_kwargs") -> None:
    """
    Check, before its weights load, that this is an encoder of sentence-transformers or a model of transformers; raises
    a `ValueError` otherwise. `group` is the option group that names it.
    """
    from sentence_transformers.util import is_sentence_transformer_model

    if not is_sentence_transformer_model(encoder):
        check_pretrained(encoder, "encoder", group)


@not_launched_sharded()
def load_sentence_encoder(encoder: str, runtime: Runtime) -> Any:
    """
    A sentence-transformers encoder on this rank's device.

    Raises:
        [`SelectionError`]: it can't be loaded.
    """
    from sentence_transformers import SentenceTransformer

    try:
        return SentenceTransformer(encoder, device=str(runtime.device) if runtime.accelerator else None)
    except (OSError, ValueError) as error:
        raise SelectionError(f"`encoder={encoder!r}` can't be loaded: {error}") from error


def text_keys(texts: Iterable[str]) -> np.ndarray:
    """Content key of each text, `(n,)` of 16 bytes (`V16`)."""
    digests = (hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest() for text in texts)
    return np.frombuffer(b"".join(digests), dtype="V16")
