"""Test sets of instructions: their questions, whatever the columns are called, and a model's answers to them."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..engines.cache import write_atomic
from ..engines.generation import generate
from ..preprocessing.layouts import Record
from ..preprocessing.records import load_rows
from ..selector import Context


#: Columns that hold a question, in the order they are looked for. Of a list of turns, the first is the question.
COLUMNS = ("turns", "conversations", "messages", "prompt", "question", "instruction", "Instruction", "text")
#: Columns that hold what the question is about, shown below it.
INPUTS = ("input", "context")


def load_questions(name: str, config: str | None = None, split: str = "train", column: str | None = None) -> list[str]:
    """
    Questions of a test set by hub name, folder or file.

    Reads the layouts of Vicuna (`text`), Koala (`prompt`), WizardLM (`Instruction`), Self-Instruct (`instruction` and
    `instances` with an `input`), LIMA (`conversations`), MT-Bench (`turns`) and others alike; of several turns the
    first.

    Args:
        name, config, split (`str`):
            See [`load_rows`].
        column (`str`, *optional*):
            Where the question is; by default the first of `COLUMNS` that there is.

    Raises:
        `ValueError`: no such dataset or column, or a row without a question.
    """
    rows = load_rows(name, config, split)
    column = column or next((known for known in COLUMNS if known in rows.column_names), None)
    if column not in rows.column_names:
        raise ValueError(f"{name!r} has the columns {rows.column_names}; expected {column or ' or '.join(COLUMNS)}.")
    questions = [question_of(row, column) for row in rows]
    empty = [i for i, question in enumerate(questions) if not question.strip()]
    if empty:
        raise ValueError(f"{name!r}: {len(empty)} rows have no question in `{column}`, the first is row {empty[0]}.")
    return questions


def question_of(row: dict[str, Any], column: str) -> str:
    """The question of a row, with what it is about below it."""
    question = row[column]
    if isinstance(question, list) and question:
        turns = [turn for turn in question if not isinstance(turn, dict) or turn.get("role") != "system"]
        question = turns[0] if turns else ""
    if isinstance(question, dict):
        question = question.get("content") or question.get("value")
    instances = row.get("instances") or [{}]
    about = [row.get(name) for name in INPUTS if name != column] + [instances[0].get("input")]
    return "\n\n".join(text for text in (question, *about) if isinstance(text, str) and text)


def answer_questions(questions: Sequence[str], ctx: Context, max_new_tokens: int = 512) -> list[str | None]:
    """
    Greedy answers of the context's model, through the tokenizer's chat template.

    Returns:
        `list[str]`: on every rank; `None` for a question that leaves no room for `max_new_tokens` in the model's
        positions, which `ctx.account` counts.
    """
    positions = getattr(ctx.model.config.get_text_config(), "max_position_embeddings", None) or 2**31
    text_format, prompts = ctx.text_format(), {}
    for i, question in enumerate(questions):
        turns = {"role": "user", "content": question}, {"role": "assistant", "content": ""}
        ids = text_format.prompt_ids(Record(i, turns))
        if 0 < len(ids) <= positions - max_new_tokens:
            prompts[i] = ids
    ctx.account.note("unscorable", "a question that is too long to answer", set(range(len(questions))) - set(prompts))
    answers = generate(
        ctx.model,
        ctx.tokenizer,
        list(prompts.values()),
        max_new_tokens=max_new_tokens,
        batch_tokens=ctx.batch_tokens,
        accelerator=ctx.accelerator,
        progress="Answering questions",
    )
    answered = dict(zip(prompts, answers, strict=True))
    return [answered.get(i) for i in range(len(questions))]


def write_answers(
    folder: Path, questions: Mapping[str, Sequence[str]], answers: Mapping[str, Sequence[str | None]]
) -> Path:
    """Write `answers.jsonl`: one line an answer with `test_set`, `question` and `answer` (null = none)."""
    lines = [
        json.dumps({"test_set": name, "question": question, "answer": answer})
        for name, asked in questions.items()
        for question, answer in zip(asked, answers[name], strict=True)
    ]
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / "answers.jsonl", "\n".join(lines) + "\n")
    return folder / "answers.jsonl"


def read_answers(path: Path) -> tuple[dict[str, list[str]], dict[str, list[str | None]]]:
    """
    Questions and answers by test set, of a run folder's `answers.jsonl` or of such a file.

    Raises:
        `ValueError`: no such file, or a line that is no answer.
    """
    file = path / "answers.jsonl" if path.is_dir() else path
    questions, answers = {}, {}
    try:
        for line in filter(str.strip, file.read_text(encoding="utf-8").split("\n")):
            record = json.loads(line)
            questions.setdefault(record.get("test_set", ""), []).append(record["question"])
            answers.setdefault(record.get("test_set", ""), []).append(record["answer"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{file} holds no readable answers: {error!r}") from error
    return questions, answers
