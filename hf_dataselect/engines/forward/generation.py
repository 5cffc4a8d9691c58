"""Greedy generation with the current model, in batches, sharded across ranks."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import numpy as np
import torch
from transformers import GenerationConfig, LogitsProcessor, PreTrainedModel, PreTrainedTokenizerBase

from ...compat.accelerate import device_of, out_of_memory
from ...compat.transformers import without_router_logits
from ...errors import SelectionError
from ..runtime.model_state import evaluating, positions
from ..runtime.runtime import Runtime
from ..runtime.sharding import callable_by_parts, sharding_of_model
from .vllm import vllm_ids


logger = logging.getLogger(__name__)


def stop_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Token ids that end a response: the tokenizer's EOS and those of the model's `generation_config`, ascending."""
    config = getattr(model, "generation_config", None)
    named = getattr(config, "eos_token_id", None)
    ids = {tokenizer.eos_token_id, *(named if isinstance(named, (list, tuple)) else [named])}
    return sorted(ids - {None})


@contextmanager
def _greedy(model: PreTrainedModel, config: GenerationConfig) -> Iterator[None]:
    """Model in eval mode, with `config` as its only generation settings; both are restored afterwards."""
    # `generate` takes settings that its argument does not set from the model's own (repetition penalties, forced
    # tokens, ...), so these are replaced. A `PeftModel` passes on the settings of its base model.
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    own, inner.generation_config = inner.generation_config, config
    try:
        with evaluating(model), callable_by_parts(model), without_router_logits(inner):
            yield
    finally:
        inner.generation_config = own


class _NaN(LogitsProcessor):
    """Notes the rows with NaN among the logits, which `argmax` takes for the largest."""

    seen: torch.Tensor | None = None

    def __call__(self, input_ids, scores):
        nan = scores.isnan().any(-1)
        self.seen = nan if self.seen is None else self.seen | nan
        return scores


def generate_ids(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Sequence[int]],
    runtime: Runtime,
    *,
    max_new_tokens: int,
    label: str | None = None,
    skip_oversized: bool = False,
) -> list[list[int] | None]:
    """
    As [`generate`], but returns the new token ids. The last id of a complete response is one of [`stop_ids`]; one
    without it is truncated at `max_new_tokens`. With `skip_oversized`, a prompt that does not fit in memory even as a
    batch of one gives `None`.
    """
    if max_new_tokens < 1:
        raise ValueError(f"`max_new_tokens` must be at least 1, got {max_new_tokens}")
    accelerator = runtime.accelerator
    if accelerator is not None:
        model = accelerator.unwrap_model(model, keep_torch_compile=False)
    sharded = sharding_of_model(model) is not None
    prompts = [tuple(map(int, prompt)) for prompt in prompts]
    limit = positions(model)
    for row, prompt in enumerate(prompts):
        if not prompt:
            raise ValueError(f"`prompts[{row}]` has no tokens")
        if limit is not None and len(prompt) + max_new_tokens > limit:
            raise ValueError(
                f"`prompts[{row}]` has {len(prompt)} tokens: with `max_new_tokens` {max_new_tokens} that is more than "
                f"the {limit} positions of the model. Shorten the prompt or lower `max_new_tokens`."
            )
    if not prompts:
        return []

    # Greedy responses depend on the prompt only, so each unique prompt is processed once; sorting by content as well
    # as by length makes the batches independent of the order of the rows.
    rows = {prompt: row for row, prompt in reversed(list(enumerate(prompts)))}
    unique = sorted(rows, key=lambda prompt: (-len(prompt), prompt))
    stops = stop_ids(model, tokenizer)
    if runtime.vllm_memory is not None:
        options = {"max_new_tokens": max_new_tokens, "stops": stops}
        answers = dict(zip(unique, vllm_ids(model, tokenizer, unique, runtime, **options), strict=True))
        return [answers[prompt] for prompt in prompts]
    # Any id can be the padding, which is masked; a missing pad token is no reason to change the tokenizer.
    filler = next(iter(i for i in (tokenizer.pad_token_id, *stops, 0) if i is not None))
    config = GenerationConfig(
        do_sample=False,
        num_beams=1,
        max_new_tokens=max_new_tokens,
        eos_token_id=stops or None,
        pad_token_id=filler,
        use_cache=True,  # overrides `model.config.use_cache`, which gradient checkpointing turns off
    )

    def answer(batch: np.ndarray) -> np.ndarray:
        """`(rows, max_new_tokens)` of token id + 1, 0 after the end."""
        width, nan = max(len(unique[i]) for i in batch), _NaN()
        ids = torch.full((len(batch), width), filler)
        mask = torch.zeros_like(ids)
        for row, i in enumerate(batch):
            ids[row, width - len(unique[i]) :] = torch.tensor(unique[i])
            mask[row, width - len(unique[i]) :] = 1
        try:
            # `synced_gpus=False`: ranks have different numbers of batches, and do not wait for each other
            out = write(
                input_ids=ids.to(device_of(model)),
                attention_mask=mask.to(device_of(model)),
                generation_config=config,
                logits_processor=[nan],
                synced_gpus=False,
            )
        except Exception as error:
            if len(batch) > 1 or not out_of_memory(error):
                raise
            if skip_oversized:
                return np.full((1, max_new_tokens), -1, np.int32)
            row = rows[unique[batch[0]]]
            raise RuntimeError(
                f"`prompts[{row}]` ({width} tokens and `max_new_tokens` {max_new_tokens}) does not fit in memory even "
                "alone. Shorten the prompt, lower `max_new_tokens`, or load the model in a smaller dtype."
            ) from error
        if nan.seen is not None and nan.seen.any():
            row = rows[unique[batch[int(nan.seen.nonzero()[0])]]]
            raise SelectionError(
                f"The model's logits are not finite (NaN) after `prompts[{row}]`, so no token is the most likely: "
                "check its weights, or load it in another dtype."
            )
        new = out[:, width:].cpu().numpy().astype(np.int32)
        ended = np.cumsum(np.isin(new, stops), axis=1)
        ended[:, 1:] = ended[:, :-1].copy()  # the stop token itself belongs to the response
        ended[:, 0] = 0
        result = np.zeros((len(batch), max_new_tokens), np.int32)
        result[:, : new.shape[1]] = np.where(ended > 0, 0, new + 1)
        return result

    # `Trainer` gives a sharded model a method of its own, which gathers weights once more than the passes do.
    write = partial(type(model).generate, model) if sharded else model.generate
    with _greedy(model, config):
        lengths = [len(prompt) + max_new_tokens for prompt in unique]
        padded = runtime.map(answer, lengths, max_new_tokens, label=label, dtype=np.int32, most_padding=1)
    answers = dict(zip(unique, padded, strict=True))
    return [None if answers[p][0] < 0 else [int(i) - 1 for i in answers[p] if i] for p in prompts]


