"""
Judges: models whose words or numbers become quality labels.

| spec | is | gives |
|---|---|---|
| `openai:MODEL` | a model behind an OpenAI-compatible server; its address and key are in the environment | words |
| `model:NAME` | a causal model by hub name or folder | words, digit logits |
| `self` | the model at hand | words, digit logits |
| `reward:NAME` | a reward model (sequence classification with one label) by hub name or folder | numbers |

A question is a conversation (chat messages); equal ones are asked once, replies are kept as they come and found again
by content, judge and options. Texts of rows are data: [`delimited`] fences them off in a prompt with a mark that they
can't contain, and only the form that was asked for is read from a reply ([`numbers`]): see `engines/prompts.py`.
"""

import hashlib
import json
import logging
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

from ..store.identity import digest
from ..store.replies import Reply, ReplyStore
from .judge_options import Cost, JudgeOptions


logger = logging.getLogger(__name__)

#: A question: messages with `role` and `content`.
Conversation = list[dict[str, str]]

#: Kinds of judges, and what of a method's needs each meets; a spec is a kind and, but for `self`, a name behind a
#: colon.
KINDS = {
    "openai": {"judge"},
    "model": {"judge", "digit logits"},
    "self": {"judge", "digit logits"},
    "reward": set(),
}

#: Characters of a token, to guess at the size of prompts before they are counted.
CHARACTERS_PER_TOKEN = 4


class JudgeError(RuntimeError):
    """The judge can't go on: for the user to mend. Replies that came before are kept."""


