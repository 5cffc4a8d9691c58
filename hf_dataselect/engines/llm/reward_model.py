"""Reward models, whether they read chats or pairs of prompt and answer."""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, ClassVar

import numpy as np
from torch import nn

from ..runtime.batching import padded
from ..runtime.loading import check_pretrained
from ..runtime.runtime import Runtime
from ..runtime.token_rows import TokenRows
from ..store.identity import digest
from .judge import Conversation, checked_conversation
from .judge_options import JudgeOptions
from .local_model import LocalModel
from .metered import MeteredModel


class RewardModel(MeteredModel):
    """
    A reward model answers in numbers: one a conversation, higher is better.

    Args:
        name (`str`):
            For the record; caches go by the weights.
        model, tokenizer:
            Sequence-classification model with one label, as [`~trl.RewardTrainer`] trains it, and its tokenizer.
        runtime, options:
            As in [`MeteredModel`].

    Raises:
        `ValueError`: more than one label, or no chat template.
    """

    booked_as: ClassVar[dict[str, str]] = {
        "forward_rows": "calls",
        "forward_tokens": "prompt_tokens",
        "cached_rows": "cached",
    }
    #: Token that ends the first of two texts, where the model is told which of them a token belongs to.
    separator: int | None = None

    def __init__(
        self, name: str, model: nn.Module, tokenizer: Any, runtime: Runtime, options: JudgeOptions | None = None
    ):
        super().__init__(f"reward:{name}", runtime, options)
        if model.config.num_labels != 1:
            raise ValueError(f"`judge={self.name!r}` has {model.config.num_labels} labels: a reward model has one.")
        self.local = self._local(model, tokenizer)

    def _local(self, model: nn.Module, tokenizer: Any) -> LocalModel:
        if not tokenizer.chat_template:
            raise ValueError(f"`judge={self.name!r}`: its tokenizer has no chat template, which a judge needs.")
        return LocalModel(model, tokenizer)

    def _ids(self, conversation: Conversation) -> list[int] | None:
        return self.local.prompt_ids(conversation, reply=False)

    @property
    def identity(self) -> str:
        """Hash of what decides the rewards; the same wherever its folder is."""
        return digest(self.local.described)

    def score(self, conversations: Iterable[Conversation], label: str | None = None) -> np.ndarray:
        """
        Rewards of whole conversations, the answer to be scored as their last message.

        Args:
            conversations (`Iterable[list[dict]]`):
                Messages with `role` and `content`; the same on all ranks.
            label (`str`, *optional*):
                Label of the progress bar.

        Returns:
            `np.ndarray`: float64 `(n,)`; NaN where the model gives no finite number, and for a conversation that is
            empty, refused by the chat template, longer than the model's window or does not fit in memory.

        Raises:
            `ValueError`: something that is not a conversation.
            [`JudgeError`]: more calls needed than `max_calls` leaves.
        """
        ids = (self._ids(checked_conversation(chat, row)) for row, chat in enumerate(conversations))
        # Raise the version when the reward of an unchanged conversation and model changes by more than rounding.
        namespace = {"engine": "reward", "version": 1, "separator": self.separator}
        options = {"label": label, "passes": None, "check": self._check_calls}
        begin = partial(_rewards, separator=self.separator)
        with self._booked():
            mapped = self.local.per_row(ids, 1, self.runtime, namespace, begin, **options)
            self._count(mapped)
        rewards = mapped.values[:, 0]
        rewards[~np.isfinite(rewards)] = np.nan
        return rewards


class PairRewardModel(RewardModel):
    """
    A reward model whose tokenizer has no chat template: it reads the last answer and all that comes before it as a
    pair of texts, joined as its tokenizer joins pairs. Arguments as in [`RewardModel`].
    """

    def _local(self, model: nn.Module, tokenizer: Any) -> LocalModel:
        if tokenizer.sep_token_id is not None and getattr(model.config, "type_vocab_size", 0) > 1:
            self.separator = tokenizer.sep_token_id
        # DeBERTa-v3 has relative positions only, and so no limit.
        return LocalModel(model, tokenizer, bounded=getattr(model.config, "position_biased_input", True))

    def _ids(self, conversation: Conversation) -> list[int] | None:
        *before, answer = conversation
        prompt = "\n".join(message["content"] for message in before)
        return self.local.tokenizer(*map(self.local.escaped, (prompt, answer["content"])))["input_ids"]


def _rewards(
    model: nn.Module, rows: TokenRows, todo: np.ndarray, separator: int | None
) -> Callable[[np.ndarray], np.ndarray]:
    """A function from a batch of rows to their rewards `(rows, 1)`."""
    device, config = next(model.parameters()).device, model.config.get_text_config()

    def compute(batch: np.ndarray) -> np.ndarray:
        taken, pad = [ids for ids, _ in rows.take(batch)], config.pad_token_id
        # Causal classifiers read the reward at the last token that is not padding: without a padding token, any token
        # that is not the last one of a row will do.
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


def check_reward_model(name: str, option: str) -> None:
    """
    Refuse what is not a reward model, before its weights load.

    Raises:
        `ValueError`: no such model, a tokenizer that is not the model's, or other than one label.
    """
    config = check_pretrained(name, option)
    if config.num_labels != 1:
        raise ValueError(
            f"`selection_kwargs`: {option}={name!r} has {config.num_labels} labels: a reward model has one."
        )
