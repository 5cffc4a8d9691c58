"""Open-ended questions: generates answers, and scores them with metrics."""

import json
import re
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from datasets import LargeList, List

from ..context import Context
from ..data.layouts import Record
from ..data.text import TextFormat
from ..engines.forward.generation import generate
from ..engines.runtime.model_state import positions
from ..engines.store.files import write_atomic
from ..engines.store.identity import digest
from ..runs.files import RUN, run_id
from .benchmark import Setting
from .benchmark_rows import RowsBenchmark
from .question_rows import Messages, Question, read_question, transcript


TOO_LONG = "the prompt is empty or too long"
REFUSED = "the chat template refuses the turns"
NO_REFERENCE = "no reference answer"


@dataclass(kw_only=True)
class QuestionsBenchmark(RowsBenchmark):
    """
    A benchmark of open-ended questions; for the rows see [`RowsBenchmark`].

    Args:
        max_new_tokens (`int`, *optional*):
            Maximum length of an answer.
        template (`str`, *optional*, defaults to `"{question}"`):
            Prompt; `{question}` is replaced by the row's question, in a chat by the turns that are to be answered.
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
        names = {role: self.column(rows, role, False) for role in ("id", "subject", "system")}
        names["question"] = self.column(rows, "question")
        # A chat may end on its answer.
        needed = self.with_answers and not isinstance(rows.features[names["question"]], (List, LargeList))
        names["answer"] = self.column(rows, "answer", needed)
        self.questions = self.limited([read_question(row, i, names) for i, row in enumerate(self.plain(rows))])
        if not any(question.turns for question in self.questions):
            raise ValueError(
                f"`benchmarks` ({self.name}): no row of {self.dataset!r} has text in the columns {names}: "
                f"{self.questions[0].problem}."
            )

    def asked(self) -> list[str]:
        return [turn for question in self.questions for turn in question.turns]

    def protocol(self) -> dict[str, Any]:
        described = {"rows": digest(self.questions), "template": self.template, "max_new_tokens": self.max_new_tokens}
        return {"kind": type(self).__name__} | described

    def ask(self, ctx: Context) -> list[list[str | None]]:
        """
        Greedy answers to the turns of each question, each turn asked after the model's answers to those before it;
        `None` without an answer, and then for all later turns too. An unreadable question has one `None`.
        """
        text_format = question_format(ctx)
        answers: list[list[str | None]] = [[] for _ in self.questions]
        for turn in range(max(len(question.turns) for question in self.questions)):
            prompts, refused = [], []
            for row, (question, said) in enumerate(zip(self.questions, answers, strict=True)):
                prompt = None
                if turn < len(question.turns) and None not in said:
                    prompt = prompt_ids(text_format, question.messages(said, self.template))
                    refused += [row] if prompt is None else []
                elif not turn:
                    ctx.account.note("unscorable", question.problem, [row])
                prompts.append(prompt)
            ctx.account.note("unscorable", REFUSED, refused)
            for question, said, answer in zip(
                self.questions, answers, greedy_answers(prompts, ctx, self.max_new_tokens), strict=True
            ):
                if turn < max(1, len(question.turns)):
                    said.append(answer)
        return answers

    def keep(self, folder: Path | None, ctx: Context, answers: Sequence[Sequence[str | None]]) -> None:
        """
        Write `NAME.jsonl`: `id`, `question` and `answer` (or null) of each row; of a chat also its `messages`, of
        several turns a list of answers.
        """
        lines = []
        for question, said in zip(self.questions, answers, strict=True):
            whole = question.whole
            line = {"id": question.id, "question": transcript(whole)}
            line |= {} if isinstance(whole, str) else {"messages": whole}
            lines.append(line | {"answer": None if None in said else said[0] if len(said) == 1 else said})
        write_lines(folder, ctx, f"{self.name}.jsonl", lines)


def question_format(ctx: Context) -> TextFormat:
    """
    How questions are rendered: with the chat template if the tokenizer has one, else as plain text. The window is that
    of the model, not of training: a benchmark must not depend on training options.
    """
    style = "chat" if ctx.tokenizer.chat_template else "plain"
    return TextFormat(ctx.tokenizer, max_length=positions(ctx.model), style=style)


def prompt_ids(text_format: TextFormat, messages: Messages) -> list[int] | None:
    """Token ids of a conversation up to the model's answer; `None` if the chat template refuses it."""
    turns = (*messages, {"role": "assistant", "content": ""})
    try:
        return text_format.prompt_ids(Record(0, turns, first_answer=len(messages)))
    except Exception:  # a template may raise any error
        return None


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
    metrics: Sequence[str],
    answers: Sequence[str | None],
    references: Sequence[Sequence[str]],
    ctx: Context,
    taken: Collection[str] = (),
) -> dict[str, Setting]:
    """
    Metrics of the answers, each with the right answers of its row; NaN for rows without either, or that a metric can't
    score. A setting is named after its value (`rouge1`); where that is the name of another metric's value, or `taken`,
    the metric's name comes before it (`my_metric.score`).
    """
    from .metrics import score_texts

    ctx.account.note("unscorable", NO_REFERENCE, [i for i, right in enumerate(references) if not right])
    rows = [i for i, (said, right) in enumerate(zip(answers, references, strict=True)) if said is not None and right]
    if not rows:
        return {}
    said, right = [answers[row] for row in rows], [references[row] for row in rows]
    scored = {metric: score_texts(metric, said, right) for metric in metrics}
    shared = Counter([*taken, *(key for scores in scored.values() for key in scores)])
    stems = {metric: re.sub(":(lower|higher)$", "", metric) for metric in metrics}
    short = Counter(Path(stem).stem for stem in stems.values())
    settings: dict[str, Setting] = {}
    for metric, scores in scored.items():
        owner = Path(stems[metric]).stem
        owner = owner if short[owner] == 1 else stems[metric]
        for key, value in scores.items():
            name = key if shared[key] == 1 else f"{owner}.{key}"
            while name in settings or name in taken:
                name = f"{owner}.{name}"
            examples = None
            if value.examples is not None:
                examples = np.full(len(answers), np.nan)
                examples[rows] = value.examples
                unread = set(rows) & set(np.flatnonzero(np.isnan(examples)).tolist())
                ctx.account.note("unscorable", f"the reference has no value for `{name}`", unread)
                examples = examples.tolist()
            settings[name] = Setting(value.score, value.higher_is_better, examples)
    return settings


def check_metrics(metrics: Sequence[str]) -> None:
    """Raise for a metric that can't be loaded, or that is named twice, before anything is computed."""
    if metrics:
        from .metrics import load_metric

        for metric in metrics:
            load_metric(metric)
        stems = [re.sub(":(lower|higher)$", "", metric) for metric in metrics]
        if twice := [stem for stem, count in Counter(stems).items() if count > 1]:
            raise ValueError(f"`metrics={list(metrics)}` names {', '.join(map(repr, twice))} more than once.")


def write_lines(folder: Path | None, ctx: Context, name: str, lines: Sequence[dict[str, Any]]) -> None:
    """Write a .jsonl file to a folder of a run's, on the main process; each line with the run's id, if it has one."""
    if folder is not None and ctx.runtime.is_main:
        folder.mkdir(parents=True, exist_ok=True)
        run = run_id(folder.parent)
        of = {RUN: run} if run else {}
        write_atomic(folder / name, "".join(json.dumps(line | of) + "\n" for line in lines))
