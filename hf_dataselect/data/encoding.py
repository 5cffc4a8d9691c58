"""Tokenize each record once: its token row, the spans of its answers, and the start of each answer's header."""

from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from ..engines.store.identity import digest
from .encoded import COLUMNS, Encoded
from .layouts import Record
from .records import Records
from .text import TextFormat
from .tokenized_texts import TokenizedTexts


#: Raise it whenever this module or `text.py` gives different tokens, so that stored encodings are not reused.
VERSION = 4

#: Why a row has no label tokens, by what is encoded of a row that is longer than the window.
_OUTSIDE = {"keep_start": "the prompt fills the window"}


def encode(
    records: Records, text_format: TextFormat, unconditional: bool = False, num_proc: int | None = None
) -> Encoded:
    """
    Token rows of all records, see [`encode_batch`]. The records cache the last result; `datasets` caches those of a
    dataset on disk.
    """
    key = digest([text_format.key, unconditional, records.text_field, VERSION])
    if records.encoded is not None and records.encoded[0] == key:
        return records.encoded[1]
    text_format = replace(text_format)  # a copy, so that cached properties are not sent to workers

    def encode_records(batch: list[Record]) -> dict[str, list]:
        return encode_batch(text_format, batch, unconditional)

    label = "Tokenizing answers" if unconditional else "Tokenizing rows"
    rows = records.map(encode_records, key, COLUMNS, num_proc, label)
    records.encoded = key, Encoded(rows, len(records))
    return records.encoded[1]


def encode_answers(records: Records, text_format: TextFormat, num_proc: int | None = None) -> Encoded:
    """
    One token row per answer, without its prompt: cut from the rows of [`encode`] where these contain the same tokens,
    tokenized otherwise.
    """
    answers, excluded = encode(records, text_format, num_proc=num_proc).answers(text_format.begin_ids)
    if len(answers.row) == 0:
        return encode(records, text_format, True, num_proc)
    if len(excluded):
        rest = encode(records.subset(excluded), text_format, True, num_proc)
        answers.tokens = answers.tokens.join(rest.tokens)
        answers.row = np.concatenate([answers.row, excluded[rest.row]])
    return answers


def encode_batch(text_format: TextFormat, records: Iterable[Record], unconditional: bool = False) -> dict[str, list]:
    """
    Token rows of a batch of records.

    Args:
        unconditional (`bool`, *optional*, defaults to `False`):
            One token row per answer, without its prompt, after [`~TextFormat.assistant_header`].

    Returns:
        `dict`: columns `input_ids`, `spans`, `row` (the record's index), `truncated` (answer tokens were cut off),
        `problem` (why there are no label tokens; empty if there are) and `headers` (for each span, the start of its
        answer's header; -1 where it is not the template's).
    """
    columns = {name: [] for name in COLUMNS}
    texts = [_rendered(text_format, record) for record in records]
    groups = {}  # by whether the tokenizer adds special tokens
    for i, (record, *_) in enumerate(texts):
        groups.setdefault(text_format.style == "plain" or not record.chat, []).append(i)
    encoded, answers = {}, [[] for _ in texts]
    for special_tokens, members in groups.items():
        tokens = TokenizedTexts(text_format, [texts[i][1] for i in members], special_tokens)
        boundaries = tokens.before([[boundary for answer in texts[i][2] for boundary in answer] for i in members])
        for place, i in enumerate(members):
            encoded[i] = tokens.ids[place], boundaries[place], tokens.specials(place)
    for i, (record, text, ranges, problem) in enumerate(texts):
        ids, boundaries, specials = encoded[i]
        # Where tokens merge across the boundary, a prompt can have more tokens without its answer.
        pairs = zip(boundaries[::2], boundaries[1::2], strict=True)
        spans = [(min(start, len(ids)), max(min(start, len(ids)), min(end, len(ids)))) for start, end in pairs]
        windows = windows_of(len(ids), text_format.max_length, text_format.truncation)
        if unconditional:
            answers[i] = [
                (text[slice(*place)], *part)
                for place, span in zip(ranges, spans, strict=True)
                for part in _parts(span, windows) or [(0, 0)]
            ]
            continue
        headers = [_header(text_format, text, place, specials) for place in ranges]
        kept = [_within(window, spans, headers) for window in windows]
        if problem is None and not any(cut for cut, _ in kept):
            problem = _OUTSIDE.get(text_format.truncation, "no answer in the window")
        elif problem is None and not any(max(start, 1) < end for cut, _ in kept for start, end in cut):
            problem = "nothing to score"
        truncated = any(start < windows[0][0] or end > windows[-1][1] for start, end in spans)
        for (begin, stop), (cut, own) in zip(windows, kept, strict=True):
            _add(columns, record.index, ids[begin:stop], cut, truncated, problem, own)
            problem = None  # once a record
    if unconditional:
        _encode_answers(text_format, columns, texts, answers, groups)
    return columns


