"""Models that ZeRO-3 of DeepSpeed partitions across ranks: a pass gathers the weights of one layer at a time."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from typing import Any, NamedTuple

import torch
from accelerate import Accelerator
from torch import nn

from ...compat.deepspeed import engine_at_rest, gathered, is_gathered, is_partitioned, partition
from .lockstep import made_together


def shards(model: nn.Module) -> bool:
    """Whether ZeRO-3 shards a model."""
    return is_partitioned(model)


def place(model: nn.Module, accelerator: Accelerator) -> None:
    """
    Partition a model, as training does before its first step, which then finds it done; but no quantized one. What
    stays whole is put on the device.
    """
    if not (is_partitioned(model) or getattr(model, "is_quantized", False)):
        partition(accelerator, model)
    model.to(accelerator.device)


def computing_dtype(model: nn.Module) -> torch.dtype:
    """The dtype in which a partitioned model computes: that of its weights."""
    return next(model.parameters()).dtype


@contextmanager
def called_by_parts(model: nn.Module, inner: Any) -> Iterator[None]:
    """As [`~sharding.callable_by_parts`]; `inner` is the model inside of its adapters."""
    with made_together(inner.base_model, {model, inner, inner.base_model}), _gathered_by_layer(model, inner):
        yield


def trained_beside(model: nn.Module, inner: Any) -> AbstractContextManager:
    """Inside, [`~transformers.Trainer`] trains an adapter beside partitioned weights."""
    return _gathered_by_layer(model, inner)  # DDP averages the gradients, as the adapter is whole


@contextmanager
def _gathered_by_layer(model: nn.Module, inner: Any) -> Iterator[None]:
    """
    Inside, all ranks together make passes, forward and backward. The head's weights stay gathered: ranks differ in how
    often they call it, and TRL multiplies by them without a call.
    """
    layers, around = _layers(model)
    head = inner.get_output_embeddings()
    whole = [*around, *(() if head is None else head.parameters())]  # each once, though weights may be tied
    gathering = _Gathering()
    with ExitStack() as stack:
        stack.enter_context(engine_at_rest(model))
        stack.enter_context(gathered(whole))
        stack.enter_context(torch.autograd.graph.saved_tensors_hooks(gathering.pack, gathering.unpack))
        stack.callback(gathering.release)
        for layer, parameters in layers.items():
            gather = partial(gathering.gather, layer, parameters)
            stack.callback(layer.register_forward_pre_hook(gather, prepend=True).remove)
            stack.callback(layer.register_forward_hook(partial(_gather_for_backward, gather)).remove)
        yield


def _layers(model: nn.Module) -> tuple[dict[nn.Module, list[nn.Parameter]], list[nn.Parameter]]:
    """
    Modules whose weights are gathered together: the model's layers, and each other module that has some of its own;
    and the weights of modules around those.
    """
    from transformers import GradientCheckpointingLayer  # a slow import

    layers: dict[nn.Module, list[nn.Parameter]] = {}
    inside, around = set[nn.Module](), list[nn.Parameter]()
    for module in model.modules():
        if module in inside:
            continue
        own = list(module.parameters(recurse=False))
        if isinstance(module, GradientCheckpointingLayer):
            layers[module] = list(module.parameters())
            inside.update(module.modules())
        elif len(own) < sum(1 for _ in module.parameters()):
            around += own
        elif own:
            layers[module] = own
    return layers, around


def _gather_for_backward(gather: Callable, layer: nn.Module, inputs: Any, output: Any) -> None:
    """Hook of a layer after its forward pass: its weights are there again before its backward pass."""
    for tensor in _tensors(output):
        if tensor.requires_grad:
            tensor.register_hook(gather)


def _tensors(output: Any) -> Iterator[torch.Tensor]:
    if isinstance(output, torch.Tensor):
        yield output
    elif isinstance(output, (tuple, list, dict)):
        for part in output.values() if isinstance(output, dict) else output:
            yield from _tensors(part)


class _Saved(NamedTuple):
    """A view of gathered weights that the backward pass needs, without their memory."""

    parameter: nn.Parameter
    size: torch.Size
    stride: tuple[int, ...]
    offset: int


class _Gathering:
    """
    The weights of one layer at a time: those of the last one stay gathered until another is called. All ranks call the
    same layers in the same order.
    """

    def __init__(self):
        self.layer: nn.Module | None = None
        self.context = ExitStack()
        self.memory: dict[int, nn.Parameter] = {}

    def gather(self, layer: nn.Module, parameters: list[nn.Parameter], *_: Any) -> None:
        """Gather the weights of a layer; what follows are arguments of a hook."""
        if layer is self.layer:
            return
        self.release()
        missing = [parameter for parameter in parameters if not is_gathered(parameter)]
        self.context.enter_context(gathered(missing))
        self.layer = layer
        self.memory = {parameter.untyped_storage().data_ptr(): parameter for parameter in missing}
        if len(self.memory) < len(missing):  # of several in one piece of memory, none is told by it
            self.memory = {}

    def release(self) -> None:
        self.layer, self.memory = None, {}
        self.context.close()

    def pack(self, tensor: torch.Tensor) -> torch.Tensor | _Saved:
        """What is kept of a tensor that is saved for the backward pass."""
        parameter = self.memory.get(tensor.untyped_storage().data_ptr()) if self.memory else None
        if parameter is None or parameter.dtype != tensor.dtype:
            return tensor.detach()
        offset = tensor.storage_offset() - parameter.storage_offset()
        return _Saved(parameter, tensor.shape, tensor.stride(), offset)

    def unpack(self, saved: torch.Tensor | _Saved) -> torch.Tensor:
        """The tensor in the backward pass."""
        if isinstance(saved, torch.Tensor):
            return saved
        whole = saved.parameter.detach()
        return whole.as_strided(saved.size, saved.stride, whole.storage_offset() + saved.offset)
