"""Nuggets' features: losses of tasks, zero-shot and with a candidate as the one-shot example."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np

from ..context import Context
from ..data.chat_template import adds_bos
from ..data.layouts import Record
from ..data.records import Records
from ..data.text import TextFormat
from ..engines.forward.likelihood import likelihood
from ..engines.forward.one_shot import one_shot_losses
from ..engines.runtime.model_state import positions
from ..engines.runtime.token_rows import TokenRows
from ..engines.subset.clusters import central_rows
from ..errors import NoUsableRow, SelectionError
from .hidden_states import note_unusable, prompt_vectors


class Tasks(NamedTuple):
    """Token rows of tasks with the spans of their answers, zero-shot and after an exemplar."""

    zero_shot: TokenRows
    one_shot: TokenRows
    #: Records without a label token.
    without_answer: np.ndarray


class TaskCounts(NamedTuple):
    """
    What rows do for tasks, by the summed negative log-likelihood of the label tokens of each task, zero-shot and after
    a row: counts, as rows times tasks losses may not fit in memory.
    """

    #: Tasks.
    tasks: int
    #: Of each row as an exemplar, int64 `(n,)`: tasks that it helps with, that were computed, and whose loss is not
    #: finite. Others were not computed, or did not fit in memory.
    wins: np.ndarray
    run: np.ndarray
    failed: np.ndarray
    #: Rows that can be an exemplar, bool `(n,)`.
    usable: np.ndarray
    #: Tasks whose loss is not finite after some row.
    failing: int


def choose_tasks(records: Records, ctx: Context, tasks: int) -> Records:
    """
    The target-task examples; without a target, the rows whose prompt embeddings are nearest to the centroids of a
    k-means.

    Raises:
        [`NoUsableRow`]: no row can be a task.
    """
    if ctx.target is not None:
        return ctx.target
    prompts = ctx.of_all_parts(partial(prompt_vectors, records))
    usable = np.flatnonzero(prompts.usable)
    if len(usable) == 0:
        raise NoUsableRow("`nuggets`: no row has a prompt and an answer within the window to be a task.")
    return records.subset(ctx.agreed(central_rows(prompts.vectors, usable, tasks, seed=ctx.seed)))


def task_counts(
    records: Records,
    tasks: Tasks,
    ctx: Context,
    plan: Callable[[np.ndarray], Callable[[np.ndarray], np.ndarray]],
    text_format: TextFormat | None = None,
    mean_logit: bool = False,
) -> TaskCounts:
    """
    Compare the losses of tasks, zero-shot and one-shot. A task without a finite zero-shot loss is left out. Such
    tasks, and rows that can't be an exemplar, are entered in `ctx.account`.

    Args:
        records ([`Records`]):
            The candidates.
        tasks ([`Tasks`]):
            The tasks.
        ctx ([`Context`]):
            Model, tokenizer, window.
        plan (`Callable`):
            Zero-shot losses -> a function from an exemplar's losses so far to the tasks to run next, see
            [`one_shot_losses`].
        text_format ([`TextFormat`], *optional*):
            How candidates become text.
        mean_logit (`bool`, *optional*, defaults to `False`):
            Whether a padding token takes part in the softmax, see [`likelihood`].

    Raises:
        [`SelectionError`]: no task has a finite zero-shot loss.
    """
    zero_shot = likelihood(
        ctx.model, tasks.zero_shot, ctx.whole.runtime, "Scoring tasks zero-shot", mean_logit=mean_logit
    ).loss
    scored = np.isfinite(zero_shot)
    if not scored.any():
        raise SelectionError(
            "`nuggets`: no task has a finite zero-shot loss: check the model's weights and its dtype."
        )
    if not scored.all():
        ctx.account.figures["tasks left out, without a finite zero-shot loss"] = np.flatnonzero(~scored).tolist()
        tasks = tasks._replace(one_shot=tasks.one_shot.select(np.flatnonzero(scored)))
    encoded = ctx.encode(records, text_format)
    note_unusable(encoded, ctx)
    usable = ~encoded.problematic
    limit = positions(ctx.model)
    if limit is not None:
        long = usable & (encoded.tokens.lengths + tasks.one_shot.lengths.max() > limit)
        ctx.account.note("unscorable", f"the row and a task need more than {limit} positions", np.flatnonzero(long))
        usable &= ~long
    zero_shot, (wins, run, failed) = zero_shot[scored], np.zeros((3, len(usable)), np.int64)
    failing = np.zeros(len(zero_shot), bool)

    def count(rows: np.ndarray, losses: np.ndarray) -> None:
        nonlocal failing
        wins[rows] = (losses < zero_shot).sum(1)
        run[rows], failed[rows] = np.isfinite(losses).sum(1), np.isinf(losses).sum(1)
        failing |= np.isinf(losses).any(0)

    one_shot_losses(
        ctx.model,
        encoded.tokens,
        tasks.one_shot,
        ctx.runtime,
        count,
        rows=np.flatnonzero(usable),
        wanted=plan(zero_shot),
        label="Scoring tasks one-shot",
        mean_logit=mean_logit,
    )
    return TaskCounts(len(zero_shot), wins, run, failed, usable, int(failing.sum()))


#: Placeholder exemplar, to see how a chat template renders the turns that follow it.
_EXEMPLAR = ({"role": "user", "content": "x"}, {"role": "assistant", "content": "y"})


def task_tokens(records: Records, text_format: TextFormat, bos: bool = True) -> Tasks:
    """
    Rows as tasks. Zero-shot tasks are rendered like any row; one-shot tasks, which follow an exemplar, without what
    only begins a text (the beginning-of-sequence token, a template's own system turn). One-shot tasks are truncated to
    the window of `text_format`, and zero-shot ones to the same label tokens.

    Args:
        records ([`Records`]):
            The rows.
        text_format ([`TextFormat`]):
            How they become text.
        bos (`bool`, *optional*, defaults to `True`):
            Whether a zero-shot task begins with the beginning-of-sequence token that plain texts get.

    Raises:
        `ValueError`: a row has no answer, or the chat template refuses it.
    """
    columns: dict[str, tuple[list, list]] = {"zero_shot": ([], []), "one_shot": ([], [])}
    without_answer = []
    for record in records:
        try:
            if record.problem is not None:
                raise ValueError(record.problem)
            text, places = text_format.render(record)
            places = [place for place in places if place[0] < place[1]]
            if not places:
                raise ValueError("no answer")
        except ValueError as error:
            raise ValueError(f"Row {record.index} of the tasks can't be one: {error}.") from error
        plain = text_format.style == "plain" or not record.chat
        zero_shot = _tokens(text_format, text, places, plain and bos)
        following, places = (text, places) if plain else _following(text_format, record, text, places)
        one_shot = _tokens(text_format, following, places, False)
        window = text_format.max_length or len(one_shot[0])
        # What only begins a text does not count towards the window: both have the same label tokens.
        zero_shot = _cut(*zero_shot, window + len(zero_shot[0]) - len(one_shot[0]))
        one_shot = _cut(*one_shot, window)
        if not one_shot[1]:
            without_answer.append(record.index)
        for name, (ids, spans) in (("zero_shot", zero_shot), ("one_shot", one_shot)):
            columns[name][0].append(ids)
            columns[name][1].append(spans)
    return Tasks(*(TokenRows.from_lists(*column) for column in columns.values()), np.array(without_answer, np.int64))


def _following(text_format: TextFormat, record: Record, text: str, places: list) -> tuple[str, list]:
    """Text and answer spans of a chat as the template renders it after another chat."""
    try:
        before = text_format.apply_template(_EXEMPLAR, record)
        whole = text_format.apply_template((*_EXEMPLAR, *record.messages), record)
    except Exception:  # a template may refuse a second system turn
        before, whole = "", ""
    shift = len(whole) - len(before) - len(text)
    moved = [(start + shift, end + shift) for start, end in places]
    tail = whole[len(before) :]
    if whole.startswith(before) and moved[0][0] >= 0 and tail[moved[0][0] :] == text[places[0][0] :]:
        return tail, moved
    start = text_format.tokenizer.bos_token or ""
    cut = len(start) if start and text.startswith(start) and adds_bos(text_format.tokenizer) else 0
    return text[cut:], [(start - cut, end - cut) for start, end in places]


def _tokens(text_format: TextFormat, text: str, places: list, special_tokens: bool) -> tuple[list, list]:
    """
    Token ids, and the span of each answer; a token across its border belongs to the prompt. The first token of a text,
    which no token predicts, is never a label.
    """
    ends = [place[c] for place in places for c in (0, 1)]
    whole, *parts = text_format.tokenize([text, *(text[:end] for end in ends)], special_tokens)
    borders = [len(part) if end < len(text) else len(whole) for part, end in zip(parts, ends, strict=True)]
    first = len(text_format.tokenize([""], special_tokens)[0]) + 1
    return whole, [(max(start, first), end) for start, end in zip(borders[::2], borders[1::2], strict=True)]


def _cut(ids: list, spans: list, window: int) -> tuple[list, list]:
    spans = [(start, min(end, window)) for start, end in spans]
    return ids[:window], [(start, end) for start, end in spans if start < end]
