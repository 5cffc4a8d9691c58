"""Rows of a benchmark as questions: what the model is asked, and the right answers."""

import json
import math
import numbers
from collections.abc import Sequence
from typing import Any, NamedTuple

from ..data.layouts import content_text
from ..data.parser import RowParser


Messages = list[dict[str, Any]]

#: Columns whose strings alternate between user and assistant; of all others, each string is a user turn.
_CHATS = ("conversations", "messages")
#: Where a struct of right answers has them: SQuAD, TriviaQA, DROP.
_ANSWERS = ("text", "value", "aliases", "spans")


class Question(NamedTuple):
    """A question for the model."""

    id: str
    #: User turns that the model answers one after the other; usually one. Empty if the row is unreadable.
    turns: list[str]
    #: Right answers to each turn, as far as the row has them.
    references: list[list[str]]
    subject: str | None = None
    #: The chat up to the first of `turns`, inclusive; empty if it has no other turn.
    chat: tuple[dict[str, Any], ...] = ()
    #: Why the row can't be asked.
    problem: str | None = None

    def messages(self, answers: Sequence[str] = (), template: str = "{question}") -> Messages:
        """The chat up to the turn that follows `answers`, with the turns to answer in the template."""
        turns = [template.replace("{question}", turn) for turn in self.turns[: len(answers) + 1]]
        messages = [*self.chat[:-1], {**(self.chat[-1] if self.chat else {"role": "user"}), "content": turns[0]}]
        for answer, turn in zip(answers, turns[1:], strict=False):
            messages += [{"role": "assistant", "content": answer}, {"role": "user", "content": turn}]
        return messages

    @property
    def whole(self) -> str | Messages:
        """All that is asked: a text, or messages if there are turns besides it."""
        if not self.turns or not self.chat and len(self.turns) == 1:
            return "".join(self.turns)
        return [*self.messages(), *({"role": "user", "content": turn} for turn in self.turns[1:])]


def transcript(messages: str | Sequence[dict[str, Any]]) -> str:
    """Messages as one text, each below its role; a text is not changed."""
    if isinstance(messages, str):
        return messages
    return "\n\n".join(f"[{message['role']}]\n{content_text(message)}" for message in messages)


def read_question(row: dict[str, Any], place: int, names: dict[str, str | None]) -> Question:
    """
    Parse a row of any layout; a row that can't be asked has a problem and no turns.

    Args:
        row (`dict`):
            The row, in plain Python types.
        place (`int`):
            Its number, by default its id.
        names (`dict[str, str]`):
            Columns by role: `question`, and optionally `answer`, `system`, `subject` and `id`.
    """
    values = {role: row[name] for role, name in names.items() if name}
    name = str(values["id"]) if values.get("id") is not None else str(place)
    subject = None if values.get("subject") is None else str(values["subject"])
    try:
        chat, turns, reply = _asked(row, names["question"])
        chat = _with_system(chat, turns, values.get("system"))
        right = _by_turn(values.get("answer", reply), len(turns))
        return Question(name, turns, right, subject, chat)
    except Unreadable as error:
        return Question(name, [], [], subject, problem=str(error))


class Unreadable(Exception):
    """Why a row can't be asked."""


def _asked(row: dict[str, Any], column: str) -> tuple[tuple[dict[str, Any], ...], list[str], str | None]:
    """The chat up to the first turn to answer, the turns to answer, and the answer that the chat ends on, if any."""
    value, of_chats = row[column], column.lower() in _CHATS
    if of_chats and isinstance(value, str) and value.lstrip().startswith("["):
        try:
            value = json.loads(value)
        except json.JSONDecodeError as error:
            raise Unreadable(f"`{column}` is not valid JSON") from error
    if of_chats and isinstance(value, dict):  # a struct of lists
        return _split(value)
    if isinstance(value, list) and value and (of_chats or any(isinstance(turn, dict) for turn in value)):
        return _split(value)
    turns = value if isinstance(value, list) else [value]
    turns = ["" if turn is None else _text(turn, "the question") for turn in turns]
    if column.lower() == "instruction":  # the input has its own column
        turns = ["\n\n".join(filter(None, [*turns, _input(row)]))]
    if not all(turns) or not turns:
        raise Unreadable("no question")
    return (), turns, None


