"""Vectors of rows, asked for as they are needed: what diversity is measured in."""

import numpy as np
from tqdm.auto import tqdm

from ..context import Context
from ..data.records import Records
from ..data.text import encode
from ..engines.forward.hidden_states import hidden_state
from ..engines.forward.sentence_encoder import embedding_store, load_sentence_encoder, sentence_embeddings, text_keys
from ..engines.runtime.model_state import scoring_dtype
from ..engines.runtime.token_rows import TokenRows
from ..engines.store.vector_store import stored_vectors


class RowVectors:
    """
    A function from rows to their vectors, float32 `(rows, width)`; kept in the context's cache.

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
            raise ValueError("`encoder: model` embeds rows with the model to be tuned, and there is none.")
        self._records, self._ctx, self._encoder = records, ctx, None
        if encoder == "model":
            self._tokens = encode(records, ctx.text_format(), num_proc=ctx.num_proc).tokens
            options = {"pool": "last", "dtype": str(scoring_dtype(ctx.model, ctx.dtype))}
            width = ctx.model.config.get_text_config().hidden_size
            self._store = embedding_store(ctx.cache_dir, ctx.model, width, **options)
        else:
            self._encoder = load_sentence_encoder(encoder, ctx.accelerator)
            self._store = embedding_store(ctx.cache_dir, self._encoder, self._encoder.get_embedding_dimension())
        main = ctx.accelerator is None or ctx.accelerator.is_main_process
        self._bar = tqdm(desc="Embedding rows", unit="row", disable=not main)

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        ctx = self._ctx
        keys, compute = self._of_model(rows) if self._encoder is None else self._of_encoder(rows)
        found = stored_vectors(self._store, keys, compute, ctx.accelerator, on_rows=self._bar.update)
        ctx.account.count(embedded_rows=len(rows) - found.cached, cached_rows=found.cached)
        ctx.account.add_cached_seconds(found.cached_seconds)
        lost = rows[~found.usable]
        ctx.account.note("dropped", "no embedding: the row is empty or did not fit in memory", lost)
        return found.vectors[:]

    def close(self) -> None:
        """End the progress bar and close the store."""
        self._bar.close()
        self._store.close()

    def _of_model(self, rows: np.ndarray):
        tokens, ctx = TokenRows(self._tokens.dataset.select(rows)), self._ctx

        def compute(places: np.ndarray) -> np.ndarray:
            # What a template puts behind the answer is the same for all rows, and so, nearly, is the state there.
            ids = [ids[: spans[-1, 1]] if len(spans) else ids for ids, spans in tokens.take(places)]
            part = TokenRows.from_lists(ids, [[]] * len(ids))
            options = {"batch_tokens": ctx.batch_tokens, "dtype": ctx.dtype, "accelerator": ctx.accelerator}
            return hidden_state(ctx.model, part, pool="last", **options)

        return tokens.keys(), compute

    def _of_encoder(self, rows: np.ndarray):
        chosen = self._records.subset(rows)
        texts = ["\n".join(filter(None, (record.prompt, record.answer))) for record in chosen]

        def compute(places: np.ndarray) -> np.ndarray:
            vectors = sentence_embeddings([texts[i] for i in places], self._encoder, self._ctx.accelerator)
            vectors[[not texts[i].strip() for i in places]] = np.nan
            return vectors

        return text_keys(texts), compute
