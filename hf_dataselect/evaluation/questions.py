"""Open-ended questions: parses rows, generates answers, and scores them with metrics."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np

from ..context import Context
from ..data.layouts import Record
from ..data.text import TextFormat
from ..engines.forward.generation import generate
from ..engines.runtime.model_state import positions
from ..engines.store.files import write_atomic
from ..engines.store.identity import digest
from .benchmark import Setting
from .benchmark_rows import RowsBenchmark


TOO_LONG = "the prompt is empty or too long"


class Question(NamedTuple):
    """A question for the model."""

    id: str
    #: User messages; usually one. Empty if the row is unreadable.
    turns: list[str]
    #: Reference answers by turn, as far as the row has them.
    references: list[str | None]
    subject: str | None = None


@dataclass(kw_only=True)
class QuestionsBenchmark(RowsBenchmark):
    """
    A benchmark of open-ended questions; for the rows see [`RowsBenchmark`].

    Args:
        max_new_tokens (`int`, *optional*):
            Maximum length of an answer.
        template (`str`, *optional*, defaults to `"{question}"`):
            Prompt; `{question}` is replaced by the row's question.
        at_end (`bool`, *optional*, defaults to `True`):
            Run only when training ends: generation costs far more than a likelihood.
    """

    at_end: bool = True
    max_new_tokens: int = 512
    template: str = "{question}"
    questions: list[Question] = field(init=False, repr=False, default_factory=list)
    #: Whether rows need a reference answer.
    with_answers: ClassVar[bool] = False

    def __post_init__(self):
        super().__post_init__()
        if self.max_new_tokens < 1:
            raise ValueError(f"`max_new_tokens={self.max_new_tokens}` must be at least 1.")
        if "{question}" not in self.template:
            raise ValueError(f"`template={self.template!r}` must contain {{question}}.")

    def prepare(self) -> None:
        rows = self.read()
        names = {role: self.column(rows, role, False) for role in ("id", "subject")}
        names["question"] = self.column(rows, "question")
        names["answer"] = self.column(rows, "answer", self.with_answers)
        self.questions = self.limited([read_question(row, i, names) for i, row in enumerate(rows.with_format(None))])
        if not any(question.turns for question in self.questions):
            raise ValueError(
                f"`benchmarks` ({self.name}): no row of {self.dataset!r} has text in the columns {names}."
            )

    def asked(self) -> list[str]:
        return [turn for question in self.questions for turn in question.turns]

    def protocol(self) -> dict[str, Any]:
        described = {"rows": digest(self.questions), "template": self.template, "max_new_tokens": self.max_new_tokens}
        return {"kind": type(self).__name__} | described

    def ask(self, ctx: Context, said: Sequence[Sequence[str]] | None = None) -> list[str | None]:
        """
        Greedy answers to one turn of each question, by default the first; `None` without an answer.

        Args:
            ctx ([`Context`]):
                Context with the model.
            said (`Sequence[Sequence[str]]`, *optional*):
                Answers to the previous turns of each question. A question with a missing answer or without another
                turn is skipped.
        """
        text_format, prompts = question_format(ctx), []
        for question, answers in zip(self.questions, said or [()] * len(self.questions), strict=True):
            if len(answers) >= max(1, len(question.turns)) or None in answers:
                prompts.append(None)
                continue
            turns = [self.template.replace("{question}", turn) for turn in question.turns[: len(answers) + 1]]
            prompts.append(prompt_ids(text_format, turns, answers) if turns else [])
        return greedy_answers(prompts, ctx, self.max_new_tokens)

    def keep(self, folder: Path | None, ctx: Context, answers: Sequence[str | None]) -> None:
        """Write `NAME.jsonl`: `id`, `question` and `answer` (or null) of each row."""
        rows = zip(self.questions, answers, strict=True)
        lines = [{"id": q.id, "question": q.turns[0] if q.turns else "", "answer": answer} for q, answer in rows]
        write_lines(folder, ctx, f"{self.name}.jsonl", lines)


def read_question(row: dict[str, Any], place: int, names: dict[str, str | None]) -> Question:
    """Parse a row of any layout; without a question in text it has no turns."""
    said = _listed(row[names["question"]])
    if all(isinstance(turn, dict) for turn in said):  # a chat: its first user message
        said = [turn.get("content") or turn.get("value") for turn in said if _speaker(turn) in ("user", "human")][:1]
    elif names["question"].lower() == "conversations":
        said = said[:1]
    turns = [turn.strip() for turn in said if isinstance(turn, str) and turn.strip()]
    turns = turns if len(turns) == len(said) else []
    if names["question"].lower() == "instruction":  # Alpaca and Self-Instruct keep the input in its own column
        instances = row.get("instances") or [{name.lower(): value for name, value in row.items()}]
        text = instances[0].get("input")
        parts = [*turns, "" if text is None else str(text).strip()]
        turns = ["\n\n".join(filter(None, parts))] if any(parts) else []
    references = row[names["answer"]] if names["answer"] else None
    references = [text if isinstance(text, str) else None for text in _listed(references)]
    subject = row[names["subject"]] if names["subject"] else None
    name = str(row[names["id"]]) if names["id"] else str(place)
    return Question(name, turns, references[: len(turns)], None if subject is None else str(subject))


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [str(value) if isinstance(value, (int, float)) else value]


def _speaker(turn: dict[str, Any]) -> str | None:
    return turn.get("role") or turn.get("from")


def question_format(ctx: Context) -> TextFormat:
    """
    How questions are rendered: with the chat template if the tokenizer has one, else as plain text. The window is that
    of the model, not of training: a benchmark must not depend on training options.
    """
    style = "chat" if ctx.tokenizer.chat_template else "plain"
    return TextFormat(ctx.tokenizer, max_length=positions(ctx.model), style=style)


def prompt_ids(text_format: TextFormat, turns: Sequence[str], answers: Sequence[str] = ()) -> list[int]:
    """Token ids of a conversation up to the model's answer; empty if the chat template rejects it."""
    messages = []
    for turn, answer in zip(turns, [*answers, ""], strict=True):
        messages += [{"role": "user", "content": turn}, {"role": "assistant", "content": answer}]
    try:
        return text_format.prompt_ids(Record(0, tuple(messages), first_answer=len(messages) - 1))
    except Exception:  # a template may raise any error
        return []


