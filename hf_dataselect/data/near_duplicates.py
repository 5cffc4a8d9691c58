"""
Near-duplicates: copies of rows of a pool with small edits, as collected data have them.

A copy has two edits of its last question (a greeting, politeness, case, punctuation, another verb) and one of its
answer (an opening, a closing, the last full stop); what it says stays the same. Its column `fault` is `duplicate`, and
`row` the number of the row that it copies.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ..options import Fraction, PositiveInt, check_declared
from .pool import Row, answer_of, with_answer


_VERBS = {
    "Write": "Compose",
    "Create": "Make",
    "Generate": "Produce",
    "Explain": "Describe",
    "Describe": "Explain",
    "Give": "Provide",
    "Provide": "Give",
    "List": "Name",
    "Name": "List",
    "Find": "Determine",
    "Identify": "Find",
    "Rewrite": "Rephrase",
    "Calculate": "Compute",
    "What": "Tell me: what",
    "How": "Tell me: how",
}
_END = ".!?。！？"


def _lower_first(text: str) -> str:
    return text[:1].lower() + text[1:]


def _other_verb(text: str) -> str:
    first, space, rest = text.partition(" ")
    return _VERBS.get(first, first) + space + rest


#: Edits of a question.
QUESTION: tuple[Callable[[str], str], ...] = (
    lambda text: "Hi! " + text,
    lambda text: "Hello, " + _lower_first(text),
    lambda text: "Please " + _lower_first(text),
    lambda text: "Can you help me with this? " + text,
    _lower_first,
    lambda text: text.rstrip(_END),
    lambda text: text.rstrip(_END) + "!",
    lambda text: text + " Thanks.",
    _other_verb,
)
#: Edits of an answer.
ANSWER: tuple[Callable[[str], str], ...] = (
    lambda text: text,
    lambda text: "Sure! " + text,
    lambda text: "Certainly. " + text,
    lambda text: text + " I hope this helps.",
    lambda text: text.rstrip(_END),
)


@dataclass
class NearDuplicates:
    """
    Args:
        fraction (`float`):
            Share of the rows without a planted fault that are copied.
        copies (`int`, *optional*, defaults to `1`):
            Copies of each of them.
    """

    fraction: Fraction
    copies: PositiveInt = 1

    def __post_init__(self):
        check_declared(self, "duplicate")


def add_near_duplicates(rows: Sequence[Row], duplicates: NearDuplicates, seed: int) -> list[Row]:
    """
    The rows, and after them the copies of some.

    Args:
        rows (`Sequence[Row]`):
            A pool.
        duplicates ([`NearDuplicates`]):
            How many.
        seed (`int`):
            Decides which rows, and the edits.

    Raises:
        `ValueError`: more copies of a row than there are edits for.
    """
    draw = np.random.default_rng([seed, 1])
    sound = [number for number, row in enumerate(rows) if row["fault"] == "none"]
    chosen = np.sort(draw.permutation(sound)[: round(duplicates.fraction * len(sound))])
    added = []
    for number in chosen.tolist():
        row, seen = rows[number], {(rows[number]["prompt"][-1]["content"], answer_of(rows[number]))}
        for _ in range(100 * duplicates.copies):
            if len(seen) > duplicates.copies:
                break
            copy = _edited(row, draw)
            text = copy["prompt"][-1]["content"], answer_of(copy)
            if text not in seen and text[0].strip() and text[1].strip():
                seen.add(text)
                added.append(copy)
        else:
            raise ValueError(f"`duplicate`: copies={duplicates.copies} of one row are more than there are edits for.")
    return [*rows, *added]


def _edited(row: Row, draw: np.random.Generator) -> Row:
    turn = row["prompt"][-1]
    question, answer = turn["content"], answer_of(row)
    for edit in sorted(draw.permutation(len(QUESTION))[:2].tolist(), reverse=True):
        question = QUESTION[edit](question)
    copy = with_answer(row, ANSWER[int(draw.integers(len(ANSWER)))](answer), "duplicate")
    return copy | {"prompt": [*row["prompt"][:-1], turn | {"content": question}]}