def windows_of(length: int, max_length: int | None, truncation: str) -> list[tuple[int, int]]:
    """The parts of a row of so many tokens that are trained on, `[start, end)`; the last may end after the row."""
    window = max_length or np.iinfo(np.int32).max
    if truncation == "split":
        return [(start, start + window) for start in range(0, max(length, 1), window)]
    start = max(0, length - window) if truncation == "keep_end" else 0
    return [(start, start + window)]


def _parts(span: tuple[int, int], windows: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """The tokens `[start, end)` of an answer that are in a window, from its own first on, for each that has any."""
    start, end = span
    return [(max(a - start, 0), b - start) for a, b in windows if start < b and max(end, start + 1) > a]


def _within(window: tuple[int, int], spans: list, headers: list[int]) -> tuple[list, list[int]]:
    """Spans and headers in a window, from its start on. An answer whose beginning is cut off has no header."""
    a, b = window
    within = [(*span, header) for span, header in zip(spans, headers, strict=True) if _parts(span, [window])]
    cut = [(max(start, a) - a, min(end, b) - a) for start, end, _ in within]
    return cut, [header - a if min(header, start) >= a else -1 for start, _, header in within]


def _rendered(text_format: TextFormat, record: Record) -> tuple[Record, str, list[tuple[int, int]], str | None]:
    """A record, its text, the character ranges of its answers, and why there is nothing to score."""
    text, ranges, problem = "", [], record.problem
    if problem is None:
        try:
            text, ranges = text_format.render(record)
        except ValueError as error:
            problem = str(error)
        ranges = [part for part in ranges if part[0] < part[1]]
        if problem is None and not ranges:
            problem = "no answer"
    return record, text, [] if problem else ranges, problem


def _encode_answers(text_format, columns, texts, answers, groups) -> None:
    """
    Add one token row per answer, or part of one, given as `(text, first token, last token)`, for [`encode_batch`]. The
    window leaves an answer the tokens that its prompt leaves it; a part without the answer's beginning has no header.
    """
    encoded = {}
    for special_tokens, members in groups.items():
        header = (text_format.response_header or "") if special_tokens else text_format.assistant_header
        begin = len(text_format.tokenize([header], special_tokens)[0])
        answer_texts = [header + answer for i in members for answer, *_ in answers[i]]
        ids = iter(text_format.tokenize(answer_texts, special_tokens))
        encoded |= {i: [(begin, next(ids)) for _ in answers[i]] for i in members}
    for i, (record, _, _, problem) in enumerate(texts):
        for (_, first, stop), (begin, ids) in zip(answers[i], encoded[i], strict=True):
            extra = max(begin, 1) if text_format.header_tokens is None else text_format.header_tokens
            part = ids[begin + first : begin + stop] if first else ids[: stop + extra if stop else 0]
            start = 1 if first else begin
            span = [(start, len(part))] if start < len(part) else []
            cut = text_format.truncation != "split" and len(part) < len(ids)
            _add(columns, record.index, part, span, cut, None, [])
        if not answers[i]:
            _add(columns, record.index, [], [], False, problem, [])


def _add(columns, row: int, ids: list[int], spans: list, truncated: bool, problem: str | None, headers: list[int]):
    flat = [] if problem else [edge for span in spans for edge in span]
    values = ids, flat, row, truncated, problem or "", [] if problem else headers
    for name, value in zip(columns, values, strict=True):
        columns[name].append(value)


def _header(text_format: TextFormat, text: str, place: tuple[int, int], specials: dict[int, int]) -> int:
    """
    First token of an answer's header; -1 unless header and answer are delimited by special tokens, so that they are
    tokenized as without the prompt.
    """
    own_header = text_format.response_header is not None or text_format.header_tokens is not None
    if not specials or own_header or text_format.takes_blanks:
        return -1
    start, end = place
    header = text_format.known_header
    if not header or not text.endswith(header, 0, start) or not (end == len(text) or end in specials):
        return -1
    return specials.get(start - len(header), -1)
