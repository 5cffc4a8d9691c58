"""Vectors of texts by a sentence encoder."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..compat.sentence_transformers import encoder_modules
from ..context import Context
from ..engines.forward.cached_vectors import CachedVectors
from ..engines.forward.sentence_encoder import check_sentence_encoder as check_sentence_encoder
from ..engines.forward.sentence_encoder import load_sentence_encoder, sentence_embeddings, text_keys
from ..engines.runtime.runtime import Runtime
from ..engines.runtime.stored_vectors import Vectors
from ..errors import SelectionError


def sentence_vectors(texts: Sequence[str], encoder: str, ctx: Context, label: str) -> Vectors:
    """
    Vectors of texts, not normalised, float32 `(n, width)`; cached by content, and read from the disk as needed.

    Args:
        texts (`Sequence[str]`):
            The texts.
        encoder (`str`):
            See [`load_text_encoder`].
        ctx ([`Context`]):
            Ranks, cache, account.
        label (`str`):
            Label of the progress bar.

    Raises:
        [`SelectionError`]: the encoder can't be loaded.
    """
    model, runtime = load_text_encoder(encoder, ctx.runtime), ctx.runtime

    def compute(rows: np.ndarray) -> np.ndarray:
        return sentence_embeddings([texts[i] for i in rows], model, runtime, unit=False)

    with CachedVectors(runtime, model, model.get_embedding_dimension(), label, len(texts), unit=False) as cached:
        return cached(text_keys(texts), compute)


def load_text_encoder(name: str, runtime: Runtime) -> Any:
    """
    A sentence-transformers encoder by hub name or folder; a plain BERT gives the hidden state of its first token, for
    texts truncated to 96 tokens.

    Raises:
        [`SelectionError`]: it can't be loaded.
    """
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.util import is_sentence_transformer_model

    if is_sentence_transformer_model(name):
        return load_sentence_encoder(name, runtime)
    models = encoder_modules()
    try:
        transformer = models.Transformer(name, max_seq_length=96)
    except (OSError, ValueError) as error:
        raise SelectionError(f"`selection_kwargs`: encoder={name!r} can't be loaded: {error}") from error
    pooling = models.Pooling(transformer.get_embedding_dimension(), pooling_mode="cls")
    return SentenceTransformer(modules=[transformer, pooling], device=str(runtime.device))
