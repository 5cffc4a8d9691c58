"""A judge on an OpenAI-compatible server: bounded concurrency, retries with backoff."""

import asyncio
import logging
import os
import random
from collections.abc import Iterator
from functools import cached_property
from typing import Any

from ...errors import JudgeError
from ..runtime.runtime import Runtime
from ..store.replies import Reply
from .chat_completion import ChatServer, NoCompletion, TooLong, clock_after, retry_after
from .event_loop import run_apart
from .judge import Conversation, Judge
from .judge_options import JudgeOptions
from .keys import redacted


logger = logging.getLogger(__name__)

#: Seconds before the first retry of a call; doubled each time, up to the longest, and shortened at random.
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 60.0
#: Seconds of a pause that a server asks for from which on it is told.
TOLD_PAUSE = 10.0


class ServerJudge(Judge):
    """
    A model on an OpenAI-compatible server as judge.

    Its address and key come from the environment only: `OPENAI_BASE_URL` (by default the public service of OpenAI) and
    `OPENAI_API_KEY` (not needed where the base URL is given). The key is in no log, record or error.

    Args:
        model (`str`):
            The server's name for it.
        runtime, options:
            As in [`Judge`].

    Raises:
        `ImportError`: `openai` is missing (extra `judge`).
        [`JudgeError`]: neither variable is set.
    """

    def __init__(self, model: str, runtime: Runtime, options: JudgeOptions | None = None):
        super().__init__(f"openai:{model}", runtime, options)
        try:
            import openai  # noqa: F401
        except ImportError as error:
            raise ImportError(
                f"`judge='{self.name}'` needs the package `openai`: `pip install hf_dataselect[judge]`."
            ) from error
        if not os.environ.get("OPENAI_BASE_URL") and not os.environ.get("OPENAI_API_KEY"):
            raise JudgeError(
                f"`judge='{self.name}'`: set `OPENAI_API_KEY` for the public service, or `OPENAI_BASE_URL` for "
                "another server (such as http://localhost:8000/v1)."
            )
        self._model = model
        self._sent = self._unreachable = self._tolerated = 0
        self._told_until = 0.0
        self._random = random.Random()

    @cached_property
    def _address(self) -> str:
        return ChatServer(self.options.timeout).address

    def _identity(self) -> Any:
        return self.options.temperature, self._address

    def _answer(self, questions: dict[str, Conversation], max_new_tokens: int, label: str | None) -> dict[str, Reply]:
        # The main process asks for all ranks, and tells them what it has cost.
        asked = self.runtime.on_main(lambda: (self._ask_all(questions, max_new_tokens, label), vars(self.cost)))
        vars(self.cost).update(asked[1])
        return asked[0]

    def _ask_all(self, questions: dict[str, Conversation], max_new_tokens: int, label: str | None) -> dict[str, Reply]:
        replies: dict[str, Reply] = {}
        with self.runtime.progress(len(questions), label, "call") as bar:
            try:
                run_apart(self._ask_each(questions, max_new_tokens, replies, bar))
            except (KeyboardInterrupt, SystemExit):
                self._store.save()
                kept = "kept, and not asked for again" if self._store.path else "lost, as nothing is cached"
                logger.warning(
                    "%s: stopped. %s of %s replies had come; they are %s.",
                    self.name,
                    f"{len(replies):,}",
                    f"{len(questions):,}",
                    kept,
                )
                raise
        return replies

    async def _ask_each(
        self, questions: dict[str, Conversation], max_new_tokens: int, replies: dict[str, Reply], bar: Any
    ) -> None:
        # Runs that share a folder and start together would otherwise ask the same questions at the same time.
        waiting = iter(self._random.sample(list(questions.items()), len(questions)))
        self._sent, self._unreachable = self.cost.calls + self.cost.retries, 0
        self._tolerated = min(self.options.concurrency, len(questions))
        self._stop, self._error = asyncio.Event(), None
        async with ChatServer(self.options.timeout) as server:
            work = [self._work(server, waiting, max_new_tokens, replies, bar) for _ in range(self._tolerated)]
            await asyncio.gather(*work)
        if self._error is not None:
            raise self._error

    async def _work(
        self,
        server: ChatServer,
        waiting: Iterator[tuple[str, Conversation]],
        max_new_tokens: int,
        replies: dict[str, Reply],
        bar: Any,
    ) -> None:
        """Ask one question after the other, until none is left or one ended the run: calls under way are kept."""
        for key, question in waiting:
            if self._stop.is_set():
                return
            try:
                replies[key] = await self._ask_one(server, key, question, max_new_tokens)
            except JudgeError as error:
                self._error = self._error or error
                self._stop.set()
                return
            bar.update()
            if self.cost.retries or self.cost.failed:
                bar.set_postfix(retries=self.cost.retries, failed=self.cost.failed, refresh=False)

    async def _ask_one(self, server: ChatServer, key: str, question: Conversation, max_new_tokens: int) -> Reply:
        if (reply := self._store.load([key]).get(key)) is not None:  # of another run that shares the folder
            self.cost.cached += 1
            self.cost.cached_seconds += reply.seconds
            return reply
        reply, passing = await self._call(server, question, max_new_tokens)
        return self.record(key, reply, passing)

    async def _call(self, server: ChatServer, question: Conversation, max_new_tokens: int) -> tuple[Reply, bool]:
        """A reply, and whether its problem may pass."""
        import openai

        request = {"model": self._model, "messages": question, self.options.token_limit: max_new_tokens}
        if self.options.temperature is not None:
            request["temperature"] = self.options.temperature
        problem = ""
        for attempt in range(self.options.retries + 1):
            self._count_call(repeated=attempt > 0)
            pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2**attempt) * self._random.uniform(0.5, 1)
            last = attempt == self.options.retries
            try:
                reply = await server.complete(request)
                self._unreachable = 0
                return reply, False
            except TimeoutError:
                problem = f"no reply within {self.options.timeout:g} s"
            except openai.APIConnectionError as error:
                problem = f"connection failed ({type(error.__cause__ or error).__name__})"
            except openai.APIStatusError as error:
                self._unreachable = 0
                problem = self._explained(error)
                if error.status_code not in (408, 409, 429) and error.status_code < 500:
                    return Reply(None, problem), False
                if not last:
                    pause = max(pause, self._asked_pause(error) * self._random.uniform(1, 1.1))
            except TooLong as error:
                return Reply(None, f"the response is {error}"), True
            except NoCompletion as error:
                problem = f"the reply is {error}"
            if not last:
                await self._pause(pause)
        if problem.startswith("connection failed"):
            self._unreachable += 1
            if self._unreachable >= self._tolerated:
                raise JudgeError(
                    f"`judge='{self.name}'`: the server at {self._address} can't be reached: {problem}. Check "
                    "`OPENAI_BASE_URL`. Replies already kept are not asked for again."
                )
        return Reply(None, f"{problem}, {self.options.retries + 1} tries"), True

    async def _pause(self, seconds: float) -> None:
        """Wait, unless the run ends meanwhile."""
        try:
            await asyncio.wait_for(self._stop.wait(), seconds)
        except TimeoutError:
            return
        raise JudgeError("stopped")

    def _asked_pause(self, error: Any) -> float:
        """Seconds that the server asks to wait, told where they are many; a pause beyond `max_wait` ends the run."""
        seconds = retry_after(error.response.headers)
        until = clock_after(seconds)
        if seconds > self.options.max_wait:
            raise JudgeError(
                f"`judge='{self.name}'`: the server asks to wait for {seconds:,.0f} s, until {until} (HTTP "
                f"{error.status_code}), longer than `judge_kwargs`: max_wait={self.options.max_wait:g}. Replies "
                "already kept are not asked for again: start the run again then, or raise max_wait."
            ) from None
        now = asyncio.get_running_loop().time()
        if seconds >= TOLD_PAUSE and now + seconds > self._told_until + TOLD_PAUSE:
            self._told_until = now + seconds
            logger.warning(
                "%s: waiting %s s because the server asks for it, until %s.", self.name, f"{seconds:,.0f}", until
            )
        return seconds

    def _count_call(self, repeated: bool) -> None:
        if self._stop.is_set():
            raise JudgeError("stopped")
        limit = self.options.max_calls
        if limit is not None and self._sent >= limit:
            raise JudgeError(
                f"`judge_kwargs`: max_calls={limit} calls are made, {self.cost.retries:,} of them repetitions. "
                "Raise it to go on: replies already kept are not asked for again."
            )
        self._sent += 1
        self.cost.retries += repeated

    def _explained(self, error: Any) -> str:
        """The error without the key; one that every call would raise ends the run."""
        body = error.body if isinstance(error.body, dict) else {}
        code, shown = str(body.get("code")), redacted(str(body.get("message") or ""))
        shown = f"HTTP {error.status_code}" + (f": {shown[:200]}" if shown else "")
        remedy = None
        if error.status_code == 401:  # its text may hold a part of the key
            shown, remedy = "HTTP 401", "the key in `OPENAI_API_KEY` is refused"
        elif error.status_code == 403:
            remedy = "the key in `OPENAI_API_KEY` may not use this model"
        elif error.status_code == 404 or code in ("model_not_found", "invalid_model"):
            remedy = "the server does not have this model, or `OPENAI_BASE_URL` is not its address (it ends with /v1)"
        elif code in ("unsupported_parameter", "unsupported_value"):
            remedy = "the model wants other `judge_kwargs`, such as temperature or token_limit"
        elif code == "insufficient_quota":
            remedy = "the account has no credit left"
        if remedy is not None:
            # `from None`: the client's own error may show the key in a traceback.
            raise JudgeError(f"`judge='{self.name}'`: {remedy} ({shown}; {self._address}).") from None
        return shown
