"""The layouts of instruction data, and [`Record`], a row of any of them."""

from collections.abc import Callable
from dataclasses import dataclass, field
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

#: Other names of roles, as in ShareGPT turns, and what chat templates call them. A role that is not here is the
#: template's own (`developer` ...).
ROLES = {
    **dict.fromkeys(("human", "prompter"), "user"),
    **dict.fromkeys(("gpt", "chatgpt", "model", "bot", "function_call"), "assistant"),
    **dict.fromkeys(("observation", "function", "function_response", "ipython"), "tool"),
}
#: Roles of turns that the model writes. Rows that TRL reads keep the names that they have.
_ANSWERS = {"assistant", "tool_call"} | {name for name, role in ROLES.items() if role == "assistant"}


@dataclass(frozen=True)
class Record:
    """
    One row, independent of its layout.

    Args:
        index (`int`):
            Row number in the candidate dataset.
        messages (`tuple[dict]`):
            Turns as `{"role": ..., "content": ...}`, as TRL hands them to the chat template.
        first_answer (`int`, *optional*, defaults to `0`):
            Assistant turns before this one are context (the prompt of a prompt-completion row).
        chat (`bool`, *optional*, defaults to `True`):
            `False` for plain string columns, which are concatenated without a chat template.
        tools (`list`, *optional*):
            Tool descriptions for the chat template.
        problem (`str`, *optional*):
            Why the row can't be read; such a row is neither scored nor kept.
        template_kwargs (`dict`, *optional*):
            Further arguments of the chat template.
    """

    index: int
    messages: tuple[dict[str, Any], ...] = ()
    first_answer: int = 0
    chat: bool = True
    tools: list | None = None
    problem: str | None = None
    template_kwargs: dict[str, Any] = field(default_factory=dict)

    @property
    def answer_turns(self) -> list[int]:
        """Indices in `messages` of the turns that the model writes: all assistant turns of all rounds."""
        turns = range(self.first_answer, len(self.messages))
        return [i for i in turns if self.messages[i]["role"] in _ANSWERS]

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


def unknown_layout(name: str, columns: set[str]) -> str:
    """What is wrong with a dataset in none of the layouts, and what to do."""
    known = "\n  ".join(LAYOUTS.values())
    said = f"`{name}` has the columns {sorted(columns)}; expected one of these layouts:\n  {known}"
    said += "\nRename other columns (`rows.rename_columns(...)`, for a command then `rows.to_json(...)`), or pass "
    said += "`formatting_func` to the trainer."
    if "prompt" in columns or {"chosen", "rejected"} <= columns:
        said += "\nPairs for DPO and prompts for GRPO: `hf-dataselect select`, or `select_dataset`."
    return said
