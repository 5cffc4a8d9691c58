"""Rows as questions to a judge: what they ask and answer, who gets no question, what came back."""

import re
from collections.abc import Callable, Iterable
from dataclasses import replace

from ..context import Context
from ..data.layouts import Record, content_text
from ..data.records import Records
from ..engines.llm.judge import Conversation


def turns_of(record: Record) -> list[tuple[str, str]]:
    """`(query, answer)` of each answer: what was said since the answer before it, system turns included."""
    pairs, begin = [], 0
    for turn in record.answer_turns:
        said = (message for message in record.messages[begin:turn] if message["role"] != "assistant")
        pairs.append(("\n".join(filter(None, map(content_text, said))), content_text(record.messages[turn])))
        begin = turn + 1
    return pairs


def ask_about_rows(
    records: Records,
    ctx: Context,
    texts_of: Callable[[Record], tuple[str, ...]],
    question: Callable[..., Conversation],
    max_characters: int,
    ask: Callable[[list[Conversation]], list],
) -> list:
    """
    Put a question about each row.

    A row with an empty or a too long text gets none, and is entered in `ctx.account` as unscorable. Rows that seem to
    tell the judge what to say are entered among the figures, and asked about as all others. What the judge cost is
    entered too.

    Args:
        records ([`Records`]):
            The rows.
        ctx ([`Context`]):
            Where rows are counted.
        texts_of (`Callable`):
            Record -> the texts that the question is about.
        question (`Callable`):
            These texts -> conversation.
        max_characters (`int`):
            Of all the texts together, at most.
        ask (`Callable`):
            Conversations -> replies.

    Returns:
        `list`: one reply a row; `None` for rows that got no question.

    Raises:
        `ValueError`: the context has no judge.
    """
    if ctx.judge is None:
        raise ValueError("This method needs `judge`: 'openai:MODEL', 'model:NAME' or 'self'.")
    asked, conversations, empty, long, pushy = [], [], [], [], []
    for record in records:
        texts = texts_of(record) if record.problem is None else ("",)
        if not texts or not all(text.strip() for text in texts):
            empty.append(record.index)
            continue
        if sum(map(len, texts)) > max_characters:
            long.append(record.index)
            continue
        asked.append(record.index)
        conversations.append(question(*texts))
        if speaks_to_the_judge(texts):
            pushy.append(record.index)
    ctx.account.note("unscorable", "nothing to ask about: a text is empty", empty)
    ctx.account.note("unscorable", f"longer than {max_characters:,} characters", long)
    note_pushy(pushy, ctx)
    replies, before = [None] * len(records), replace(ctx.judge.cost)
    for row, reply in zip(asked, ask(conversations), strict=True):
        replies[row] = reply
    cost = ctx.judge.cost
    ctx.account.add_cached_seconds(cost.cached_seconds - before.cached_seconds)
    ctx.account.count(
        judge_calls=cost.calls - before.calls,
        judge_prompt_tokens=cost.prompt_tokens - before.prompt_tokens,
        judge_new_tokens=cost.completion_tokens - before.completion_tokens,
        cached_rows=cost.cached - before.cached,
    )
    return replies


def note_silence(replies: list, ctx: Context) -> None:
    """Enter in `ctx.account`, with the reason, rows whose question the judge did not answer."""
    for row, reply in enumerate(replies):
        if reply is not None and reply.text is None:
            ctx.account.note("unscorable", f"no reply of the judge: {reply.problem}", [row])


def speaks_to_the_judge(texts: Iterable[str]) -> bool:
    """Whether one of the texts seems to tell the judge what to say (in English only)."""
    return any(_TO_THE_JUDGE.search(text) for text in texts)


def note_pushy(rows: list[int], ctx: Context) -> None:
    """Enter rows that seem to tell the judge what to say among the figures: a hint to look at them."""
    if rows:
        ctx.account.figures["seem to tell the judge what to say"] = rows


_TO_THE_JUDGE = re.compile(
    r"\b(?:rate|score|grade|give|assign|award)\b[^.\n]{0,40}\b(?:this|it|me|my|the (?:answer|response|output|above))\b"
    r"[^.\n]{0,40}(?:\b[0-9]+\b|\bfive\b|\bten\b|\b(?:highest|maximum|top|perfect|full)\b)"
    r"|\b(?:ignore|disregard|forget)\b[^.\n]{0,40}\b(?:instruction|prompt|rule|rating)s?\b"
    r"|\b(?:judge|grader|rater|evaluator)\b[^.\n]{0,40}\b(?:must|should|has to|have to|please)\b",
    re.IGNORECASE,
)
