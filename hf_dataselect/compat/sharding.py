"""What PyTorch, accelerate, transformers and DeepSpeed do not document of sharded models."""

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from ..errors import SelectionError
from .bitsandbytes import quantized_storage
from .installed import attribute, imported
from .torch import is_checkpointed


#: Variables by which `accelerate launch` has every accelerator and [`~transformers.TrainingArguments`] shard a model.
#: Seen on accelerate 1.15.0.
_LAUNCHED = ("ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED", "ACCELERATE_DEEPSPEED_", "FSDP_")
_DEEPSPEED = "transformers.integrations.deepspeed"


def sharding_by_args(args: Any) -> str | None:
    """
    How a run shards its model: `"FSDP1"`, `"FSDP2"`, `"ZeRO-1"` to `"ZeRO-3"`, by the arguments of its trainer or by
    the environment variables that `accelerate launch` sets: `ACCELERATE_USE_FSDP` and `FSDP_VERSION`,
    `ACCELERATE_USE_DEEPSPEED`, `ACCELERATE_DEEPSPEED_CONFIG_FILE` and `ACCELERATE_DEEPSPEED_ZERO_STAGE`. Seen on
    accelerate 1.15.0, transformers 5.23.0; `None` where they set others.
    """
    if args.fsdp:
        return f"FSDP{(args.fsdp_config or {}).get('version', 2)}"
    if args.deepspeed:
        return f"ZeRO-{_zero_stage(args.deepspeed)}"
    if os.environ.get("ACCELERATE_USE_FSDP") == "true":
        return f"FSDP{os.environ.get('FSDP_VERSION', 1)}"
    if os.environ.get("ACCELERATE_USE_DEEPSPEED") == "true":
        file = os.environ.get("ACCELERATE_DEEPSPEED_CONFIG_FILE", "none")
        stage = os.environ.get("ACCELERATE_DEEPSPEED_ZERO_STAGE", 2) if file == "none" else _zero_stage(file)
        return f"ZeRO-{stage}"
    return None


def left_in_environment() -> bool:
    """
    Whether the environment asks for FSDP, and not by `accelerate launch`, which also sets `FSDP_VERSION`: an
    accelerator with an `fsdp_plugin`, and so a trainer, sets `ACCELERATE_USE_FSDP` for the rest of the process, and
    the next one shards by FSDP1. Seen on accelerate 1.15.0; false where it doesn't.
    """
    return os.environ.get("ACCELERATE_USE_FSDP") == "true" and "FSDP_VERSION" not in os.environ


def _zero_stage(config: Any) -> int:
    """The stage of ZeRO that a configuration of DeepSpeed asks for, a mapping or a file."""
    config = config if isinstance(config, dict) else json.loads(Path(config).read_text(encoding="utf-8"))
    return config.get("zero_optimization", {}).get("stage", 0)


def sharding_by_accelerator(accelerator: Any) -> str | None:
    """
    How an accelerator shards a model, as [`sharding_by_args`] says it: by the `fsdp_plugin` and the `deepspeed_plugin`
    of its state. Seen on accelerate 1.15.0; `None` where it has others.
    """
    if (plugin := getattr(accelerator.state, "fsdp_plugin", None)) is not None:
        return f"FSDP{plugin.fsdp_version}"
    plugin = getattr(accelerator.state, "deepspeed_plugin", None)
    return None if plugin is None else f"ZeRO-{plugin.zero_stage}"


def fsdp_param_dtype(module: Any) -> torch.dtype | None:
    """
    The dtype in which FSDP2 gathers the weights of a module and computes, `param_dtype` of its mixed precision policy:
    by the private `_get_fsdp_state` of `torch.distributed.fsdp.FSDPModule` and its `_mp_policy`; `None` for that of
    the weights. Seen on torch 2.13.0; raises `ImportError` where they are missing.
    """
    state = attribute("torch", module, "_get_fsdp_state")()
    return attribute("torch", state, "_mp_policy").param_dtype


def unsharded_type(module: Any) -> type:
    """
    The class that a module had before FSDP2 sharded it: the first of its bases that is no
    `torch.distributed.fsdp.FSDPModule`, of which FSDP2 makes a new one. Seen on torch 2.13.0.
    """
    if "torch.distributed.fsdp" not in sys.modules:  # nothing is sharded; importing it takes a while
        return type(module)
    from torch.distributed.fsdp import FSDPModule

    return next(base for base in type(module).__mro__ if not issubclass(base, FSDPModule))


