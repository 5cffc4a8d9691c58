"""
Multiple choice by log-likelihood; the score is the accuracy.

The prediction is the choice with the highest sum of token log-probabilities given the question, in a tie the first.
Two layouts are supported:

- MMLU (arXiv 2009.03300): `question`, `choices` (a list of texts, or ARC's `{text, label}`), and `answer`: the index
  of the correct choice, its letter, or its text. The choices are listed after the question by letter.
- BIG-Bench Hard (arXiv 2210.09261): `input`, which ends with its `Options:`, and `target`. The text is not changed. In
  a task without options whose targets have only two values (True and False), these are the choices; other rows without
  options are not multiple choice: use `kind: generation`.

With a chat template, the question is the user message and the choice the assistant message; without one, the choice
follows `Answer:` and a space. The window is that of the model, not of training.
"""

import re
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from string import ascii_uppercase
from typing import Any, Literal, NamedTuple

import numpy as np
from datasets import Dataset

from ...context import Context
from ...data.encoding import encode_batch
from ...data.layouts import Record
from ...engines.forward.likelihood import likelihood
from ...engines.runtime.token_rows import TOKEN_FEATURES, TokenRows
from ...engines.store.identity import digest
from ..benchmark import Setting
from ..benchmark_rows import RowsBenchmark
from ..questions import question_format


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


