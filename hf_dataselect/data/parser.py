"""[`RowParser`]: a row of any layout as a [`Record`], and as the columns that TRL trains on."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

from ..errors import printable
from .layouts import ROLES, Record


@dataclass(frozen=True)
class RowParser:
    """
    Parses rows of one layout to [`Record`]s. Holds no data, so that it is cheap to pickle and to fingerprint.

    Args:
        layout (`str`):
            A key of `LAYOUTS`.
        text_field (`str`, *optional*, defaults to `"text"`):
            Column of plain text.
        formatting_func (`Callable`, *optional*):
            Row -> text.
        images (`bool`, *optional*, defaults to `False`):
            Whether rows have images. TRL puts them before the first prompt, so that LLaVA's `<image>` placeholders in
            ShareGPT turns are removed.
        native (`bool`, *optional*, defaults to `True`):
            Whether TRL reads the rows as they are. Turns then keep their roles and fields; otherwise they get the
            names that chat templates know, and the columns `system` and `history` become turns.
        template_fields (`tuple[str]`, *optional*):
            Fields of the column `chat_template_kwargs`; a row without a value has `None` in each.
    """

    layout: str
    text_field: str = "text"
    formatting_func: Callable | None = None
    images: bool = False
    native: bool = True
    template_fields: tuple[str, ...] = ()

    def parse(self, batch: dict[str, list], indices: Sequence[int]) -> list[Record]:
        """Records of a batch of columns, as [`~datasets.Dataset.map`] passes it."""
        rows = (dict(zip(batch, values, strict=True)) for values in zip(*batch.values(), strict=True))
        return [self._parse_row(row, int(index)) for row, index in zip(rows, indices, strict=True)]

    def as_trained(self, batch: dict[str, list]) -> dict[str, list]:
        """Columns that TRL trains on: of Alpaca rows a chat prompt and its completion, of other chats `messages`."""
        records = self.parse(batch, range(len(next(iter(batch.values())))))
        columns = self.template_columns(batch)
        if self.layout == "text":
            return columns | {"text": [record.answer for record in records]}
        if self.layout in ("messages", "sharegpt"):
            return columns | {"messages": [list(record.messages) for record in records]}
        parts = [
            (record.messages[: record.first_answer], record.messages[record.first_answer :]) for record in records
        ]
        return columns | {"prompt": [list(part) for part, _ in parts], "completion": [list(part) for _, part in parts]}

    def template_columns(self, batch: dict[str, list]) -> dict[str, list]:
        """The columns `tools` and `chat_template_kwargs`, where present, without the empty values that TRL refuses."""
        columns = {}
        if "tools" in batch:
            columns["tools"] = [None if _is_blank(value) else value for value in batch["tools"]]
        if (name := "chat_template_kwargs") in batch:
            columns[name] = [self._template_kwargs({name: value}) for value in batch[name]]
        return columns

    def _parse_row(self, row: dict[str, Any], index: int) -> Record:
        if self.layout == "tokens":
            return Record(index, problem="already tokenized: no text to read")
        try:
            record = _PARSERS[self.layout](self, row, index)
            return replace(record, tools=_tools(row), template_kwargs=self._template_kwargs(row))
        except (_Unreadable, AttributeError, TypeError, KeyError) as error:
            if self.layout == "text" and not isinstance(error, _Unreadable):
                raise  # a bug in the user's `formatting_func`
            reason = printable(error) if isinstance(error, _Unreadable) else f"malformed {self.layout} row"
            return Record(index, problem=reason)

    def _parse_prompt_completion(self, row, index):
        prompt, completion = row["prompt"], row["completion"]
        for column in ("prompt", "completion"):
            if row[column] is None:
                raise _Unreadable(f"missing value in `{column}`")
        if isinstance(prompt, list) and isinstance(completion, list):
            turns = (self._messages(part, name) for name, part in (("prompt", prompt), ("completion", completion)))
            return Record(index, tuple(chain(*turns)), len(prompt))
        return Record(
            index,
            (
                {"role": "user", "content": _text(prompt, "prompt")},
                {"role": "assistant", "content": _text(completion, "completion")},
            ),
            chat=False,
        )

    def _parse_messages(self, row, index):
        messages = self._messages(row["messages"], "messages")
        return Record(index, messages if self.native else _system(row, messages) + messages)

    def _parse_sharegpt(self, row, index):
        messages = self._messages(row["conversations"], "conversations")
        if self.images:
            messages = tuple({**message, "content": _unmarked(message["content"])} for message in messages)
        return Record(index, (*_system(row, messages), *_history(row), *messages))

    def _parse_text(self, row, index):
        text = self.formatting_func(row) if self.formatting_func is not None else row[self.text_field]
        return Record(index, ({"role": "assistant", "content": _text(text, self.text_field)},), chat=False)

    def _parse_alpaca(self, row, index):
        answer = "output" if "output" in row else "response"
        prompt = _text(row["instruction"], "instruction")
        extra = next((row[name] for name in ("input", "context") if not _is_missing(row.get(name))), "")
        before = *_system(row, ()), *_history(row)
        messages = (
            *before,
            {"role": "user", "content": f"{prompt}\n{extra}" if extra != "" else prompt},
            {"role": "assistant", "content": _text(row[answer], answer)},
        )
        return Record(index, messages, first_answer=len(before) + 1)

    def _template_kwargs(self, row: dict[str, Any]) -> dict[str, Any]:
        given = row.get("chat_template_kwargs")
        if given is not None and not isinstance(given, dict):
            raise _Unreadable("`chat_template_kwargs` is not a mapping")
        return dict.fromkeys(self.template_fields) if given is None else given

    def _messages(self, turns: Any, column: str) -> tuple[dict[str, Any], ...]:
        turns = _turns(turns, column)
        if column == "conversations" and turns and all(isinstance(turn, str) for turn in turns):
            turns = [{"role": ("user", "assistant")[i % 2], "content": turn} for i, turn in enumerate(turns)]
        if not turns:
            raise _Unreadable("no turns")
        return tuple(self._message(turn) for turn in turns)

    def _message(self, turn: dict[str, Any]) -> dict[str, Any]:
        name = turn.get("role") or turn.get("from")
        if not isinstance(name, str):
            raise _Unreadable("no role in a turn")
        content = turn.get("content", turn.get("value"))
        if content is None and not turn.get("tool_calls"):
            raise _Unreadable("missing content in a turn")
        if not isinstance(content, (str, list, type(None))):
            raise _Unreadable("the content of a turn is not text")
        if self.native:
            return turn
        rest = {k: v for k, v in turn.items() if k not in ("role", "from", "content", "value") and v is not None}
        return {"role": ROLES.get(name, name), "content": content, **rest}


_PARSERS = {
    "prompt-completion": RowParser._parse_prompt_completion,
    "messages": RowParser._parse_messages,
    "sharegpt": RowParser._parse_sharegpt,
    "text": RowParser._parse_text,
    "alpaca": RowParser._parse_alpaca,
}


class _Unreadable(Exception):
    pass


def _text(value: Any, column: str) -> str:
    if value is None:
        raise _Unreadable(f"missing value in `{column}`")
    if not isinstance(value, str):
        raise _Unreadable(f"`{column}` is not text")
    return value


def _unmarked(content: Any) -> Any:
    """A text without LLaVA's image placeholders."""
    return content.replace("<image>", "").strip() if isinstance(content, str) and "<image>" in content else content


