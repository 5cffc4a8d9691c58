"""Losses of answers and perplexities of prompts (paper, section 3.2)."""

from typing import NamedTuple

import numpy as np

from ..context import Context
from ..data.records import Records
from ..data.text import TextFormat, encode
from ..engines.forward.likelihood import likelihood
from .hidden_states import _hidden_states, _prompts


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
