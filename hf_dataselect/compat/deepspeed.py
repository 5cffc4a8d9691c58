"""What DeepSpeed does not document of ZeRO-3. Imports it only where it shards a model."""

from collections.abc import Collection, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import nn

from .torch import HOOKS


def is_partitioned(model: Any) -> bool:
    """Whether ZeRO-3 shards a model: parameters have a `ds_id`. Seen on DeepSpeed 0.19.8."""
    return any(hasattr(parameter, "ds_id") for parameter in model.parameters())


def is_gathered(parameter: Any) -> bool:
    """Whether a rank holds all of a parameter: ZeRO-3 keeps its shape as `ds_shape`. Seen on DeepSpeed 0.19.8."""
    return tuple(getattr(parameter, "ds_shape", parameter.shape)) == tuple(parameter.shape)


def own_part(tensor: Any) -> Any:
    """
    What a rank keeps of a parameter that ZeRO-3 shards, its `ds_tensor`; else the tensor. Seen on DeepSpeed 0.19.8.
    """
    return getattr(tensor, "ds_tensor", tensor)


def gathered(parameters: Collection[Any]) -> AbstractContextManager:
    """
    Inside, each rank holds all of these parameters; all ranks have to ask. Those that they hold already stay as they
    are, also afterwards.
    """
    missing = [parameter for parameter in parameters if not is_gathered(parameter)]
    if not missing:
        return nullcontext()
    import deepspeed

    return deepspeed.zero.GatheredParameters(missing)


def partition(accelerator: Any, model: nn.Module) -> None:
    """
    Partition the weights of a model across the ranks, as `deepspeed.initialize` does, which then finds it done: in the
    dtype of its mixed precision, in which DeepSpeed trains them. Adapters and what else is trained beside frozen
    weights stays whole until then. By the configuration in `accelerator.state.deepspeed_plugin`. Seen on DeepSpeed
    0.19.8, accelerate 1.15.0.
    """
    import deepspeed

    config = _without_auto(accelerator.state.deepspeed_plugin.deepspeed_config)
    precision = {name: config[name] for name in ("bf16", "fp16") if name in config}
    dtypes = {"bf16": torch.bfloat16, "fp16": torch.float16}
    dtype = next((dtypes[name] for name, given in precision.items() if given.get("enabled")), None)
    for parameter in model.parameters() if dtype is not None else ():
        if parameter.is_floating_point():
            parameter.data = parameter.data.to(dtype)
    given = {"train_micro_batch_size_per_gpu": 1, "zero_optimization": config["zero_optimization"], **precision}
    adapters = getattr(model, "peft_config", {}).keys()
    base = [
        parameter
        for name, parameter in model.named_parameters()
        if not adapters or not (parameter.requires_grad or adapters & {*name.split(".")})
    ]
    deepspeed.zero.Init(module=nn.ParameterList(base), config_dict_or_path=given)


def _without_auto(config: dict[str, Any]) -> dict[str, Any]:
    """What a configuration says before training fills in the rest."""
    return {
        name: _without_auto(value) if isinstance(value, dict) else value
        for name, value in config.items()
        if value != "auto"
    }


@contextmanager
def engine_at_rest(model: nn.Module) -> Iterator[None]:
    """
    Inside, calls of a model and its parts gather no weights, and compute as without DeepSpeed: the hooks of its engine
    are off, which are told by their module, and so is its own `torch.nn.functional.linear`, which rounds once more
    where there is a bias; torch's is `linear_bk` of `deepspeed.zero.Init`. Seen on DeepSpeed 0.19.8; where they have
    other names, passes of a model that is being trained may hang.
    """
    of_modules = (getattr(module, name) for module in model.modules() for name in HOOKS)
    kept = [(hooks, dict(hooks)) for hooks in of_modules if any(map(_of_engine, hooks.values()))]
    for hooks, before in kept:
        hooks.clear()
        hooks.update({key: hook for key, hook in before.items() if not _of_engine(hook)})
    linear = nn.functional.linear
    if _module(linear) == "deepspeed.runtime.zero.linear":
        import deepspeed

        nn.functional.linear = getattr(deepspeed.zero.Init, "linear_bk", linear)
    try:
        yield
    finally:
        nn.functional.linear = linear
        for hooks, before in kept:
            added = dict(hooks)  # transformers adds some in a first pass
            hooks.clear()
            hooks.update(before | added)


def _of_engine(hook: Any) -> bool:
    return _module(hook).startswith("deepspeed.")


def _module(function: Any) -> str:
    return str(getattr(function, "__module__", ""))
