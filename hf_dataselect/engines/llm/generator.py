"""Model-generated responses: greedy replies of a local model to token ids, cached as they come."""

import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from torch import nn
from tqdm.std import tqdm

from ..forward.generation import generate_ids, stop_ids
from ..runtime.batching import batches_by_tokens
from ..runtime.runtime import Runtime
from ..runtime.shared_work import alone
from ..store.files import check_cache
from ..store.identity import digest
from ..store.replies import Reply
from .local_model import QUESTIONS_AT_A_TIME, LocalModel
from .metered import TextModel


#: Batches that are generated before their replies are recorded.
BATCHES_BETWEEN_RECORDS = 4


@contextmanager
def missing_replies(model: TextModel, questions: dict[str, Any]) -> Iterator[tuple[dict[str, Reply], dict[str, Any]]]:
    """
    Replies that another run has kept meanwhile, by key, and the questions that are left. Inside, no other run with the
    same questions answers them.
    """
    runtime = model.runtime
    if runtime.cache_dir is None or not runtime.on_main(lambda: check_cache(runtime.cache_dir)):
        yield {}, questions
        return
    lock = Path(runtime.cache_dir) / "judge" / f"{digest(sorted(questions))}.lock"
    with alone(runtime, lock, "generating the same replies"):
        found = runtime.on_main(lambda: model._store.load(questions))
        model.cost.cached += len(found)
        model.cost.cached_seconds += sum(reply.seconds for reply in found.values())
        yield found, {key: question for key, question in questions.items() if key not in found}


def generated_replies(
    model: TextModel,
    local: LocalModel,
    prompts: Iterable[tuple[str, Sequence[int] | None]],
    max_new_tokens: int,
    bar: tqdm,
) -> dict[str, Reply]:
    """
    Greedy replies by key, recorded by `model` as they come.

    Args:
        prompts (`Iterable`):
            Key and token ids of each prompt; `None` where the chat template refuses it.
        bar ([`~tqdm.tqdm`]):
            Advanced by one a reply.
    """
    runtime, tokenizer = model.runtime, local.tokenizer
    replies, waiting, stops = {}, iter(prompts), set(stop_ids(local.unwrapped, tokenizer))
    # Replies are kept after every few batches, so that a kill loses no more than these; vLLM makes its own.
    at_once = runtime.batch_tokens * runtime.world * BATCHES_BETWEEN_RECORDS
    at_once = at_once if runtime.vllm_memory is None else sys.maxsize
    while block := dict(islice(waiting, QUESTIONS_AT_A_TIME)):
        for key, ids in list(block.items()):
            if problem := local.problem_of(ids, max_new_tokens):
                replies[key] = model.record(key, Reply(None, problem))
                del block[key]
                bar.update()
        keys = list(block)
        for part in batches_by_tokens([len(block[key]) + max_new_tokens for key in keys], at_once, most_padding=1):
            answers = generate_ids(
                local.model,
                tokenizer,
                [block[keys[place]] for place in part],
                runtime,
                max_new_tokens=max_new_tokens,
                skip_oversized=True,
            )
            seconds = model.lap(len(part))
            for place, ids in zip(part, answers, strict=True):
                key, ended = keys[place], bool(ids) and ids[-1] in stops
                if ids is None:
                    why = "the prompt and a reply do not fit in memory"
                    replies[key] = model.record(key, Reply(None, why), transient=True)
                    continue
                text = tokenizer.decode(ids[:-1] if ended else ids, skip_special_tokens=True)
                text, problem = (text, None) if text.strip() else (None, "empty")
                reply = Reply(text, problem, len(block[key]), len(ids), not ended, seconds)
                replies[key] = model.record(key, reply)
            bar.update(len(part))
    return replies


def generation_details(runtime: Runtime, current: bool) -> list[str]:
    """What else decides the replies of a local model; `current` is `True` for the trainer's model."""
    # Version 0.1.0 could leave the trainer's autocast on.
    return (["without autocast"] if current else []) + (["vllm"] if runtime.vllm_memory is not None else [])


