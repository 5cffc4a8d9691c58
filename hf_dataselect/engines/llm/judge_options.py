"""Options of judges, and what they cost."""

from dataclasses import dataclass
from typing import Literal

from ...options import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, check_declared


@dataclass
class JudgeOptions:
    """
    Options of judges (`judge_kwargs`).

    Args:
        max_calls (`int`, *optional*):
            Calls that this judge may make in a run, retries included. More questions than are left are refused
            before the first one is asked.
        concurrency (`int`, *optional*, defaults to `16`):
            Calls to a server at a time. More is faster until the server refuses.
        timeout (`float`, *optional*, defaults to `120`):
            Seconds that a call to a server may take in all, from connecting to the last byte of its reply.
        retries (`int`, *optional*, defaults to `6`):
            How often a call is retried after 408, 409, 429, 5xx, a time-out, a broken connection or a reply that is
            not a chat completion.
        max_wait (`float`, *optional*, defaults to `600`):
            Longest pause before a retry, in seconds, that a server may ask for (`Retry-After`). One that asks for more
            ends the run; replies so far are kept.
        temperature (`float`, *optional*, defaults to `0.0`):
            Of a server's model; `None` leaves it to the server. Local models decode greedily.
        token_limit (`str`, *optional*, defaults to `"max_tokens"`):
            Name of the limit of new tokens in a request: `"max_tokens"` or `"max_completion_tokens"`.
        price_in, price_out (`float`, *optional*):
            Price of a million tokens of prompts and of replies, in any currency.

    Raises:
        `ValueError`: a value out of range.
    """

    max_calls: NonNegativeInt | None = None
    concurrency: PositiveInt = 16
    timeout: PositiveFloat = 120.0
    retries: NonNegativeInt = 6
    max_wait: PositiveFloat = 600.0
    temperature: NonNegativeFloat | None = 0.0
    token_limit: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    price_in: NonNegativeFloat | None = None
    price_out: NonNegativeFloat | None = None

    def __post_init__(self):
        check_declared(self, "judge_kwargs")
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
            Questions asked, not counting retries.
        cached (`int`):
            Questions that were answered by an earlier reply to the same question.
        cached_seconds (`float`):
            Seconds that the cached replies took when they were new.
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
            Wall-clock time spent.
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