def _split(turns: list[Any] | dict[str, list]) -> tuple[tuple[dict[str, Any], ...], list[str], str | None]:
    """A chat; the user turns that it ends on are those to answer, where no answers follow."""
    (record,) = RowParser("sharegpt", native=False).parse({"conversations": [turns]}, [0])
    if record.problem:
        raise Unreadable(record.problem)
    for message in record.messages:
        content = message["content"]
        if isinstance(content, list) and not all(isinstance(part, dict) and "text" in part for part in content):
            raise Unreadable("a turn that is not only text")
        if isinstance(content, list) and any(part.get("type", "text") != "text" for part in content):
            raise Unreadable("a turn that is not only text")
    messages = [{**message, "content": content_text(message)} for message in record.messages]
    reply = messages[-1]["content"] if messages[-1]["role"] == "assistant" else None
    while messages and messages[-1]["role"] == "assistant":
        messages.pop()
    if not any(message["role"] == "user" for message in messages):
        raise Unreadable("no turn of the user")
    last = len(messages) - 1
    while last and messages[last]["role"] == messages[last - 1]["role"] == "user":
        last -= 1
    asked = [message["content"].strip() for message in messages[last:]]
    if not all(asked):
        raise Unreadable("no question")
    return tuple(messages[: last + 1]) if last else (), asked, reply


def _input(row: dict[str, Any]) -> str:
    """The input of Alpaca's and Self-Instruct's rows, the context of Dolly's."""
    fields = {name.lower(): value for name, value in row.items()}
    fields = (fields.get("instances") or [fields])[0]
    values = [fields.get("input"), fields.get("context")]
    return next((text for value in values if value is not None and (text := _text(value, "`input`"))), "")


def _with_system(chat: tuple[dict[str, Any], ...], turns: list[str], system: Any) -> tuple[dict[str, Any], ...]:
    if not isinstance(system, str) or not system.strip():
        return chat
    chat = chat or ({"role": "user", "content": turns[0]},)
    if chat[0]["role"] != "system":
        return ({"role": "system", "content": system}, *chat)
    if chat[0]["content"].strip() != system.strip():
        raise Unreadable("a system turn, and another text in the system column")
    return chat


def _text(value: Any, what: str) -> str:
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, numbers.Number):  # 0 and False are texts too
        return "" if _missing(value) else str(value)
    raise Unreadable(f"{what} is not text")


def _missing(number: numbers.Number) -> bool:
    return isinstance(number, float) and math.isnan(number)


def _by_turn(right: Any, turns: int) -> list[list[str]]:
    """Right answers to each turn: with several turns a list has those of each turn, a text those of the last."""
    if turns == 1:
        return [right_answers(right)]
    listed = right if isinstance(right, list) else [None] * (turns - 1) + [right]
    if len(listed) > turns:
        raise Unreadable("more reference answers than turns")
    return [right_answers(answers) for answers in listed]


def right_answers(value: Any) -> list[str]:
    """
    The right answers that a cell holds: a text, a number, a list of them, or a struct such as SQuAD's (`text`),
    TriviaQA's (`value` and `aliases`) or DROP's (`spans`). Empty if it holds none.
    """
    if isinstance(value, str):
        return [value]
    if isinstance(value, numbers.Number):
        return [] if _missing(value) else [str(value)]
    if isinstance(value, dict):
        value = [value[name] for name in _ANSWERS if name in value]
    if not isinstance(value, (list, tuple)):
        return []
    return list(dict.fromkeys(text for item in value for text in right_answers(item)))