def _arrays(prompts: Iterable[Sequence[int]]) -> Iterator[np.ndarray]:
    return (np.asarray(ids, np.int32) for ids in prompts)


class Generator(TextModel):
    """
    The current model, temporarily fine-tuned or not, responds to the very prompts that it is trained on.

    Args:
        model, tokenizer:
            The model, on its device, and its tokenizer.
        runtime ([`Runtime`]):
            Ranks, batches, cache and account.
        rendering (`str`):
            Hash of how rows become token ids; part of the cache key, as the ids are.
    """

    booked_as: ClassVar[dict[str, str]] = {"answered_rows": "calls", "cached_rows": "cached"}

    def __init__(self, model: nn.Module, tokenizer: Any, runtime: Runtime, rendering: str):
        super().__init__("the tuned model", runtime)
        self.local, self.rendering = LocalModel(model, tokenizer), rendering

    def generate(
        self, prompts: Iterable[Sequence[int]], *, max_new_tokens: int, label: str | None = None
    ) -> list[Reply]:
        """
        Greedy responses to token ids, the same on all ranks.

        Args:
            prompts (`Iterable`):
                Token ids, special tokens included.
            max_new_tokens (`int`):
                Length of a response at most; one whose prompt leaves fewer positions is shorter, see [`room`].
            label (`str`, *optional*):
                Label of the progress bar.

        Returns:
            `list[Reply]`: `problem` says why a response is missing.
        """
        return self._replies(_arrays(prompts), max_new_tokens, label)

    def room(self, prompt: Sequence[int]) -> float:
        """Positions that a prompt leaves for a response."""
        return self.local.window - max(1, len(prompt))

    @property
    def identity(self) -> str:
        return digest(self._identity())

    def _identity(self) -> Any:
        return *self.local.described, *generation_details(self.runtime, current=True)

    def _content(self, question: np.ndarray) -> Any:
        # The form of version 0.1.0, so that its cached responses stay valid.
        return [{"role": self.rendering, "content": " ".join(map(str, question.tolist()))}]

    def _prompt_tokens(self, questions: Iterable[np.ndarray]) -> int:
        return sum(map(len, questions))

    def _answer(self, questions: dict[str, np.ndarray], max_new_tokens: int, label: str | None) -> dict[str, Reply]:
        groups = {}
        with (
            missing_replies(self, questions) as (replies, left),
            self.runtime.progress(len(left), label, "call") as bar,
        ):
            for key, ids in left.items():
                groups.setdefault(max(1, min(self.room(ids), max_new_tokens)), {})[key] = ids
            for length in sorted(groups, reverse=True):
                replies |= generated_replies(self, self.local, groups[length].items(), length, bar)
        return replies


class Texts:
    """
    Texts of responses, in order, read again as they are iterated: from the disk where there is a cache. `None` for a
    prompt without a response; an empty one is a text. They don't hold the model.

    Args:
        generator ([`Generator`]):
            What generates them.
    """

    def __init__(self, generator: Generator):
        self._store, self._runtime, self._keys = generator._store, generator.runtime, bytearray()

    def add(self, generator: Generator, prompts: Iterable[Sequence[int]], max_new_tokens: int) -> None:
        """Take in the responses to these prompts, which [`~Generator.generate`] has made."""
        for key in generator._by_key(_arrays(prompts), max_new_tokens)[0]:
            self._keys += bytes.fromhex(key)

    def __iter__(self) -> Iterator[str | None]:
        for first in range(0, len(self._keys), 16 * QUESTIONS_AT_A_TIME):
            part = bytes(self._keys[first : first + 16 * QUESTIONS_AT_A_TIME])
            keys = [part[place : place + 16].hex() for place in range(0, len(part), 16)]
            replies = self._runtime.on_main(partial(self._store.load, keys))
            for reply in map(replies.get, keys):
                yield "" if reply is not None and reply.problem == "empty" else reply and reply.text
