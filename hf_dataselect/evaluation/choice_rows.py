"""Rows of multiple-choice questions: the choices, and which of them are correct."""

import numbers
import re
from string import ascii_uppercase
from typing import Any, NamedTuple

from .question_rows import Unreadable, right_answers


_OPTIONS = re.compile(r"\bOptions:\s*\n", re.IGNORECASE)
_OPTION = re.compile(r"^\s*(?:(\([A-Z]\))|-)[ \t]*(.*?)\s*$", re.MULTILINE)


class Item(NamedTuple):
    """A question with its choices."""

    #: The prompt, with the choices if they are listed.
    text: str = ""
    #: Possible answers, letters or texts by `answer_with`.
    choices: tuple[str, ...] = ()
    #: Index of the correct choice.
    right: int = 0
    subject: str | None = None
    #: Why the row is unscorable.
    problem: str | None = None
    #: Indices of other correct choices.
    also: tuple[int, ...] = ()
    #: Turns before the question.
    before: tuple[dict[str, Any], ...] = ()
    #: The row's question with all its turns.
    question: str = ""

    @property
    def system(self) -> tuple[dict[str, Any], ...]:
        return tuple(turn for turn in self.before[:1] if turn["role"] == "system")


#: Prompt, choices, and indices of the correct ones.
Choices = tuple[str, tuple[str, ...], tuple[int, ...]]


def listed(question: str, choices: Any, answer: Any, answer_with: str) -> Choices:
    """A row of MMLU or ARC."""
    labels = None
    if isinstance(choices, dict):
        choices, labels = choices.get("text"), choices.get("label")
    texts = _texts(choices)
    if len(texts) < 2:
        raise Unreadable("fewer than two choices")
    if len(texts) > len(ascii_uppercase):
        raise Unreadable("more than 26 choices")
    named = _texts(labels) if labels else list(ascii_uppercase[: len(texts)])
    if len(named) != len(texts):
        raise Unreadable("choices and labels of different number")
    right = _places(answer, texts, named, numeric=not any(isinstance(choice, str) for choice in choices))
    if answer_with == "text":
        return f"{question}\nAnswer:", tuple(texts), right
    lines = "\n".join(f"{label}. {text}" for label, text in zip(named, texts, strict=True))
    return f"{question}\n{lines}\nAnswer:", tuple(named), right


def big_bench(question: str, target: Any, targets: list[str], answer_with: str) -> Choices:
    """A row of BIG-Bench Hard; `targets` are those of its task."""
    start = list(_OPTIONS.finditer(question))
    options = _OPTION.findall(question[start[-1].end() :]) if start else []
    labels, texts = [label for label, _ in options if label], [text for _, text in options]
    if not options:
        if len(targets) != 2:
            raise Unreadable("no choices in the row")
        texts = sorted(targets)
    elif len(options) < 2:
        raise Unreadable("fewer than two choices")
    elif not all(texts):
        raise Unreadable(_NO_TEXTS)
    known = labels if len(labels) == len(texts) else texts
    choices = known if answer_with == "letter" else texts
    return f"{question}\nAnswer:", tuple(choices), _places(right_answers(target), texts, known)


_NO_TEXTS = "an empty choice, or choices that are not a list of texts"


def _texts(choices: Any) -> list[str]:
    """Choices or labels; numbers as texts."""
    if not isinstance(choices, list) or not all(isinstance(text, (str, numbers.Number)) for text in choices):
        raise Unreadable(_NO_TEXTS)
    texts = [str(text).strip() for text in choices]
    if not all(texts):
        raise Unreadable(_NO_TEXTS)
    return texts


def _places(answers: Any, texts: list[str], labels: list[str], numeric: bool = False) -> tuple[int, ...]:
    """Indices of the correct choices, at least one."""
    answers = answers if isinstance(answers, list) else [answers]
    if not answers:
        raise Unreadable("no correct choice")
    return tuple(dict.fromkeys(_place(answer, texts, labels, numeric) for answer in answers))


def _place(answer: Any, texts: list[str], labels: list[str], numeric: bool) -> int:
    """Index of the correct choice, which a row gives as index, label, letter or text."""
    named = {texts.index(str(answer))} if numeric and str(answer) in texts else set()
    if isinstance(answer, float) and answer.is_integer():
        answer = int(answer)  # a column of indices with missing ones
    if isinstance(answer, int) and not isinstance(answer, bool):
        places = named | ({answer} if 0 <= answer < len(texts) else set())
        if not places:
            raise Unreadable("the index of the answer is out of range")
    else:
        text = str(answer).strip() if isinstance(answer, (str, bool)) else ""
        letter, letters = text.strip("().").upper(), [label.strip("()").upper() for label in labels]
        places = named | {known.index(name) for known, name in ((texts, text), (letters, letter)) if name in known}
        if not places:
            raise Unreadable("the answer is not one of the choices")
    if len(places) > 1:
        raise Unreadable("the answer is ambiguous between two choices")
    return places.pop()
