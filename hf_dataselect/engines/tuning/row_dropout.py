"""Dropout of adapters that is drawn for each row by itself: the same on one rank and on several, in any batch."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from transformers import TrainerCallback

from ...compat.peft import lora_dropouts


class RowDropout(nn.Module):
    """
    Dropout whose mask depends on the seed, the layer, the update and the tokens of the row.

    Where a layer does not see rows (an expert sees tokens of several), it is drawn as [`~torch.nn.Dropout`] does.

    Args:
        p (`float`):
            Part of the numbers that becomes 0.
        layer (`str`):
            Name of the layer.
        rows ([`_Rows`]):
            The rows of the batch.
    """

    def __init__(self, p: float, layer: str, rows: "_Rows"):
        super().__init__()
        self.p, self.layer, self._rows = p, layer, rows

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.training:
            return x
        seen = self._rows.seen
        if seen is None or x.shape[:2] != seen.shape:
            return nn.functional.dropout(x, self.p)
        scale, generator = torch.ones_like(x), torch.Generator(x.device)
        for row, key in enumerate(self._rows.keys):
            generator.manual_seed(self._rows.seed_of(key, self.layer))
            shape = (int(self._rows.lengths[row]), *x.shape[2:])
            kept = torch.rand(shape, generator=generator, device=x.device) >= self.p
            scale[row, seen[row].to(x.device)] = kept.to(x.dtype) / (1 - self.p)
        return x * scale


class _Rows(TrainerCallback):
    """Which rows the model sees, and at which update."""

    def __init__(self, seed: int):
        self.seed, self.update = seed, 0
        #: Which positions of the batch hold tokens of rows, bool `(rows, positions)`.
        self.seen: torch.Tensor | None = None

    def on_step_begin(self, args, state, control, **kwargs):
        self.update = state.global_step

    def see(self, module: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        """Hook of the model: the batch."""
        ids, mask = kwargs.get("input_ids"), kwargs.get("attention_mask")
        self.seen = None
        if ids is not None and (mask is None or mask.shape == ids.shape):
            self.seen = torch.ones_like(ids, dtype=torch.bool) if mask is None else mask.bool()
            rows = [row[tokens] for row, tokens in zip(ids.cpu(), self.seen.cpu(), strict=True)]
            self.keys, self.lengths = [row.numpy().tobytes() for row in rows], [len(row) for row in rows]

    def seed_of(self, key: bytes, layer: str) -> int:
        """Seed of the mask of a row in a layer."""
        hasher = hashlib.blake2b(f"{self.seed}|{self.update}|{layer}|".encode(), digest_size=8)
        hasher.update(key)
        return int.from_bytes(hasher.digest(), "big") >> 1


@contextmanager
def dropout_by_row(model: nn.Module, seed: int) -> Iterator[TrainerCallback]:
    """
    Inside, the LoRA layers of a model draw their dropout for each row by itself, see [`RowDropout`]; yields the
    callback that tells it the number of the update.

    Args:
        model ([`~peft.PeftModel`] or [`~transformers.PreTrainedModel`]):
            A model without adapters is left as it is.
        seed (`int`):
            Of the masks.
    """
    rows = _Rows(seed)
    replaced = [
        (dropouts, adapter, dropout, name)
        for name, dropouts in lora_dropouts(model)
        for adapter, dropout in dropouts.items()
        if type(dropout) is nn.Dropout and dropout.p > 0
    ]
    hook = model.register_forward_pre_hook(rows.see, with_kwargs=True)
    try:
        for dropouts, adapter, dropout, name in replaced:
            dropouts[adapter] = RowDropout(dropout.p, name, rows)
        yield rows
    finally:
        hook.remove()
        for dropouts, adapter, dropout, _ in replaced:
            dropouts[adapter] = dropout
