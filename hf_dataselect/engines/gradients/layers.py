"""Whose weights a gradient is of: LoRA's factors, or plain linear layers."""

from collections.abc import Sequence

from torch import nn

from ...errors import SelectionError


def lora_layers(model: nn.Module) -> dict[str, nn.Linear]:
    """
    Both factors of every LoRA layer of the active adapters, by module name, in the order of the parameters.

    Raises:
        [`SelectionError`]: the model has none, or has variants (DoRA, ...) whose factors are not applied as they are.
    """
    from peft.tuners.lora import LoraLayer  # takes seconds, bitsandbytes with it

    found = {}
    for name, module in model.named_modules():
        if not isinstance(module, LoraLayer):
            continue
        for adapter in module.active_adapters:
            if adapter in getattr(module, "lora_variant", {}):
                raise SelectionError(
                    f"`{name}` is a LoRA variant ({type(module.lora_variant[adapter]).__name__}): gradients are taken "
                    "of plain LoRA only. Turn it off (`use_dora=False`, ...)."
                )
            for factor in ("lora_A", "lora_B"):
                layer = dict(getattr(module, factor).items()).get(adapter)
                if isinstance(layer, nn.Linear):
                    found[f"{name}.{factor}.{adapter}"] = layer
    if not found:
        raise SelectionError("The model has no LoRA layers: give a LoRA configuration, or name plain linear layers.")
    return found


def linear_layers(model: nn.Module, endings: Sequence[str]) -> dict[str, nn.Linear]:
    """
    Plain linear layers whose names end in one of `endings` (`"down_proj"`, `"layers.3.mlp.up_proj"`), by module name.

    Raises:
        [`SelectionError`]: an ending that fits no layer, a quantized layer, or one whose weight another module shares
            (tied embeddings): its gradient is not the layer's alone.
    """
    found, owners = {}, {}
    for name, module in model.named_modules():
        for parameter in module.parameters(recurse=False):
            owners.setdefault(parameter, []).append(name)
        if any(f".{name}".endswith(f".{ending}") for ending in endings) and isinstance(module, nn.Linear):
            found[name] = module
    for ending in endings:
        if not any(f".{name}".endswith(f".{ending}") for name in found):
            raise SelectionError(f"The model has no linear layer {ending!r}.")
    for name, layer in found.items():
        if not layer.weight.is_floating_point():
            raise SelectionError(f"`{name}` is quantized and has no gradient: use LoRA.")
        if len(owners[layer.weight]) > 1:
            raise SelectionError(
                f"The weight of `{name}` is shared ({', '.join(owners[layer.weight])}): leave it out."
            )
    return found


def left_out(model: nn.Module, layers: dict[str, nn.Linear]) -> list[str]:
    """Names of trained parameters that are no weight of `layers`: biases, embeddings, `modules_to_save`."""
    covered = {id(layer.weight) for layer in layers.values()}
    return [name for name, p in model.named_parameters() if p.requires_grad and id(p) not in covered]
