"""Layers to differentiate: LoRA's factors, or plain linear layers."""

from collections.abc import Sequence

from torch import nn

from ...compat.peft import lora_factor, lora_modules, lora_variant
from ...compat.torch import unwrapped
from ...errors import SelectionError


def lora_layers(model: nn.Module) -> dict[str, nn.Linear]:
    """
    Both factors of every LoRA layer of the active adapters, by module name, in parameter order.

    Raises:
        [`SelectionError`]: no LoRA layers, or a variant (DoRA, ...) that does not apply its factors unchanged.
    """
    layers = {}
    for name, module in lora_modules(model):
        for adapter in module.active_adapters:
            if variant := lora_variant(module, adapter):
                raise SelectionError(
                    f"`{name}` is a LoRA variant ({variant}): gradients need plain LoRA. Turn it off "
                    "(`use_dora=False`, ...)."
                )
            for factor in ("lora_A", "lora_B"):
                layer = lora_factor(module, factor, adapter)
                if isinstance(layer, nn.Linear):
                    layers[f"{name}.{factor}.{adapter}"] = layer
    if not layers:
        raise SelectionError("The model has no LoRA layers: give a LoRA configuration, or name plain linear layers.")
    return layers


def linear_layers(model: nn.Module, endings: Sequence[str]) -> dict[str, nn.Linear]:
    """
    Plain linear layers whose names end in one of `endings` (`"down_proj"`, `"layers.3.mlp.up_proj"`), by module name.

    Raises:
        [`SelectionError`]: an ending that matches no layer, a quantized layer, or one that shares its weight with
            another module (tied embeddings), which contributes to its gradient.
    """
    layers, owners = {}, {}
    for name, module in model.named_modules():
        for parameter in module.parameters(recurse=False):
            owners.setdefault(parameter, []).append(name)
        if any(f".{name}".endswith(f".{ending}") for ending in endings) and isinstance(module, nn.Linear):
            layers[name] = module
    for ending in endings:
        if not any(f".{name}".endswith(f".{ending}") for name in layers):
            raise SelectionError(f"`layers`: the model has no linear layer {ending!r}: see `model.named_modules()`.")
    for name, layer in layers.items():
        if not layer.weight.is_floating_point():
            raise SelectionError(f"`layers`: `{name}` is quantized and has no gradient: leave it out, or use LoRA.")
        if len(owners[layer.weight]) > 1:
            raise SelectionError(
                f"`layers`: the weight of `{name}` is shared ({', '.join(owners[layer.weight])}): leave it out."
            )
    return layers


def left_out(model: nn.Module, layers: dict[str, nn.Linear]) -> list[str]:
    """Names of trained parameters other than the weights of `layers`: biases, embeddings, `modules_to_save`."""
    covered = {id(layer.weight) for layer in layers.values()}
    return [unwrapped(name) for name, p in model.named_parameters() if p.requires_grad and id(p) not in covered]
