"""Tokenize each record once: its token row, the spans of its answers, and the start of each answer's header."""

import copy
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa
from datasets import Dataset, Features, List, Value

from ..compat.datasets import fingerprint
from ..engines.runtime.batching import main_process_first
from ..engines.runtime.token_rows import TOKEN_FEATURES, TokenRows
from ..engines.store.identity import digest
from .layouts import Record
from .records import Records
from .text import TextFormat
from .tokenized_texts import TokenizedTexts


#: Raise it whenever this module or `text.py` gives different tokens, so that stored encodings are not reused.
VERSION = 3

_COLUMNS = Features(
    {
        **TOKEN_FEATURES,
        "row": Value("int64"),
        "truncated": Value("bool"),
        "problem": Value("string"),
        "headers": List(Value("int32")),
    }
)


class Encoded:
    """
    Token rows of a dataset, and the records that could not be encoded.

    Args:
        dataset ([`~datasets.Dataset`]):
            The columns that [`encode_batch`] returns.
        records (`int`):
            Number of records that the token rows come from.
    """

    def __init__(self, dataset: Dataset, records: int):
        self.tokens = TokenRows(dataset)
        self._columns = dataset.select_columns(["spans", "headers"]).with_format("arrow")
        columns = dataset.select_columns(["row", "truncated", "problem"]).with_format("arrow")
        parts = {name: [] for name in ("row", "truncated")}
        #: Unscorable records, by reason.
        self.problems: dict[str, list[int]] = {}
        for table in columns.iter(10_000):
            for name, column in parts.items():
                column.append(table[name].to_numpy())
            if any(table["problem"].unique().to_pylist()):
                for row, problem in zip(table["row"].to_pylist(), table["problem"].to_pylist(), strict=True):
                    if problem:
                        self.problems.setdefault(problem, []).append(row)
        #: Record of each token row, int64.
        self.row = np.concatenate(parts["row"]).astype(np.int64)
        #: Whether answer tokens of a record were cut off, bool `(records,)`.
        self.truncated = np.zeros(records, bool)
        self.truncated[self.row[np.concatenate(parts["truncated"]).astype(bool)]] = True

    @property
    def problematic(self) -> np.ndarray:
        """Unscorable records, bool `(records,)`."""
        mask = np.zeros(len(self.truncated), bool)
        mask[[row for rows in self.problems.values() for row in rows]] = True
        return mask

    def prompts(self) -> TokenRows:
        """The prompt of each row, up to its first answer; all tokens are label tokens."""
        ends = self.tokens.lengths.copy()
        first = 0
        for spans in self._column("spans"):
            offsets = spans.offsets.to_numpy()
            filled = np.flatnonzero(np.diff(offsets))
            ends[first + filled] = spans.values.to_numpy()[offsets[filled]]
            first += len(spans)
        starts = np.zeros_like(ends)
        return self.tokens.cut(np.arange(len(ends)), starts, ends, starts)

    def label_tokens(self) -> np.ndarray:
        """Number of label tokens of each token row, int64."""
        counts = [np.zeros(0, np.int64)]
        for spans in self._column("spans"):
            edges, offsets = spans.flatten().to_numpy().reshape(-1, 2), spans.offsets.to_numpy()
            total = np.append(0, np.cumsum(edges[:, 1] - edges[:, 0], dtype=np.int64))
            counts.append(np.diff(total[(offsets - offsets[0]) // 2]))
        return np.concatenate(counts)

    def _column(self, name: str) -> Iterator[pa.ListArray]:
        for table in self._columns.iter(10_000):
            yield table[name].combine_chunks()

    def answers(self, begin: Sequence[int]) -> "tuple[Encoded, np.ndarray]":
        """
        Each answer without its prompt, after the header that precedes it in its row.

        Args:
            begin (`Sequence[int]`):
                Token ids to put before the header.

        Returns:
            `tuple`: the answers, and the records, int64, that are excluded since a header differs from the template's.
        """
        spans = np.concatenate([part.flatten().to_numpy() for part in self._column("spans")]).reshape(-1, 2)
        headers = np.concatenate([part.flatten().to_numpy() for part in self._column("headers")]).astype(np.int64)
        counts = np.concatenate([np.diff(part.offsets.to_numpy()) for part in self._column("headers")])
        rows, (start, end) = np.repeat(np.arange(len(counts)), counts), spans.astype(np.int64).T
        excluded = np.unique(rows[headers < 0])
        kept = ~np.isin(rows, excluded)
        rows, headers, start, end = (column[kept] for column in (rows, headers, start, end))
        answers = copy.copy(self)
        answers.tokens, answers.row = self.tokens.cut(rows, headers, end, start - headers, begin), self.row[rows]
        return answers, self.row[excluded]


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
    parser = records.parser

    def encode_records(batch: dict[str, list], indices: list[int]) -> dict[str, list]:
        return encode_batch(text_format, parser.parse(batch, indices), unconditional)

    with main_process_first(records.texts):
        rows = records.texts.with_format(None).map(
            encode_records,
            batched=True,
            with_indices=True,
            remove_columns=records.texts.column_names,
            features=_COLUMNS,
            num_proc=num_proc,
            new_fingerprint=digest([fingerprint(records.texts), key]) if records.formatting_func is None else None,
            desc="Tokenizing answers" if unconditional else "Tokenizing rows",
        )
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
    columns = {name: [] for name in _COLUMNS}
    window = text_format.max_length or np.iinfo(np.int32).max
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
        if unconditional:
            answers[i] = [(first, text[start:end]) for (start, end), (first, _) in zip(ranges, spans, strict=True)]
            continue
        within = [place for place, (start, _) in enumerate(spans) if start < window]
        cut = [(spans[place][0], min(spans[place][1], window)) for place in within]
        headers = [_header(text_format, text, ranges[place], specials) for place in within]
        if problem is None and not cut:
            problem = "the prompt fills the window"
        elif problem is None and not any(max(start, 1) < end for start, end in cut):
            problem = "nothing to score"
        _add(columns, record.index, ids[:window], cut, any(end > window for _, end in spans), problem, headers)
    if unconditional:
        _encode_answers(text_format, columns, texts, answers, groups, window)
    return columns


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


def _encode_answers(text_format, columns, texts, answers, groups, window) -> None:
    """Add one token row per answer, given as `(its first token after the prompt, its text)`, for [`encode_batch`]."""
    encoded = {}
    for special_tokens, members in groups.items():
        header = (text_format.response_header or "") if special_tokens else text_format.assistant_header
        begin = len(text_format.tokenize([header], special_tokens)[0])
        answer_texts = [header + answer for i in members for _, answer in answers[i]]
        ids = iter(text_format.tokenize(answer_texts, special_tokens))
        encoded |= {i: [(begin, next(ids)) for _ in answers[i]] for i in members}
    for i, (record, _, _, problem) in enumerate(texts):
        for (first, _), (begin, ids) in zip(answers[i], encoded[i], strict=True):
            extra = max(begin, 1) if text_format.header_tokens is None else text_format.header_tokens
            limit = max(window - first, 0) + extra if first < window else 0
            span = [(begin, min(len(ids), limit))] if begin < min(len(ids), limit) else []
            _add(columns, record.index, ids[:limit], span, len(ids) > limit, None, [])
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
