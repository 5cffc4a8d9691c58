"""Probability that a trained evaluator (an encoder-decoder such as UniEval) answers a question with yes."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from accelerate import Accelerator
from torch import nn
from transformers import AutoModelForSeq2SeqLM

from ...errors import SelectionError
from ..runtime.cached_map import measured
from ..runtime.loading import load_pretrained
from ..runtime.token_rows import TokenRows


class YesNo(NamedTuple):
    """Per text, in order."""

    #: p(yes) / (p(yes) + p(no)) of the answer's first token, float64 `(n,)`; NaN where it did not fit in memory.
    probability: np.ndarray
    #: Whether the text was cut at the window, bool `(n,)`.
    cut: np.ndarray
    #: Texts that took no computing: read from the cache, or equal to another one.
    cached: int
    #: Seconds that those read from the cache took when they were computed.
    cached_seconds: float


def load_evaluator(name: str, accelerator: Accelerator | None = None) -> tuple[nn.Module, Any]:
    """
    An encoder-decoder and its tokenizer by hub name or folder.

    Raises:
        [`SelectionError`]: they can't be loaded, weights are missing, or the tokenizer begins "Yes" and "No" with the
            same token.
    """
    try:
        model, tokenizer = load_pretrained(AutoModelForSeq2SeqLM, name, accelerator)
        if len(set(_answers(tokenizer))) < 2:
            raise ValueError("it can't tell Yes from No, which begin with the same token")
    except (OSError, ValueError) as error:
        raise SelectionError(f"`selection_kwargs`: evaluator={name!r} can't be loaded: {error}") from error
    return model, tokenizer


def _answers(tokenizer: Any) -> list[int]:
    return [tokenizer(word)["input_ids"][0] for word in ("Yes", "No")]


def yes_probability(
    model: nn.Module,
    tokenizer: Any,
    texts: Sequence[str],
    *,
    max_length: int = 1024,
    batch_tokens: int = 4096,
    dtype: str = "auto",
    accelerator: Accelerator | None = None,
    cache_dir: Path | None = None,
    progress: str | None = None,
) -> YesNo:
    """
    Ask the evaluator about each text: one pass of the encoder, and one step of the decoder of which two logits count.

    Args:
        model, tokenizer:
            As [`load_evaluator`] gives them.
        texts (`Sequence[str]`):
            Questions with what they are about; cut at `max_length` tokens.
        batch_tokens, dtype, accelerator, cache_dir, progress:
            As in [`likelihood`].

    Returns:
        [`YesNo`]
    """
    ids = tokenizer(list(texts), verbose=False)["input_ids"] if len(texts) else []
    cut = np.array([len(row) > max_length for row in ids], bool)
    # What ends the text for the encoder stays.
    rows = TokenRows.from_lists(
        [row if len(row) <= max_length else [*row[: max_length - 1], row[-1]] for row in ids], [[]] * len(ids)
    )
    answers, device = _answers(tokenizer), next(model.parameters()).device

    def compute(batch: np.ndarray) -> np.ndarray:
        parts = [torch.from_numpy(ids.astype(np.int64)) for ids, _ in rows.take(batch)]
        padded = nn.utils.rnn.pad_sequence(parts, batch_first=True).to(device)
        mask = nn.utils.rnn.pad_sequence([torch.ones_like(part) for part in parts], batch_first=True).to(device)
        begin = torch.full((len(parts), 1), model.config.decoder_start_token_id, device=device)
        logits = model(input_ids=padded, attention_mask=mask, decoder_input_ids=begin).logits[:, 0, answers]
        return logits.double().softmax(-1)[:, :1].cpu().numpy()

    found = measured(
        model,
        rows,
        1,
        {"engine": "yes or no", "answers": answers},
        (sys.modules[__name__],),
        lambda todo: compute,
        batch_tokens=batch_tokens,
        dtype=dtype,
        accelerator=accelerator,
        cache_dir=cache_dir,
        progress=progress,
    )
    return YesNo(found.values[:, 0], cut, found.cached, found.cached_seconds)
