"""Questions to a judge about rows: their texts, the rows that are skipped, and the replies."""

import re
from collections.abc import Callable, Iterable

from ..context import Context
from ..data.layouts import Record, content_text
from ..data.records import Records
from ..engines.llm.judge import Conversation


def turns_of(record: Record) -> list[tuple[str, str]]:
    """`(query, answer)` of each answer: all turns since the previous answer, system turns included."""
    pairs, begin = [], 0
    for turn in record.answer_turns:
        before = (message for message in record.messages[begin:turn] if message["role"] != "assistant")
        pairs.append(("\n".join(filter(None, map(content_text, before))), content_text(record.messages[turn])))
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
    Ask the judge about each row.

    Rows with an empty or too long text are skipped, and entered in `ctx.account` as unscorable. Rows with suspected
    prompt injection are entered among the figures, and asked about like all others.

    Args:
        records ([`Records`]):
            The rows.
        ctx ([`Context`]):
            Judge and account.
        texts_of (`Callable`):
            Record -> the texts that the question is about.
        question (`Callable`):
            These texts -> conversation.
        max_characters (`int`):
            Maximum length of all the texts together.
        ask (`Callable`):
            Conversations -> replies.

    Returns:
        `list`: one reply per row; `None` for skipped rows.

    Raises:
        `ValueError`: the context has no judge.
    """
    if ctx.judge is None:
        raise ValueError("This method needs `judge`: 'openai:MODEL', 'model:NAME' or 'self'.")
    asked, conversations, empty, long, suspected = [], [], [], [], []
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
        if suspects_injection(texts):
            suspected.append(record.index)
    ctx.account.note("unscorable", "nothing to ask about: a text is empty", empty)
    ctx.account.note("unscorable", f"longer than {max_characters:,} characters", long)
    note_injection(suspected, ctx)
    replies = [None] * len(records)
    for row, reply in zip(asked, ask(conversations), strict=True):
        replies[row] = reply
    return replies


def note_missing_replies(replies: list, ctx: Context) -> None:
    """Enter in `ctx.account`, with the reason, rows without a reply of the judge."""
    for row, reply in enumerate(replies):
        if reply is not None and reply.text is None:
            ctx.account.note("unscorable", f"no reply from the judge: {reply.problem}", [row])


def suspects_injection(texts: Iterable[str]) -> bool:
    """Whether one of the texts is a suspected prompt injection: an instruction to the judge (English only)."""
    return any(_INJECTION.search(text) for text in texts)


def note_injection(rows: list[int], ctx: Context) -> None:
    """Enter rows with suspected prompt injection among the figures, for review."""
    if rows:
        ctx.account.figures["suspected prompt injection"] = rows


_INJECTION = re.compile(
    r"\b(?:rate|score|grade|give|assign|award)\b[^.\n]{0,40}\b(?:this|it|me|my|the (?:answer|response|output|above))\b"
    r"[^.\n]{0,40}(?:\b[0-9]+\b|\bfive\b|\bten\b|\b(?:highest|maximum|top|perfect|full)\b)"
    r"|\b(?:ignore|disregard|forget)\b[^.\n]{0,40}\b(?:instruction|prompt|rule|rating)s?\b"
    r"|\b(?:judge|grader|rater|evaluator)\b[^.\n]{0,40}\b(?:must|should|has to|have to|please)\b",
    re.IGNORECASE,
)
