"""Models that FSDP2 shards across ranks: a pass gathers the weights of one layer at a time."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import is_peft_model
from torch import nn

from ...compat.sharding import fsdp_param_dtype, shard, trained_beside_shards
from ...compat.torch import HOOKS
from ...errors import SelectionError
from .lockstep import made_together


_ABSENT = object()
#: Dimensions of meshes over which a layer computes a part of its result.
OTHERWISE = frozenset({"tp", "ep", "cp", "sp", "pp"})
#: What to do about FSDP1.
USE_FSDP2 = "Use FSDP2: `fsdp_version: 2` in the configuration of accelerate, `fsdp_config: {version: 2}` in a recipe."


def shards(model: nn.Module) -> bool:
    """
    Whether FSDP2 shards a model.

    Raises:
        [`SelectionError`]: it is sharded in another way.
    """
    return _root(model) is not None


def place(model: nn.Module, accelerator: Accelerator) -> None:
    """Shard a model, as training does before its first step, which then finds it done."""
    shard(accelerator, model)


def computing_dtype(model: nn.Module) -> torch.dtype:
    """The dtype in which a sharded model computes."""
    return fsdp_param_dtype(_root(model)) or next(model.parameters()).dtype


def trained_beside(model: nn.Module, inner: nn.Module) -> AbstractContextManager:
    """Inside, [`~transformers.Trainer`] trains an adapter beside sharded weights."""
    return trained_beside_shards(inner)


def _root(model: nn.Module) -> Any:
    """The module by whose forward weights are gathered; `None` if FSDP2 does not shard the model."""
    from torch.distributed.fsdp import FSDPModule, FullyShardedDataParallel
    from torch.distributed.tensor import DTensor

    inner = model.get_base_model() if is_peft_model(model) else model
    root = next((part for part in (model, inner) if isinstance(part, FSDPModule)), None)
    meshes = [p.device_mesh.mesh_dim_names or () for p in model.parameters() if isinstance(p, DTensor)]
    if (root is None and meshes) or any(name in OTHERWISE for mesh in meshes for name in mesh):
        raise SelectionError(
            "`model`: it is sharded in another way than by FSDP2 (tensor, expert, context parallelism, layers alone). "
            "Load it as a whole, or shard it as `distributed_config=DistributedConfig(fsdp_size=...)` and FSDP2 of "
            "accelerate do."
        )
    if root is None and any(isinstance(part, FullyShardedDataParallel) for part in model.modules()):
        raise SelectionError(f"`model`: it is sharded by FSDP1. {USE_FSDP2}")
    return root


@contextmanager
def called_by_parts(model: nn.Module, inner: Any) -> Iterator[None]:
    """As [`~sharding.callable_by_parts`]; `inner` is the model inside of its adapters."""
    root = _root(model)
    backbone, head = inner.base_model, inner.get_output_embeddings()
    own, kept = backbone.forward, vars(backbone).get("forward", _ABSENT)
    with made_together(backbone, [root]) as passes:

        def forward(*args: Any, **kwargs: Any) -> Any:
            """The backbone in place of the model, between the hooks of the model that gather and free weights."""
            if passes.depth:
                return own(*args, **kwargs)
            before = vars(root).get("forward", _ABSENT)
            root.forward = own
            try:
                return root(*args, **kwargs)
            finally:
                _put_back(root, before)

        if backbone is not root:
            backbone.forward = forward
        try:
            with _head_gathered(root, head):
                yield
        finally:
            if backbone is not root:
                _put_back(backbone, kept)


def _put_back(module: nn.Module, forward: Any) -> None:
    if forward is _ABSENT:
        del module.forward
    else:
        module.forward = forward


@contextmanager
def _head_gathered(root: nn.Module, head: nn.Module | None) -> Iterator[None]:
    """
    Inside, the head's weights are whole on each rank, and it has no hooks: those of FSDP2 would gather them for each
    call, in which ranks differ.
    """
    if head is None:
        yield
        return
    from torch.distributed.fsdp import FSDPModule
    from torch.distributed.tensor import DTensor

    layers = list(head.modules())  # several where it has an adapter
    units: list[Any] = [layer for layer in layers if isinstance(layer, FSDPModule)] or [root]
    hooks = [(hooks, dict(hooks)) for layer in layers for hooks in (getattr(layer, name) for name in HOOKS)]
    for of_kind, _ in hooks:
        of_kind.clear()
    for unit in units:
        unit.unshard()
        unit.set_reshard_after_backward(False, recurse=False)
    # Tied weights are gathered by the embeddings' name only.
    sharded = [
        (layer, name, parameter)
        for layer in layers
        for name, parameter in layer.named_parameters(recurse=False)
        if isinstance(parameter, DTensor)
    ]
    dtype = fsdp_param_dtype(root)
    for layer, name, parameter in sharded:
        whole = parameter.detach().full_tensor().to(dtype or parameter.dtype)
        setattr(layer, name, nn.Parameter(whole, requires_grad=False))
    own = head.register_forward_pre_hook(lambda _, args: (args[0].to(dtype or args[0].dtype), *args[1:]))
    try:
        yield
    finally:
        own.remove()
        for of_kind, before in hooks:
            of_kind.update(before)
        for layer, name, parameter in sharded:
            setattr(layer, name, parameter)
        for unit in units:
            unit.set_reshard_after_backward(True, recurse=False)
        for unit in root.modules():  # the last ones keep their weights gathered after a pass
            if isinstance(unit, FSDPModule):
                unit.reshard()
