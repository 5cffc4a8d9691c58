"""Model-oriented features: what a language model makes of a row (paper, section 3.2)."""

import numpy as np
from datasets import concatenate_datasets
from tqdm.auto import tqdm

from ..context import Context
from ..data.records import Records
from ..data.text import Encoded, encode
from ..engines.forward.hidden_states import hidden_state
from ..engines.forward.sentence_encoder import embedding_store
from ..engines.runtime.model_state import scoring_dtype
from ..engines.runtime.token_rows import TokenRows
from ..engines.store.vector_store import Vectors, stored_vectors


#: Rows whose tokens are taken into memory together.
ROWS_AT_A_TIME = 4096


def text_vectors(encoded: Encoded, ctx: Context, label: str) -> Vectors:
    """
    The texts of rows as RDS+ represents them (arXiv 2503.01807): mean of the model's last hidden states weighed by
    position, scaled to length 1. They are kept in the context's cache and read from there as they are needed; without
    one they are held in memory, float32 `(n, width)`.

    Returns:
        [`Vectors`]: rows that nothing can be scored of or that did not fit in memory are not usable.
    """
    found = _hidden_states(encoded.tokens, ctx, label, pool="position", scaled=True)
    return found._replace(usable=found.usable & ~_problematic(encoded))


def note_unusable(encoded: Encoded, ctx: Context) -> None:
    """Enter in `ctx.account` the rows that nothing can be scored of, and those that were cut at the window."""
    for reason, rows in encoded.problems.items():
        ctx.account.note("unscorable", reason, rows)
    ctx.account.note("truncated", "the answer is longer than the window", np.flatnonzero(encoded.truncated))


def _problematic(encoded: Encoded) -> np.ndarray:
    found = np.zeros(len(encoded.truncated), bool)
    found[[row for rows in encoded.problems.values() for row in rows]] = True
    return found


def prompt_embedding(records: Records, ctx: Context) -> np.ndarray:
    """[`prompt_vectors`] in memory, float32 `(n, width)`; NaN where there is none."""
    found = prompt_vectors(records, ctx)
    vectors = found.vectors[:]
    vectors[~found.usable] = np.nan
    return vectors


def prompt_vectors(records: Records, ctx: Context) -> Vectors:
    """
    Mean last hidden state of the prompts, kept in the context's cache as [`text_vectors`] are. An empty prompt, and a
    row that has no answer within the window, have none that is usable.
    """
    encoded = encode(records, ctx.text_format(), num_proc=ctx.num_proc)
    found = _hidden_states(_prompts(encoded, len(records)), ctx, "Embedding prompts", pool="mean")
    return found._replace(usable=found.usable & ~_problematic(encoded))


def _prompts(encoded: Encoded, n: int) -> TokenRows:
    """The tokens before the first answer, cut some rows at a time: as lists, those of all would take far more room."""
    parts = []
    for start in range(0, n, ROWS_AT_A_TIME):
        taken = encoded.tokens.take(range(start, min(n, start + ROWS_AT_A_TIME)))
        ids = [ids[: spans[0, 0]] if len(spans) else ids for ids, spans in taken]
        parts.append(TokenRows.from_lists(ids, [[(0, len(row))] for row in ids]).dataset)
    return TokenRows(concatenate_datasets(parts))


def _hidden_states(rows: TokenRows, ctx: Context, label: str, pool: str, scaled: bool = False) -> Vectors:
    """[`hidden_state`] of rows, scaled to length 1 or as it is; read from the context's cache where it is known."""
    width = ctx.model.config.get_text_config().hidden_size
    dtype = str(scoring_dtype(ctx.model, ctx.dtype))
    described = {"pool": pool, "scaled": scaled, "dtype": dtype}
    store = embedding_store(ctx.cache_dir, ctx.model, width, ctx.account.written, **described)
    options = {"batch_tokens": ctx.batch_tokens, "dtype": ctx.dtype, "accelerator": ctx.accelerator}

    def compute(places: np.ndarray) -> np.ndarray:
        found = hidden_state(ctx.model, TokenRows(rows.dataset.select(places)), pool=pool, **options)
        return found / np.linalg.norm(found, axis=1, keepdims=True) if scaled else found

    main = ctx.accelerator is None or ctx.accelerator.is_main_process
    with tqdm(total=len(rows), desc=label, unit="row", disable=not main) as bar:
        found = stored_vectors(store, rows.keys(), compute, ctx.accelerator, on_rows=bar.update)
    store.close()
    ctx.account.count(embedded_rows=len(rows) - found.cached, cached_rows=found.cached)
    ctx.account.add_cached_seconds(found.cached_seconds)
    return found
