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


_SCALE = re.compile(r"(?<=\d)\s*(?:/|out of)\s*(\d+(?:\.\d+)?)")
_NUMBER = re.compile(r"(?<![A-Za-z0-9_.])[-+]?\d+(?:\.\d+)?(?![A-Za-z0-9_]|\.\d)")


def without_thoughts(text: str | None) -> str | None:
    """What a model says after it has thought; `None` if it never came to an end with that."""
    thoughts, closed, said = (text or "").rpartition("</think>")
    return None if text is None or ("<think>" in said and not closed) else said


def numbers(text: str | None, count: int, low: float, high: float) -> tuple[float, ...] | None:
    """
    The `count` numbers on the first line of a reply, `None` if these are not there: more or fewer numbers, or one out
    of `[low, high]`. Words and signs beside them do not matter, nor does a `/high` behind a number, nor thoughts in
    front. A number out of another scale is none of these.
    """
    lines = [line for line in (without_thoughts(text) or "").splitlines() if line.strip()]
    if lines and any(float(scale) != high for scale in _SCALE.findall(lines[0])):
        return None
    found = tuple(float(number) for number in _NUMBER.findall(_SCALE.sub("", lines[0]))) if lines else ()
    return found if len(found) == count and all(low <= number <= high for number in found) else None


def first_number(text: str | None, low: float, high: float) -> float:
    """The only number on the first line of a reply, NaN if it is not there; see [`numbers`]."""
    found = numbers(text, 1, low, high)
    return math.nan if found is None else found[0]
