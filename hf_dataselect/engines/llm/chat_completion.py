"""Chat completions over HTTP: one call, bounded in time and in size, and what can be read from its response."""

import asyncio
import email.utils
import json
import os
import time
from collections.abc import AsyncIterator
from typing import Any

from ..store.replies import Reply
from .keys import redacted


#: Bytes of a response, errors included, that are read.
MOST_BYTES = 8 << 20
#: Tokens of a call that a server's count is believed to.
MOST_TOKENS = 1_000_000
#: Longest pause that can be told as a date, in seconds: ten years.
_LONGEST = 3e8


class NoCompletion(Exception):
    """A response with status 200 that is not a chat completion; its text says what it is instead."""


class TooLong(NoCompletion):
    """A response of more bytes than are read."""


class ChatServer:
    """
    An OpenAI-compatible server; `OPENAI_BASE_URL` and `OPENAI_API_KEY` of the environment are its address and key. Use
    as an async context manager, within which its connections are kept open.

    Args:
        timeout (`float`):
            Seconds that a call may take in all, from connecting to the last byte of the response.
    """

    def __init__(self, timeout: float):
        import openai

        self.timeout = timeout
        # Own retries: the client's would escape `max_calls` and do not cover responses that are not a chat completion.
        # Own deadline: the client's is one of silence, and a server that sends a byte now and then never meets it.
        http = openai.DefaultAsyncHttpxClient(timeout=None, event_hooks={"response": [_bounded]})
        key = os.environ.get("OPENAI_API_KEY") or "none"
        self._client = openai.AsyncOpenAI(api_key=key, timeout=None, max_retries=0, http_client=http)

    @property
    def address(self) -> str:
        """Address without what may be secret in it."""
        url = self._client.base_url
        return f"{url.scheme}://{url.host}" + (f":{url.port}" if url.port else "") + url.path.rstrip("/")

    async def __aenter__(self) -> "ChatServer":
        return self

    async def __aexit__(self, *error: Any) -> None:
        await self._client.close()

    async def complete(self, request: dict[str, Any]) -> Reply:
        """
        The reply to one request.

        Raises:
            `TimeoutError`: the call takes longer than `timeout`.
            [`NoCompletion`]: the response is no chat completion, or too long.
            `openai.APIStatusError`, `openai.APIConnectionError`: the server refuses, or is not there.
        """
        import openai

        try:
            async with asyncio.timeout(self.timeout):
                raw = await self._client.chat.completions.with_raw_response.create(**request)
        except openai.APIConnectionError as error:
            if isinstance(error.__cause__, TooLong):
                raise error.__cause__ from None
            raise
        return read_completion(raw.http_response.text)


async def _bounded(response: Any) -> None:
    """Read no more of a response than `MOST_BYTES`, once decompressed."""
    read = response.aiter_bytes

    async def bounded(*arguments: Any, **options: Any) -> AsyncIterator[bytes]:
        size = 0
        async for chunk in read(*arguments, **options):
            size += len(chunk)
            if size > MOST_BYTES:
                raise TooLong(f"longer than {MOST_BYTES >> 20} MiB")
            yield chunk

    response.aiter_bytes = bounded


def read_completion(body: str) -> Reply:
    """
    The reply in the body of a response, without the keys of the environment.

    Raises:
        [`NoCompletion`]: it is something else.
    """
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        raise NoCompletion("no JSON") from None
    try:
        choice = answer["choices"][0]
        message, ended = choice["message"], choice.get("finish_reason")
        text = message["content"]
        if not isinstance(text, str | None):
            raise TypeError
    except (TypeError, KeyError, IndexError, AttributeError):
        raise NoCompletion("no chat completion") from None
    usage = answer.get("usage") if isinstance(answer.get("usage"), dict) else {}
    tokens = [_tokens(usage.get(name)) for name in ("prompt_tokens", "completion_tokens")]
    problem = None
    if ended == "content_filter":
        problem = "stopped by the server's content filter"
    elif message.get("refusal"):
        problem = "refused by the model"
    elif not (text or "").strip():
        problem = "empty, cut off before an answer" if ended == "length" else "empty"
    return Reply(None if problem else redacted(text), problem, *tokens, cut=ended == "length")


def _tokens(counted: Any) -> int:
    """A server's count of tokens; 0, as if it did not count, where it can't be one."""
    return counted if type(counted) is int and 0 <= counted <= MOST_TOKENS else 0


def retry_after(headers: Any) -> float:
    """Seconds that a server asks to wait, as a number or a date; 0 if it does not."""
    value = headers.get("retry-after") or ""
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(value).timestamp() - time.time()
        except (TypeError, ValueError, OverflowError):
            return 0.0
    return min(_LONGEST, max(0.0, seconds))


def clock_after(seconds: float) -> str:
    """The local time in so many seconds: hour and minute, and the date if it is another day's."""
    then, now = time.localtime(time.time() + seconds), time.localtime()
    return time.strftime("%H:%M" if then[:3] == now[:3] else "%Y-%m-%d %H:%M", then)
