"""Greedy answers of the model at hand, in batches, on all ranks."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils.memory import should_reduce_batch_size
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from ..runtime.batching import map_batches
from ..runtime.model_state import evaluating
from .vllm import vllm_ids


logger = logging.getLogger(__name__)


def stop_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Token ids that end an answer: the tokenizer's EOS and those of the model's `generation_config`, ascending."""
    config = getattr(model, "generation_config", None)
    named = getattr(config, "eos_token_id", None)
    ids = {tokenizer.eos_token_id, *(named if isinstance(named, (list, tuple)) else [named])}
    return sorted(ids - {None})


@contextmanager
def _greedy(model: PreTrainedModel, config: GenerationConfig) -> Iterator[None]:
    """Model in eval mode and with `config` as its only generation settings; both put back."""
    # `generate` fills what its argument leaves open from the model's own settings (repetition penalties, forced
    # tokens, ...), so these are taken away. A `PeftModel` hands on the settings of the model inside.
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    own, inner.generation_config = inner.generation_config, config
    try:
        with evaluating(model):
            yield
    finally:
        inner.generation_config = own


def generate_ids(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    batch_tokens: int,
    accelerator: Accelerator | None = None,
    progress: str | None = None,
    vllm_memory: float | None = None,
    skip_oversized: bool = False,
) -> list[list[int] | None]:
    """
    As [`generate`], but gives the new token ids. An answer that came to its end has one of [`stop_ids`] as its last
    id; one without was cut off at `max_new_tokens`. With `skip_oversized`, a prompt that does not fit in memory even
    alone has `None`.
    """
    for option, value in (("max_new_tokens", max_new_tokens), ("batch_tokens", batch_tokens)):
        if value < 1:
            raise ValueError(f"`{option}` must be at least 1, got {value}")
    if accelerator is not None:
        plugin = getattr(accelerator.state, "deepspeed_plugin", None)
        if accelerator.distributed_type == "FSDP" or getattr(plugin, "zero_stage", 0) == 3:
            raise ValueError(
                "`generate` needs the whole model on every rank, and FSDP or ZeRO-3 give each rank a part of it. "
                "Generate with the saved model in a launch without sharding."
            )
        model = accelerator.unwrap_model(model, keep_torch_compile=False)
    prompts = [tuple(map(int, prompt)) for prompt in prompts]
    limit = getattr(model.config.get_text_config(), "max_position_embeddings", None)
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

    # Greedy answers depend on the prompt alone, so each different prompt is answered once, and sorting by content as
    # well as by length makes the batches independent of the order of the rows.
    rows = {prompt: row for row, prompt in reversed(list(enumerate(prompts)))}
    unique = sorted(rows, key=lambda prompt: (-len(prompt), prompt))
    stops = stop_ids(model, tokenizer)
    if vllm_memory is not None:
        options = {"max_new_tokens": max_new_tokens, "memory": vllm_memory, "accelerator": accelerator}
        answers = dict(zip(unique, vllm_ids(model, tokenizer, unique, stops=stops, **options), strict=True))
        return [answers[prompt] for prompt in prompts]
    # Any id does as filler, since fillers are masked; a missing pad token is no reason to change the tokenizer.
    filler = next(iter(i for i in (tokenizer.pad_token_id, *stops, 0) if i is not None))
    config = GenerationConfig(
        do_sample=False,
        num_beams=1,
        max_new_tokens=max_new_tokens,
        eos_token_id=stops or None,
        pad_token_id=filler,
        use_cache=True,  # whatever `model.config.use_cache` says: training with gradient checkpointing turns that off
    )

    def answer(batch: np.ndarray) -> np.ndarray:
        """`(rows, max_new_tokens)` of token id + 1, 0 after the end."""
        width = max(len(unique[i]) for i in batch)
        ids = torch.full((len(batch), width), filler)
        mask = torch.zeros_like(ids)
        for line, i in enumerate(batch):
            ids[line, width - len(unique[i]) :] = torch.tensor(unique[i])
            mask[line, width - len(unique[i]) :] = 1
        try:
            # `synced_gpus=False`: ranks have different numbers of batches and do not wait for one another
            out = model.generate(
                input_ids=ids.to(model.device),
                attention_mask=mask.to(model.device),
                generation_config=config,
                synced_gpus=False,
            )
        except Exception as error:
            if len(batch) > 1 or not (should_reduce_batch_size(error) or isinstance(error, MemoryError)):
                raise
            if skip_oversized:
                return np.full((1, max_new_tokens), -1, np.int32)
            row = rows[unique[batch[0]]]
            raise RuntimeError(
                f"`prompts[{row}]` ({width} tokens and `max_new_tokens` {max_new_tokens}) does not fit in memory even "
                "alone. Shorten the prompt, lower `max_new_tokens`, or load the model in a smaller dtype."
            ) from error
        new = out[:, width:].cpu().numpy().astype(np.int32)
        ended = np.cumsum(np.isin(new, stops), axis=1)
        ended[:, 1:] = ended[:, :-1].copy()  # the stop token itself belongs to the answer
        ended[:, 0] = 0
        result = np.zeros((len(batch), max_new_tokens), np.int32)
        result[:, : new.shape[1]] = np.where(ended > 0, 0, new + 1)
        return result

    with _greedy(model, config):
        padded = map_batches(
            answer,
            [len(prompt) + max_new_tokens for prompt in unique],
            max_new_tokens,
            batch_tokens=batch_tokens,
            accelerator=accelerator,
            progress=progress,
            dtype=np.int32,
        )
    answers = dict(zip(unique, padded, strict=True))
    return [None if answers[p][0] < 0 else [int(i) - 1 for i in answers[p] if i] for p in prompts]


