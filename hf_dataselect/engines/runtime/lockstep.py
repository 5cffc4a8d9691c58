"""Passes of a sharded model, which all ranks make at once; they may need different numbers of them."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import distributed, nn

from ...errors import SelectionError
from .ranks import meeting


class Passes:
    """The passes of a sharded model whose parts are called by themselves."""

    def __init__(self, backbone: nn.Module):
        self.backbone = backbone
        self.device = next(backbone.parameters()).device
        self.stepping, self.depth = False, 0

    def begin(self, *_: Any) -> None:
        """Hook of what begins a pass, before those that gather weights."""
        self.depth += 1
        if self.stepping and self.depth == 1:
            self.working(1)

    def end(self, *_: Any) -> None:
        """Hook after all others, also where the pass failed."""
        self.depth -= 1

    def working(self, ranks: int) -> int:
        """Sum over the ranks of those that are about to make a pass."""
        flag = torch.tensor([ranks], device=self.device)
        distributed.all_reduce(flag)
        return int(flag)

    def dummy_pass(self) -> None:
        """The shortest pass, for other ranks."""
        ids = torch.zeros((1, 2), dtype=torch.long, device=self.device)
        with torch.no_grad():
            self.backbone(input_ids=ids, use_cache=False)


#: The innermost model whose parts are called now.
_running: list[Passes] = []


@contextmanager
def made_together(backbone: nn.Module, entries: Iterable[nn.Module]) -> Iterator[Passes]:
    """Inside, the outermost call of one of `entries` is a pass, which all ranks make; see [`in_step`]."""
    passes = Passes(backbone)
    handles = []
    for module in entries:
        handles.append(module.register_forward_pre_hook(passes.begin, prepend=True))
        handles.append(module.register_forward_hook(passes.end, always_call=True))
    _running.append(passes)
    try:
        with meeting():
            yield passes
    finally:
        _running.remove(passes)
        for handle in handles:
            handle.remove()


@contextmanager
def in_step(make_pass: Callable[[], Any] | None = None) -> Iterator[None]:
    """
    Inside, ranks make different numbers of passes of the sharded model whose parts are called, if there is one: each
    says so before a pass, and one that is done makes dummy passes until all are.

    Args:
        make_pass (`Callable`, *optional*):
            Makes a pass that communicates as those inside do; by default a forward pass of two tokens.
    """
    passes = _running[-1] if _running else None
    if passes is None or passes.stepping:  # a part of the passes of a rank
        yield
        return
    passes.stepping = True
    try:
        yield
        passes.stepping = False
        while passes.working(0):
            (make_pass or passes.dummy_pass)()
    finally:
        passes.stepping = False


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
