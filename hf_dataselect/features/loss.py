"""Losses of answers and perplexities of prompts (paper, section 3.2)."""

from typing import NamedTuple

import numpy as np

from ..compat.transformers import attends_to_later_tokens, is_causal_lm
from ..context import Context
from ..data.encoded import Encoded
from ..data.records import Records
from ..data.text import TextFormat
from ..engines.forward.hidden_states import NO_LOSS
from ..engines.forward.likelihood import likelihood
from ..engines.forward.shared_pass import compute_together
from ..engines.forward.wants import ONE_PASS
from ..engines.runtime.loading import check_pretrained
from ..errors import NoUsableRow
from .hidden_states import cached_states, note_unusable


def check_scoring_model(name: str, option: str) -> None:
    """
    Refuse a model whose losses can't be computed, or mean nothing, before its weights load.

    Raises:
        `ValueError`: no such model, a tokenizer that is not the model's, or a model that is not a causal language
            model.
    """
    config = check_pretrained(name, option)
    if not is_causal_lm(config) or config.is_encoder_decoder or attends_to_later_tokens(config):
        raise ValueError(
            f"`selection_kwargs`: {option}={name!r} is a {config.model_type!r}, which does not predict the next "
            "token: give a causal language model."
        )


class AnswerLoss(NamedTuple):
    """Per record, over all its label tokens. NaN for unscorable rows."""

    #: Mean negative log-likelihood per token, nats, float64 `(n,)`.
    mean: np.ndarray
    #: Label tokens, float64 `(n,)`.
    tokens: np.ndarray
    #: Label tokens that the model ranks first, float64 `(n,)`.
    hits: np.ndarray


def answer_loss(
    records: Records,
    ctx: Context,
    text_format: TextFormat | None = None,
    unconditional: bool = False,
    label: str | None = None,
) -> AnswerLoss:
    """
    Conditional or unconditional loss of the answers.

    Unscorable rows are NaN, and entered in `ctx.account` with the reason. Rows whose answer exceeds the window are
    entered as truncated, and scored on the rest.

    Args:
        records ([`Records`]):
            The rows.
        ctx ([`Context`]):
            Model, tokenizer, window.
        text_format ([`TextFormat`], *optional*):
            By default the tokenizer's chat template and the context's window.
        unconditional (`bool`, *optional*, defaults to `False`):
            Whether to score answers without their prompts; the mean of a row is over the tokens of all its answers.
        label (`str`, *optional*):
            Label of the progress bar.

    Returns:
        [`AnswerLoss`]
    """
    encoded = ctx.encode(records, text_format, unconditional, parts=True)
    label = label or ("Scoring answers without prompts" if unconditional else "Scoring answers")
    if not unconditional and text_format in (None, ctx.text_format()):
        compute_together(ctx.model, encoded.tokens, ctx.runtime, ctx.wants & ONE_PASS, label)
    return _losses(encoded, ctx, label)


def trained_loss(records: Records, ctx: Context, label: str) -> AnswerLoss:
    """
    Loss of rows over the tokens that training counts: as TRL makes tokens and labels of them, in all parts of a row
    that packing splits. Unscorable rows are NaN, and entered in `ctx.account` with the reason.

    Raises:
        [`NoUsableRow`]: no row has a loss.
    """
    losses = _losses(ctx.trained(records, parts=True), ctx, label)
    if not np.isfinite(losses.mean).any():
        reasons = ", ".join(ctx.account.rows("unscorable"))
        raise NoUsableRow(f"None of {len(records)} rows has a loss under the model before training: {reasons}.")
    return losses


def _losses(encoded: Encoded, ctx: Context, label: str) -> AnswerLoss:
    sums = likelihood(ctx.model, encoded.tokens, ctx.runtime, label)
    n = len(encoded.truncated)
    loss, tokens, hits = (np.bincount(encoded.row, column, minlength=n) for column in sums)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.where(tokens > 0, loss / tokens, np.nan)
    note_unusable(encoded, ctx)
    problematic = encoded.problematic
    mean[problematic] = np.nan
    ctx.account.note("unscorable", "did not fit in memory", np.flatnonzero(np.isnan(tokens)))
    ctx.account.note("unscorable", "nothing to score", np.flatnonzero((tokens == 0) & ~problematic))
    ctx.account.note("unscorable", "the loss is not finite", np.flatnonzero((tokens > 0) & ~np.isfinite(loss)))
    mean[~np.isfinite(mean)] = np.nan
    return AnswerLoss(mean, tokens, hits)


class PromptFeatures(NamedTuple):
    """Per record, of the text before its first answer."""

    #: Mean last hidden state, float32 `(n, width)`; NaN for an empty prompt.
    embedding: np.ndarray
    #: Perplexity, float64 `(n,)`; NaN for a prompt of fewer than two tokens, and for a row
    #: that has no answer within the window.
    perplexity: np.ndarray


def prompt_features(records: Records, ctx: Context, rows: np.ndarray) -> PromptFeatures:
    """
    Embedding and perplexity of the prompts of some rows, from one forward pass (IFD, step 1: arXiv 2308.12032,
    section 2.1).

    Raises:
        [`NoUsableRow`]: there are prompts, and the model gives no finite numbers for any of them.
    """
    encoded = ctx.encode(records)
    prompts = encoded.prompts().select(rows)
    states = cached_states(prompts, ctx, "Embedding and scoring prompts", pool="mean", with_loss=True)
    asked = ~encoded.problematic[rows] & (prompts.lengths > 0)
    if asked.any() and not states.usable[asked].any():
        raise NoUsableRow(
            f"None of {asked.sum()} prompts fits in memory and gets finite hidden states and a finite loss from the "
            "model: check its weights, or score in another `selection_dtype`."
        )
    vectors = states.vectors[:]
    vectors[~states.usable] = np.nan
    loss = vectors[:, -1].astype(np.float64)
    # No answer, a prompt that fills the window, or one of a single token.
    loss[encoded.problematic[rows] | (loss == NO_LOSS)] = np.nan
    return PromptFeatures(vectors[:, :-1], np.exp(loss))
