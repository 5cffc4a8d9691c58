"""
Planted faults: answers of a pool made worse on purpose, a stated share of them. The answer becomes

- `shuffled`: that of another row of the same source which is shuffled too. No answer is lost, none stays in place.
- `cut`: its first half, up to a space. A text without spaces is cut between characters.
- `wrong`: the same with every number changed to another of as many digits, the same one everywhere in the answer. An
  answer without numbers becomes the one of its source that is nearest in length.

A row's column `fault` names what was done to it.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from ..options import Fraction, check_declared
from .pool import Row, answer_of, with_answer


Kind = Literal["shuffled", "cut", "wrong"]
_NUMBER = re.compile(r"\d+")


@dataclass
class Corruption:
    """
    Args:
        fraction (`float`):
            Share of the rows, of each source alike.
        kinds (`list[str]`, *optional*):
            What is done to them, in equal parts as far as possible; all kinds by default.
    """

    fraction: Fraction
    kinds: list[Kind] = field(default_factory=lambda: ["shuffled", "cut", "wrong"])

    def __post_init__(self):
        check_declared(self, "corrupt")
        if not self.kinds:
            raise ValueError("`corrupt`: `kinds` is empty: name 'shuffled', 'cut' or 'wrong'.")


def corrupt(rows: Sequence[Row], corruption: Corruption, seed: int) -> list[Row]:
    """
    The rows in the same order, a share of them corrupted.

    Args:
        rows (`Sequence[Row]`):
            A pool.
        corruption ([`Corruption`]):
            What to do to how many.
        seed (`int`):
            Decides which rows, and how.

    Raises:
        `ValueError`: too few rows of a source, or too many equal answers, for the kinds asked for.
    """
    corrupted, sources = list(rows), sorted({row["source"] for row in rows})
    members = {name: [i for i, row in enumerate(rows) if row["source"] == name] for name in sources}
    for place, (name, number) in enumerate(_shares(members, corruption.fraction).items()):
        draw = np.random.default_rng([seed, place])
        chosen = _chosen(rows, members[name], number, corruption.kinds, draw)
        for row, other in zip(chosen["shuffled"], chosen["shuffled"][1:] + chosen["shuffled"][:1], strict=True):
            corrupted[row] = with_answer(rows[row], answer_of(rows[other]), "shuffled")
        for row in chosen["cut"]:
            corrupted[row] = with_answer(rows[row], cut_answer(answer_of(rows[row])), "cut")
        for row in chosen["wrong"]:
            answer = other_numbers(answer_of(rows[row]), draw) or _nearest_in_length(rows, row, members[name])
            corrupted[row] = with_answer(rows[row], answer, "wrong")
    return corrupted


def _shares(members: dict[str, list[int]], fraction: float) -> dict[str, int]:
    """How many rows of each source, by largest remainders, so that all together are the fraction of all rows."""
    exact = {name: fraction * len(rows) for name, rows in members.items()}
    shares = {name: int(value) for name, value in exact.items()}
    missing = round(fraction * sum(map(len, members.values()))) - sum(shares.values())
    for name in sorted(exact, key=lambda name: (shares[name] - exact[name], name))[:missing]:
        shares[name] += 1
    return shares


def _chosen(
    rows: Sequence[Row], members: list[int], number: int, kinds: Sequence[Kind], draw: np.random.Generator
) -> dict[str, list[int]]:
    """Rows to corrupt by kind: each kind as often as the others, of the rows that it can be done to."""
    chosen: dict[str, list[int]] = {"shuffled": [], "cut": [], "wrong": []}
    answers, shuffled = {answer_of(rows[i]) for i in members}, set()

    def fitting(answer: str) -> list[Kind]:
        possible = {
            "shuffled": answer not in shuffled,  # equal answers could not be told from those in their places
            "cut": len(answer.strip()) > 1,
            "wrong": _NUMBER.search(answer) or len(answers) > 1,
        }
        return [kind for kind in kinds if possible[kind]]

    for row in draw.permutation(members).tolist():
        if sum(map(len, chosen.values())) == number:
            break
        if possible := fitting(answer_of(rows[row])):
            kind = min(possible, key=lambda kind: len(chosen[kind]))
            chosen[kind].append(row)
            shuffled |= {answer_of(rows[row])} if kind == "shuffled" else set()
    if len(chosen["shuffled"]) == 1 and (others := fitting(answer_of(rows[chosen["shuffled"][0]]))):
        chosen[others[-1]].append(chosen["shuffled"].pop())  # one answer alone can't change its place
    if sum(map(len, chosen.values())) < number or len(chosen["shuffled"]) == 1:
        raise ValueError(
            f"`corrupt`: of the {len(members)} rows of {rows[members[0]]['source']!r}, {number} can't be corrupted by "
            f"{', '.join(map(repr, kinds))}: choose other `kinds`, another `fraction`, or more rows."
        )
    return chosen


def cut_answer(answer: str) -> str:
    """The first half of an answer, up to the space nearest to its middle, if one is in its middle half."""
    text = answer.strip()
    middle = len(text) // 2
    spaces = [space.start() for space in re.finditer(r"\s+", text) if abs(space.start() - middle) <= len(text) // 4]
    end = min(spaces, key=lambda space: abs(space - middle)) if spaces else middle
    return text[: max(1, end)]


def other_numbers(answer: str, draw: np.random.Generator) -> str | None:
    """The answer with every number changed; `None` without numbers."""
    changed: dict[str, str] = {}
    for number in _NUMBER.findall(answer):
        while number not in changed or changed[number] == number:
            low = 10 ** (len(number) - 1) if len(number) > 1 and number[0] != "0" else 0
            digits = draw.integers(0, 10, len(number))
            drawn = "".join(map(str, digits.tolist()))
            if int(drawn) >= low:
                changed[number] = drawn
    return _NUMBER.sub(lambda match: changed[match[0]], answer) if changed else None


def _nearest_in_length(rows: Sequence[Row], row: int, members: list[int]) -> str:
    own = answer_of(rows[row])
    others = [answer_of(rows[i]) for i in members if answer_of(rows[i]) != own]
    return min(others, key=lambda answer: (abs(len(answer) - len(own)), answer))
