"""Reward models by name, whether they read chats or pairs of question and answer."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from torch import nn
from transformers import AutoModelForSequenceClassification

from ..selection import SelectionError
from .judge import Conversation
from .judge_model import RewardJudge
from .pretrained import check_pretrained, load_pretrained


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
