"""
Greedy generation with vLLM, through TRL's integration ([`~trl.generation.vllm_generation.VLLMGeneration`], colocated).

The current model's weights are synced before each call; between calls vLLM sleeps and frees its memory. Written to
TRL's interface, and not tested on a GPU yet.
"""

import copy
from collections.abc import Sequence
from typing import Any

from accelerate import Accelerator
from accelerate.utils import gather_object, is_peft_model
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ...compat.trl import is_vllm_available, vllm_answers, vllm_engine
from ..runtime.model_state import positions
from ..runtime.runtime import Runtime


#: The last engine: starting one takes a minute, and it serves any weights of the same model.
_kept: dict[tuple, Any] = {}


def check_vllm(memory: float) -> None:
    """
    Check the settings before anything loads.

    Raises:
        `ImportError`: vLLM is missing.
        `ValueError`: `memory` is not a fraction of a GPU's memory.
    """
    if not 0 < memory <= 1:
        raise ValueError(f"`vllm_gpu_memory_utilization={memory}` must be in (0, 1].")
    if not is_vllm_available():
        raise ImportError("`use_vllm` needs vLLM: `pip install vllm`, in a version that your TRL supports.")


def vllm_ids(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Sequence[int]],
    runtime: Runtime,
    *,
    max_new_tokens: int,
    stops: Sequence[int],
) -> list[list[int]]:
    """
    New token ids of each prompt, the stop id included.

    Args:
        model ([`~transformers.PreTrainedModel`] or [`~peft.PeftModel`]):
            The model; an adapter is merged into a copy, since merging in place rounds the weights irreversibly.
        tokenizer ([`~transformers.PreTrainedTokenizerBase`]):
            The model's tokenizer.
        prompts (`Sequence[Sequence[int]]`):
            Token ids, the same on all ranks; sharded across ranks.
        max_new_tokens (`int`):
            Tokens after which a response is truncated.
        stops (`Sequence[int]`):
            Ids that end a response.
        runtime ([`Runtime`]):
            Ranks, and the fraction of the GPU's memory for vLLM.

    Raises:
        `ImportError`: vLLM is missing.
        `ValueError`: a model that vLLM can't build: quantized, without a name or folder, or with a learned prompt.
    """
    memory = runtime.vllm_memory
    check_vllm(memory)
    for hindrance, there in (
        ("its weights are quantized", getattr(model, "is_quantized", False)),
        ("it was loaded from no name or folder", not model.name_or_path),
        ("its adapter learns a prompt", is_peft_model(model) and model.active_peft_config.is_prompt_learning),
    ):
        if there:
            raise ValueError(f"`use_vllm`: vLLM can't take this model, as {hindrance}. Leave `use_vllm` out.")
    accelerator = runtime.accelerator or Accelerator()
    engine = _engine(model, tokenizer, accelerator, max(map(len, prompts)) + max_new_tokens, memory)
    world, rank = runtime.world, runtime.rank
    shard = [list(prompt) for prompt in prompts[rank::world]]
    merged = copy.deepcopy(model).merge_and_unload() if is_peft_model(model) else model
    answers = vllm_answers(engine, merged, shard, max_new_tokens, stops)
    gathered: list[list[int]] = [[] for _ in prompts]
    for index, ids in gather_object(list(zip(range(rank, len(prompts), world), answers, strict=True))):
        gathered[index] = ids
    return gathered


def _engine(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, accelerator: Accelerator, tokens: int, memory: float
) -> Any:
    """A sleeping engine with a window of at least `tokens` tokens."""
    key = (model.name_or_path, memory)
    if key not in _kept or _kept[key].max_model_length < tokens:
        _kept.clear()
        window = min(positions(model) or 2**31, 1 << (tokens - 1).bit_length())
        _kept[key] = vllm_engine(model, accelerator, tokenizer, memory, window)
    return _kept[key]
