"""Rows as tasks that follow an exemplar, and the same rows alone."""

from typing import NamedTuple

import numpy as np

from ..data.layouts import Record
from ..data.records import Records
from ..data.text import TextFormat, adds_bos
from ..engines.runtime.token_rows import TokenRows


class Tasks(NamedTuple):
    """Per record: its tokens, with the spans of its answers, as they stand alone and behind an exemplar."""

    alone: TokenRows
    behind: TokenRows
    #: Records of which no answer token can be scored.
    silent: np.ndarray


#: Stands for any exemplar, to see what a chat template makes of a chat that goes on.
_EXEMPLAR = ({"role": "user", "content": "x"}, {"role": "assistant", "content": "y"})


def task_tokens(records: Records, text_format: TextFormat, bos: bool = True) -> Tasks:
    """
    Rows as tasks: alone they are spelled as always; behind an exemplar they lack what a text has at its beginning only
    (the beginning-of-sequence token, a template's own system turn). Behind an exemplar they are cut at the window of
    `text_format`, and alone so that the same answer tokens are left.

    Args:
        records ([`Records`]):
            The rows.
        text_format ([`TextFormat`]):
            How they become text.
        bos (`bool`, *optional*, defaults to `True`):
            Whether a task alone begins with the beginning-of-sequence token that the tokenizer adds to plain texts.

    Raises:
        `ValueError`: a row has no answer, or the chat template refuses it.
    """
    columns: dict[str, tuple[list, list]] = {"alone": ([], []), "behind": ([], [])}
    silent = []
    for record in records:
        try:
            if record.problem is not None:
                raise ValueError(record.problem)
            text, places = text_format.spell(record)
            places = [place for place in places if place[0] < place[1]]
            if not places:
                raise ValueError("no answer")
        except ValueError as error:
            raise ValueError(f"Row {record.index} of the tasks can't be one: {error}.") from error
        plain = text_format.style == "plain" or not record.chat
        alone = _tokens(text_format, text, places, plain and bos)
        following, places = (text, places) if plain else _following(text_format, record, text, places)
        behind = _tokens(text_format, following, places, False)
        window = text_format.max_length or len(behind[0])
        # What a text has at its beginning only takes no room: the same answer tokens count alone and behind.
        alone, behind = _cut(*alone, window + len(alone[0]) - len(behind[0])), _cut(*behind, window)
        if not behind[1]:
            silent.append(record.index)
        for name, (ids, spans) in (("alone", alone), ("behind", behind)):
            columns[name][0].append(ids)
            columns[name][1].append(spans)
    return Tasks(*(TokenRows.from_lists(*column) for column in columns.values()), np.array(silent, np.int64))


def _following(text_format: TextFormat, record: Record, text: str, places: list) -> tuple[str, list]:
    """Text and answers of a chat as the template writes it behind another chat."""
    try:
        before = text_format._render(_EXEMPLAR, None)
        whole = text_format._render((*_EXEMPLAR, *record.messages), record.tools)
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
    Token ids, and of each answer the positions there; a token across its border is prompt. The first token of a text
    never counts: alone it may have nothing before it.
    """
    ends = [place[c] for place in places for c in (0, 1)]
    whole, *parts = text_format.tokenize([text, *(text[:end] for end in ends)], special_tokens)
    borders = [len(part) if end < len(text) else len(whole) for part, end in zip(parts, ends, strict=True)]
    first = len(text_format.tokenize([""], special_tokens)[0]) + 1
    return whole, [(max(start, first), end) for start, end in zip(borders[::2], borders[1::2], strict=True)]


def _cut(ids: list, spans: list, window: int) -> tuple[list, list]:
    spans = [(start, min(end, window)) for start, end in spans]
    return ids[:window], [(start, end) for start, end in spans if start < end]