class Judge(ABC):
    """
    A judge that answers in words, see the module docstring.

    Args:
        name (`str`):
            For the record, and part of what a kept reply is found by.
        options ([`JudgeOptions`], *optional*):
            Limits, patience, prices.
        cache_dir (`Path`, *optional*):
            Replies are kept in `judge/responses.jsonl` there; without it, in memory only.
        accelerator ([`~accelerate.Accelerator`], *optional*):
            Ranks; each gets all replies.
    """

    #: Whether all ranks share the work; else the main process does it alone.
    on_all_ranks = False
    #: Whether it answers in words; a reward model has `score` instead.
    writes = True

    def __init__(
        self,
        name: str,
        options: JudgeOptions | None = None,
        cache_dir: Path | None = None,
        accelerator: Accelerator | None = None,
    ):
        self.name = name
        self.options = options or JudgeOptions()
        self.cost = Cost()
        self._clock = 0.0
        self.accelerator = accelerator
        self._store = ReplyStore(cache_dir and Path(cache_dir) / "judge")

    def ask(
        self, conversations: Sequence[Conversation], *, max_new_tokens: int = 512, progress: str | None = None
    ) -> list[Reply]:
        """
        Put questions to the judge.

        Args:
            conversations (`Sequence[list[dict]]`):
                Messages with `role` and `content`; the same on all ranks.
            max_new_tokens (`int`, *optional*, defaults to `512`):
                Length of a reply at most.
            progress (`str`, *optional*):
                Label of a progress bar on the main process.

        Returns:
            `list[Reply]`: in the order of the conversations, the same on all ranks. A question that found no answer
            has the reason in `problem`; it is asked again by a later run only if the reason may pass.

        Raises:
            `ValueError`: `max_new_tokens` below 1, or something that is no conversation.
            [`JudgeError`]: more calls needed than `max_calls` leaves, or a judge that can't be reached or refuses
            every call (wrong key, wrong model).
        """
        if max_new_tokens < 1:
            raise ValueError(f"`max_new_tokens` must be at least 1, got {max_new_tokens}")
        started = self._clock = time.perf_counter()
        fixed = [self.name, self._identity(), max_new_tokens]
        questions, keys = {}, []
        for row, conversation in enumerate(conversations):
            question = checked_conversation(conversation, row)
            keys.append(hashlib.blake2b(json.dumps([*fixed, question]).encode(), digest_size=16).hexdigest())
            questions.setdefault(keys[-1], question)
        replies = self._agreed(lambda: self._store.load(questions))
        todo = {key: question for key, question in questions.items() if key not in replies}
        self.cost.cached += len(conversations) - len(todo)
        self.cost.cached_seconds += sum(reply.seconds for reply in replies.values())
        if todo:
            self._check_calls(len(todo))
            self._announce(todo, max_new_tokens, len(replies))
            before = replace(self.cost)
            if self.on_all_ranks:
                new = self._answer(todo, max_new_tokens, progress)
            else:
                new = self._agreed(lambda: self._answer(todo, max_new_tokens, progress))
            replies |= new
            self.cost = self._agreed(lambda: self.cost)
            self.cost.seconds += time.perf_counter() - started
            self._conclude(new, before)
        return [replies[key] for key in keys]

    @abstractmethod
    def _answer(self, questions: dict[str, Conversation], max_new_tokens: int, progress: str | None) -> dict:
        """Replies by key; each is given to [`_record`] as it comes."""

    @property
    def identity(self) -> str:
        """Hash of what decides its replies besides the questions."""
        return digest([self.name, self._identity()])

    def _identity(self) -> Any:
        """What decides the replies besides the name and the question."""
        return None

    def _lap(self, replies: int = 1) -> float:
        """Seconds since the last call, or since the asking began, for each of so many replies."""
        before, self._clock = self._clock, time.perf_counter()
        return (self._clock - before) / replies

    def _record(self, key: str, reply: Reply, passing: bool = False) -> Reply:
        """Count a reply; unless its problem may pass, keep it with the seconds that passed since the one before."""
        cost = self.cost
        cost.calls += 1
        cost.failed += reply.text is None
        cost.cut += reply.cut
        cost.unmetered += reply.text is not None and not reply.prompt_tokens
        cost.prompt_tokens += reply.prompt_tokens
        cost.completion_tokens += reply.completion_tokens
        cost.money = self.options.money(cost.prompt_tokens, cost.completion_tokens)
        if passing:
            return reply
        reply = reply if reply.seconds else replace(reply, seconds=self._lap())
        if self.is_main_process:
            self._store.append(key, self.name, reply)
        return reply

    @property
    def is_main_process(self) -> bool:
        """Whether this rank logs, stores and calls servers."""
        return self.accelerator is None or self.accelerator.is_main_process

    def _agreed(self, function: Any) -> Any:
        """What the function gives, or raises, on the main process; on every rank."""
        if self.accelerator is None or self.accelerator.num_processes == 1:
            return function()
        outcome = None
        if self.is_main_process:
            try:
                outcome = function(), None
            except Exception as error:  # the other ranks would wait for ever
                outcome = None, error
        value, error = broadcast_object_list([outcome])[0]
        if error is not None:
            raise error
        return value

    def _check_calls(self, calls: int) -> None:
        limit = self.options.max_calls
        if limit is not None and self.cost.calls + self.cost.retries + calls > limit:
            left = max(0, limit - self.cost.calls - self.cost.retries)
            raise JudgeError(
                f"`judge_kwargs`: max_calls={limit} leaves {left:,} calls and {calls:,} are needed. Raise it, or take "
                "fewer rows; replies already kept cost nothing."
            )

    def _announce(self, todo: dict[str, Conversation], max_new_tokens: int, known: int) -> None:
        if self.is_main_process:
            characters = sum(len(message["content"]) for question in todo.values() for message in question)
            tokens = characters // CHARACTERS_PER_TOKEN
            money = self.options.money(tokens, len(todo) * max_new_tokens)
            logger.info(
                "Judge %s: %s calls to make (%s replies are known), about %s prompt tokens and at most %s new ones%s.",
                self.name,
                f"{len(todo):,}",
                f"{known:,}",
                f"{tokens:,}",
                f"{len(todo) * max_new_tokens:,}",
                "" if money is None else f", at most about {money:,.2f}",
            )

    def _conclude(self, replies: dict[str, Reply], before: Cost) -> None:
        if not self.is_main_process:
            return
        cost = self.cost
        logger.info(
            "Judge %s: asked %s, failed %s, cut off %s; in all %s prompt tokens, %s new ones%s%s, %.1f s.",
            self.name,
            f"{cost.calls - before.calls:,}",
            f"{cost.failed - before.failed:,}",
            f"{cost.cut - before.cut:,}",
            f"{cost.prompt_tokens:,}",
            f"{cost.completion_tokens:,}",
            f" ({cost.unmetered:,} calls not metered)" if cost.unmetered else "",
            "" if cost.money is None else f", {cost.money:,.2f}",
            cost.seconds,
        )
        for problem, number in Counter(reply.problem for reply in replies.values() if reply.problem).most_common(8):
            logger.warning("Judge %s: %s without a reply: %s", self.name, f"{number:,}", problem)


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
    return text  # not a copy of it: a judge holds those of all rows


def parse_spec(spec: str) -> tuple[str, str]:
    """
    Kind and name of a judge.

    Raises:
        `ValueError`: no such kind, or no name.
    """
    kind, _, name = str(spec).partition(":")
    if kind not in KINDS or (kind == "self") == bool(name):
        raise ValueError(f"`judge={spec!r}` must be 'openai:MODEL', 'model:NAME', 'reward:NAME' or 'self'.")
    return kind, name
