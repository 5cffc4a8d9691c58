"""What PEFT does not document. Imports PEFT only when asked: it takes seconds, and bitsandbytes with it."""

import re
from collections.abc import Iterator
from typing import Any

from .installed import imported
from .torch import unwrapped


def lora_modules(model: Any) -> Iterator[tuple[str, Any]]:
    """
    Every LoRA layer by module name: modules of type `peft.tuners.lora.LoraLayer`. Not `ParamWrapper` of
    `peft.tuners.lora.layer`, which multiplies its factors into a parameter (of all experts) and never calls them. Seen
    on PEFT 0.21.2; raises `ImportError` where they are missing.
    """
    kind = imported("peft", "peft.tuners.lora", "LoraLayer")
    uncalled = imported("peft", "peft.tuners.lora.layer", "ParamWrapper")
    layers = ((unwrapped(name), module) for name, module in model.named_modules() if isinstance(module, kind))
    return ((name, module) for name, module in layers if not isinstance(module, uncalled))


def lora_variant(layer: Any, adapter: str) -> str | None:
    """
    The variant (DoRA, ...) by which a LoRA layer applies the factors of an adapter, of its dictionary `lora_variant`;
    `None` for plain LoRA. Seen on PEFT 0.21.2; PEFT before 0.16 has no such dictionary, and is below our bound.
    """
    variants = getattr(layer, "lora_variant", {})
    return type(variants[adapter]).__name__ if adapter in variants else None


def lora_dropouts(model: Any) -> Iterator[tuple[str, Any]]:
    """
    The dropouts of every LoRA layer, a [`~torch.nn.ModuleDict`] by adapter, by module name. Seen on PEFT 0.21.2.
    """
    return ((name, layer.lora_dropout) for name, layer in lora_modules(model))


def lora_factor(layer: Any, factor: str, adapter: str) -> Any:
    """
    The module of one factor, `lora_A` or `lora_B`, of an adapter; `None` where the layer has none (embeddings keep
    theirs elsewhere). Seen on PEFT 0.21.2.
    """
    return dict(getattr(layer, factor).items()).get(adapter)


def plain_lora(layer: Any) -> tuple[Any, Any, float] | None:
    """
    Both factors of a LoRA layer and their scale, if its output is `base_layer(x) + scale * lora_B(lora_A(x))` but for
    dropout, all of one dtype, and its `forward` is PEFT's: by `forward` of `peft.tuners.lora.layer.Linear`. `None`
    otherwise, and where an attribute is missing. Seen on PEFT 0.21.2; raises `ImportError` without that class.
    """
    kind = imported("peft", "peft.tuners.lora.layer", "Linear")
    active = getattr(layer, "active_adapters", [])
    if type(layer) is not kind or len(active) != 1 or lora_variant(layer, active[0]) or "forward" in vars(layer):
        return None
    factors = [lora_factor(layer, factor, active[0]) for factor in ("lora_A", "lora_B")]
    weights = [getattr(module, "weight", None) for module in (layer.base_layer, *factors)]
    if getattr(layer, "disable_adapters", True) or getattr(layer, "merged", True) or None in weights:
        return None
    bare = all(factor.bias is None and not factor._forward_hooks for factor in factors)
    alike = len({(weight.dtype, weight.device) for weight in weights}) == 1
    return (*factors, layer.scaling[active[0]]) if bare and alike else None


def is_target_error(error: ValueError) -> bool:
    """
    Whether `get_peft_model` says that no module is named as `target_modules` are, or that one of them takes no
    adapter, by the words of its message. Seen on PEFT 0.21.2; where the words change, its own error is shown.
    """
    return re.search("target[ _]module", str(error), re.IGNORECASE) is not None


def refused_targets(model: Any) -> list[str]:
    """
    Names of modules that PEFT refuses to put LoRA on, although `"all-linear"` means them too (those of Mamba that its
    kernels read the weights of): by `_check_lora_target_modules_mamba` of `peft.tuners.tuners_utils`. Seen on PEFT
    0.21.2; none where it is missing, as PEFT then refuses none.
    """
    from peft import LoraConfig
    from peft.tuners import tuners_utils

    check = getattr(tuners_utils, "_check_lora_target_modules_mamba", lambda *_: None)
    refused = []
    for name in sorted({name.rpartition(".")[2] for name, _ in model.named_modules()}):
        try:
            check(LoraConfig(), model, name)
        except ValueError:
            refused.append(name)
    return refused


def adapts_layers_only(model: Any) -> bool:
    """
    Whether the active adapters act inside of layers, so that parts of the model can be called by themselves: none that
    learns a prompt, reads the row's tokens (`alora_invocation_tokens`), or has a forward of its own (X-LoRA, Shadow),
    by `peft.tuners.tuners_utils.BaseTuner`. Seen on PEFT 0.21.2; raises `ImportError` where it is missing.
    """
    kind = imported("peft", "peft.tuners.tuners_utils", "BaseTuner")
    if getattr(type(model.base_model), "forward", None) is not kind.forward:
        return False
    configs = [model.peft_config[name] for name in active_adapters(model)]
    return not any(getattr(config, "alora_invocation_tokens", None) for config in configs)


def active_adapters(model: Any) -> list[str]:
    """
    Names of the active adapters: a property of [`~peft.PeftModel`], and a method of
    [`~transformers.PreTrainedModel`]. Seen on PEFT 0.21.2, transformers 5.23.0.
    """
    active = model.active_adapters
    return active() if callable(active) else active


def learns_prompt(config: Any) -> bool:
    """
    Whether an adapter of this config puts learned tokens before a line, `is_prompt_learning` of
    [`~peft.PeftConfig`]. Seen on PEFT 0.21.2; false for no config, and where it is missing.
    """
    return bool(getattr(config, "is_prompt_learning", False))
