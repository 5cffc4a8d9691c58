"""A judge on an OpenAI-compatible server: bounded concurrency, retries with backoff."""

import email.utils
import json
import logging
import os
import random
import threading
import time
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from typing import Any

from ...errors import JudgeError
from ..runtime.runtime import Runtime
from ..store.replies import Reply
from .judge import Conversation, Judge
from .judge_options import JudgeOptions


logger = logging.getLogger(__name__)

#: Seconds before the first retry of a call; doubled each time, up to the longest, and shortened at random.
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 60.0
#: Longest `Retry-After` of a server that is obeyed, in seconds.
LONGEST_RETRY_AFTER = 3600.0


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
            import openai
        except ImportError as error:
            raise ImportError(
                f"`judge='{self.name}'` needs the package `openai`: `pip install hf_dataselect[judge]`."
            ) from error
        if not os.environ.get("OPENAI_BASE_URL") and not os.environ.get("OPENAI_API_KEY"):
            raise JudgeError(
                f"`judge='{self.name}'`: set `OPENAI_API_KEY` for the public service, or `OPENAI_BASE_URL` for "
                "another server (such as http://localhost:8000/v1)."
            )
        # Own retries: the client's would escape `max_calls`, can't be interrupted, and do not cover responses that are
        # not a chat completion.
        self._client = openai.OpenAI(
            api_key=os.environ.get("OPENAI_API_KEY") or "none", timeout=self.options.timeout, max_retries=0
        )
        self._model = model
        self._lock, self._stop = threading.Lock(), threading.Event()
        self._sent = self._unreachable = self._tolerated = 0
        self._random = random.Random()

    def _identity(self) -> Any:
        return self.options.temperature, self._address()

    def _answer(self, questions: dict[str, Conversation], max_new_tokens: int, label: str | None) -> dict[str, Reply]:
        # The main process asks for all ranks, and tells them what it has cost.
        asked = self.runtime.on_main(lambda: (self._ask_all(questions, max_new_tokens, label), vars(self.cost)))
        vars(self.cost).update(asked[1])
        return asked[0]

    def _ask_all(self, questions: dict[str, Conversation], max_new_tokens: int, label: str | None) -> dict[str, Reply]:
        # Runs that share a folder and start together would otherwise ask the same questions at the same time.
        replies, waiting = {}, iter(self._random.sample(list(questions.items()), len(questions)))
        self._stop.clear()
        self._sent, self._unreachable = self.cost.calls + self.cost.retries, 0
        self._tolerated = min(self.options.concurrency, len(questions))
        bar = self.runtime.progress(len(questions), label, "call")
        with bar, ThreadPoolExecutor(self.options.concurrency) as pool:
            running = set()
            try:
                while True:
                    while len(running) < 2 * self.options.concurrency and (item := next(waiting, None)) is not None:
                        running.add(pool.submit(self._ask_one, *item, max_new_tokens))
                    if not running:
                        return replies
                    done, running = wait(running, return_when=FIRST_COMPLETED)
                    for future in done:
                        key, reply = future.result()
                        replies[key] = reply
                        bar.update()
                    if self.cost.retries or self.cost.failed:
                        bar.set_postfix(retries=self.cost.retries, failed=self.cost.failed, refresh=False)
            except BaseException:
                self._stop.set()  # calls under way end and are kept; nothing new begins
                pool.shutdown(cancel_futures=True)
                raise

    def _ask_one(self, key: str, question: Conversation, max_new_tokens: int) -> tuple[str, Reply]:
        with self._lock:
            if (reply := self._store.load([key]).get(key)) is not None:  # of another run that shares the folder
                self.cost.cached += 1
                self.cost.cached_seconds += reply.seconds
                return key, reply
        reply, passing = self._call(question, max_new_tokens)
        with self._lock:
            return key, self.record(key, reply, passing)

    def _call(self, question: Conversation, max_new_tokens: int) -> tuple[Reply, bool]:
        """A reply, and whether its problem may pass."""
        import openai

        request = {"model": self._model, "messages": question, self.options.token_limit: max_new_tokens}
        if self.options.temperature is not None:
            request["temperature"] = self.options.temperature
        problem = ""
        for attempt in range(self.options.retries + 1):
            self._count_call(repeated=attempt > 0)
            pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2**attempt) * self._random.uniform(0.5, 1)
            try:
                raw = self._client.chat.completions.with_raw_response.create(**request)
                self._unreachable = 0
                return _read(raw.http_response.text), False
            except openai.APITimeoutError:
                problem = f"no reply within {self.options.timeout:g} s"
            except openai.APIConnectionError as error:
                problem = f"connection failed ({type(error.__cause__ or error).__name__})"
            except openai.APIStatusError as error:
                self._unreachable = 0
                problem = self._explained(error)
                if error.status_code not in (408, 409, 429) and error.status_code < 500:
                    return Reply(None, problem), False
                pause = max(pause, _retry_after(error.response.headers) * self._random.uniform(1, 1.1))
            except _NoCompletion as error:
                problem = f"the reply is {error}"
            if attempt < self.options.retries and self._stop.wait(pause):
                raise JudgeError("stopped")
        if problem.startswith("connection failed"):
            with self._lock:
                self._unreachable += 1
                if self._unreachable >= self._tolerated:
                    raise JudgeError(
                        f"`judge='{self.name}'`: the server at {self._address()} can't be reached: {problem}. Check "
                        "`OPENAI_BASE_URL`. Replies already kept are not asked for again."
                    )
        return Reply(None, f"{problem}, {self.options.retries + 1} tries"), True

    def _count_call(self, repeated: bool) -> None:
        with self._lock:
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
        code, shown = str(body.get("code")), str(body.get("message") or "")
        if key := self._client.api_key:
            shown = shown.replace(key, "***")
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
            raise JudgeError(f"`judge='{self.name}'`: {remedy} ({shown}; {self._address()}).") from None
        return shown

    def _address(self) -> str:
        url = self._client.base_url
        return f"{url.scheme}://{url.host}" + (f":{url.port}" if url.port else "") + url.path.rstrip("/")


class _NoCompletion(Exception):
    """A response with status 200 that is not a chat completion; its text says what it is instead."""


def _read(body: str) -> Reply:
    try:
        answer = json.loads(body)
    except ValueError:
        raise _NoCompletion("no JSON") from None
    try:
        choice = answer["choices"][0]
        message, ended = choice["message"], choice.get("finish_reason")
        text = message["content"]
        if not isinstance(text, str | None):
            raise TypeError
    except (TypeError, KeyError, IndexError, AttributeError):
        raise _NoCompletion("no chat completion") from None
    usage = answer.get("usage") if isinstance(answer.get("usage"), dict) else {}
    tokens = [int(usage.get(name) or 0) for name in ("prompt_tokens", "completion_tokens")]
    problem = None
    if ended == "content_filter":
        problem = "stopped by the server's content filter"
    elif message.get("refusal"):
        problem = "refused by the model"
    elif not (text or "").strip():
        problem = "empty, cut off before an answer" if ended == "length" else "empty"
    return Reply(None if problem else text, problem, *tokens, cut=ended == "length")


def _retry_after(headers: Any) -> float:
    """Seconds that the server asks to wait, as a number or a date; 0 if it does not."""
    value = headers.get("retry-after") or ""
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(value).timestamp() - time.time()
        except (TypeError, ValueError):
            return 0.0
    return min(LONGEST_RETRY_AFTER, max(0.0, seconds))
