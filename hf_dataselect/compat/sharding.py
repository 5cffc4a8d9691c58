"""What PyTorch, accelerate, transformers and DeepSpeed do not document of sharded models."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from .installed import attribute, imported


#: Variables by which `accelerate launch` has every accelerator and [`~transformers.TrainingArguments`] shard a model.
#: Seen on accelerate 1.15.0.
_LAUNCHED = ("ACCELERATE_USE_", "ACCELERATE_DEEPSPEED_", "FSDP_")


def launched_fsdp() -> int | None:
    """
    The version of FSDP that `accelerate launch` was told to shard with, by the environment variables that it sets:
    `ACCELERATE_USE_FSDP` and `FSDP_VERSION`. Seen on accelerate 1.15.0; `None` where it sets others.
    """
    return int(os.environ.get("FSDP_VERSION", "1")) if _launched("FSDP") else None


def launched_deepspeed() -> int | None:
    """
    The stage of ZeRO that `accelerate launch` was told to shard with, by the environment variables that it sets:
    `ACCELERATE_USE_DEEPSPEED`, `ACCELERATE_DEEPSPEED_CONFIG_FILE` and `ACCELERATE_DEEPSPEED_ZERO_STAGE`. Seen on
    accelerate 1.15.0; `None` where it sets others.
    """
    if not _launched("DEEPSPEED"):
        return None
    file = os.environ.get("ACCELERATE_DEEPSPEED_CONFIG_FILE", "none")
    return int(os.environ.get("ACCELERATE_DEEPSPEED_ZERO_STAGE", "2")) if file == "none" else zero_stage(file)


def _launched(name: str) -> bool:
    return os.environ.get(f"ACCELERATE_USE_{name}") == "true"


def zero_stage(config: Any) -> int:
    """The stage of ZeRO that a configuration of DeepSpeed asks for, a mapping or a file."""
    from transformers.integrations import HfDeepSpeedConfig

    return int(HfDeepSpeedConfig(config).get_value("zero_optimization.stage", 0))


def fsdp_param_dtype(module: Any) -> torch.dtype | None:
    """
    The dtype in which FSDP2 gathers the weights of a module, and computes: `param_dtype` of the mixed precision policy,
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
    kind = type(module)
    if not torch.distributed.is_available() or kind.__module__ in ("torch.nn.modules.linear", "builtins"):
        return kind
    from torch.distributed.fsdp import FSDPModule

    return next(base for base in kind.__mro__ if not issubclass(base, FSDPModule))


def shard(accelerator: Any, model: Any) -> Any:
    """
    Shard a model as `Accelerator.prepare` does under FSDP2, with its activation checkpointing, before there is an
    optimizer; `prepare` then finds it sharded. By `fsdp2_prepare_model` and `fsdp2_apply_ac` of
    `accelerate.utils.fsdp_utils`. Seen on accelerate 1.15.0; raises `ImportError` where they are missing.
    """
    module, plugin = "accelerate.utils.fsdp_utils", accelerator.state.fsdp_plugin
    plugin.set_auto_wrap_policy(model)
    if plugin.activation_checkpointing:
        model = imported("accelerate", module, "fsdp2_apply_ac")(accelerator, model)
        plugin.activation_checkpointing = False  # it would be applied once more
    return imported("accelerate", module, "fsdp2_prepare_model")(accelerator, model)


@contextmanager
def not_launched_sharded() -> Iterator[None]:
    """
    Inside, a trainer that is made does not shard its model, whatever `accelerate launch` said: without the variables
    that it sets. Seen on accelerate 1.15.0.
    """
    hidden = {name: os.environ.pop(name) for name in list(os.environ) if name.startswith(_LAUNCHED)}
    if "ACCELERATE_USE_CPU" in hidden:
        os.environ["ACCELERATE_USE_CPU"] = hidden["ACCELERATE_USE_CPU"]
    try:
        yield
    finally:
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
