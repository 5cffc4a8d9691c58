"""Texts of rows in a judge's prompt, and numbers out of its reply."""

import hashlib
import json
import math
import re


def delimited(**texts: str) -> str:
    """
    Texts of rows for a judge's prompt, each between marks with its name. The marks carry a hash of all the texts, so
    that no text can hold the mark that ends it.
    """
    mark = hashlib.blake2b(json.dumps(texts).encode(), digest_size=4).hexdigest()
    return "\n\n".join(f"<{name} {mark}>\n{text}\n</{name} {mark}>" for name, text in texts.items())


_THOUGHT = re.compile(r"\A\s*<think>.*?</think>", re.DOTALL)
_SCALE = re.compile(r"(?<=\d)\s*(?:/|out of)\s*\d+(?:\.\d+)?")
_NUMBER = re.compile(r"(?<![A-Za-z0-9_.])[-+]?\d+(?:\.\d+)?(?![A-Za-z0-9_]|\.\d)")


def numbers(text: str | None, count: int, low: float, high: float) -> tuple[float, ...] | None:
    """
    The `count` numbers on the first line of a reply, `None` if these are not there: more or fewer numbers, or one out
    of `[low, high]`. Words and signs beside them do not matter, nor does the `/5` of "4/5", nor a block of thoughts in
    front.
    """
    lines = [line for line in _THOUGHT.sub("", text or "").splitlines() if line.strip()]
    found = tuple(float(number) for number in _NUMBER.findall(_SCALE.sub("", lines[0]))) if lines else ()
    return found if len(found) == count and all(low <= number <= high for number in found) else None


def first_number(text: str | None, low: float, high: float) -> float:
    """The only number on the first line of a reply, NaN if it is not there; see [`numbers`]."""
    found = numbers(text, 1, low, high)
    return math.nan if found is None else found[0]