def generate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Sequence[int]],
    runtime: Runtime,
    *,
    max_new_tokens: int,
    label: str | None = None,
) -> list[str]:
    """
    Generate greedy responses to prompts.

    Each token is the most likely one. Only the EOS ids of the model's `generation_config` are used: no sampling, beams
    or penalties. Model and tokenizer are restored, also after an error: train or eval mode of each module, gradient
    checkpointing, `use_cache`, `generation_config`, pad token and padding side.

    Reordered or repeated prompts give exactly the same responses on the same machine with the same `batch_tokens` and
    number of ranks. Another `batch_tokens`, another number of ranks, a batch halved for lack of memory, or other
    prompts change the padding of a prompt and thereby the last digits of the logits, so that responses may diverge
    where two tokens are almost equally likely (often in bfloat16, rarely in float32).

    Args:
        model ([`~transformers.PreTrainedModel`] or [`~peft.PeftModel`]):
            Causal language model, on its device; may be wrapped by accelerate.
        tokenizer ([`~transformers.PreTrainedTokenizerBase`]):
            Decodes ids (special tokens are skipped), and defines EOS and, optionally, the pad token.
        prompts (`Sequence[Sequence[int]]`):
            Token ids of each row, special tokens included; the same on all ranks.
        runtime ([`Runtime`]):
            Every rank gets all responses. A batch holds rows x (longest prompt + `max_new_tokens`) tokens, but at
            least one row. vLLM's logits differ in the last digits, as those of another batch size do.
        max_new_tokens (`int`):
            Tokens after which a response is truncated. Their number is logged as a warning; [`generate_ids`]
            tells which.
        label (`str`, *optional*):
            Label of the progress bar.

    Returns:
        `list[str]`: one response per prompt, in the order of `prompts`.

    Raises:
        `ValueError`: a prompt without tokens; one that, with `max_new_tokens`, is longer than the positions of the
            model; an option below 1.
        [`SelectionError`]: logits are NaN, or the model is sharded in another way than by FSDP2 or ZeRO-3.
        `RuntimeError`: a row that does not fit in memory even as a batch of one; the message names it.
    """
    answers = generate_ids(model, tokenizer, prompts, runtime, max_new_tokens=max_new_tokens, label=label)
    unwrapped = runtime.accelerator.unwrap_model(model) if runtime.accelerator else model
    stops = set(stop_ids(unwrapped, tokenizer))
    ended = [bool(ids) and ids[-1] in stops for ids in answers]
    if not all(ended) and runtime.is_main:
        logger.warning(
            "%d of %d answers reached `max_new_tokens` (%d) and are cut off.",
            len(ended) - sum(ended),
            len(ended),
            max_new_tokens,
        )
    # A stop id need not be a special token of the tokenizer, so it is removed here.
    texts = [ids[:-1] if end else ids for ids, end in zip(answers, ended, strict=True)]
    return [tokenizer.decode(ids, skip_special_tokens=True) for ids in texts]