def greedy_answers(
    prompts: Sequence[Sequence[int] | None], ctx: Context, max_new_tokens: int, window: int = 2**31
) -> list[str | None]:
    """
    Greedy answers to the prompts that fit the model and `window` together with the longest answer; `None` for the
    others. Empty and too long prompts are recorded as unscorable, prompts that are `None` are not.
    """
    room = min(window, (positions(ctx.model) or 2**31) - max_new_tokens)
    wanted = [row for row, ids in enumerate(prompts) if ids is not None]
    asked = [row for row in wanted if 0 < len(prompts[row]) <= room]
    ctx.account.note("unscorable", TOO_LONG, set(wanted) - set(asked))
    answers: list[str | None] = [None] * len(prompts)
    if asked:
        generated = generate(
            ctx.model,
            ctx.tokenizer,
            [prompts[row] for row in asked],
            ctx.runtime,
            max_new_tokens=max_new_tokens,
            label="Generating answers",
        )
        for row, answer in zip(asked, generated, strict=True):
            answers[row] = answer
    return answers


def score_answers(
    metrics: Sequence[str], answers: Sequence[str | None], references: Sequence[str | None], ctx: Context
) -> dict[str, Setting]:
    """Metrics of the answers; NaN for rows without answer or reference, or that a metric can't score."""
    from .metrics import score_texts

    ctx.account.note("unscorable", "no reference answer", [i for i, text in enumerate(references) if text is None])
    rows = [row for row, pair in enumerate(zip(answers, references, strict=True)) if None not in pair]
    settings = {}
    for metric in metrics if rows else ():
        scores = score_texts(metric, [answers[row] for row in rows], [references[row] for row in rows])
        for key, value in scores.items():
            examples = None
            if value.examples is not None:
                examples = np.full(len(answers), np.nan)
                examples[rows] = value.examples
                unread = set(rows) & set(np.flatnonzero(np.isnan(examples)).tolist())
                ctx.account.note("unscorable", f"the reference has no value for `{key}`", unread)
                examples = examples.tolist()
            settings[key] = Setting(value.score, value.higher_is_better, examples)
    return settings


def check_metrics(metrics: Sequence[str]) -> None:
    """Raise for a metric that can't be loaded, before anything is computed."""
    if metrics:
        from .metrics import load_metric

        for metric in metrics:
            load_metric(metric)


def write_lines(folder: Path | None, ctx: Context, name: str, lines: Sequence[dict[str, Any]]) -> None:
    """Write a .jsonl file on the main process."""
    if folder is not None and ctx.runtime.is_main:
        folder.mkdir(parents=True, exist_ok=True)
        write_atomic(folder / name, "".join(json.dumps(line) + "\n" for line in lines))
