"""Token losses of answers under noisy embeddings, after their prompts and alone (T-SHIRT, arXiv 2506.01317)."""

import time
from collections.abc import Callable, Sequence

import numpy as np
import torch
from accelerate.utils import is_peft_model
from torch import nn

from ...compat.transformers import attention_implementation
from ..runtime.model_state import scoring, scoring_dtype
from ..runtime.runtime import Runtime
from ..runtime.shared_work import missing, of_part
from ..runtime.token_rows import TokenRows
from .likelihood import scorer


#: Raise it when a loss of an unchanged row, model and noise changes by more than rounding.
VERSION = 1

#: Key of a row, copies, tokens, width -> noise `(copies, tokens, width)` from -1 to 1.
Noise = Callable[[bytes, int, int, int], torch.Tensor]


def noisy_deltas(
    model: nn.Module,
    whole: TokenRows,
    alone: Sequence[TokenRows],
    runtime: Runtime,
    copies: int,
    alpha: float,
    noise: Noise | None = None,
    seed: int = 0,
    label: str | None = None,
) -> Sequence[np.ndarray]:
    """
    What the prompt changes in the loss of each answer token, under copies of the row with uniform noise of
    `alpha / sqrt(tokens x width)` on its embeddings; an answer alone gets the noise that it has in its row.

    Args:
        whole ([`TokenRows`]):
            Rows, each with the spans of its answers.
        alone (`Sequence`):
            Of each row, its answers without their prompts.
        copies (`int`):
            Noisy copies; 0 is one without noise.
        noise (`Callable`, *optional*):
            By default drawn for each row from its content and the seed.

    Returns:
        `Sequence`: float32 `(copies, 1 + tokens)` flattened a row: mean loss given the prompt - mean loss alone, and
        of each token that has both losses, loss given the prompt - loss alone. Empty for a row without such a token,
        one whose answers have other tokens when they stand alone, or one that did not fit in memory.
    """
    inner = model.get_base_model() if is_peft_model(model) else model
    dtype, draw = scoring_dtype(model, runtime.dtype), noise or _drawn(seed)
    described = {"copies": copies, "alpha": alpha, "seed": seed, "attention": attention_implementation(model)}
    namespace = {"engine": "noisy losses", "version": VERSION, "model": runtime.identity(model), "dtype": str(dtype)}
    own = whole.keys()
    keys = own if noise is None else np.array([key.tobytes()[::-1] for key in own], "V16")
    store = runtime.token_store(namespace | described)
    _, first = np.unique(keys, return_index=True)
    with missing(runtime, store, keys[first]) as stored:
        todo = np.sort(first[~stored.known])
        if len(todo):
            with torch.no_grad(), scoring(model, dtype):
                score, _, _ = scorer(model, np.zeros(0, np.int32), wants=("token losses",))

                def compute(batch: np.ndarray) -> np.ndarray:
                    (row,) = batch
                    began = time.perf_counter()
                    found = _of_row(
                        score, inner, whole.take([row])[0], alone[row], copies, alpha, draw, own[row], runtime
                    )
                    store.append(keys[batch], [found], (time.perf_counter() - began) / runtime.world)
                    return np.zeros((1, 1))

                runtime.map(compute, whole.lengths, 1, rows=todo, batch_tokens=1, label=label)
    store.close()
    runtime.wait()
    if store.memory:
        for part in runtime.gather(store.memory):
            store.memory.update(part)
    passes = {
        "forward_rows": 2 * max(copies, 1) * len(todo),
        "cached_rows": int(of_part(runtime, keys).sum()) - len(todo),
    }
    passes["forward_tokens"] = 2 * max(copies, 1) * int(whole.lengths[todo].sum())
    runtime.book(cached_seconds=float(stored.earlier.sum()), **passes)
    return store.in_memory(keys) if store.memory or store.folder is None else store.find(keys).values


def _of_row(score, inner, row, alone, copies, alpha, draw, key, runtime) -> np.ndarray:
    ids, spans = row
    answers = alone.take(range(len(alone)))
    width, length = inner.get_input_embeddings().weight.shape[1], len(ids)
    if len(spans) == 0:
        return np.zeros(0, np.float32)
    drawn = draw(key.tobytes(), copies, length, width) * (alpha / np.sqrt(length * width)) if copies else None
    given = _losses(score, inner, ids, spans, drawn, runtime)
    if given.shape[1] == 0 or len(answers) != len(spans):
        return np.zeros(0, np.float32)
    parts, shared, first = [], [], 0
    for (start, end), (own, own_spans) in zip(spans.tolist(), answers, strict=True):
        tokens = end - max(start, 1)
        begin = int(own_spans[0, 0]) if len(own_spans) else len(own)
        if len(own) - begin != end - start:
            return np.zeros(0, np.float32)  # tokenized otherwise without the prompt
        noise = None
        if drawn is not None:
            noise = torch.cat([torch.zeros(len(drawn), begin, width), drawn[:, start:end]], 1)
        part = _losses(score, inner, own, own_spans, noise, runtime)
        parts.append(part)
        shared.append(given[:, first + tokens - part.shape[1] : first + tokens])  # all, or all but the first token
        first += tokens
    without, with_prompt = np.concatenate(parts, 1), np.concatenate(shared, 1)
    if without.shape[1] == 0:
        return np.zeros(0, np.float32)
    change = given.mean(1, dtype=np.float64) - without.mean(1, dtype=np.float64)
    return np.column_stack([change, with_prompt - without]).astype(np.float32).ravel()


def _losses(score, inner, ids, spans, noise, runtime) -> np.ndarray:
    """Token losses of a row under each noise, `(copies, label tokens)`; some copies at a time."""
    copies = 1 if noise is None else len(noise)
    step, found = max(1, runtime.batch_tokens // max(1, len(ids))), []
    for first in range(0, copies, step):
        part = None if noise is None else noise[first : first + step]
        size = copies if part is None else len(part)

        def add(module, args, embedded, part=part):
            if part is None:
                return embedded
            noise = nn.functional.pad(part, (0, 0, 0, embedded.shape[1] - part.shape[1]))  # padding gets none
            return embedded + noise.to(embedded.device, embedded.dtype)

        more: dict[str, list] = {}
        hook = inner.get_input_embeddings().register_forward_hook(add)
        try:
            score([(ids, spans)] * size, more)
        finally:
            hook.remove()
        found += more["token losses"]
    return np.stack(found)


def _drawn(seed: int) -> Noise:
    def draw(key: bytes, copies: int, tokens: int, width: int) -> torch.Tensor:
        numbers = np.random.default_rng([seed, *key])
        return torch.from_numpy(numbers.uniform(-1, 1, (copies, tokens, width)).astype(np.float32))

    return draw
