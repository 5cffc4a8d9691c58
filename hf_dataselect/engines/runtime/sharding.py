"""
Models whose weights are sharded across ranks by FSDP2: a pass gathers them layer by layer, on all ranks at once.

Their parts are called as those of any other model, see [`callable_by_parts`], and ranks may need different numbers of
passes, see [`in_step`].
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import is_peft_model
from torch import distributed, nn

from ...compat.sharding import fsdp_param_dtype, is_partitioned, not_launched_sharded, shard, trained_beside_shards
from ...compat.torch import HOOKS
from ...errors import SelectionError
from .ranks import meeting


_ABSENT = object()


def sharded_root(model: Any) -> nn.Module | None:
    """
    The module of a model that FSDP2 shards, by whose forward weights are gathered; `None` if each rank holds all of
    them.

    Raises:
        [`SelectionError`]: it is sharded in another way.
    """
    if not (isinstance(model, nn.Module) and distributed.is_available() and distributed.is_initialized()):
        return None
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
    by_fsdp1 = any(isinstance(part, FullyShardedDataParallel) for part in model.modules())
    if root is None and (by_fsdp1 or is_partitioned(model)):
        raise SelectionError(f"`model`: it is sharded by {'FSDP1' if by_fsdp1 else 'ZeRO-3'}. {USE_FSDP2}")
    return root


def place(model: nn.Module, accelerator: Accelerator, sharding: str | None) -> None:
    """
    Put a model where it can be run, as training does before its first step: sharded by FSDP2, which training then
    finds done; or, under DeepSpeed with all weights on each rank, on the device.
    """
    if sharding == "FSDP2":
        shard(accelerator, model)
    elif sharding is not None:
        model.to(accelerator.device)


def sharding_of_model(model: Any) -> str | None:
    """How a model that was loaded already is sharded, as [`~compat.sharding.sharding_by_args`] says it."""
    return None if sharded_root(model) is None else "FSDP2"


#: Dimensions of meshes over which a layer computes a part of its result.
OTHERWISE = frozenset({"tp", "ep", "cp", "sp", "pp"})
#: What to do about FSDP1.
USE_FSDP2 = "Use FSDP2: `fsdp_version: 2` in the configuration of accelerate, `fsdp_config: {version: 2}` in a recipe."


def computing_dtype(model: nn.Module) -> torch.dtype | None:
    """The dtype in which a sharded model computes; `None` for one that is not sharded."""
    root = sharded_root(model)
    return None if root is None else fsdp_param_dtype(root) or next(root.parameters()).dtype


class _ByParts:
    """A sharded model whose parts are called by themselves."""

    def __init__(self, root: nn.Module, backbone: nn.Module):
        self.root, self.backbone = root, backbone
        self.stepping = self.inside = False

    def begin(self, *_: Any) -> None:
        """Hook before the root's own, which gathers weights."""
        self.inside = True
        if self.stepping:
            self.working(1)

    def end(self, *_: Any) -> None:
        """Hook after the root's own, also where it failed."""
        self.inside = False

    def working(self, ranks: int) -> int:
        """Sum over the ranks of those that are about to make a pass."""
        flag = torch.tensor([ranks], device=next(self.root.parameters()).device)
        distributed.all_reduce(flag)
        return int(flag)

    def dummy_pass(self) -> None:
        """The shortest pass, for other ranks."""
        ids = torch.zeros((1, 2), dtype=torch.long, device=next(self.root.parameters()).device)
        with torch.no_grad():
            self.backbone(input_ids=ids, use_cache=False)


#: The innermost model whose parts are called now.
_running: list[_ByParts] = []


@contextmanager
def callable_by_parts(model: nn.Module) -> Iterator[None]:
    """
    Inside, the backbone of a sharded model can be called by itself, which gathers its weights as a pass of the model
    does; and its head on any hidden states, as often as each rank has to: its weights stay gathered. Does nothing for
    a model that is not sharded.
    """
    root = sharded_root(model)
    if root is None:
        yield
        return
    inner: Any = model.get_base_model() if is_peft_model(model) else model
    backbone, head = inner.base_model, inner.get_output_embeddings()
    parts = _ByParts(root, backbone)
    own, kept = backbone.forward, vars(backbone).get("forward", _ABSENT)

    def forward(*args: Any, **kwargs: Any) -> Any:
        """The backbone in place of the model, between the hooks of the model that gather and free weights."""
        if parts.inside:
            return own(*args, **kwargs)
        before = vars(root).get("forward", _ABSENT)
        root.forward = own
        try:
            return root(*args, **kwargs)
        finally:
            _put_back(root, before)

    handles = [
        root.register_forward_pre_hook(parts.begin, prepend=True),
        root.register_forward_hook(parts.end, always_call=True),
    ]
    if backbone is not root:
        backbone.forward = forward
    _running.append(parts)
    try:
        with meeting(), _head_gathered(root, head):
            yield
    finally:
        _running.remove(parts)
        for handle in handles:
            handle.remove()
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


@contextmanager
def in_step(make_pass: Callable[[], Any] | None = None) -> Iterator[None]:
    """
    Inside, ranks make different numbers of passes of the sharded model whose parts are called, if there is one: each
    says so before a pass, and one that is done makes dummy passes until all are.

    Args:
        make_pass (`Callable`, *optional*):
            Makes a pass that communicates as those inside do; by default a forward pass of two tokens.
    """
    parts = _running[-1] if _running else None
    if parts is None or parts.stepping:  # a part of the passes of a rank
        yield
        return
    parts.stepping = True
    try:
        yield
        parts.stepping = False
        while parts.working(0):
            (make_pass or parts.dummy_pass)()
    finally:
        parts.stepping = False


@contextmanager
def trained_as_it_is(model: nn.Module) -> Iterator[None]:
    """
    Inside, [`~transformers.Trainer`] trains the adapter of a model as it is now: weights that are sharded stay so,
    others are not sharded, whatever the launch says; and its gradients are averaged over the ranks.
    """
    with not_launched_sharded(), ExitStack() as stack:
        if sharded_root(model) is not None:
            inner: Any = model.get_base_model() if is_peft_model(model) else model
            stack.enter_context(trained_beside_shards(inner))
        yield


def refuse_to_halve(error: Exception) -> None:
    """
    Raise where a pass of a sharded model ran out of memory: a smaller one in its place would be one that other ranks
    don't make.
    """
    if _running:
        raise SelectionError(
            "A batch does not fit in memory beside the gathered weights of a layer and of the head: lower "
            "`selection_batch_tokens`."
        ) from error