@dataclass(kw_only=True)
class MultipleChoice(RowsBenchmark):
    """
    Questions with choices; see the module docstring, and [`RowsBenchmark`] for the rows.

    Args:
        answer_with (`str`, *optional*, defaults to `"letter"`):
            Score the choice's `"letter"` (the prompt lists the choices; choices without letters are scored as texts),
            or its `"text"` (the prompt is only the question, if the layout separates it from the choices).
        normalization (`str`, *optional*, defaults to `"sum"`):
            The `"sum"` of the log-probabilities, or that divided by the number of `"tokens"` or UTF-8 `"bytes"` of the
            choice, which removes the disadvantage of long texts.
        shots (`int`, *optional*, defaults to `0`):
            Number of few-shot examples: the first rows of `shots_split`, of the question's subject if rows have one.
        shots_split (`str`, *optional*, defaults to `"dev"`):
            Split of the few-shot examples.
    """

    answer_with: Literal["letter", "text"] = "letter"
    normalization: Literal["sum", "tokens", "bytes"] = "sum"
    shots: int = 0
    shots_split: str = "dev"
    items: list[Item] = field(init=False, repr=False, default_factory=list)
    #: Few-shot examples by subject.
    examples: dict[str | None, list[Item]] = field(init=False, repr=False, default_factory=dict)

    def __post_init__(self):
        super().__post_init__()
        if self.shots < 0:
            raise ValueError(f"`shots={self.shots}` must be at least 0.")
        if self.shots and self.shots_split == self.split:
            raise ValueError(f"`shots_split={self.shots_split!r}` is the evaluated split: name another one.")

    def prepare(self) -> None:
        self.items = self.limited(self._items(self.read()))
        if all(item.problem for item in self.items):
            raise ValueError(
                f"`benchmarks` ({self.name}): no row of {self.dataset!r} is a multiple-choice question: "
                f"{self.items[0].problem}."
            )
        if not self.shots:
            return
        known = defaultdict(list)
        for item in self._items(self.read(self.shots_split)):
            if item.problem is None:
                known[item.subject].append(item)
        for subject in {item.subject: None for item in self.items if item.problem is None}:
            if len(known[subject]) < self.shots:
                raise ValueError(
                    f"`benchmarks` ({self.name}): `shots={self.shots}`, and `shots_split={self.shots_split!r}` has "
                    f"{len(known[subject])} examples" + (f" of {subject!r}." if subject is not None else ".")
                )
            self.examples[subject] = known[subject][: self.shots]

    def asked(self) -> list[str]:
        rows = self.read()
        return [question for question in rows[self.column(rows, "question")][:] if isinstance(question, str)]

    def protocol(self) -> dict[str, Any]:
        options = {"answer_with": self.answer_with, "normalization": self.normalization, "shots": self.shots}
        return {"kind": "multiple_choice", "rows": digest([self.items, list(self.examples.items())])} | options

    def score(self, ctx: Context, folder: Path | None = None) -> dict[str, Setting]:
        rows, owner, problems = self._encode(ctx)
        for row, problem in problems.items():
            ctx.account.note("unscorable", problem, [row])
        label = f"Asking {self.name}" if self.name else "Asking questions"
        losses = likelihood(ctx.model, rows, ctx.runtime, label)
        examples = np.full(len(self.items), np.nan)
        for row, item in enumerate(self.items):
            choices = owner == row
            if row in problems or not choices.any():
                continue
            scores = -losses.loss[choices]
            if not np.isfinite(scores).all():
                ctx.account.note("unscorable", "a choice does not fit in memory, or its loss is not finite", [row])
                continue
            if self.normalization != "sum":
                sizes = [len(choice.encode()) for choice in item.choices]
                scores = scores / (losses.tokens[choices] if self.normalization == "tokens" else np.array(sizes))
            examples[row] = float(np.argmax(scores) == item.right)
        return {"accuracy": Setting.of(examples, True, [str(item.subject) for item in self.items])}

    def _encode(self, ctx: Context) -> tuple[TokenRows, np.ndarray, dict[int, str]]:
        """One token row per choice, the row each belongs to, and the problems by row."""
        text_format, owner = question_format(ctx), []
        records = []
        for row, item in enumerate(self.items):
            for choice in item.choices if item.problem is None else ():
                records.append(self._record(len(records), item, choice, chat=text_format.style == "chat"))
                owner.append(row)
        encoded = encode_batch(text_format, records)
        problems = {row: item.problem for row, item in enumerate(self.items) if item.problem}
        for row, problem, cut in zip(owner, encoded["problem"], encoded["truncated"], strict=True):
            if cut or problem == "the prompt fills the window":
                problem = "the question is longer than the window of the model"
            if problem:
                problems.setdefault(row, problem)
        columns = {name: encoded[name] for name in TOKEN_FEATURES}
        return TokenRows(Dataset.from_dict(columns, features=TOKEN_FEATURES)), np.array(owner, np.int64), problems

    def _record(self, index: int, item: Item, choice: str, chat: bool) -> Record:
        shots = self.examples.get(item.subject, ())
        asked = [*((shot.text, shot.choices[shot.right]) for shot in shots), (item.text, choice)]
        if chat:
            turns = [(("user", text), ("assistant", answer)) for text, answer in asked]
            messages = [{"role": role, "content": text} for pair in turns for role, text in pair]
            return Record(index, tuple(messages), first_answer=len(messages) - 1)
        before = "".join(f"{text} {answer}\n\n" for text, answer in asked[:-1]) + item.text
        messages = ({"role": "user", "content": before}, {"role": "assistant", "content": f" {choice}"})
        return Record(index, messages, first_answer=1, chat=False)

    def _items(self, rows: Dataset) -> list[Item]:
        question, answer = self.column(rows, "question"), self.column(rows, "answer")
        choices, subject = self.column(rows, "choices", False), self.column(rows, "subject", False)
        rows = rows.with_format(None)
        subjects = [None if value is None else str(value) for value in rows[subject][:]] if subject else None
        targets = defaultdict(dict)
        if choices is None:
            for place, target in enumerate(rows[answer][:]):
                targets[subjects[place] if subjects else None][str(target)] = None
        items = []
        for place, row in enumerate(rows):
            part = subjects[place] if subjects else None
            try:
                if not isinstance(row[question], str) or not row[question].strip():
                    raise _Unreadable("no question")
                if choices is None:
                    parsed = self._big_bench(row[question].strip(), row[answer], list(targets[part]))
                else:
                    parsed = self._listed(row[question].strip(), row[choices], row[answer])
                items.append(Item(*parsed, part))
            except _Unreadable as error:
                items.append(Item(subject=part, problem=str(error)))
        return items

    def _listed(self, question: str, choices: Any, answer: Any) -> tuple[str, tuple[str, ...], int]:
        """A row of MMLU or ARC."""
        labels = None
        if isinstance(choices, dict):
            choices, labels = choices.get("text"), choices.get("label")
        if not isinstance(choices, list) or not all(isinstance(text, str) and text.strip() for text in choices):
            raise _Unreadable("an empty choice, or choices that are not a list of texts")
        if len(choices) < 2:
            raise _Unreadable("fewer than two choices")
        if len(choices) > len(ascii_uppercase):
            raise _Unreadable("more than 26 choices")
        texts, labels = [text.strip() for text in choices], list(labels or ascii_uppercase[: len(choices)])
        right = _place(answer, texts, labels)
        if self.answer_with == "text":
            return f"{question}\nAnswer:", tuple(texts), right
        lines = "\n".join(f"{label}. {text}" for label, text in zip(labels, texts, strict=True))
        return f"{question}\n{lines}\nAnswer:", tuple(labels), right

    def _big_bench(self, question: str, target: Any, targets: list[str]) -> tuple[str, tuple[str, ...], int]:
        """A row of BIG-Bench Hard."""
        start = list(_OPTIONS.finditer(question))
        options = _OPTION.findall(question[start[-1].end() :]) if start else []
        labels, texts = [label for label, _ in options if label], [text for _, text in options]
        if not options:
            if len(targets) != 2:
                raise _Unreadable("no choices in the row")
            texts = sorted(targets)
        elif len(options) < 2:
            raise _Unreadable("fewer than two choices")
        elif not all(texts):
            raise _Unreadable("an empty choice, or choices that are not a list of texts")
        known = labels if len(labels) == len(texts) else texts
        choices = known if self.answer_with == "letter" else texts
        return f"{question}\nAnswer:", tuple(choices), _place(target, texts, known)


class _Unreadable(Exception):
    pass


def _place(answer: Any, texts: list[str], labels: list[str]) -> int:
    """Index of the correct choice, which a row gives as index, label, letter or text."""
    if isinstance(answer, int) and not isinstance(answer, bool):
        if not 0 <= answer < len(texts):
            raise _Unreadable("the index of the answer is out of range")
        return answer
    answer = answer.strip() if isinstance(answer, str) else ""
    letter, letters = answer.strip("().").upper(), [label.strip("()").upper() for label in labels]
    places = {known.index(name) for known, name in ((texts, answer), (letters, letter)) if name in known}
    if len(places) != 1:
        raise _Unreadable(
            "the answer is ambiguous between two choices" if places else "the answer is not one of the choices"
        )
    return places.pop()
