"""Expected ratings: the mean digit under the softmax over a causal model's next-token logits of the digits."""

import copy
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from scipy.special import softmax
from transformers import AutoTokenizer

from ..context import Context
from ..data.chat_template import default_chat_template
from ..engines.llm.judge import Conversation
from ..engines.llm.local_model import LocalModel, digit_ids
from ..engines.runtime.loading import load_processing_class
from ..engines.runtime.runtime import Runtime
from ..errors import SelectionError
from .loss import check_scoring_model


#: The scale of a scorer.
DIGITS = ("1", "2", "3", "4", "5", "6")


def check_scorer(name: str, option: str) -> None:
    """
    Refuse a scorer by hub name or folder that can't rate, before its weights load.

    Raises:
        `ValueError`: see [`check_scoring_model`]; or its tokenizer lacks a token for a digit.
    """
    check_scoring_model(name, option)
    if missing := _missing(load_processing_class(name, AutoTokenizer), DIGITS):
        raise ValueError(
            f"`selection_kwargs`: {option}={name!r} can't rate: its tokenizer has no token of its own for {missing}. "
            "Name another scorer."
        )


def load_scorer(name: str, ctx: Context) -> LocalModel:
    """
    A scorer by hub name or folder, or `"model"` for the context's model; without a chat template it gets the default.

    Raises:
        [`SelectionError`]: it can't be loaded, or its tokenizer lacks a token for a digit.
    """
    ctx = ctx if name == "model" else ctx.with_model(name)
    tokenizer = copy.copy(ctx.tokenizer)
    tokenizer.chat_template = tokenizer.chat_template or default_chat_template(tokenizer)
    if missing := _missing(tokenizer, DIGITS):
        raise SelectionError(
            f"The scorer {name!r} can't rate: its tokenizer has no token of its own for {missing}. Name another "
            "`complexity_scorer` or `quality_scorer`."
        )
    return LocalModel(ctx.model, tokenizer)


def expected_ratings(
    questions: Iterable[Conversation | str], scorer: LocalModel, runtime: Runtime, label: str | None = None
) -> np.ndarray:
    """
    Expected digit after each question, from one forward pass each.

    Args:
        questions (`Iterable`):
            Conversations, which the chat template renders, or texts that are taken as they are.
        scorer ([`LocalModel`]):
            See [`load_scorer`].
        runtime ([`Runtime`]):
            Ranks, batches, cache, account.
        label (`str`, *optional*):
            Label of the progress bar.

    Returns:
        `np.ndarray`: float64 `(n,)`, from 1 to 6; NaN for a question that is empty, longer than the scorer's window or
        does not fit in memory.
    """
    logits = scorer.digit_logits(questions, DIGITS, runtime, label=label).values
    return expected_rating(logits, [float(digit) for digit in DIGITS])


def digit_logits(texts: Iterable[str], ctx: Context, digits: Sequence[str], label: str | None = None) -> np.ndarray:
    """
    Logits of the context's model for each digit as the next token after a text, float64 `(n, digits)`; NaN for a text
    that is longer than the window or does not fit in memory.

    Raises:
        [`SelectionError`]: the tokenizer lacks a token for a digit.
    """
    scorer = LocalModel(ctx.model, ctx.tokenizer)
    if missing := _missing(ctx.tokenizer, digits):
        raise SelectionError(
            f"The model can't rate: its tokenizer has no token of its own for {missing}. Choose another method."
        )
    return scorer.digit_logits(texts, digits, ctx.runtime, label=label).values


def _missing(tokenizer: Any, digits: Sequence[str]) -> str:
    """The digits that are no token of their own."""
    return ", ".join(digit for digit, id in zip(digits, digit_ids(tokenizer, digits), strict=True) if id is None)


def expected_rating(logits: np.ndarray, values: Sequence[float]) -> np.ndarray:
    """Mean of `values` under the softmax of `logits` `(n, len(values))`, float64 `(n,)`; NaN if a logit is missing."""
    return softmax(np.asarray(logits, np.float64), axis=1) @ np.asarray(values, np.float64)
