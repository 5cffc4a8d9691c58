"""Options of judges, and what a judge has cost."""

import math
from dataclasses import dataclass
from typing import Literal


@dataclass
class JudgeOptions:
    """
    Options of judges (`judge_kwargs`).

    Args:
        max_calls (`int`, *optional*):
            Calls that this judge may make in a run, repeated ones included. More questions than are left are refused
            before the first one is asked.
        concurrency (`int`, *optional*, defaults to `16`):
            Calls to a server at a time. More is faster until the server refuses.
        timeout (`float`, *optional*, defaults to `120`):
            Seconds that a server may stay silent.
        retries (`int`, *optional*, defaults to `6`):
            How often a call is repeated after 408, 409, 429, 5xx, a time-out, a broken connection or a reply that is
            no chat completion.
        temperature (`float`, *optional*, defaults to `0.0`):
            Of a server's model; `None` leaves it to the server. Local models always take the likeliest token.
        token_limit (`str`, *optional*, defaults to `"max_tokens"`):
            What the server calls the limit of new tokens: `"max_tokens"` or `"max_completion_tokens"`.
        price_in, price_out (`float`, *optional*):
            Price of a million tokens of prompts and of replies, in any currency.

    Raises:
        `ValueError`: a value out of range.
    """

    max_calls: int | None = None
    concurrency: int = 16
    timeout: float = 120.0
    retries: int = 6
    temperature: float | None = 0.0
    token_limit: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    price_in: float | None = None
    price_out: float | None = None

    def __post_init__(self):
        least = {"max_calls": 0, "concurrency": 1, "retries": 0, "temperature": 0, "price_in": 0, "price_out": 0}
        for name, low in least.items():
            value = getattr(self, name)
            if value is not None and not low <= value < math.inf:
                raise ValueError(f"`judge_kwargs`: {name}={value!r} must be at least {low}.")
        if not 0 < self.timeout < math.inf:
            raise ValueError(f"`judge_kwargs`: timeout={self.timeout!r} must be more than 0 seconds.")
        if (self.price_in is None) != (self.price_out is None):
            raise ValueError("`judge_kwargs`: give both `price_in` and `price_out`, or neither.")

    def money(self, prompt_tokens: int, completion_tokens: int) -> float | None:
        """What so many tokens cost; `None` without prices."""
        if self.price_in is None:
            return None
        return (prompt_tokens * self.price_in + completion_tokens * self.price_out) / 1e6


@dataclass
class Cost:
    """
    What a judge has cost so far.

    Args:
        calls (`int`):
            Questions asked, each counted once.
        cached (`int`):
            Questions that were answered by an earlier reply to the same question.
        cached_seconds (`float`):
            What an earlier run's replies took when they were asked for.
        failed (`int`):
            Questions asked without a usable reply.
        cut (`int`):
            Replies cut off at `max_new_tokens`.
        retries (`int`):
            Calls beyond the first of a question.
        prompt_tokens, completion_tokens (`int`):
            Tokens of the calls.
        unmetered (`int`):
            Calls whose tokens the server did not count: they are missing in the tokens and in the money.
        money (`float`, *optional*):
            Price of the tokens; `None` without prices.
        seconds (`float`):
            Wall-clock time of the asking.
    """

    calls: int = 0
    cached: int = 0
    cached_seconds: float = 0.0
    failed: int = 0
    cut: int = 0
    retries: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    unmetered: int = 0
    money: float | None = None
    seconds: float = 0.0
