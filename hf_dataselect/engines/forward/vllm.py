"""
Greedy answers by vLLM, through TRL's own integration ([`~trl.generation.vllm_generation.VLLMGeneration`], colocated).

The weights of the model at hand are handed over before each call, and between calls vLLM sleeps and gives its memory
back. Written to TRL's interface; it has not been run on a GPU yet.
"""

import copy
from collections.abc import Sequence
from typing import Any

from accelerate import Accelerator
from accelerate.utils import gather_object, is_peft_model
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from trl.import_utils import is_vllm_available


#: The engine of the last call: starting one takes a minute, and it serves any weights of the same model.
_kept: dict[tuple, Any] = {}


def check_vllm(memory: float) -> None:
    """
    Refuse what can't generate, before anything loads.

    Raises:
        `ImportError`: vLLM is missing.
        `ValueError`: `memory` is no part of a GPU's.
    """
    if not 0 < memory <= 1:
        raise ValueError(f"`vllm_gpu_memory_utilization={memory}` must be in (0, 1].")
    if not is_vllm_available():
        raise ImportError("`use_vllm` needs vLLM: `pip install vllm`, in a version that your TRL supports.")


def vllm_ids(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    stops: Sequence[int],
    memory: float,
    accelerator: Accelerator | None = None,
) -> list[list[int]]:
    """
    New token ids of each prompt, the stop id included.

    Args:
        model ([`~transformers.PreTrainedModel`] or [`~peft.PeftModel`]):
            Of which a copy with the adapter merged into it is made, since merging in place rounds weights for good.
        tokenizer ([`~transformers.PreTrainedTokenizerBase`]):
            The model's.
        prompts (`Sequence[Sequence[int]]`):
            Token ids; the same on all ranks, each of which answers its share on its own device.
        max_new_tokens (`int`):
            Tokens after which an answer is cut off.
        stops (`Sequence[int]`):
            Ids that end an answer.
        memory (`float`):
            Part of the GPU's memory that vLLM may take.
        accelerator ([`~accelerate.Accelerator`], *optional*):
            Ranks.

    Raises:
        `ImportError`: vLLM is missing.
        `ValueError`: a model that vLLM can't build: quantized, without a name or folder, or with a learned prompt.
    """
    check_vllm(memory)
    for hindrance, there in (
        ("its weights are quantized", getattr(model, "is_quantized", False)),
        ("it was loaded from no name or folder", not model.name_or_path),
        ("its adapter learns a prompt", is_peft_model(model) and model.active_peft_config.is_prompt_learning),
    ):
        if there:
            raise ValueError(f"`use_vllm`: vLLM can't take this model, as {hindrance}. Leave `use_vllm` out.")
    accelerator = accelerator or Accelerator()
    engine = _engine(model, tokenizer, accelerator, max(map(len, prompts)) + max_new_tokens, memory)
    engine.max_completion_length = max_new_tokens
    # Only these ids end an answer, whatever the model's own settings say.
    engine.generation_kwargs = {"stop_token_ids": list(stops), "ignore_eos": True, "detokenize": False}
    world, rank = accelerator.num_processes, accelerator.process_index
    engine.model = copy.deepcopy(model).merge_and_unload() if is_peft_model(model) else model
    try:
        mine = [list(prompt) for prompt in prompts[rank::world]]
        answers = [list(ids) for ids in engine.generate(mine, None, 1)[1]] if mine else []
    finally:
        engine.model = None
    found: list[list[int]] = [[] for _ in prompts]
    for place, ids in gather_object(list(zip(range(rank, len(prompts), world), answers, strict=True))):
        found[place] = ids
    return found


def _engine(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, accelerator: Accelerator, tokens: int, memory: float
) -> Any:
    """A sleeping engine whose window holds so many tokens."""
    key = (model.name_or_path, memory)
    if key not in _kept or _kept[key].max_model_length < tokens:
        from trl.generation.vllm_generation import VLLMGeneration

        _kept.clear()
        positions = getattr(model.config.get_text_config(), "max_position_embeddings", None) or 2**31
        _kept[key] = VLLMGeneration(
            model,
            accelerator,
            tokenizer,
            gpu_memory_utilization=memory,
            max_model_length=min(positions, 1 << (tokens - 1).bit_length()),
            enable_sleep_mode=True,
            temperature=0.0,
            logprobs=None,
        )
    return _kept[key]
