"""Judges that run here: a causal model's words and digit logits. For reward models see `engines/reward.py`."""

import logging
import math
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import is_peft_model
from datasets import concatenate_datasets
from jinja2 import TemplateError
from scipy.special import softmax
from torch import nn
from tqdm.auto import tqdm
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from ...errors import SelectionError
from ..forward import likelihood
from ..forward.generation import generate_ids, stop_ids
from ..forward.likelihood import _answer_logits, shared_start
from ..runtime.batching import batches_by_tokens
from ..runtime.cached_map import measured
from ..runtime.loading import load_pretrained
from ..runtime.token_rows import TokenRows
from ..store.identity import digest, model_identity
from ..store.replies import Reply
from .judge import Conversation, Judge, JudgeError, checked_conversation, parse_spec, well_formed
from .judge_options import JudgeOptions


logger = logging.getLogger(__name__)

#: Batches that are generated before their replies are kept.
BATCHES_BETWEEN_RECORDS = 4
#: Questions that are tokenized and sorted by length together.
QUESTIONS_AT_A_TIME = 4096


class LocalJudge(Judge):
    """A model that runs here: how its prompts are made."""

    on_all_ranks = True
    #: Whether conversations are spelled by a chat template.
    chats = True

    def __init__(
        self,
        name: str,
        model: nn.Module,
        tokenizer: Any,
        *,
        options: JudgeOptions | None = None,
        cache_dir: Path | None = None,
        accelerator: Accelerator | None = None,
        batch_tokens: int = 1536,
        dtype: str = "auto",
    ):
        super().__init__(name, options, cache_dir, accelerator)
        if self.chats and not tokenizer.chat_template:
            raise ValueError(f"`judge={name!r}`: its tokenizer has no chat template, which a judge needs.")
        self.model, self.tokenizer = model, tokenizer
        self.batch_tokens, self.dtype, self.cache_dir = batch_tokens, dtype, cache_dir

    def _unwrapped(self) -> nn.Module:
        return self.accelerator.unwrap_model(self.model) if self.accelerator else self.model

    @property
    def identity(self) -> str:
        return digest(self._identity())  # the same wherever its folder is

    def _identity(self) -> Any:
        return model_identity(self._unwrapped()), self.tokenizer.chat_template

    def prompt_ids(self, question: Conversation | str, reply: bool = True) -> list[int] | None:
        """
        Token ids of a conversation, with `reply` up to where the reply begins, or of a text as it is; `None` if the
        chat template refuses. A conversation can't spell control tokens: an invisible space goes into those.
        """
        if isinstance(question, str):
            return self.tokenizer(well_formed(question))["input_ids"]
        question = [{**message, "content": self._defused(message["content"])} for message in question]
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

    def _defused(self, text: str) -> str:
        added = self.tokenizer.added_tokens_decoder.values()
        for token in {*self.tokenizer.all_special_tokens, *(token.content for token in added if token.special)}:
            if token in text:
                text = text.replace(token, f"{token[0]}\u200b{token[1:]}")
        return text

    @property
    def _window(self) -> float:
        """Positions that the model has."""
        return getattr(self._unwrapped().config.get_text_config(), "max_position_embeddings", None) or math.inf

    def _too_long(self, ids: Sequence[int], new: int) -> bool:
        return len(ids) + new > self._window

    def _measured(
        self,
        prompts: Iterable[Sequence[int] | None],
        width: int,
        namespace: dict[str, Any],
        begin: Callable[[nn.Module, TokenRows, np.ndarray], Callable[[np.ndarray], np.ndarray]],
        progress: str | None,
    ) -> np.ndarray:
        """
        `width` numbers a prompt, computed where they are not kept yet; NaN for a prompt that is missing, empty or
        longer than the model's window.
        """
        started, model = time.perf_counter(), self._unwrapped()
        waiting, parts, usable, count = iter(prompts), [], [], 0
        # Some at a time: as lists, the tokens of all would take nine times the memory.
        while block := list(islice(waiting, QUESTIONS_AT_A_TIME)):
            fits = [row for row, ids in enumerate(block) if ids and not self._too_long(ids, 0)]
            spans = [[(len(block[row]), len(block[row]) + 1)] for row in fits]
            parts.append(TokenRows.from_lists([block[row] for row in fits], spans).dataset)
            usable += [count + row for row in fits]
            count += len(block)
        found = np.full((count, width), np.nan)
        self.cost.failed += count - len(usable)
        if not usable:
            return found
        rows = TokenRows(concatenate_datasets(parts))

        def checked(todo: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
            self._check_calls(len(todo))
            return begin(model, rows, todo)

        result = measured(
            model,
            rows,
            width,
            namespace,
            (sys.modules[__name__], likelihood),
            checked,
            batch_tokens=self.batch_tokens,
            dtype=self.dtype,
            accelerator=self.accelerator,
            cache_dir=self.cache_dir,
            progress=progress,
        )
        cost = self.cost
        cost.calls += result.computed
        cost.cached += result.cached
        cost.cached_seconds += result.cached_seconds
        cost.prompt_tokens += result.computed_tokens
        cost.money = self.options.money(cost.prompt_tokens, cost.completion_tokens)
        cost.seconds += time.perf_counter() - started
        found[usable] = result.values
        return found


class ModelJudge(LocalJudge):
    """
    A causal model as judge: greedy replies, or the logits of the next token.

    Args:
        name (`str`):
            For the record; the model itself is told apart by its weights. Empty for the model at hand.
        model, tokenizer:
            The model, on its device, and its tokenizer, which needs a chat template.
        options, cache_dir, accelerator:
            As in [`Judge`].
        batch_tokens (`int`, *optional*, defaults to `1536`):
            Tokens of a batch.
        dtype (`str`, *optional*, defaults to `"auto"`):
            Dtype of [`digit_logits`], see [`scoring_dtype`].
        vllm_memory (`float`, *optional*):
            Let vLLM write the replies, see [`generate`].

    Raises:
        `ValueError`: no chat template.
    """

    def __init__(
        self, name: str, model: nn.Module, tokenizer: Any, *, vllm_memory: float | None = None, **options: Any
    ):
        super().__init__(f"model:{name}" if name else "self", model, tokenizer, **options)
        self.vllm_memory = vllm_memory
        # Version 0.1.0 could leave the trainer's autocast on.
        self._details = ([] if name else ["without autocast"]) + (["vllm"] if vllm_memory is not None else [])

    def _identity(self) -> Any:
        return *super()._identity(), *self._details

    def _answer(
        self, questions: dict[str, Conversation], max_new_tokens: int, progress: str | None
    ) -> dict[str, Reply]:
        if max_new_tokens >= self._window:
            raise JudgeError(
                f"`max_new_tokens={max_new_tokens}` leaves no room for a question in the {self._window} positions of "
                f"`judge={self.name!r}`: lower it."
            )
        replies, waiting, stops = {}, iter(questions.items()), set(stop_ids(self._unwrapped(), self.tokenizer))
        ranks = self.accelerator.num_processes if self.accelerator else 1
        # Replies are kept after every few batches, so that a kill loses no more than these; vLLM makes its own.
        at_once = self.batch_tokens * ranks * BATCHES_BETWEEN_RECORDS if self.vllm_memory is None else sys.maxsize
        shown = progress is not None and self.is_main_process
        with tqdm(total=len(questions), desc=progress, unit="call", disable=not shown) as bar:
            while block := dict(islice(waiting, QUESTIONS_AT_A_TIME)):
                prompts = {}
                for key, question in block.items():
                    ids = self.prompt_ids(question)
                    if ids and not self._too_long(ids, max_new_tokens):
                        prompts[key] = ids
                        continue
                    why = "the prompt is empty or longer than the model's window"
                    if ids is None:
                        why = "the chat template refuses these messages"
                    elif ids and not self._too_long(ids, 1):
                        why = f"the prompt and `max_new_tokens` {max_new_tokens} are longer than the model's window"
                    replies[key] = self._record(key, Reply(None, why))
                    bar.update()
                keys = list(prompts)
                lengths = [len(prompts[key]) + max_new_tokens for key in keys]
                for part in batches_by_tokens(lengths, at_once):
                    answers = generate_ids(
                        self.model,
                        self.tokenizer,
                        [prompts[keys[place]] for place in part],
                        max_new_tokens=max_new_tokens,
                        batch_tokens=self.batch_tokens,
                        accelerator=self.accelerator,
                        vllm_memory=self.vllm_memory,
                        skip_oversized=True,
                    )
                    seconds = self._lap(len(part))
                    for place, ids in zip(part, answers, strict=True):
                        key, ended = keys[place], bool(ids) and ids[-1] in stops
                        if ids is None:
                            why = "the prompt and a reply do not fit in memory"
                            replies[key] = self._record(key, Reply(None, why), passing=True)
                            continue
                        text = self.tokenizer.decode(ids[:-1] if ended else ids, skip_special_tokens=True)
                        said = (text, None) if text.strip() else (None, "empty")
                        reply = Reply(*said, len(prompts[key]), len(ids), not ended, seconds)
                        replies[key] = self._record(key, reply)
                    bar.update(len(part))
        return replies

    def digit_logits(
        self,
        prompts: Iterable[Conversation | str],
        digits: Sequence[str] = ("1", "2", "3", "4", "5"),
        progress: str | None = None,
    ) -> np.ndarray:
        """
        Logits of the reply's first token being one of `digits`, from one forward a prompt. Their expectation, see
        [`expected_rating`], is another estimate of the rating than the number that the model would write.

        Args:
            prompts (`Iterable`):
                Conversations, or texts that are taken as they are; only their tokens are held.
            digits (`Sequence[str]`, *optional*):
                Texts of one token each.
            progress (`str`, *optional*):
                Label of a progress bar.

        Returns:
            `np.ndarray`: float64 `(n, len(digits))`; NaN for a digit that is not one token, and for a prompt that is
            empty, refused by the chat template, longer than the model's window or too big for the memory.
        """
        known = [(column, id) for column, id in enumerate(digit_ids(self.tokenizer, digits)) if id is not None]
        if not known:
            return np.full((sum(1 for _ in prompts), len(digits)), np.nan)
        columns, wanted = zip(*known, strict=True)
        ids = (
            self.prompt_ids(prompt if isinstance(prompt, str) else checked_conversation(prompt, row))
            for row, prompt in enumerate(prompts)
        )
        namespace = {"engine": "next_token", "tokens": list(wanted)}
        logits = self._measured(ids, len(columns), namespace, partial(_next_token, torch.tensor(wanted)), progress)
        found = np.full((len(logits), len(digits)), np.nan)
        found[:, columns] = logits
        return found


def digit_ids(tokenizer: Any, digits: Sequence[str]) -> list[int | None]:
    """The one token that a digit is, or `None`."""
    vocabulary, ids = tokenizer.get_vocab(), []
    for digit in digits:
        encoded = tokenizer(digit, add_special_tokens=False)["input_ids"]
        ids.append(vocabulary.get(digit, encoded[0] if len(encoded) == 1 else None))
    return ids


def expected_rating(logits: np.ndarray, values: Sequence[float]) -> np.ndarray:
    """Mean of `values` under the softmax of `logits` `(n, len(values))`, float64 `(n,)`; NaN if a logit is missing."""
    return softmax(np.asarray(logits, np.float64), axis=1) @ np.asarray(values, np.float64)


def _next_token(
    ids: torch.Tensor, model: nn.Module, rows: TokenRows, todo: np.ndarray
) -> Callable[[np.ndarray], np.ndarray]:
    """
    A function from a batch of rows to the logits `(rows, len(ids))` of these tokens behind each: one forward, these
    rows of the head only, and the start that most rows share computed once.
    """
    inner = model.get_base_model() if is_peft_model(model) else model
    device, start = next(model.parameters()).device, shared_start(rows, todo)
    logits_of, skipped = _answer_logits(model, inner, device, start, ids)

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


def padded(rows: Sequence[np.ndarray], filler: int) -> torch.Tensor:
    """Rows in one int64 tensor, filled on the right."""
    tensors = [torch.from_numpy(row.astype(np.int64)) for row in rows]
    return nn.utils.rnn.pad_sequence(tensors, batch_first=True, padding_value=filler)


def load_model(spec: str, accelerator: Accelerator | None = None) -> tuple[nn.Module, Any]:
    """
    The model and the tokenizer of `model:NAME` or `reward:NAME`, by hub name or folder, on the accelerator's device.

    Raises:
        [`SelectionError`]: they can't be loaded, the tokenizer is not the model's, or weights are missing (a language
            model has no head that rewards).
    """
    kind, name = parse_spec(spec)
    loader = AutoModelForSequenceClassification if kind == "reward" else AutoModelForCausalLM
    try:
        return load_pretrained(loader, name, accelerator)
    except (OSError, ValueError) as error:
        raise SelectionError(f"`judge={spec!r}` can't be loaded: {error}") from error
