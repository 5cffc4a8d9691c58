"""
Multiple choice by log-likelihood; the score is the accuracy.

The prediction is the choice with the highest sum of token log-probabilities given the question, in a tie the first.
Two layouts are supported:

- MMLU (arXiv 2009.03300): `question`, `choices` (a list of texts, or ARC's `{text, label}`), and `answer`: the index
  of the correct choice, its letter, or its text; of a list of them, any is correct. The choices are listed after the
  question by letter.
- BIG-Bench Hard (arXiv 2210.09261): `input`, which ends with its `Options:`, and `target`. The text is not changed. In
  a task without options whose targets have only two values (True and False), these are the choices; other rows without
  options are not multiple choice: use `kind: generation`.

With a chat template, the question is the user message and the choice the assistant message; without one, the choice
follows `Answer:` and a space. A question that is a chat is asked with all its turns. The window is that of the model,
not of training.
"""

import logging
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from datasets import Dataset

from ...context import Context
from ...data.encoding import encode_batch
from ...data.layouts import Record, content_text
from ...engines.forward.likelihood import likelihood
from ...engines.runtime.token_rows import TOKEN_FEATURES, TokenRows
from ...engines.store.identity import digest
from ..benchmark import Setting
from ..benchmark_rows import RowsBenchmark
from ..choice_rows import Item, big_bench, listed
from ..question_rows import Unreadable, read_question, right_answers, transcript
from ..questions import question_format


logger = logging.getLogger(__name__)


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
            Rows whose question, up to white space, is one of `split` are left out, with a warning.
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
        tested = self._items(self.read())
        self.items = self.limited(tested)
        if all(item.problem for item in self.items):
            raise ValueError(
                f"`benchmarks` ({self.name}): no row of {self.dataset!r} is a multiple-choice question: "
                f"{self.items[0].problem}."
            )
        if not self.shots:
            return
        self._choose_examples({" ".join(item.question.split()) for item in tested})

    def _choose_examples(self, tested: set[str]) -> None:
        """Few-shot examples of each subject, none of them a tested question."""
        known, leaked = defaultdict(list), 0
        for item in self._items(self.read(self.shots_split)):
            if item.problem is None and " ".join(item.question.split()) in tested:
                leaked += 1
            elif item.problem is None:
                known[item.subject].append(item)
        left_out = f"{leaked:,} rows of `shots_split={self.shots_split!r}` are questions of `split={self.split!r}`"
        if leaked:
            logger.warning("`benchmarks` (%s): %s and left out of the few-shot examples.", self.name, left_out)
        for subject in {item.subject: None for item in self.items if item.problem is None}:
            if len(known[subject]) < self.shots:
                raise ValueError(
                    f"`benchmarks` ({self.name}): `shots={self.shots}`, and `shots_split={self.shots_split!r}` has "
                    f"{len(known[subject])} examples"
                    + (f" of {subject!r}" if subject is not None else "")
                    + (f"; {left_out}." if leaked else ".")
                )
            self.examples[subject] = known[subject][: self.shots]
        for row, item in enumerate(self.items):
            shots = self.examples.get(item.subject, ())
            if item.problem is None and any(shot.system not in ((), item.system) for shot in shots):
                self.items[row] = item._replace(problem="its few-shot examples have another system turn")

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
            examples[row] = float(np.argmax(scores) in (item.right, *item.also))
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
        asked = [*((shot, shot.choices[shot.right]) for shot in shots), (item, choice)]
        if chat:
            messages = list(item.system)
            for of, answer in asked:
                messages += of.before[len(of.system) :]
                messages += [{"role": "user", "content": of.text}, {"role": "assistant", "content": answer}]
            return Record(index, tuple(messages), first_answer=len(messages) - 1)
        texts = ["\n".join([*map(content_text, of.before), of.text]) for of, _ in asked]
        before = "".join(f"{text} {shot[1]}\n\n" for text, shot in zip(texts, asked[:-1], strict=False)) + texts[-1]
        messages = ({"role": "user", "content": before}, {"role": "assistant", "content": f" {choice}"})
        return Record(index, messages, first_answer=1, chat=False)

    def _items(self, rows: Dataset) -> list[Item]:
        names = {role: self.column(rows, role) for role in ("question", "answer")}
        names |= {role: self.column(rows, role, False) for role in ("choices", "subject", "system")}
        answer, choices = names.pop("answer"), names.pop("choices")
        given = list(self.plain(rows, coded=[answer] if choices else ()))  # a code is the index of a choice
        asked = [read_question(row, place, names) for place, row in enumerate(given)]
        targets: dict[str | None, dict[str, None]] = defaultdict(dict)
        for row, question in zip(given, asked, strict=True):
            if choices is None:
                targets[question.subject] |= dict.fromkeys(right_answers(row[answer]))
        items = []
        for row, question in zip(given, asked, strict=True):
            try:
                if question.problem or len(question.turns) > 1:
                    raise Unreadable(question.problem or "several turns without the answers to all but the last")
                (text,) = question.turns
                if choices is None:
                    known = list(targets[question.subject])
                    text, named, right = big_bench(text, row[answer], known, self.answer_with)
                else:
                    text, named, right = listed(text, row[choices], row[answer], self.answer_with)
                whole = transcript(question.whole)
                items.append(Item(text, named, right[0], question.subject, None, right[1:], question.chat[:-1], whole))
            except Unreadable as error:
                items.append(Item(subject=question.subject, problem=str(error)))
        return items
