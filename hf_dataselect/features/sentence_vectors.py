"""Vectors of texts by a sentence encoder."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..compat.sentence_transformers import encoder_modules
from ..compat.sharding import not_launched_sharded
from ..context import Context
from ..data.records import Records
from ..data.row_texts import RowTexts
from ..engines.forward.cached_vectors import CachedVectors
from ..engines.forward.sentence_encoder import check_sentence_encoder as check_sentence_encoder
from ..engines.forward.sentence_encoder import load_sentence_encoder, sentence_embeddings, text_keys
from ..engines.runtime.runtime import Runtime
from ..engines.runtime.stored_vectors import Vectors
from ..errors import Checks, SelectionError
from .hidden_states import prompt_vectors


class EncoderOption:
    """
    What selectors share that embed rows by an option `encoder`: a sentence encoder, or `"model"`, the pending
    fine-tune model. A base before [`Selector`], whose calls it adds to.
    """

    encoder: str

    @property
    def embeds(self) -> bool:
        """Whether these options embed rows at all."""
        return True

    def needs(self) -> frozenset[Any]:
        own = {"text", "model"} if self.encoder == "model" else {"text"}
        return super().needs() | (own if self.embeds else set())

    def extras(self) -> dict[str, str]:
        own = {"sentence_transformers": "embed"} if self.embeds and self.encoder != "model" else {}
        return super().extras() | own

    def check(self, records: Records) -> None:
        checks = Checks()
        checks(super().check, records)
        if self.embeds and self.encoder != "model":
            checks(check_sentence_encoder, self.encoder)
        checks.finish()

    def embedded(self, rows: int) -> dict[str, int]:
        """The part of `forecast()` for as many rows."""
        return {"forward_rows" if self.encoder == "model" else "embedded_rows": rows} if self.embeds else {}


def sentence_vectors(texts: RowTexts | Sequence[str] | np.ndarray, encoder: str, ctx: Context, label: str) -> Vectors:
    """
    Vectors of texts, not normalised, float32 `(n, width)`; cached by content, and read from the disk as needed.

    Args:
        texts ([`RowTexts`], `Sequence[str]` or `np.ndarray`):
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
    texts = texts if isinstance(texts, RowTexts) else np.asarray(texts, object)

    def compute(rows: np.ndarray) -> np.ndarray:
        return sentence_embeddings(texts[rows], model, runtime, unit=False)

    with CachedVectors(runtime, model, model.get_embedding_dimension(), label, len(texts), unit=False) as cached:
        return cached(text_keys(texts), compute)


def instruction_vectors(records: Records, encoder: str, ctx: Context) -> Vectors:
    """Vectors of the prompts of rows, by an [`EncoderOption`]; on disk where there is a cache."""
    if encoder == "model":
        return prompt_vectors(records, ctx)
    return sentence_vectors(RowTexts(records, lambda record: record.prompt), encoder, ctx, "Embedding instructions")


@not_launched_sharded()
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
