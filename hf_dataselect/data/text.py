"""
From records to tokens, and which tokens are the answer.

**The answer** of a row is the text of all its assistant turns. A token belongs to it if it begins inside that text;
the place is found by counting the tokens of the text before it, tokenized alone, as the authors' scorers do, so that a
token that merges across the border counts as prompt. Role headers (`<|im_start|>assistant`), the white space that a
template adds and all other turns are context. The end-of-turn token counts only with `end_of_turn=True` (what training
sees); scores leave it out, as in the papers, because the end of a short answer would weigh as much as its content.
"""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from os.path import commonprefix

import numpy as np
from datasets import Dataset, Features, Value
from transformers import PreTrainedTokenizerBase

from ..engines.runtime.batching import main_process_first
from ..engines.runtime.token_rows import TOKEN_FEATURES, TokenRows
from ..engines.store.identity import digest
from .layouts import Record, content_text
from .records import Records


#: For a tokenizer that has no chat template of its own. Needs no special token besides the end-of-sequence token.
DEFAULT_CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'assistant' %}"
    "{{ '### Assistant:\\n' }}{% generation %}{{ message['content'] + eos_token }}{% endgeneration %}{{ '\\n' }}"
    "{% else %}{{ '### ' + message['role'] | capitalize + ':\\n' + message['content'] + '\\n\\n' }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '### Assistant:\\n' }}{% endif %}"
)


#: A private character in place of an answer: templates neither strip, split nor escape it.
_MARK = "\U000f1d5e"


def default_chat_template(tokenizer: PreTrainedTokenizerBase) -> str:
    """The one explicit default; it starts with the beginning-of-sequence token where the tokenizer adds one itself."""
    return ("{{ bos_token }}" if adds_bos(tokenizer) else "") + DEFAULT_CHAT_TEMPLATE