def generate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    batch_tokens: int,
    accelerator: Accelerator | None = None,
    progress: str | None = None,
    vllm_memory: float | None = None,
) -> list[str]:
    """
    Greedy answers to prompts.

    Each token is the most likely one. Nothing of the model's `generation_config` is used but its EOS ids: no sampling,
    beams or penalties. Model and tokenizer are left as they were, also after an error: train or eval mode of each
    module, gradient checkpointing, `use_cache`, `generation_config`, pad token and padding side.

    The same prompts in another order, or some of them twice, give exactly the same answers on the same machine with
    the same `batch_tokens` and number of ranks. Another `batch_tokens`, another number of ranks, a batch halved for
    want of memory, or other prompts beside a prompt change its padding and with it the last digits of the logits, so
    that an answer may take another way where two tokens are almost equally likely (often in bfloat16, rarely in
    float32).

    Args:
        model ([`~transformers.PreTrainedModel`] or [`~peft.PeftModel`]):
            Causal language model, on its device; also wrapped by `accelerator`, but not sharded.
        tokenizer ([`~transformers.PreTrainedTokenizerBase`]):
            Turns ids into text (special tokens are left out), names EOS and, if it has one, the pad token.
        prompts (`Sequence[Sequence[int]]`):
            Token ids of each row, special tokens included; the same on all ranks.
        max_new_tokens (`int`):
            Tokens after which an answer is cut off. How many were is logged as a warning; [`generate_ids`] tells
            which.
        batch_tokens (`int`):
            Size of a batch: rows x (longest prompt + `max_new_tokens`) stays within it, but a batch has at least one
            row. Bigger is faster and takes more memory. It is halved where memory runs out.
        accelerator ([`~accelerate.Accelerator`], *optional*):
            Deals the batches over its ranks; every rank gets all answers.
        progress (`str`, *optional*):
            Label of a progress bar on the main process; none by default.
        vllm_memory (`float`, *optional*):
            Generate with vLLM, which may take this part of the GPU's memory; `batch_tokens` and `progress` mean
            nothing then. Its logits differ in the last digits, as those of another batch size do.

    Returns:
        `list[str]`: One answer a prompt, in the order of `prompts`.

    Raises:
        `ValueError`: A prompt without tokens; one that, with `max_new_tokens`, is longer than the positions of the
            model; an option below 1; weights sharded over ranks.
        `RuntimeError`: A row that does not fit in memory even alone; the message names it.
    """
    answers = generate_ids(
        model,
        tokenizer,
        prompts,
        max_new_tokens=max_new_tokens,
        batch_tokens=batch_tokens,
        accelerator=accelerator,
        progress=progress,
        vllm_memory=vllm_memory,
    )
    unwrapped = accelerator.unwrap_model(model) if accelerator else model
    stops = set(stop_ids(unwrapped, tokenizer))
    ended = [bool(ids) and ids[-1] in stops for ids in answers]
    if not all(ended) and (accelerator is None or accelerator.is_main_process):
        logger.warning(
            "%d of %d answers reached `max_new_tokens` (%d) and are cut off.",
            len(ended) - sum(ended),
            len(ended),
            max_new_tokens,
        )
    # A stop id need not be a special token of the tokenizer, so it is taken off here.
    texts = [ids[:-1] if end else ids for ids, end in zip(answers, ended, strict=True)]
    return [tokenizer.decode(ids, skip_special_tokens=True) for ids in texts]
