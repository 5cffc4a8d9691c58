"""
Judges: models whose replies become quality labels.

| spec | is | gives |
|---|---|---|
| `openai:MODEL` | a model served by an OpenAI-compatible server; address and key come from the environment | words |
| `model:NAME` | a causal model by hub name or folder | words, digit logits |
| `self` | the current model | words, digit logits |
| `reward:NAME` | a reward model (sequence classification with one label), see [`RewardModel`] | numbers |

Texts of rows are data: [`delimited`] puts them between marks that they can't contain, and only the form that was asked
for is parsed from a reply ([`numbers`]).
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import ClassVar

from ..store.replies import Reply
from .metered import TextModel


#: A question: messages with `role` and `content`.
Conversation = list[dict[str, str]]

#: Characters of a token, to estimate the size of prompts before they are counted.
CHARACTERS_PER_TOKEN = 4


class Judge(TextModel):
    """A judge answers conversations in words. Arguments as in [`MeteredModel`]."""

    booked_as: ClassVar[dict[str, str]] = {
        "judge_calls": "calls",
        "judge_prompt_tokens": "prompt_tokens",
        "judge_new_tokens": "completion_tokens",
        "cached_rows": "cached",
    }

    def ask(
        self, conversations: Sequence[Conversation], *, max_new_tokens: int = 512, label: str | None = None
    ) -> list[Reply]:
        """
        Put questions to the judge.

        Args:
            conversations (`Sequence[list[dict]]`):
                Messages with `role` and `content`; the same on all ranks.
            max_new_tokens (`int`, *optional*, defaults to `512`):
                Length of a reply at most.
            label (`str`, *optional*):
                Label of the progress bar.

        Returns:
            `list[Reply]`: in the order of the conversations, the same on all ranks. A question without an answer has
            the reason in `problem`; a later run asks it again only if the reason may pass.

        Raises:
            `ValueError`: `max_new_tokens` below 1, or something that is not a conversation.
            [`JudgeError`]: more calls needed than `max_calls` leaves, or a judge that can't be reached or refuses
            every call (wrong key, wrong model).
        """
        return self._replies(self._checked(conversations), max_new_tokens, label)

    def together(
        self, questions: Iterable[Conversation], max_new_tokens: int
    ) -> AbstractContextManager[None]:  # as asked, see [`ask`]
        return super().together(self._checked(questions), max_new_tokens)

    def _checked(self, conversations: Iterable[Conversation]) -> Iterator[Conversation]:
        return (checked_conversation(conversation, row) for row, conversation in enumerate(conversations))

    def _prompt_tokens(self, questions: Iterable[Conversation]) -> int:
        characters = sum(len(message["content"]) for question in questions for message in question)
        return characters // CHARACTERS_PER_TOKEN


def checked_conversation(conversation: Conversation, row: int) -> Conversation:
    """Messages of well-formed text: half a surrogate pair, which no server takes, becomes U+FFFD."""
    try:
        return [{"role": str(message["role"]), "content": well_formed(message["content"])} for message in conversation]
    except (TypeError, KeyError, AttributeError) as error:
        raise ValueError(
            f"`conversations[{row}]` must be a list of messages with `role` and text `content`, got "
            f"{str(conversation)[:80]!r}."
        ) from error


def well_formed(text: str) -> str:
    """A text that can be encoded: half a surrogate pair becomes U+FFFD."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text  # not a copy: a judge holds the texts of all rows
