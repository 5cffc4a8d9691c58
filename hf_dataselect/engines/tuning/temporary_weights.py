"""
Weights that are temporarily fine-tuned, then restored bit for bit: an adapter, or the model's own. Each context gives
the model, a function that returns its tuned tensors by name, and one that loads such tensors; settings are
[`WarmupSettings`].
"""

from contextlib import contextmanager
from copy import deepcopy
from typing import Any

import torch
from accelerate.utils import set_seed
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from torch import nn

from ...compat.peft import is_target_error
from ...errors import SelectionError
from ..gradients.layers import linear_layers


_ADAPTER = "hf_dataselect_warmup"


@contextmanager
def temporary_lora(model: nn.Module, settings: Any, images: bool = False):
    """A new adapter by the settings; without `images`, only on layers that texts reach."""
    set_seed(settings.seed)
    targets = list(settings.lora_targets)
    lora = LoraConfig(
        r=settings.lora_r,
        lora_alpha=settings.lora_alpha or 2 * settings.lora_r,
        lora_dropout=settings.lora_dropout,
        target_modules="all-linear" if targets == ["all-linear"] else targets,
        exclude_modules=None if images else _beyond_texts(model),
        task_type="CAUSAL_LM",
    )
    attributes = set(model.__dict__)
    try:
        tuned = get_peft_model(model, lora, adapter_name=_ADAPTER)
    except ValueError as error:
        if not is_target_error(error):
            raise
        raise SelectionError(
            f"`lora_targets={targets}` do not fit the model; `[all-linear]` always does: {error}"
        ) from error
    try:
        yield tuned, *_adapter_state(tuned)
    finally:
        tuned.unload()
        for name in set(model.__dict__) - attributes:  # PEFT leaves `peft_config` and the like
            delattr(model, name)


def _beyond_texts(model: nn.Module) -> list[str]:
    """Layers of a vision-language model that see images only: an optimizer has no state of them after texts."""
    if model.config.get_text_config() is model.config:
        return []
    reached = {*model.get_decoder().modules(), model.get_output_embeddings()}
    return [name for name, module in model.named_modules() if module not in reached and not [*module.children()]]


@contextmanager
def adapter_copy(model: nn.Module, settings: Any):
    """A copy of the user's own adapter."""
    own = model.active_adapter
    start = get_peft_model_state_dict(model, adapter_name=own)
    start = {name: tensor.detach().clone() for name, tensor in start.items()}
    set_seed(settings.seed)
    config = deepcopy(model.peft_config[own])
    config.inference_mode = False
    model.add_adapter(_ADAPTER, config)
    try:
        model.set_adapter(_ADAPTER)
        set_peft_model_state_dict(model, start, adapter_name=_ADAPTER)
        yield model, *_adapter_state(model)
    finally:
        model.set_adapter(own)
        model.delete_adapter(_ADAPTER)


def _adapter_state(tuned: nn.Module):
    return (
        lambda: get_peft_model_state_dict(tuned, adapter_name=_ADAPTER),
        lambda state: set_peft_model_state_dict(tuned, state, adapter_name=_ADAPTER),
    )


@contextmanager
def all_weights(model: nn.Module, settings: Any):
    """The weights themselves, or those of some layers, with a copy in main memory."""
    parameters = dict(model.named_parameters())
    if settings.layers:
        parameters = {f"{name}.weight": layer.weight for name, layer in linear_layers(model, settings.layers).items()}
    originals = {name: parameter.detach().to("cpu", copy=True) for name, parameter in parameters.items()}

    def load(state: dict[str, torch.Tensor]) -> None:
        with torch.no_grad():
            for name, tensor in state.items():
                parameters[name].copy_(tensor)

    try:
        model.requires_grad_(False)
        for parameter in parameters.values():
            parameter.requires_grad_(True)
        yield model, lambda: parameters, load
    finally:
        load(originals)
