"""A model and its tokenizer on this rank's device: prompts, window, and cached per-row computation."""

import math
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property, partial
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from accelerate.utils import extract_model_from_parallel, is_peft_model
from datasets import Dataset
from jinja2 import TemplateError
from torch import nn

from ...compat.accelerate import device_of
from ..forward.likelihood import common_prefix, logits_at
from ..runtime.batching import padded
from ..runtime.cached_map import Mapped, measured
from ..runtime.model_state import positions
from ..runtime.runtime import Runtime
from ..runtime.token_rows import TOKEN_FEATURES, TokenRows
from ..store.identity import identity_of
from ..store.scratch import scratch_table
from .judge import Conversation, checked_conversation, well_formed


#: Questions that are tokenized and sorted by length together.
QUESTIONS_AT_A_TIME = 4096


class LocalModel:
    """
    The part that local judges, reward models and generators share.

    Args:
        model, tokenizer:
            The model, on its device (also wrapped by accelerate), and its tokenizer.
        bounded (`bool`, *optional*, defaults to `True`):
            Whether the positions of its config limit a prompt.
    """

    def __init__(self, model: nn.Module, tokenizer: Any, bounded: bool = True):
        self.model, self.tokenizer, self._bounded = model, tokenizer, bounded

    @property
    def unwrapped(self) -> nn.Module:
        """The model without what accelerate wraps around it."""
        return extract_model_from_parallel(self.model)

    @property
    def described(self) -> tuple[str, str | None]:
        """Weights and chat template, which decide its outputs."""
        return identity_of(self.unwrapped), self.tokenizer.chat_template

    @property
    def window(self) -> float:
        """Positions of the model."""
        return (self._bounded and positions(self.unwrapped)) or math.inf

    def prompt_ids(self, question: Conversation | str, reply: bool = True) -> list[int] | None:
        """
        Token ids of a conversation rendered with the chat template, with `reply` up to where the reply begins, or of a
        text as it is; `None` if the chat template refuses. Special tokens within a conversation are escaped.
        """
        if isinstance(question, str):
            return self.tokenizer(well_formed(question))["input_ids"]
        question = [{**message, "content": self.escaped(message["content"])} for message in question]
        merged = question
        if len(question) > 1 and question[0]["role"] == "system":  # some templates know no system role
            first, second, *rest = question
            merged = [{**second, "content": f"{first['content']}\n\n{second['content']}"}, *rest]
        for messages in (question, merged):
            try:
                text = self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=reply)
            except TemplateError:
                continue
            return self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return None

    def escaped(self, text: str) -> str:
        """The text with special tokens escaped: a zero-width space after their first character."""
        for token in self._special_tokens:
            if token in text:
                text = text.replace(token, f"{token[0]}\u200b{token[1:]}")
        return text

    @cached_property
    def _special_tokens(self) -> list[str]:
        """The longest first: one may hold another."""
        added = self.tokenizer.added_tokens_decoder.values()
        tokens = {*self.tokenizer.all_special_tokens, *(token.content for token in added if token.special)}
        return sorted(tokens, key=lambda token: (-len(token), token))

    def problem_of(self, ids: Sequence[int] | None, max_new_tokens: int) -> str | None:
        """Why no reply can be generated to a prompt; `None` if one can."""
        if ids is None:
            return "the chat template refuses these messages"
        if 0 < len(ids) <= self.window - max_new_tokens:
            return None
        if 0 < len(ids) <= self.window - 1:
            return f"the prompt and `max_new_tokens` {max_new_tokens} are longer than the model's window"
        return "the prompt is empty or longer than the model's window"

    def per_row(
        self,
        prompts: Iterable[Sequence[int] | None],
        width: int,
        runtime: Runtime,
        namespace: dict[str, Any],
        begin: Callable[[nn.Module, TokenRows, np.ndarray], Callable[[np.ndarray], np.ndarray]],
        *,
        label: str | None = None,
        passes: str | None = "forward",
        check: Callable[[int], None] = lambda rows: None,
    ) -> Mapped:
        """
        `width` numbers a prompt, computed or read from the cache, as [`measured`] gives them; NaN for a prompt that is
        missing, empty or longer than the window.

        Args:
            begin (`Callable`):
                Model, rows, and the numbers of those to compute -> a function from a batch of them to its numbers.
            check (`Callable`, *optional*):
                Called with the number of rows to compute before the first of them.
            prompts, width, runtime, namespace, label, passes:
                Token ids; the rest as in [`measured`].
        """
        model, waiting, fit = self.unwrapped, iter(prompts), []

        def tables() -> Iterator[pa.Table]:
            while block := list(islice(waiting, QUESTIONS_AT_A_TIME)):
                fits = [ids for ids in block if ids and len(ids) <= self.window]
                fit.append(np.array([bool(ids) and len(ids) <= self.window for ids in block]))
                yield TokenRows.from_lists(fits, [[(len(ids), len(ids) + 1)] for ids in fits]).dataset.data.table

        def checked(todo: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
            check(len(todo))
            return begin(model, rows, todo)

        with scratch_table(runtime.cache_dir, TOKEN_FEATURES.arrow_schema, tables()) as table:
            usable = np.concatenate([np.zeros(0, bool), *fit])
            values = np.full((len(usable), width), np.nan)
            if not usable.any():
                return Mapped(values, 0, 0, 0, 0.0)
            rows = TokenRows(Dataset(table, fingerprint=uuid.uuid4().hex))  # a hash of it would copy it
            mapped = measured(model, rows, runtime, width, namespace, checked, label, passes)
        values[usable] = mapped.values
        return mapped._replace(values=values)

    def digit_logits(
        self, prompts: Iterable[Conversation | str], digits: Sequence[str], runtime: Runtime, **options: Any
    ) -> Mapped:
        """
        Logits of the next token being one of `digits`, from one forward a prompt.

        Args:
            prompts (`Iterable`):
                Conversations, or texts that are taken as they are; only their tokens are held.
            digits (`Sequence[str]`):
                Texts of one token each.
            runtime, options:
                As in [`per_row`].

        Returns:
            [`Mapped`]: `values` is float64 `(n, len(digits))`; NaN for a digit that is not one token, and for a prompt
            that is empty, refused by the chat template, longer than the window or does not fit in memory.
        """
        known = [(column, id) for column, id in enumerate(digit_ids(self.tokenizer, digits)) if id is not None]
        if not known:
            return Mapped(np.full((sum(1 for _ in prompts), len(digits)), np.nan), 0, 0, 0, 0.0)
        columns, wanted = zip(*known, strict=True)
        ids = (
            self.prompt_ids(prompt if isinstance(prompt, str) else checked_conversation(prompt, row))
            for row, prompt in enumerate(prompts)
        )
        # Raise the version when a logit of an unchanged prompt and model changes by more than rounding.
        namespace = {"engine": "next_token", "version": 1, "tokens": list(wanted)}
        begin = partial(_next_token, torch.tensor(wanted))
        mapped = self.per_row(ids, len(columns), runtime, namespace, begin, **options)
        logits = np.full((len(mapped.values), len(digits)), np.nan)
        logits[:, columns] = mapped.values
        return mapped._replace(values=logits)


def digit_ids(tokenizer: Any, digits: Sequence[str]) -> list[int | None]:
    """The one token that a digit is; `None` where it is several, or that of what the tokenizer does not know."""
    vocabulary, ids = tokenizer.get_vocab(), []
    for digit in digits:
        encoded = tokenizer(digit, add_special_tokens=False)["input_ids"]
        ids.append(vocabulary.get(digit, encoded[0] if len(encoded) == 1 else None))
    return [id if ids.count(id) == 1 and id != tokenizer.unk_token_id else None for id in ids]


def _next_token(
    ids: torch.Tensor, model: nn.Module, rows: TokenRows, todo: np.ndarray
) -> Callable[[np.ndarray], np.ndarray]:
    """
    A function from a batch of rows to the logits `(rows, len(ids))` of these tokens after each: one forward, these
    rows of the head only, and the KV cache of the common prefix computed once.
    """
    inner = model.get_base_model() if is_peft_model(model) else model
    device, start = device_of(model), common_prefix(rows, todo)
    logits_of, skipped = logits_at(model, inner, device, start, ids)

    def compute(batch: np.ndarray) -> np.ndarray:
        taken, result = [row for row, _ in rows.take(batch)], np.full((len(batch), len(ids)), np.nan)
        shares = np.array([len(row) > skipped > 0 and np.array_equal(row[:skipped], start) for row in taken])
        for group, skip in ((np.flatnonzero(shares), skipped), (np.flatnonzero(~shares), 0)):
            if len(group):
                filled = padded([taken[place][skip:] for place in group], filler=0)  # stands where no row sees it
                ends = torch.tensor([len(taken[place]) - skip - 1 for place in group])
                places = torch.arange(len(group)) * filled.shape[1] + ends
                for logits, part in logits_of(filled.to(device), places.to(device), skip):
                    result[group[part]] = logits.float().cpu().numpy()
        return result

    return compute
