"""
Models whose weights are sharded across ranks, by FSDP2 or by ZeRO-3: a pass gathers them layer by layer, on all ranks
at once.

Their parts are called as those of any other model, see [`callable_by_parts`], and ranks may need different numbers of
passes, see [`~lockstep.in_step`].
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import is_peft_model
from torch import distributed, nn

from ...compat.sharding import not_launched_sharded
from . import fsdp2, zero3


#: The ways of sharding in which a model can be run, and the modules that know how.
WAYS: dict[str, Any] = {"ZeRO-3": zero3, "FSDP2": fsdp2}


def sharding_of_model(model: Any) -> str | None:
    """
    How a model is sharded now, one of [`WAYS`]; `None` if each rank holds all weights.

    Raises:
        [`SelectionError`]: it is sharded in another way.
    """
    if not (isinstance(model, nn.Module) and distributed.is_available() and distributed.is_initialized()):
        return None
    return next((name for name, way in WAYS.items() if way.shards(model)), None)


def place(model: nn.Module, accelerator: Accelerator, sharding: str | None) -> None:
    """
    Put a model where it can be run, as training does before its first step: sharded, which training then finds done;
    or, under DeepSpeed with all weights on each rank, on the device.
    """
    if sharding in WAYS:
        WAYS[sharding].place(model, accelerator)
    elif sharding is not None:
        model.to(accelerator.device)


def computing_dtype(model: nn.Module) -> torch.dtype | None:
    """The dtype in which a sharded model computes; `None` for one that is not sharded."""
    sharding = sharding_of_model(model)
    return None if sharding is None else WAYS[sharding].computing_dtype(model)


def callable_by_parts(model: nn.Module) -> AbstractContextManager:
    """
    Inside, the backbone of a sharded model can be called by itself, which gathers its weights as a pass of the model
    does; and its head on any hidden states, as often as each rank has to: its weights stay gathered. Does nothing for
    a model that is not sharded.
    """
    return _by_its_way(model, "called_by_parts")


@contextmanager
def trained_as_it_is(model: nn.Module) -> Iterator[None]:
    """
    Inside, [`~transformers.Trainer`] trains the adapter of a model as it is now: weights that are sharded stay so,
    others are not sharded, whatever the launch says; and its gradients are averaged over the ranks.
    """
    with not_launched_sharded(), _by_its_way(model, "trained_beside"):
        yield


def _by_its_way(model: Any, name: str) -> AbstractContextManager:
    if (sharding := sharding_of_model(model)) is None:
        return nullcontext()
    return getattr(WAYS[sharding], name)(model, model.get_base_model() if is_peft_model(model) else model)
