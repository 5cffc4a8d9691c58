"""Models with metered calls (counted, limited, priced and booked), and those that answer in text, with a cache."""

import copy
import hashlib
import json
import logging
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from itertools import compress
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np

from ...errors import JudgeError
from ..runtime.account import Account
from ..runtime.cached_map import Mapped
from ..runtime.part import Part
from ..runtime.runtime import Runtime
from ..runtime.shared_work import of_part
from ..store.identity import digest
from ..store.replies import Reply, ReplyStore
from .judge_options import Cost, JudgeOptions


logger = logging.getLogger(__name__)


#: Whether calls are announced by whoever makes them, as part of a total.
_ANNOUNCED: ContextVar[bool] = ContextVar("announced", default=False)


@contextmanager
def announced() -> Iterator[None]:
    """Calls inside were announced as part of a total, and are not announced again."""
    token = _ANNOUNCED.set(True)
    try:
        yield
    finally:
        _ANNOUNCED.reset(token)


class MeteredModel:
    """
    A model whose calls are counted, limited and booked.

    Args:
        name (`str`):
            For the record.
        runtime ([`Runtime`]):
            Ranks, batches, cache, and the account where rows, tokens and seconds are booked.
        options ([`JudgeOptions`], *optional*):
            Limits, retries, prices.
    """

    #: Names in the account's passes, and the field of [`Cost`] that each counts.
    booked_as: ClassVar[dict[str, str]]

    def __init__(self, name: str, runtime: Runtime, options: JudgeOptions | None = None):
        self.name, self.runtime, self.options = name, runtime, options or JudgeOptions()
        #: What it has cost so far, in all accounts together.
        self.cost = Cost()

    def booking_in(self, account: Account, part: Part | None = None) -> Self:
        """The same model, with the same cost and cache, that books in another account, and computes a part only."""
        bound = copy.copy(self)
        bound.runtime = replace(self.runtime, account=account, part=part)
        return bound

    @contextmanager
    def _booked(self) -> Iterator[Cost]:
        """Book what is counted inside; gives the cost before."""
        before, started = replace(self.cost), time.perf_counter()
        yield before
        cost = self.cost
        cost.seconds += time.perf_counter() - started
        passes = {name: getattr(cost, part) - getattr(before, part) for name, part in self.booked_as.items()}
        self.runtime.book(cost.cached_seconds - before.cached_seconds, **passes)

    def _check_calls(self, calls: int) -> None:
        limit = self.options.max_calls
        if limit is not None and self.cost.calls + self.cost.retries + calls > limit:
            left = max(0, limit - self.cost.calls - self.cost.retries)
            raise JudgeError(
                f"`judge_kwargs`: max_calls={limit} leaves {left:,} calls and {calls:,} are needed. Raise it, or take "
                "fewer rows; cached replies cost nothing."
            )

    def _count(self, mapped: Mapped) -> None:
        """Count rows that were computed or read from the cache; the others have failed."""
        cost = self.cost
        cost.calls += mapped.computed
        cost.cached += mapped.cached
        cost.cached_seconds += mapped.cached_seconds
        cost.failed += len(mapped.values) - mapped.computed - mapped.cached
        cost.prompt_tokens += mapped.tokens
        cost.money = self.options.money(cost.prompt_tokens, cost.completion_tokens)