def sharded_precision(model: Any) -> str:
    """The dtype in which FSDP2 computes, as text, where it isn't that of the weights; else, and unsharded, empty."""
    sharded = next((module for module in model.modules() if unsharded_type(module) is not type(module)), None)
    dtype = None if sharded is None else fsdp_param_dtype(sharded)
    return "" if dtype in (None, next(model.parameters()).dtype) else str(dtype)


def shard(accelerator: Any, model: Any) -> None:
    """
    Shard a model in place, as `Accelerator.prepare` does under FSDP2, with its activation checkpointing, before there
    is an optimizer; `prepare` then finds it sharded, see also [`trained_as_sharded`]. By `fsdp2_prepare_model`
    and `fsdp2_apply_ac` of `accelerate.utils.fsdp_utils`. Seen on accelerate 1.15.0; raises `ImportError` where they
    are missing.

    Raises:
        [`SelectionError`]: 4-bit weights that mixed precision would round.
    """
    module, plugin = "accelerate.utils.fsdp_utils", accelerator.state.fsdp_plugin
    dtype = plugin.mixed_precision_policy and plugin.mixed_precision_policy.param_dtype
    for storage in quantized_storage(model) - {dtype} if dtype else ():
        raise SelectionError(
            f"`bnb_4bit_quant_storage={str(storage)[6:]!r}`: FSDP2 shards 4-bit weights as numbers of that dtype, and "
            f"its mixed precision would round them to {str(dtype)[6:]}. Set it to {str(dtype)[6:]!r}."
        )
    plugin.set_auto_wrap_policy(model)
    if plugin.activation_checkpointing and not is_checkpointed(model):
        imported("accelerate", module, "fsdp2_apply_ac")(accelerator, model)
    imported("accelerate", module, "fsdp2_prepare_model")(accelerator, model)


@contextmanager
def trained_as_sharded(accelerator: Any, model: Any) -> Iterator[None]:
    """
    Inside, a model that [`shard`] has sharded, and that may have made passes, is trained as one that
    `Accelerator.prepare` shards: `prepare` does not apply activation checkpointing once more, which is off in the
    `fsdp_plugin` that all accelerators of the process share; and gradients have the dtypes of the parameters that are
    trained, which `unshard` of FSDP2 reads again: those of its first passes may have been frozen. Seen on accelerate
    1.15.0, torch 2.13.0.
    """
    for module in model.modules():
        if unsharded_type(module) is not type(module):
            module.unshard()
            module.reshard()
    plugin = getattr(accelerator.state, "fsdp_plugin", None)
    if plugin is None or not is_checkpointed(model):
        yield
        return
    own, plugin.activation_checkpointing = plugin.activation_checkpointing, False
    try:
        yield
    finally:
        plugin.activation_checkpointing = own


@contextmanager
def not_launched_sharded() -> Iterator[None]:
    """
    Inside, or in a function that it decorates, a model that is loaded is whole on each rank, and a trainer that is
    made does not shard its model, whatever `accelerate launch` or the arguments of another trainer said: without the
    variables of the one, and without what the other keeps for ZeRO-3, the private `_hf_deepspeed_config_weak_ref` of
    `transformers.integrations.deepspeed`. Seen on accelerate 1.15.0, transformers 5.23.0; raises `ImportError` where
    it is missing.
    """
    hidden = {name: os.environ.pop(name) for name in list(os.environ) if name.startswith(_LAUNCHED)}
    kept = imported("transformers", _DEEPSPEED, "_hf_deepspeed_config_weak_ref")
    sys.modules[_DEEPSPEED]._hf_deepspeed_config_weak_ref = None
    try:
        yield
    finally:
        sys.modules[_DEEPSPEED]._hf_deepspeed_config_weak_ref = kept
        os.environ.update(hidden)


@contextmanager
def trained_beside_shards(model: Any) -> Iterator[None]:
    """
    Inside, [`~transformers.Trainer`] trains the parameters that were added to a sharded model as it does with one that
    `from_pretrained(distributed_config=...)` sharded: it wraps nothing, and averages their gradients over the ranks.
    By `_is_distributed_loading_by_transformers` and `config.distributed_config`. Seen on transformers 5.23.0; where
    they are missing, the ranks end up with different weights, which is an error.
    """
    from transformers.distributed import DistributedConfig

    own = getattr(model.config, "distributed_config", None)
    marked = vars(model).get("_is_distributed_loading_by_transformers")
    model._is_distributed_loading_by_transformers = True
    model.config.distributed_config = own or DistributedConfig(fsdp_size=torch.distributed.get_world_size())
    try:
        yield
    finally:
        if marked is None:
            del model._is_distributed_loading_by_transformers
        if own is None:
            del model.config.distributed_config