def adds_bos(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the tokenizer puts a beginning-of-sequence token in front of a text by itself."""
    return tokenizer.bos_token_id is not None and tokenizer("a")["input_ids"][:1] == [tokenizer.bos_token_id]


@dataclass(frozen=True)
class TextFormat:
    """
    How records become texts and tokens.

    Args:
        tokenizer ([`~transformers.PreTrainedTokenizerBase`]):
            With a chat template, unless `style` is `"plain"`.
        max_length (`int`, *optional*):
            Window in tokens; what is beyond is cut off on the right, as TRL does.
        style (`str`, *optional*, defaults to `"chat"`):
            `"chat"`: chats through the chat template, string columns joined as they are. `"plain"`: the turns of a
            chat one below the other, without template or headers (Superfiltering).
        end_of_turn (`bool`, *optional*, defaults to `False`):
            Whether the token that ends an assistant turn counts as answer.
        response_header (`str`, *optional*):
            What stands before an answer that is scored without its prompt. By default what the chat template puts
            there; nothing for plain texts.
        header_tokens (`int`, *optional*):
            By how many tokens the window of an answer without its prompt is larger than what the prompt leaves. By
            default the header's own, so that both texts score the same tokens; the code of IFD has 4 for any
            tokenizer.
    """

    tokenizer: PreTrainedTokenizerBase
    max_length: int | None = None
    style: str = "chat"
    end_of_turn: bool = False
    response_header: str | None = None
    header_tokens: int | None = None

    @cached_property
    def key(self) -> str:
        """Hash of all that decides the tokens."""
        tokenizer = self.tokenizer
        backend = getattr(tokenizer, "backend_tokenizer", None)
        options = [getattr(self, name) for name in self.__dataclass_fields__ if name != "tokenizer"]
        special = [str(tokenizer.special_tokens_map), tokenizer.chat_template]
        vocabulary = json.loads(backend.to_str()) if backend is not None else sorted(tokenizer.get_vocab().items())
        if backend is not None:  # what its last call wanted
            vocabulary |= {"truncation": None, "padding": None}
        return digest([vocabulary, special, options])

    def _render(self, messages: tuple, tools: list | None, add_generation_prompt: bool = False) -> str:
        return self.tokenizer.apply_chat_template(
            [dict(message) for message in messages],
            tools=tools,
            tokenize=False,
            add_generation_prompt=add_generation_prompt,
        )

    @cached_property
    def assistant_header(self) -> str:
        """What stands before an answer alone: the template's generation prompt, after its start-of-text token."""
        if self.response_header is not None:
            return self.response_header
        turn = ({"role": "user", "content": "x"},)
        before, whole = self._render(turn, None), self._render(turn, None, add_generation_prompt=True)
        start = self.tokenizer.bos_token or ""
        start = start if start and whole.startswith(start) and adds_bos(self.tokenizer) else ""
        return start + whole[len(commonprefix([before, whole])) :]

    def spell(self, record: Record) -> tuple[str, list[tuple[int, int]]]:
        """
        Text of a record, and of each answer the characters `[start, end)` it takes there.

        Raises:
            `ValueError`: the chat template refuses the turns.
        """
        if self.style == "plain" or not record.chat:
            joint = "\n" if record.chat else ""
            text, places = "", []
            for i, message in enumerate(record.messages):
                text += joint if i else ""
                content = content_text(message)
                if i in record.answer_turns:
                    places.append((len(text), len(text) + len(content)))
                text += content
            ends_with_answer = places and places[-1][1] == len(text)
            if self.end_of_turn and ends_with_answer and not text.endswith(self.tokenizer.eos_token or ""):
                text += self.tokenizer.eos_token
                places[-1] = (places[-1][0], len(text))
            return text, places
        try:
            return self._spell_chat(record)
        except Exception as error:  # templates raise what they like
            raise ValueError(f"the chat template refuses the turns ({_first_line(error)})") from error

    def _spell_chat(self, record: Record) -> tuple[str, list[tuple[int, int]]]:
        whole = self._render(record.messages, record.tools)
        return whole, [self._place(whole, record, turn) for turn in record.answer_turns]

    def _place(self, whole: str, record: Record, turn: int) -> tuple[int, int]:
        """
        Characters of an answer in the text of its chat.

        They are what changes when a mark stands in the answer's place, whatever the template makes of turns: reasoning
        left out of all but the last, an empty thought put into the last.
        """
        messages, message = record.messages, record.messages[turn]
        content, calls = content_text(message).strip(), message.get("tool_calls")
        if not content and not calls:
            return 0, 0
        marked = {**message, "content": _MARK}
        marked.pop("tool_calls", None)
        later = messages[turn + 1 :]
        before, mark, after = self._render((*messages[:turn], marked, *later), record.tools).partition(_MARK)
        if not mark:
            raise ValueError("it leaves the text of an answer out")
        start = _shared(before, whole)
        end = behind = max(start, len(whole) - _shared(after[::-1], whole[::-1]))
        added = tuple(self.tokenizer.get_added_vocab()) if calls or self.end_of_turn else ()
        if calls:
            end = behind = _around(whole, end, added)[0]
        elif whole[start:end].strip() != content:
            # The template rewrote the answer, or the generation prompt holds its beginning (an opening thought tag).
            prompt = self._render(messages[:turn], record.tools, add_generation_prompt=True) if turn else before
            header = min(start, _shared(prompt, whole))
            found = whole.find(content, header, end)
            if found >= 0:
                start, end = found, found + len(content)
            elif not content.endswith(whole[start:end].strip()):
                start = header
        text = whole[start:end]
        start, end = start + len(text) - len(text.lstrip()), start + len(text.rstrip())
        if self.end_of_turn and start < end:
            stop = len(whole)
            if later:
                own = self._render((*messages[:turn], marked), record.tools).partition(_MARK)[2]
                token, stop = _around(whole, behind + _shared(own, whole[behind:]), added)
                stop = token if whole[behind:token].strip() else stop
            end = _end_of_turn(whole, end, stop, added)
        return start, end

    def prompt_ids(self, record: Record) -> list[int]:
        """Token ids of all that comes before the last answer, with the template's assistant header for chats."""
        before = record.messages[: record.answer_turns[-1]]
        if self.style == "plain" or not record.chat:
            text = ("\n" if record.chat else "").join(map(content_text, before))
            return self.tokenize([text], special_tokens=True)[0]
        return self.tokenize([self._render(before, record.tools, add_generation_prompt=True)], special_tokens=False)[0]

    def tokenize(self, texts: list[str], special_tokens: bool) -> list[list[int]]:
        """Token ids of texts, with the tokenizer's own start token for plain ones, never with an added end token."""
        if not texts:
            return []
        ids = self.tokenizer(texts, add_special_tokens=special_tokens, verbose=False)["input_ids"]
        end = self.tokenizer.eos_token_id if special_tokens else None
        return [
            row[:-1]
            if row and end is not None and row[-1] == end and not text.endswith(self.tokenizer.eos_token)
            else row
            for row, text in zip(ids, texts, strict=True)
        ]

    def encode(self, records: Iterable[Record], alone: bool = False) -> dict[str, list]:
        """
        Token rows of a batch of records.

        Args:
            alone (`bool`, *optional*, defaults to `False`):
                Each answer without its prompt, behind [`assistant_header`]: one token row an answer.

        Returns:
            `dict`: columns `input_ids`, `spans`, `row` (the record's index), `truncated` (answer tokens were cut off)
            and `problem` (why nothing counts; empty if something does).
        """
        columns = {"input_ids": [], "spans": [], "row": [], "truncated": [], "problem": []}
        spelled, problems = [], []
        for record in records:
            text, places, problem = "", [], record.problem
            if problem is None:
                try:
                    text, places = self.spell(record)
                except ValueError as error:
                    problem = str(error)
                if problem is None and not any(start < end for start, end in places):
                    problem = "no answer"
            spelled.append((record, text, [] if problem else [p for p in places if p[0] < p[1]]))
            problems.append(problem)
        groups = {}  # texts that take special tokens and texts that bring their own
        for i, (record, _, _) in enumerate(spelled):
            groups.setdefault(self.style == "plain" or not record.chat, []).append(i)
        wholes, borders = {}, {}
        for special_tokens, members in groups.items():
            texts = [spelled[i][1] for i in members]
            wholes.update(zip(members, self.tokenize(texts, special_tokens), strict=True))
            ends = [(i, c, p[c]) for i in members for p in spelled[i][2] for c in (0, 1)]
            prefixes = self.tokenize([spelled[i][1][:end] for i, _, end in ends], special_tokens)
            for (i, _, _), prefix in zip(ends, prefixes, strict=True):
                borders.setdefault(i, []).append(len(prefix))
        window = self.max_length or np.iinfo(np.int32).max
        answers = []
        for i, (record, text, places) in enumerate(spelled):
            whole = wholes.get(i, [])
            spans = list(zip(borders.get(i, [])[::2], borders.get(i, [])[1::2], strict=True))
            spans = [
                (min(start, len(whole)), len(whole) if place[1] == len(text) else min(end, len(whole)))
                for (start, end), place in zip(spans, places, strict=True)
            ]
            # Where tokens merge across the border, a prompt alone can be of more tokens than with its answer.
            spans = [(start, max(start, end)) for start, end in spans]
            if alone:
                answers.append(
                    [(first, text[start:end]) for (start, end), (first, _) in zip(places, spans, strict=True)]
                )
                continue
            cut = [(start, min(end, window)) for start, end in spans if start < window]
            problem = problems[i]
            if problem is None and not cut:
                problem = "the prompt fills the window"
            elif problem is None and not any(max(start, 1) < end for start, end in cut):
                problem = "nothing to score"
            _add(columns, record.index, whole[:window], cut, any(end > window for _, end in spans), problem)
        if alone:
            self._encode_alone(columns, [record for record, _, _ in spelled], answers, problems, groups, window)
        return columns

    def _encode_alone(self, columns, records, answers, problems, groups, window) -> None:
        """One token row an answer, given as `(its first token behind the prompt, its text)`, for `encode`."""
        coded = {}
        for special_tokens, members in groups.items():
            header = (self.response_header or "") if special_tokens else self.assistant_header
            begin = len(self.tokenize([header], special_tokens)[0])
            texts = [header + answer for i in members for _, answer in answers[i]]
            ids = iter(self.tokenize(texts, special_tokens))
            coded.update({i: [(begin, next(ids)) for _ in answers[i]] for i in members})
        for i, record in enumerate(records):
            for (first, _), (begin, ids) in zip(answers[i], coded[i], strict=True):
                extra = max(begin, 1) if self.header_tokens is None else self.header_tokens
                room = max(window - first, 0) + extra if first < window else 0
                span = [(begin, min(len(ids), room))] if begin < min(len(ids), room) else []
                _add(columns, record.index, ids[:room], span, len(ids) > room, None)
            if not answers[i]:
                _add(columns, record.index, [], [], False, problems[i])


def _add(columns: dict[str, list], row: int, ids: list[int], spans: list, truncated: bool, problem: str | None):
    flat = [] if problem else [border for span in spans for border in span]
    for name, value in zip(columns, (ids, flat, row, truncated, problem or ""), strict=True):
        columns[name].append(value)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


@lru_cache(maxsize=8)
def _added_token(added: tuple[str, ...]) -> re.Pattern:
    return re.compile("|".join(re.escape(token) for token in sorted(added, key=len, reverse=True)) or r"(?!)")


def _shared(beginning: str, text: str) -> int:
    """Length of what two texts have in common at their beginnings."""
    return len(beginning) if text.startswith(beginning) else len(commonprefix([beginning, text]))


def _around(whole: str, place: int, added: tuple[str, ...]) -> tuple[int, int]:
    """Start and end of the added token that `place` lies in; of none, `place` itself."""
    near = _added_token(added).finditer(whole, max(0, place - max(map(len, added), default=0)))
    return next((token.span() for token in near if token.start() < place < token.end()), (place, place))


def _end_of_turn(whole: str, end: int, stop: int, added: tuple[str, ...]) -> int:
    """End of the turn's own text: after its first special token, or without the white space that follows."""
    found = _added_token(added).search(whole, end, stop)
    return found.end() if found else end + len(whole[end:stop].rstrip())


class Encoded:
    """
    Token rows of a dataset, with what could not be encoded.

    Args:
        dataset ([`~datasets.Dataset`]):
            The columns that [`TextFormat.encode`] gives.
        records (`int`):
            Number of records they came from.
    """

    def __init__(self, dataset: Dataset, records: int):
        self.tokens = TokenRows(dataset)
        columns = dataset.select_columns(["row", "truncated", "problem"]).with_format("arrow")
        parts = {name: [] for name in ("row", "truncated")}
        #: Records that nothing can be scored of, by reason.
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


_COLUMNS = Features({**TOKEN_FEATURES, "row": Value("int64"), "truncated": Value("bool"), "problem": Value("string")})


def encode(records: Records, text_format: TextFormat, alone: bool = False, num_proc: int | None = None) -> Encoded:
    """
    Token rows of all records; see [`TextFormat.encode`]. Done once: `datasets` keeps the result beside the dataset.
    """
    fingerprint = digest([records.texts._fingerprint, text_format.key, alone, records.text_field, _ENCODING])
    text_format = replace(text_format)  # cached properties of the caller's copy stay out of worker processes

    parser = records.parser

    def encode_batch(batch: dict[str, list], indices: list[int]) -> dict[str, list]:
        return text_format.encode(parser.parse(batch, indices), alone)

    with main_process_first(records.texts):
        rows = records.texts.with_format(None).map(
            encode_batch,
            batched=True,
            with_indices=True,
            remove_columns=records.texts.column_names,
            features=_COLUMNS,
            num_proc=num_proc,
            new_fingerprint=fingerprint if records.formatting_func is None else None,
            desc="Tokenizing answers" if alone else "Tokenizing rows",
        )
    return Encoded(rows, len(records))


#: Raised whenever this module gives other tokens than before, so that no stored encoding outlives its code.
_ENCODING = 2