def _turns(value: Any, column: str) -> list:
    """Turns that are a list, JSON of one, or a struct of lists (`{"from": [...], "value": [...]}`)."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except json.JSONDecodeError:
            value = None if not value.strip() else value
    if isinstance(value, dict) and all(isinstance(field, list) for field in value.values()):
        if len({len(field) for field in value.values()}) > 1:
            raise _Unreadable(f"`{column}` has lists of different lengths")
        value = [dict(zip(value, fields, strict=True)) for fields in zip(*value.values(), strict=True)]
    if value is not None and not isinstance(value, list):
        raise _Unreadable(f"`{column}` is not a list of turns, nor JSON of one")
    return value or []


def _system(row: dict[str, Any], messages: tuple) -> tuple[dict[str, Any], ...]:
    """The turn of a column `system`; none where a chat begins with a system turn of its own."""
    text = row.get("system")
    if text is None or text == "" or (messages and messages[0]["role"] == "system"):
        return ()
    return ({"role": "system", "content": _text(text, "system")},)


def _history(row: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The turns of a column `history`: earlier prompts and answers, in pairs."""
    history = row.get("history")
    try:
        history = json.loads(history) if isinstance(history, str) and history.strip() else history
    except json.JSONDecodeError as error:
        raise _Unreadable("`history` is not valid JSON") from error
    for pair in history or ():
        if not isinstance(pair, list) or len(pair) != 2 or not isinstance(history, list):
            raise _Unreadable("`history` is not a list of pairs: [[prompt, answer], ...]")
        yield {"role": "user", "content": _text(pair[0], "history")}
        yield {"role": "assistant", "content": _text(pair[1], "history")}


def _is_missing(value: Any) -> bool:
    """Whether a cell holds nothing; a 0 is something."""
    return value is None or value == "" or value != value  # NaN


def _is_blank(value: Any) -> bool:
    return isinstance(value, str) and not value.strip()


def _tools(row: dict[str, Any]) -> list | None:
    tools = row.get("tools")
    try:
        tools = (None if _is_blank(tools) else json.loads(tools)) if isinstance(tools, str) else tools
    except json.JSONDecodeError as error:
        raise _Unreadable("`tools` is not valid JSON") from error
    if not isinstance(tools, (list, type(None))):
        raise _Unreadable("`tools` is not a list")
    return tools
