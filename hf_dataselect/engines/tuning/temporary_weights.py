"""
Weights that are temporarily fine-tuned, then restored bit for bit: a new adapter, the user's own, or the model's own
weights. Each context gives the model, a function that returns its tuned tensors by name, and one that loads such
tensors; settings are [`WarmupSettings`].
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from accelerate.utils import set_seed
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from torch import nn

from ...compat.accelerate import is_offloaded
from ...compat.deepspeed import own_part
from ...compat.peft import active_adapters, is_target_error, refused_targets
from ...compat.torch import local_part, part_of, unwrapped, whole_tensor
from ...errors import SelectionError
from ..gradients.layers import linear_layers
from ..runtime.model_state import preserved, unprepared
from ..runtime.sharding import sharding_of_model


_ADAPTER = "hf_dataselect_warmup"


def temporary_weights(model: nn.Module, settings: Any, images: bool = False) -> AbstractContextManager:
    """
    The weights that the settings fine-tune, which are made inside the context.

    Raises:
        [`SelectionError`]: offloaded weights, or `method="full"` on a quantized or a sharded model; inside, layers
            that can't be tuned.
    """
    if is_offloaded(model):
        raise SelectionError(
            "`model`: its `device_map` offloads weights to main memory or disk, and a backward pass would hold all of "
            "them at once: a model can be fine-tuned for the selection, and gradients be taken, only where it fits. "
            "Load it in 4-bit or split over more GPUs, or take a method that only scores, or `warmup: none` where it "
            "is an option."
        )
    if settings.method == "full":
        if sharding_of_model(model) is not None:
            raise SelectionError("A sharded model can't be tuned in full: use 'lora', and no `layers`.")
        if getattr(model, "is_quantized", False):
            raise SelectionError("A quantized model can't be tuned in full: use the warm-up method 'lora'.")
        return all_weights(model, settings)
    return own_adapter(model, settings) if hasattr(model, "peft_config") else temporary_lora(model, settings, images)


def check_tunable(model: nn.Module, settings: Any) -> None:
    """Raise what [`temporary_weights`] raises, before anything is scored for it; the model is left as it is."""
    weights = temporary_weights(model, settings)
    if settings.method == "lora":  # the others copy all weights first
        with preserved(model), unprepared(model), weights:
            pass


@contextmanager
def temporary_lora(model: nn.Module, settings: Any, images: bool = False):
    """A new adapter by the settings; without `images`, only on layers that texts reach."""
    set_seed(settings.seed)
    targets = list(settings.lora_targets)
    every = targets == ["all-linear"]
    excluded = [] if images else _beyond_texts(model)
    lora = LoraConfig(
        r=settings.lora_r,
        lora_alpha=settings.lora_alpha or 2 * settings.lora_r,
        lora_dropout=settings.lora_dropout,
        target_modules="all-linear" if every else targets,
        exclude_modules=excluded + (refused_targets(model) if every else []) or None,
        task_type="CAUSAL_LM",
    )
    with _same_modules(model):
        try:
            tuned = get_peft_model(model, lora, adapter_name=_ADAPTER)
        except ValueError as error:
            if not is_target_error(error):
                raise
            others = "" if every else " `[all-linear]` fits most models;"
            raise SelectionError(
                f"`lora_targets={targets}` do not fit the model;{others} where a method has the option `warmup`, "
                f"`full` and `none` need no adapter: {error}"
            ) from error
        yield (
            tuned,
            lambda: get_peft_model_state_dict(tuned, adapter_name=_ADAPTER),
            lambda state: set_peft_model_state_dict(tuned, state, adapter_name=_ADAPTER),
        )


@contextmanager
def _same_modules(model: nn.Module) -> Iterator[None]:
    """Afterwards the model has the modules and attributes that it has now, also where PEFT stops halfway."""
    attributes = set(model.__dict__)
    children = [(module, name, child) for module in model.modules() for name, child in module.named_children()]
    try:
        yield
    finally:
        for module, name, child in children:
            setattr(module, name, child)
        for name in set(model.__dict__) - attributes:  # PEFT leaves `peft_config` and the like
            delattr(model, name)


def _beyond_texts(model: nn.Module) -> list[str]:
    """Layers of a vision-language model that see images only: an optimizer has no state of them after texts."""
    if model.config.get_text_config() is model.config:
        return []
    reached = {*model.get_decoder().modules(), model.get_output_embeddings()}
    return [name for name, module in model.named_modules() if module not in reached and not [*module.children()]]


@contextmanager
def own_adapter(model: nn.Module, settings: Any):
    """
    What the user trains of a model with an adapter, whatever its kind, with a copy in main memory. PEFT makes no
    adapter here: many kinds change the weights of the base as they start (PiSSA, OLoRA, LoftQ, CorDA ...).
    """
    (active, *_) = active_adapters(model)
    if not any(parameter.requires_grad for parameter in model.parameters()):  # loaded for inference
        model.set_adapter(active)
    parameters = {unwrapped(name): weight for name, weight in model.named_parameters() if weight.requires_grad}
    if not parameters:
        raise SelectionError(
            f"`warmup: lora`: the adapter {active!r} ({model.peft_config[active].peft_type.value}) has no trainable "
            "weights: load it with `is_trainable=True`, or set `warmup` to `none`."
        )
    if any(own_part(parameter) is not parameter for parameter in parameters.values()):
        raise SelectionError(
            f"`warmup: lora`: ZeRO-3 shards the adapter {active!r} too since the training has begun, and it can't be "
            "tuned and restored so: select before `train()`, or set `warmup` to `none`."
        )
    with _restored(parameters) as load:
        yield model, lambda: {name: whole_tensor(parameter) for name, parameter in parameters.items()}, load


@contextmanager
def all_weights(model: nn.Module, settings: Any):
    """The weights themselves, or those of some layers, with a copy in main memory."""
    parameters = dict(model.named_parameters())
    if settings.layers:
        parameters = {f"{name}.weight": layer.weight for name, layer in linear_layers(model, settings.layers).items()}
    with _restored(parameters) as load:
        model.requires_grad_(False)
        for parameter in parameters.values():
            parameter.requires_grad_(True)
        yield model, lambda: parameters, load


@contextmanager
def _restored(parameters: dict[str, nn.Parameter]) -> Iterator[Any]:
    """A function that loads values of these parameters by name; on exit they have those of now, and their dtype."""
    originals = {name: local_part(parameter).to("cpu", copy=True) for name, parameter in parameters.items()}

    def load(state: dict[str, torch.Tensor]) -> None:
        with torch.no_grad():
            for name, tensor in state.items():
                local_part(parameters[name]).copy_(part_of(tensor, parameters[name]))

    try:
        yield load
    finally:
        for name, parameter in parameters.items():
            if parameter.dtype != originals[name].dtype:  # TRL casts an adapter on a quantized model
                parameter.data = parameter.data.to(originals[name].dtype)
            local_part(parameter).copy_(originals[name])
