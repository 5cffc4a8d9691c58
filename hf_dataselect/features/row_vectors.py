"""Vectors of rows, computed on demand, for diversity."""

import numpy as np

from ..context import Context
from ..data.layouts import Record
from ..data.records import Records
from ..data.row_texts import RowTexts
from ..engines.forward.cached_vectors import CachedVectors
from ..engines.forward.hidden_states import hidden_state, state_width
from ..engines.forward.sentence_encoder import load_sentence_encoder, sentence_embeddings, text_keys
from ..engines.runtime.model_state import scoring_dtype
from ..engines.runtime.stored_vectors import Vectors
from ..engines.runtime.token_rows import TokenRows


#: Rows whose vectors are in memory at once.
BLOCK = 8192


class RowVectors:
    """
    A function from rows to their vectors, float32 `(rows, width)`, cached by content.

    Rows without a usable vector are NaN, and entered in `ctx.account` as dropped.

    Args:
        records ([`Records`]):
            The candidate dataset.
        ctx ([`Context`]):
            Model, tokenizer, window, cache.
        encoder (`str`):
            `"model"`: last hidden state of the context's model at the last token of the row's last answer (after arXiv
            2312.15685). Otherwise a sentence-transformers encoder by hub name or folder (extra `embed`), of prompt and
            answer.
    """

    def __init__(self, records: Records, ctx: Context, encoder: str):
        if encoder == "model" and ctx.model is None:
            raise ValueError("`encoder: model` embeds rows with the model to be fine-tuned, which is missing.")
        self._records, self._ctx, self._encoder = records, ctx, None
        if encoder == "model":
            self._tokens = ctx.encode(records).tokens
            options = {"pool": "last", "dtype": str(scoring_dtype(ctx.model, ctx.runtime.dtype))}
            width = state_width(ctx.model)
            encoded_by = ctx.model
        else:
            self._encoder = load_sentence_encoder(encoder, ctx.runtime)
            encoded_by, width, options = self._encoder, self._encoder.get_embedding_dimension(), {}
        self._cached = CachedVectors(ctx.runtime, encoded_by, width, "Embedding rows", **options)

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        return self.stored(rows).vectors[:]

    def stored(self, rows: np.ndarray) -> Vectors:
        """Vectors of rows, on disk where there is a cache."""
        ctx = self._ctx
        keys, compute = self._of_model(rows) if self._encoder is None else self._of_encoder(rows)
        embedded = self._cached(keys, compute)
        unusable = rows[~embedded.usable]
        reason = "no finite embedding, or the row is empty or did not fit in memory"
        ctx.account.note("dropped", reason, unusable)
        return embedded

    def close(self) -> None:
        """End the progress bar and close the cache."""
        self._cached.close()

    def _of_model(self, rows: np.ndarray):
        tokens, ctx = self._tokens.select(rows), self._ctx

        def compute(places: np.ndarray) -> np.ndarray:
            # What a template appends to the answer is the same for all rows, and so, nearly, is the state there.
            ids = [ids[: spans[-1, 1]] if len(spans) else ids for ids, spans in tokens.take(places)]
            part = TokenRows.from_lists(ids, [[]] * len(ids))
            return hidden_state(ctx.model, part, ctx.runtime, "last")

        return tokens.keys(), compute

    def _of_encoder(self, rows: np.ndarray):
        texts = RowTexts(self._records.subset(rows), _prompt_and_answer)

        def compute(places: np.ndarray) -> np.ndarray:
            asked = texts[places]
            vectors = sentence_embeddings(asked, self._encoder, self._ctx.runtime)
            vectors[[not text.strip() for text in asked]] = np.nan
            return vectors

        return text_keys(texts), compute


def _prompt_and_answer(record: Record) -> str:
    return "\n".join(filter(None, (record.prompt, record.answer)))


def embed(records: Records, ctx: Context, encoder: str) -> None:
    """Keep the vectors of all rows for the [`RowVectors`] of another run."""
    vectors = RowVectors(records, ctx, encoder)
    try:
        for start in range(0, len(records), BLOCK):
            vectors(np.arange(start, min(start + BLOCK, len(records))))
    finally:
        vectors.close()
