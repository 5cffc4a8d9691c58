"""How texts of rows stand in a judge's prompt, and how numbers are parsed from its reply."""

import hashlib
import json
import math
import re


def delimited(**texts: str) -> str:
    """
    Texts of rows for a judge's prompt, each between marks with its name. The marks carry a hash of all the texts, so
    that no text can contain its own closing mark.
    """
    mark = hashlib.blake2b(json.dumps(texts).encode(), digest_size=4).hexdigest()
    return "\n\n".join(f"<{name} {mark}>\n{text}\n</{name} {mark}>" for name, text in texts.items())


_SCALE = re.compile(r"(?<=\d)\s*(?:/|out of)\s*(\d+(?:\.\d+)?)")
_NUMBER = re.compile(r"(?<![A-Za-z0-9_.])[-+]?\d+(?:\.\d+)?(?![A-Za-z0-9_]|\.\d)")


def without_thoughts(text: str | None) -> str | None:
    """A reply without its reasoning (`<think>`); `None` if the reasoning never ends."""
    _, closed, answer = (text or "").rpartition("</think>")
    return None if text is None or ("<think>" in answer and not closed) else answer


def numbers(text: str | None, count: int, low: float, high: float) -> tuple[float, ...] | None:
    """
    The `count` numbers on the first line of a reply; `None` if it holds more or fewer numbers, or one outside of
    `[low, high]` or on another scale. Other words and signs, a `/high` after a number and reasoning before it do not
    matter.
    """
    lines = [line for line in (without_thoughts(text) or "").splitlines() if line.strip()]
    if lines and any(float(scale) != high for scale in _SCALE.findall(lines[0])):
        return None
    values = tuple(float(number) for number in _NUMBER.findall(_SCALE.sub("", lines[0]))) if lines else ()
    return values if len(values) == count and all(low <= value <= high for value in values) else None


def first_number(text: str | None, low: float, high: float) -> float:
    """The only number on the first line of a reply, or NaN; see [`numbers`]."""
    values = numbers(text, 1, low, high)
    return math.nan if values is None else values[0]
