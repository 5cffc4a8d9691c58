"""A local model as judge: generated replies, and the logits of digits."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from torch import nn

from ...errors import JudgeError
from ..runtime.runtime import Runtime
from ..store.identity import digest
from ..store.replies import Reply
from .generator import generated_replies, generation_details, missing_replies
from .judge import Conversation, Judge
from .judge_options import JudgeOptions
from .local_model import LocalModel


class LocalJudge(Judge):
    """
    A causal model as judge: greedy replies, or the logits of the next token.

    Args:
        name (`str`):
            For the record; caches go by the weights. Empty for the current model.
        model, tokenizer:
            The model, on its device, and its tokenizer, which needs a chat template.
        runtime, options:
            As in [`Judge`].

    Raises:
        `ValueError`: no chat template.
    """

    def __init__(
        self, name: str, model: nn.Module, tokenizer: Any, runtime: Runtime, options: JudgeOptions | None = None
    ):
        super().__init__(f"model:{name}" if name else "self", runtime, options)
        if not tokenizer.chat_template:
            raise ValueError(f"`judge={self.name!r}`: its tokenizer has no chat template, which a judge needs.")
        self.local, self._current = LocalModel(model, tokenizer), not name

    @property
    def identity(self) -> str:
        return digest(self._identity())  # the same wherever its folder is

    def _identity(self) -> Any:
        return *self.local.described, *generation_details(self.runtime, self._current)

    def _answer(self, questions: dict[str, Conversation], max_new_tokens: int, label: str | None) -> dict[str, Reply]:
        if max_new_tokens >= self.local.window:
            raise JudgeError(
                f"`max_new_tokens={max_new_tokens}` leaves no room for a question in the {self.local.window} "
                f"positions of `judge={self.name!r}`: lower it."
            )
        with (
            missing_replies(self, questions) as (replies, left),
            self.runtime.progress(len(left), label, "call") as bar,
        ):
            prompts = ((key, self.local.prompt_ids(question)) for key, question in left.items())
            return replies | generated_replies(self, self.local, prompts, max_new_tokens, bar)

    def digit_logits(
        self,
        prompts: Iterable[Conversation | str],
        digits: Sequence[str] = ("1", "2", "3", "4", "5"),
        label: str | None = None,
    ) -> np.ndarray:
        """
        Logits of the reply's first token being one of `digits`, float64 `(n, len(digits))`, see
        [`LocalModel.digit_logits`]. Their expectation, see [`expected_rating`], is another estimate of the rating than
        the number that the model would generate.
        """
        with self._booked():
            options = {"label": label, "passes": None, "check": self._check_calls}
            mapped = self.local.digit_logits(prompts, digits, self.runtime, **options)
            self._count(mapped)
        return mapped.values
