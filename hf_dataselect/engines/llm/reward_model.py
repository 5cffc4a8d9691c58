"""Reward models as judges, whether they read chats or pairs of question and answer."""

import sys
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from accelerate import Accelerator
from torch import nn
from transformers import AutoModelForSequenceClassification

from ...errors import SelectionError
from ..runtime.loading import check_pretrained, load_pretrained
from ..runtime.token_rows import TokenRows
from ..store.identity import code_version
from ..store.replies import Reply
from .judge import Conversation, JudgeError, checked_conversation
from .local import LocalJudge, padded


class RewardJudge(LocalJudge):
    """
    A reward model as judge: one number a conversation, higher is better.

    Args:
        name (`str`):
            For the record; the model itself is told apart by its weights.
        model, tokenizer:
            Sequence-classification model with one label, as [`~trl.RewardTrainer`] trains it, and its tokenizer.
        options, cache_dir, accelerator, batch_tokens, dtype:
            As in [`ModelJudge`].

    Raises:
        `ValueError`: more than one label, or no chat template.
    """

    writes = False
    #: Token that ends the first of two texts, where the model is told which of them a token belongs to.
    separator: int | None = None

    def __init__(self, name: str, model: nn.Module, tokenizer: Any, **options: Any):
        super().__init__(f"reward:{name}", model, tokenizer, **options)
        if model.config.num_labels != 1:
            raise ValueError(f"`judge={self.name!r}` has {model.config.num_labels} labels: a reward model has one.")

    def _answer(self, *args: Any) -> dict[str, Reply]:
        raise JudgeError(f"`judge={self.name!r}` gives numbers, and words are needed: name a model that writes.")

    def score(self, conversations: Iterable[Conversation], progress: str | None = None) -> np.ndarray:
        """
        Rewards of whole conversations, the answer to be judged as their last message.

        Args:
            conversations (`Iterable[list[dict]]`):
                Messages with `role` and `content`; the same on all ranks.
            progress (`str`, *optional*):
                Label of a progress bar.

        Returns:
            `np.ndarray`: float64 `(n,)`; NaN where the model gives no finite number, and for a conversation that is
            empty, refused by the chat template, longer than the model's window or too big for the memory.

        Raises:
            `ValueError`: something that is no conversation.
            [`JudgeError`]: more calls needed than `max_calls` leaves.
        """
        ids = (self.prompt_ids(checked_conversation(c, row), reply=False) for row, c in enumerate(conversations))
        namespace = {"engine": "reward", "separator": self.separator, "own code": code_version(sys.modules[__name__])}
        begin = partial(_rewards, separator=self.separator)
        found = self._measured(ids, 1, namespace, begin, progress)[:, 0]
        found[~np.isfinite(found)] = np.nan
        return found


def _rewards(
    model: nn.Module, rows: TokenRows, todo: np.ndarray, separator: int | None = None
) -> Callable[[np.ndarray], np.ndarray]:
    """A function from a batch of rows to their rewards `(rows, 1)`."""
    device, config = next(model.parameters()).device, model.config.get_text_config()

    def compute(batch: np.ndarray) -> np.ndarray:
        taken, pad = [ids for ids, _ in rows.take(batch)], config.pad_token_id
        # Causal classifiers read the reward at the last token that is no padding: without a padding token, any that
        # ends no row will do.
        filler = next(i for i in range(len(taken) + 1) if i not in {int(ids[-1]) for ids in taken})
        filled = padded(taken, filler if pad is None else pad)
        mask = padded([np.ones_like(ids) for ids in taken], filler=0)
        given = {"input_ids": filled, "attention_mask": mask}
        if separator is not None:
            ends = filled == separator
            given["token_type_ids"] = ((ends.cumsum(1) - ends.long()) == 1).long() * mask
        config.pad_token_id = filler if pad is None else pad
        try:
            logits = model(**{name: tensor.to(device) for name, tensor in given.items()}).logits
        finally:
            config.pad_token_id = pad
        return logits.double().cpu().numpy()

    return compute


class PairReward(RewardJudge):
    """
    A reward model whose tokenizer has no chat template: it reads the last answer and all that comes before it as a
    pair of texts, joined as its tokenizer joins pairs.

    Args:
        name, model, tokenizer, **options:
            As in [`RewardJudge`].
    """

    chats = False

    def __init__(self, name: str, model: nn.Module, tokenizer: Any, **options: Any):
        super().__init__(name, model, tokenizer, **options)
        if tokenizer.sep_token_id is not None and getattr(model.config, "type_vocab_size", 0) > 1:
            self.separator = tokenizer.sep_token_id

    def prompt_ids(self, question: Conversation | str, reply: bool = True) -> list[int] | None:
        """Token ids of the pair."""
        *before, answer = question
        return self.tokenizer(
            self._defused("\n".join(message["content"] for message in before)), self._defused(answer["content"])
        )["input_ids"]

    def _too_long(self, ids: Sequence[int], new: int) -> bool:
        # DeBERTa-v3 has relative positions only, and no end of them.
        return getattr(self._unwrapped().config, "position_biased_input", True) and super()._too_long(ids, new)


def check_reward_model(name: str, option: str) -> None:
    """
    Refuse what is no reward model, before its weights load.

    Raises:
        `ValueError`: no such model, a tokenizer that is not the model's, or other than one label.
    """
    config = check_pretrained(name, option)
    if config.num_labels != 1:
        raise ValueError(
            f"`selection_kwargs`: {option}={name!r} has {config.num_labels} labels: a reward model has one."
        )


def load_reward_model(
    name: str,
    *,
    accelerator: Accelerator | None = None,
    cache_dir: Path | None = None,
    batch_tokens: int = 1536,
    dtype: str = "auto",
) -> RewardJudge:
    """
    A reward model by hub name or folder; rewards are kept in `cache_dir`.

    Raises:
        [`SelectionError`]: it can't be loaded, or lacks weights.
    """
    try:
        model, tokenizer = load_pretrained(AutoModelForSequenceClassification, name, accelerator)
    except (OSError, ValueError) as error:
        raise SelectionError(f"`selection_kwargs`: reward_model={name!r} can't be loaded: {error}") from error
    kind = RewardJudge if tokenizer.chat_template else PairReward
    options = {"cache_dir": cache_dir, "accelerator": accelerator, "batch_tokens": batch_tokens, "dtype": dtype}
    return kind(name, model, tokenizer, **options)
