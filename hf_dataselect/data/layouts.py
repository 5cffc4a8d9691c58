"""The layouts of instruction data, and the parser that turns a row of any of them into a [`Record`]."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any


#: Layouts in order of precedence; those that TRL knows come first, so that a dataset trains as in TRL.
LAYOUTS = {
    "tokens": "`input_ids` (already tokenized, with `labels`)",
    "prompt-completion": "`prompt` and `completion` (both strings or both lists of messages)",
    "messages": "`messages` (list of role and content)",
    "sharegpt": "`conversations` (list of from and value, of role and content, or of alternating strings)",
    "text": "`text` (or the column named in `dataset_text_field`)",
    "alpaca": "`instruction`, `output` (or `response`), and optionally `input` (or `context`)",
}

_ROLES = {
    **dict.fromkeys(("system",), "system"),
    **dict.fromkeys(("human", "user", "prompter"), "user"),
    **dict.fromkeys(("gpt", "assistant", "chatgpt", "model", "bot", "function_call"), "assistant"),
    **dict.fromkeys(("tool", "observation", "function", "function_response", "ipython"), "tool"),
}


@dataclass(frozen=True)
class Record:
    """
    One row, independent of its layout.

    Args:
        index (`int`):
            Row number in the candidate dataset.
        messages (`tuple[dict]`):
            Turns as `{"role": ..., "content": ...}` with role system, user, assistant or tool.
        first_answer (`int`, *optional*, defaults to `0`):
            Assistant turns before this one are context (the prompt of a prompt-completion row).
        chat (`bool`, *optional*, defaults to `True`):
            `False` for plain string columns, which are concatenated without a chat template.
        tools (`list`, *optional*):
            Tool descriptions for the chat template.
        problem (`str`, *optional*):
            Why the row can't be read; such a row is neither scored nor kept.
    """

    index: int
    messages: tuple[dict[str, Any], ...] = ()
    first_answer: int = 0
    chat: bool = True
    tools: list | None = None
    problem: str | None = None

    @property
    def answer_turns(self) -> list[int]:
        """Indices in `messages` of the turns that the model is trained on: all assistant turns of all rounds."""
        turns = range(self.first_answer, len(self.messages))
        return [i for i in turns if self.messages[i]["role"] == "assistant"]

    @property
    def answer(self) -> str:
        """The last answer; empty for a record without answers."""
        turns = self.answer_turns
        return content_text(self.messages[turns[-1]]) if turns else ""

    @property
    def prompt(self) -> str:
        """Everything before the last answer, turns joined by newlines."""
        turns = self.answer_turns
        before = self.messages[: turns[-1]] if turns else self.messages
        return "\n".join(content_text(message) for message in before)


def content_text(message: dict[str, Any]) -> str:
    """Text of a turn: its string, or the text parts of its list. `None` (a pure tool call) gives an empty string."""
    content = message.get("content")
    if isinstance(content, list):
        return "".join(part.get("text") or "" for part in content if isinstance(part, dict))
    return content or ""


def find_layout(columns: set[str], text_field: str = "text", formatting_func: Callable | None = None) -> str | None:
    """The layout of a dataset with these columns; `None` if it has none of `LAYOUTS`."""
    if "input_ids" in columns:
        return "tokens"
    if formatting_func is not None:
        return "text"
    if {"prompt", "completion"} <= columns:
        return "prompt-completion"
    if "messages" in columns:
        return "messages"
    if "conversations" in columns:
        return "sharegpt"
    if text_field in columns:
        return "text"
    return "alpaca" if "instruction" in columns and {"output", "response"} & columns else None


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
    """

    layout: str
    text_field: str = "text"
    formatting_func: Callable | None = None
    images: bool = False

    def parse(self, batch: dict[str, list], indices: Sequence[int]) -> list[Record]:
        """Records of a batch of columns, as [`~datasets.Dataset.map`] passes it."""
        rows = (dict(zip(batch, values, strict=True)) for values in zip(*batch.values(), strict=True))
        return [self._parse_row(row, int(index)) for row, index in zip(rows, indices, strict=True)]

    def _parse_row(self, row: dict[str, Any], index: int) -> Record:
        try:
            return _PARSERS[self.layout](self, row, index)
        except (_Unreadable, AttributeError, TypeError, KeyError) as error:
            if self.layout == "text" and not isinstance(error, _Unreadable):
                raise  # a bug in the user's `formatting_func`
            reason = str(error) if isinstance(error, _Unreadable) else f"malformed {self.layout} row"
            return Record(index, problem=reason)

    def _parse_tokens(self, row, index):
        return Record(index, problem="already tokenized: no text to read")

    def _parse_prompt_completion(self, row, index):
        prompt, completion = row["prompt"], row["completion"]
        for column in ("prompt", "completion"):
            if row[column] is None:
                raise _Unreadable(f"missing value in `{column}`")
        if isinstance(prompt, list) and isinstance(completion, list):
            messages = _messages(prompt) + _messages(completion)
            return Record(index, messages, len(prompt), tools=_tools(row))
        return Record(
            index,
            (
                {"role": "user", "content": _text(prompt, "prompt")},
                {"role": "assistant", "content": _text(completion, "completion")},
            ),
            chat=False,
        )

    def _parse_messages(self, row, index):
        return Record(index, _messages(row["messages"]), tools=_tools(row))

    def _parse_sharegpt(self, row, index):
        turns = row["conversations"]
        if turns and all(isinstance(turn, str) for turn in turns):
            turns = [{"role": ("user", "assistant")[i % 2], "content": turn} for i, turn in enumerate(turns)]
        messages = _messages(turns)
        if self.images:
            messages = tuple({**message, "content": _unmarked(message["content"])} for message in messages)
        return Record(index, messages, tools=_tools(row))

    def _parse_text(self, row, index):
        text = self.formatting_func(row) if self.formatting_func is not None else row[self.text_field]
        return Record(index, ({"role": "assistant", "content": _text(text, self.text_field)},), chat=False)

    def _parse_alpaca(self, row, index):
        answer = "output" if "output" in row else "response"
        prompt = _text(row["instruction"], "instruction")
        extra = row.get("input") or row.get("context")
        return Record(
            index,
            (
                {"role": "user", "content": f"{prompt}\n{extra}" if extra else prompt},
                {"role": "assistant", "content": _text(row[answer], answer)},
            ),
            first_answer=1,
        )

    def as_chats(self, batch: dict[str, list]) -> dict[str, list]:
        """Columns that TRL trains on: chat prompt-completion for Alpaca rows, messages for ShareGPT rows."""
        records = self.parse(batch, range(len(next(iter(batch.values())))))
        if self.layout == "alpaca":
            parts = {"prompt": slice(0, 1), "completion": slice(1, 2)}
            return {name: [list(record.messages[part]) for record in records] for name, part in parts.items()}
        return {"messages": [list(record.messages) for record in records]}


_PARSERS = {
    "tokens": RowParser._parse_tokens,
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


def _messages(turns: list[dict] | None) -> tuple[dict[str, Any], ...]:
    if not turns:
        raise _Unreadable("no turns")
    messages = []
    for turn in turns:
        name = turn.get("role") or turn.get("from")
        if name not in _ROLES:
            raise _Unreadable(f"unknown role {name!r}")
        content = turn.get("content", turn.get("value"))
        if content is None and not turn.get("tool_calls"):
            raise _Unreadable("missing content in a turn")
        if not isinstance(content, (str, list, type(None))):
            raise _Unreadable("the content of a turn is not text")
        rest = {k: v for k, v in turn.items() if k not in ("role", "from", "content", "value") and v is not None}
        messages.append({"role": _ROLES[name], "content": content, **rest})
    return tuple(messages)


def _tools(row: dict[str, Any]) -> list | None:
    tools = row.get("tools") or None
    try:
        return (json.loads(tools) if isinstance(tools, str) else tools) or None
    except json.JSONDecodeError as error:
        raise _Unreadable("`tools` is not valid JSON") from error
