"""
Render records to text, and locate the answers in it.

**The answer** of a row is the text of all its assistant turns. A token belongs to it if it starts inside that text.
The boundary is the number of tokens of the text before it, tokenized separately, as in the authors' scorers, so that a
token that merges across it belongs to the prompt. Role headers (`<|im_start|>assistant`), the whitespace that a
template adds and all other turns are context. The end-of-turn token is a label token only with `end_of_turn=True` (as
in training); scores exclude it, as in the papers, since the end of a short answer would weigh as much as its content.
"""

import re
from dataclasses import dataclass
from functools import cached_property, lru_cache
from os.path import commonprefix
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerBase

from ..errors import printable
from .chat_template import adds_bos, tokenizer_key
from .layouts import Record, content_text


#: Options of [`TextFormat`] that come from the training, and what they usually are.
TRAINED = {"truncation": "keep_start", "chat_template": None, "assistant_only_loss": False}

#: Placeholder for an answer: a private-use character that templates neither strip, split nor escape.
_PLACEHOLDER = "\U000f1d5e"


@dataclass(frozen=True)
class TextFormat:
    """
    How records are rendered and tokenized.

    Args:
        tokenizer ([`~transformers.PreTrainedTokenizerBase`]):
            With a chat template, unless `style` is `"plain"`.
        max_length (`int`, *optional*):
            Window in tokens.
        truncation (`str`, *optional*, defaults to `"keep_start"`):
            What of a longer row is encoded: `"keep_start"` and `"keep_end"`, as in TRL, or `"split"`, all of it in
            several token rows, as packing that splits rows has it.
        chat_template (`str`, *optional*):
            By default the tokenizer's own; TRL trains with another one under `assistant_only_loss`.
        assistant_only_loss (`bool`, *optional*, defaults to `False`):
            Whether TRL refuses rows without a turn of the assistant.
        style (`str`, *optional*, defaults to `"chat"`):
            `"chat"`: chats are rendered with the chat template, string columns are concatenated. `"plain"`: the turns
            of a chat are joined by newlines, without template or headers (Superfiltering).
        end_of_turn (`bool`, *optional*, defaults to `False`):
            Whether the token that ends an assistant turn is a label token.
        response_header (`str`, *optional*):
            Text before an answer that is scored without its prompt. By default the chat template's generation
            prompt; nothing for plain texts.
        header_tokens (`int`, *optional*):
            Tokens by which the window of an answer without its prompt exceeds what the prompt leaves. By default the
            header's length, so that conditional and unconditional loss have the same label tokens; IFD's code has 4
            for any tokenizer.
    """

    tokenizer: PreTrainedTokenizerBase
    max_length: int | None = None
    style: str = "chat"
    truncation: str = "keep_start"
    chat_template: str | None = None
    assistant_only_loss: bool = False
    end_of_turn: bool = False
    response_header: str | None = None
    header_tokens: int | None = None

    @cached_property
    def key(self) -> str:
        """Hash of everything that determines the tokens."""
        tokenizer = self.tokenizer
        options = [getattr(self, name) for name in self.__dataclass_fields__ if name not in {"tokenizer", *TRAINED}]
        options += [{name: value} for name, usual in TRAINED.items() if (value := getattr(self, name)) != usual]
        special = [str(tokenizer.special_tokens_map), tokenizer.chat_template]
        return tokenizer_key(tokenizer, [special, options])

    def apply_template(
        self, messages: tuple, record: Record | None = None, add_generation_prompt: bool = False
    ) -> str:
        """Turns as the chat template renders them, with the tools and further arguments of a record."""
        options: dict[str, Any] = {"chat_template": self.chat_template}
        if record is not None:
            options |= {"tools": record.tools, **record.template_kwargs}
        options |= {"tokenize": False} | ({"add_generation_prompt": True} if add_generation_prompt else {})
        return self.tokenizer.apply_chat_template([dict(message) for message in messages], **options)

    def refusal(self, record: Record) -> str | None:
        """Why TRL can't train on a record: its chat template refuses the turns, or those of the prompt."""
        if self.style == "plain" or not record.chat:
            return None
        if self.assistant_only_loss and not any(message["role"] == "assistant" for message in record.messages):
            return "no turn of the assistant (`assistant_only_loss`)"
        try:
            self.apply_template(record.messages, record)
            if record.first_answer:
                self.apply_template(record.messages[: record.first_answer], record, add_generation_prompt=True)
        except Exception as error:  # templates raise anything
            return f"the chat template refuses the turns ({_first_line(error)})"
        return None

    @cached_property
    def generation_prompt(self) -> str:
        """Text that the chat template puts before an answer."""
        turn = ({"role": "user", "content": "x"},)
        before, whole = self.apply_template(turn), self.apply_template(turn, add_generation_prompt=True)
        return whole[len(commonprefix([before, whole])) :]

    @cached_property
    def assistant_header(self) -> str:
        """Text before an answer without its prompt: by default the BOS token and the generation prompt."""
        if self.response_header is not None:
            return self.response_header
        return self.begin + self.generation_prompt

    @cached_property
    def begin(self) -> str:
        """The BOS token, where both the chat template and the tokenizer add one."""
        if self.tokenizer.chat_template is None:
            return ""
        whole, start = self.apply_template(({"role": "user", "content": "x"},)), self.tokenizer.bos_token or ""
        return start if start and whole.startswith(start) and adds_bos(self.tokenizer) else ""

    @cached_property
    def known_header(self) -> str:
        """[`generation_prompt`]; empty where the template raises."""
        try:
            return self.generation_prompt
        except Exception:  # a template may reject a chat that ends with the user
            return ""

    @cached_property
    def splitting(self) -> tuple[re.Pattern, np.ndarray] | None:
        """
        The special tokens at which the tokenizer splits a text before anything else, as a pattern, and their ids.
        `None` if there are none, or if the tokens of a piece depend on whether it is the first.
        """
        backend = getattr(self.tokenizer, "backend_tokenizer", None)
        if backend is None or getattr(self.tokenizer, "split_special_tokens", False):
            return None
        steps = [str(step) for step in (backend.normalizer, backend.pre_tokenizer)]
        tokens = {
            token.content: token_id
            for token_id, token in self.tokenizer.added_tokens_decoder.items()
            if not (token.lstrip or token.rstrip or token.single_word or token.normalized)
        }
        if not tokens or any("prepend_scheme=first" in step or '"first"' in step for step in steps):
            return None
        return _added_token(tuple(tokens)), np.array(list(tokens.values()))

    @cached_property
    def takes_blanks(self) -> bool:
        """Whether a special token takes the white space beside it along, or depends on its neighbours."""
        tokens = self.tokenizer.added_tokens_decoder.values()
        return any(token.lstrip or token.rstrip or token.single_word for token in tokens)

    @cached_property
    def begin_ids(self) -> list[int]:
        """Token ids of [`begin`]."""
        return [self.tokenizer.bos_token_id] if self.begin else []

    @cached_property
    def _added(self) -> tuple[str, ...]:
        return tuple(self.tokenizer.get_added_vocab())

    def render(self, record: Record) -> tuple[str, list[tuple[int, int]]]:
        """
        Text of a record, and the character range `[start, end)` of each answer in it.

        Raises:
            `ValueError`: the chat template refuses the turns.
        """
        if self.style == "plain" or not record.chat:
            separator = "\n" if record.chat else ""
            text, ranges = "", []
            for i, message in enumerate(record.messages):
                text += separator if i else ""
                content = content_text(message)
                if i in record.answer_turns:
                    ranges.append((len(text), len(text) + len(content)))
                text += content
            ends_with_answer = ranges and ranges[-1][1] == len(text)
            if self.end_of_turn and ends_with_answer and not text.endswith(self.tokenizer.eos_token or ""):
                text += self.tokenizer.eos_token
                ranges[-1] = (ranges[-1][0], len(text))
            return text, ranges
        try:
            return self._render_chat(record)
        except Exception as error:  # templates raise anything
            raise ValueError(f"the chat template refuses the turns ({_first_line(error)})") from error

    def _render_chat(self, record: Record) -> tuple[str, list[tuple[int, int]]]:
        whole = self.apply_template(record.messages, record)
        return whole, [self._answer_range(whole, record, turn) for turn in record.answer_turns]

    def _answer_range(self, whole: str, record: Record, turn: int) -> tuple[int, int]:
        """
        Character range of an answer in its rendered chat.

        It is what changes when a placeholder replaces the answer, whatever the template does to turns, such as
        dropping the reasoning of all but the last or adding an empty thought to the last.
        """
        messages, message = record.messages, record.messages[turn]
        content, calls = content_text(message).strip(), message.get("tool_calls")
        if not content and not calls:
            return 0, 0
        later = messages[turn + 1 :]
        if not calls and not (self.end_of_turn and later) and isinstance(message.get("content"), str):
            # Content that occurs once in the chat, after an answer's header, needs no placeholder.
            start, header = whole.find(content), self.known_header
            if header and whole.rfind(content) == start >= 0 and whole.endswith(header, 0, start):
                end = start + len(content)
                return start, _end_of_turn(whole, end, len(whole), self._added) if self.end_of_turn else end
        marked = {**message, "content": _PLACEHOLDER}
        if calls:
            del marked["tool_calls"]
        text = self.apply_template((*messages[:turn], marked, *later), record)
        before, placeholder, after = text.partition(_PLACEHOLDER)
        if not placeholder:
            raise ValueError("it leaves the text of an answer out")
        start = _common_prefix(before, whole)
        end = answer_end = max(start, len(whole) - _common_prefix(after[::-1], whole[::-1]))
        added = self._added if calls or self.end_of_turn else ()
        if calls:
            end = answer_end = _around(whole, end, added)[0]
        elif whole[start:end].strip() != content:
            # The template rewrites the answer, or the generation prompt holds its beginning (an opening thought tag).
            prompt = self.apply_template(messages[:turn], record, add_generation_prompt=True) if turn else before
            header = min(start, _common_prefix(prompt, whole))
            index = whole.find(content, header, end)
            if index >= 0:
                start, end = index, index + len(content)
            elif not content.endswith(whole[start:end].strip()):
                start = header
        text = whole[start:end]
        start, end = start + len(text) - len(text.lstrip()), start + len(text.rstrip())
        if self.end_of_turn and start < end:
            stop = len(whole)
            if later:
                suffix = self.apply_template((*messages[:turn], marked), record).partition(_PLACEHOLDER)[2]
                token, stop = _around(whole, answer_end + _common_prefix(suffix, whole[answer_end:]), added)
                stop = token if whole[answer_end:token].strip() else stop
            end = _end_of_turn(whole, end, stop, added)
        return start, end

    def prompt_ids(self, record: Record) -> list[int]:
        """Token ids of everything before the last answer, with the generation prompt for chats."""
        before = record.messages[: record.answer_turns[-1]]
        if self.style == "plain" or not record.chat:
            text = ("\n" if record.chat else "").join(map(content_text, before))
            return self.tokenize([text], special_tokens=True)[0]
        text = self.apply_template(before, record, add_generation_prompt=True)
        return self.tokenize([text], special_tokens=False)[0]

    def tokenize(self, texts: list[str], special_tokens: bool) -> list[list[int]]:
        """Token ids of texts, with the tokenizer's BOS token for plain ones, never with an added EOS token."""
        if not texts:
            return []
        options = {"return_attention_mask": False, "return_token_type_ids": False, "verbose": False}
        ids = self.tokenizer(texts, add_special_tokens=special_tokens, **options)["input_ids"]
        end = self.tokenizer.eos_token_id if special_tokens else None
        return [
            row[:-1]
            if row and end is not None and row[-1] == end and not text.endswith(self.tokenizer.eos_token)
            else row
            for row, text in zip(ids, texts, strict=True)
        ]


def _first_line(error: Exception) -> str:
    return printable((str(error).strip().splitlines() or [type(error).__name__])[0])


@lru_cache(maxsize=8)
def _added_token(added: tuple[str, ...]) -> re.Pattern:
    return re.compile("|".join(re.escape(token) for token in sorted(added, key=len, reverse=True)) or r"(?!)")


def _common_prefix(beginning: str, text: str) -> int:
    """Length of the common prefix of two texts."""
    return len(beginning) if text.startswith(beginning) else len(commonprefix([beginning, text]))


def _around(whole: str, position: int, added: tuple[str, ...]) -> tuple[int, int]:
    """Start and end of the added token that contains `position`; otherwise `position` twice."""
    candidates = _added_token(added).finditer(whole, max(0, position - max(map(len, added), default=0)))
    return next((token.span() for token in candidates if token.start() < position < token.end()), (position, position))


def _end_of_turn(whole: str, end: int, stop: int, added: tuple[str, ...]) -> int:
    """End of a turn: after its first special token, or before its trailing whitespace."""
    token = _added_token(added).search(whole, end, stop)
    return token.end() if token else end + len(whole[end:stop].rstrip())
