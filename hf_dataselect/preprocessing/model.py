"""Model-oriented features: what a language model makes of a row (paper, section 3.2)."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
from datasets import concatenate_datasets
from tqdm.auto import tqdm

from ..engines.embedding import embedding_store, hidden_state
from ..engines.gradients import Gradients, gradients
from ..engines.likelihood import likelihood
from ..engines.state import scoring_dtype
from ..engines.store import Vectors, stored_vectors
from ..engines.tokens import TokenRows
from ..engines.warmup import WarmupSettings, warmed_up
from ..selector import Context
from .records import Records
from .text import Encoded, TextFormat, encode


#: Rows whose tokens are taken into memory together.
ROWS_AT_A_TIME = 4096


class AnswerLoss(NamedTuple):
    """Per record, over all its answer tokens. NaN where nothing could be scored."""

    #: Mean negative log-likelihood a token, nats, float64 `(n,)`.
    mean: np.ndarray
    #: Counted tokens, float64 `(n,)`.
    tokens: np.ndarray
    #: Counted tokens that the model ranks first, float64 `(n,)`.
    hits: np.ndarray


def answer_loss(
    records: Records,
    ctx: Context,
    text_format: TextFormat | None = None,
    alone: bool = False,
    label: str | None = None,
) -> AnswerLoss:
    """
    How hard the answers are for the model.

    Rows that can't be scored are NaN, and entered in `ctx.account` with the reason; so are rows whose answer was cut
    at the window, which are scored on what is left.

    Args:
        records ([`Records`]):
            The rows.
        ctx ([`Context`]):
            Model, tokenizer, window.
        text_format ([`TextFormat`], *optional*):
            By default the tokenizer's chat template and the context's window.
        alone (`bool`, *optional*, defaults to `False`):
            Answers without their prompt. The mean of a row of several answers is over all their tokens.
        label (`str`, *optional*):
            Label of the progress bar.

    Returns:
        [`AnswerLoss`]
    """
    encoded = encode(records, text_format or ctx.text_format(), alone, num_proc=ctx.num_proc)
    found = likelihood(
        ctx.model,
        encoded.tokens,
        batch_tokens=ctx.batch_tokens,
        dtype=ctx.dtype,
        accelerator=ctx.accelerator,
        cache_dir=ctx.cache_dir,
        progress=label or ("Scoring answers alone" if alone else "Scoring answers"),
    )
    ctx.account.count(
        forward_rows=len(encoded.tokens) - found.cached,
        forward_tokens=found.forward_tokens,
        cached_rows=found.cached,
    )
    ctx.account.add_cached_seconds(found.cached_seconds)
    n = len(records)
    loss, tokens, hits = (np.bincount(encoded.row, column, minlength=n) for column in found[:3])
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.where(tokens > 0, loss / tokens, np.nan)
    for reason, rows in encoded.problems.items():
        ctx.account.note("unscorable", reason, rows)
        mean[rows] = np.nan
    named = np.zeros(n, bool)
    named[[row for rows in encoded.problems.values() for row in rows]] = True
    ctx.account.note("unscorable", "did not fit in memory", np.flatnonzero(np.isnan(tokens)))
    ctx.account.note("unscorable", "nothing to score", np.flatnonzero((tokens == 0) & ~named))
    ctx.account.note("unscorable", "the loss is not finite", np.flatnonzero((tokens > 0) & ~np.isfinite(loss)))
    mean[~np.isfinite(mean)] = np.nan
    ctx.account.note("truncated", "the answer is longer than the window", np.flatnonzero(encoded.truncated))
    return AnswerLoss(mean, tokens, hits)


def tuning_rows(records: Records, rows: np.ndarray, ctx: Context) -> TokenRows:
    """
    Some rows as the model is tuned on them for a while: the tokens that are scored, cut at the window, the answers
    alone counted, and the end of each turn with them, as in training.
    """
    return encode(records.subset(rows), ctx.text_format(end_of_turn=True), num_proc=ctx.num_proc).tokens


#: Numbers of a method that tunes the model for a while.
TUNING_OPTIONS = ("warmup_epochs", "warmup_learning_rate", "warmup_batch_size", "warmup_gradient_accumulation")


@contextmanager
def tuned_on(records: Records, rows: Sequence[int], ctx: Context, options: Any) -> Iterator[Context]:
    """
    The context with its model tuned on some rows for a while; as it is with no rows, or where `warmup` is "none".

    Args:
        rows (`Sequence[int]`):
            Row numbers.
        options (`Any`):
            What has the options `warmup` and `TUNING_OPTIONS`: the method.
    """
    if options.warmup == "none" or len(rows) == 0:
        yield ctx
        return
    settings = WarmupSettings(
        method=options.warmup,
        epochs=options.warmup_epochs,
        learning_rate=options.warmup_learning_rate or (2e-5 if options.warmup == "full" else 2e-4),
        batch_size=options.warmup_batch_size,
        gradient_accumulation=options.warmup_gradient_accumulation,
        gradient_checkpointing=ctx.gradient_checkpointing,
        seed=ctx.seed,
    )
    chosen = tuning_rows(records, rows, ctx)
    with warmed_up(ctx.model, ctx.tokenizer, chosen, settings, ctx.accelerator, ctx.cache_dir, ctx.account) as model:
        yield ctx.using(model)


class PromptFeatures(NamedTuple):
    """Per record, of the text before its first answer."""

    #: Mean last hidden state, float32 `(n, width)`; NaN for an empty prompt.
    embedding: np.ndarray
    #: Perplexity, float64 `(n,)`; NaN for a prompt of fewer than two tokens, and for a row
    #: that has no answer within the window.
    perplexity: np.ndarray


def prompt_features(records: Records, ctx: Context, text_format: TextFormat | None = None) -> PromptFeatures:
    """Embedding and perplexity of the prompts (IFD, step 1: arXiv 2308.12032, section 2.1)."""
    encoded = encode(records, text_format or ctx.text_format(), num_proc=ctx.num_proc)
    prompts = _prompts(encoded, len(records))
    embedding = _hidden_states(prompts, ctx, "Embedding prompts", pool="mean").vectors[:]
    options = {"batch_tokens": ctx.batch_tokens, "dtype": ctx.dtype, "accelerator": ctx.accelerator}
    found = likelihood(ctx.model, prompts, cache_dir=ctx.cache_dir, progress="Scoring prompts", **options)
    ctx.account.count(
        forward_rows=len(records) - found.cached,
        forward_tokens=found.forward_tokens,
        cached_rows=found.cached,
    )
    ctx.account.add_cached_seconds(found.cached_seconds)
    perplexity = np.exp(found.mean_loss)
    for rows in encoded.problems.values():  # no answer, or a prompt that fills the window
        perplexity[rows] = np.nan
    return PromptFeatures(embedding, perplexity)


def answer_gradients(encoded: Encoded, ctx: Context, label: str, target: bool = False, **options: Any) -> Gradients:
    """
    Gradient features of rows (LESS, arXiv 2402.04333): how each one, alone, would move the model.

    Args:
        encoded ([`Encoded`]):
            The rows.
        ctx ([`Context`]):
            Model, window, ranks.
        label (`str`):
            Label of the progress bar.
        target (`bool`, *optional*, defaults to `False`):
            Rows of the target are not candidates: what can't be used of them is not entered in `ctx.account`.
        options:
            Of [`gradients`].

    Returns:
        [`Gradients`]
    """
    found = gradients(
        ctx.model,
        encoded.tokens,
        # A backward pass holds what all layers did, a scoring pass what one does.
        batch_tokens=max(1, ctx.batch_tokens // 4),
        dtype=ctx.dtype,
        gradient_checkpointing=ctx.gradient_checkpointing,
        accelerator=ctx.accelerator,
        cache_dir=ctx.cache_dir,
        progress=label,
        **options,
    )
    ctx.account.count(
        backward_rows=len(encoded.tokens) - found.cached,
        backward_tokens=found.computed_tokens,
        cached_rows=found.cached,
    )
    ctx.account.add_cached_seconds(found.cached_seconds)
    if not target:
        note_unusable(encoded, ctx)
        ctx.account.note("unscorable", "did not fit in memory", np.flatnonzero(~found.fits))
        unusable = np.flatnonzero(found.fits & ~np.isfinite(found.norm) & ~_problematic(encoded))
        ctx.account.note("unscorable", "the gradient is zero or not finite", unusable)
    return found


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