class TextModel(MeteredModel, ABC):
    """
    A model that answers in text. Equal questions are asked once; replies are appended to `judge/responses.jsonl` in
    the runtime's cache as they come (held in memory without one) and looked up by name, [`_identity`], length and
    question: a killed run loses no reply. Arguments as in [`MeteredModel`].
    """

    def __init__(self, name: str, runtime: Runtime, options: JudgeOptions | None = None):
        super().__init__(name, runtime, options)
        self._clock = 0.0
        self._store = ReplyStore(runtime.cache_dir and Path(runtime.cache_dir) / "judge")

    @property
    def identity(self) -> str:
        """Hash of what decides its replies besides the questions."""
        return digest([self.name, self._identity()])

    def _identity(self) -> Any:
        """What decides the replies besides the name and the question."""
        return None

    def _content(self, question: Any) -> Any:
        """The question as part of the cache key; JSON-serializable."""
        return question

    @abstractmethod
    def _answer(self, questions: dict[str, Any], max_new_tokens: int, label: str | None) -> dict[str, Reply]:
        """Replies by key, the same on all ranks; each is given to [`record`] as it comes."""

    @abstractmethod
    def _prompt_tokens(self, questions: Iterable[Any]) -> int:
        """Tokens of these questions, estimated."""

    def _replies(self, questions: Iterable[Any], max_new_tokens: int, label: str | None) -> list[Reply]:
        """A reply to each question, cached or new, the same on all ranks."""
        if max_new_tokens < 1:
            raise ValueError(f"`max_new_tokens` must be at least 1, got {max_new_tokens}")
        with self._booked() as before:
            self._clock = time.perf_counter()
            keys, asked = self._by_key(questions, max_new_tokens)
            replies = self.runtime.on_main(lambda: self._store.load(asked))
            mine = {*compress(asked, of_part(self.runtime, np.array([*asked])))}
            todo = {key: asked[key] for key in asked if key in mine and key not in replies}
            self.cost.cached += sum(key in mine for key in keys) - len(todo)
            self.cost.cached_seconds += sum(reply.seconds for reply in replies.values())
            if todo:
                self._check_calls(len(todo))
                self._announce(todo, max_new_tokens, len(replies))
                replies |= self._answer(todo, max_new_tokens, label)
        if todo:
            self._store.save()
            self._conclude([replies[key] for key in todo], before)
        other = Reply(None, "of another part")
        return [replies.get(key, other) for key in keys]

    def _by_key(self, questions: Iterable[Any], max_new_tokens: int) -> tuple[list[str], dict[str, Any]]:
        """The key of each question, and the questions by key."""
        asked, keys = {}, []
        fixed = [self.name, self._identity(), max_new_tokens]
        for question in questions:
            content = json.dumps([*fixed, self._content(question)]).encode()
            keys.append(hashlib.blake2b(content, digest_size=16).hexdigest())
            asked.setdefault(keys[-1], question)
        return keys, asked

    @contextmanager
    def together(self, questions: Iterable[Any], max_new_tokens: int) -> Iterator[None]:
        """
        Announce these questions, which are put inside in several parts, and say once what they have cost.

        Raises:
            [`JudgeError`]: more calls needed than `max_calls` leaves, before the first one.
        """
        _, asked = self._by_key(questions, max_new_tokens)
        known, before = self.runtime.on_main(lambda: set(self._store.load(asked))), replace(self.cost)
        todo = {key: question for key, question in asked.items() if key not in known}
        if todo:
            self._check_calls(len(todo))
            self._announce(todo, max_new_tokens, len(known))
        with announced():
            yield
        if todo:
            self._conclude([], before)

    def lap(self, replies: int = 1) -> float:
        """Seconds since the last lap, divided by this many replies."""
        before, self._clock = self._clock, time.perf_counter()
        return (self._clock - before) / replies

    def record(self, key: str, reply: Reply, transient: bool = False) -> Reply:
        """Count a reply and, unless its problem is transient, cache it with the seconds that it took."""
        cost = self.cost
        cost.calls += 1
        cost.failed += reply.text is None
        cost.cut += reply.cut
        cost.unmetered += reply.text is not None and not reply.prompt_tokens
        cost.prompt_tokens += reply.prompt_tokens
        cost.completion_tokens += reply.completion_tokens
        cost.money = self.options.money(cost.prompt_tokens, cost.completion_tokens)
        if transient:
            return reply
        reply = reply if reply.seconds else replace(reply, seconds=self.lap())
        if self.runtime.is_main:
            self._store.append(key, self.name, reply)
        return reply

    def _announce(self, todo: dict[str, Any], max_new_tokens: int, known: int) -> None:
        if self.runtime.is_main and not _ANNOUNCED.get():
            tokens, new = self._prompt_tokens(todo.values()), len(todo) * max_new_tokens
            money = self.options.money(tokens, new)
            logger.info(
                "%s: %s calls to make (%s replies are cached), about %s prompt tokens and at most %s new ones%s.",
                self.name,
                f"{len(todo):,}",
                f"{known:,}",
                f"{tokens:,}",
                f"{new:,}",
                "" if money is None else f", at most about {money:,.2f}",
            )

    def _conclude(self, replies: list[Reply], before: Cost) -> None:
        if not self.runtime.is_main:
            return
        cost = self.cost
        logger.log(
            logging.DEBUG if _ANNOUNCED.get() else logging.INFO,
            "%s: asked %s, failed %s, cut off %s; in all %s prompt tokens, %s new ones%s%s, %.1f s.",
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
        for problem, number in Counter(reply.problem for reply in replies if reply.problem).most_common(8):
            logger.warning("%s: %s without a reply: %s", self.name, f"{number:,}", problem)
