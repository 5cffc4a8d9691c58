"""Probability that a trained evaluator (an encoder-decoder such as UniEval) answers a question with "Yes"."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn
from transformers import AutoModelForSeq2SeqLM

from ...errors import SelectionError
from ..runtime.batching import padded
from ..runtime.cached_map import measured
from ..runtime.loading import load_pretrained
from ..runtime.runtime import Runtime
from ..runtime.token_rows import TokenRows


class YesNo(NamedTuple):
    """Result per text, in order."""

    #: p(yes) / (p(yes) + p(no)) of the first token, float64 `(n,)`; NaN for a text that did not fit in memory.
    probability: np.ndarray
    #: Whether the text was truncated, bool `(n,)`.
    cut: np.ndarray


def load_evaluator(name: str, runtime: Runtime) -> tuple[nn.Module, Any]:
    """
    An encoder-decoder and its tokenizer by hub name or folder.

    Raises:
        [`SelectionError`]: they can't be loaded, weights are missing, or "Yes" and "No" start with the same token.
    """
    try:
        model, tokenizer = load_pretrained(AutoModelForSeq2SeqLM, name, runtime)
        if len(set(_answers(tokenizer))) < 2:
            raise ValueError("it can't tell Yes from No, which start with the same token")
    except (OSError, ValueError) as error:
        raise SelectionError(f"`selection_kwargs`: evaluator={name!r} can't be loaded: {error}") from error
    return model, tokenizer


def _answers(tokenizer: Any) -> list[int]:
    return [tokenizer(word)["input_ids"][0] for word in ("Yes", "No")]


def yes_probability(
    model: nn.Module,
    tokenizer: Any,
    texts: Sequence[str],
    runtime: Runtime,
    label: str | None = None,
    max_length: int = 1024,
) -> YesNo:
    """
    Ask the evaluator about each text: one encoder pass, and two logits of the first decoder step.

    Args:
        model, tokenizer:
            As [`load_evaluator`] returns them.
        texts (`Sequence[str]`):
            Questions with the text that they are about; truncated to `max_length` tokens.
        runtime, label:
            As in [`likelihood`].

    Returns:
        [`YesNo`]
    """
    ids = tokenizer(list(texts), verbose=False)["input_ids"] if len(texts) else []
    cut = np.array([len(row) > max_length for row in ids], bool)
    # Truncation keeps the encoder's end token.
    rows = TokenRows.from_lists(
        [row if len(row) <= max_length else [*row[: max_length - 1], row[-1]] for row in ids], [[]] * len(ids)
    )
    answers, device = _answers(tokenizer), next(model.parameters()).device

    def compute(batch: np.ndarray) -> np.ndarray:
        taken = [ids for ids, _ in rows.take(batch)]
        filled, mask = padded(taken).to(device), padded([np.ones_like(ids) for ids in taken]).to(device)
        decoder_start = torch.full((len(taken), 1), model.config.decoder_start_token_id, device=device)
        logits = model(input_ids=filled, attention_mask=mask, decoder_input_ids=decoder_start).logits[:, 0, answers]
        return logits.double().softmax(-1)[:, :1].cpu().numpy()

    # Raise the version when the probability of an unchanged text and model changes by more than rounding.
    namespace = {"engine": "yes or no", "version": 1, "answers": answers}
    answered = measured(model, rows, runtime, 1, namespace, lambda todo: compute, label)
    return YesNo(answered.values[:, 0], cut)
