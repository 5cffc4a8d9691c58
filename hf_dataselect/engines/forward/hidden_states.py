"""Pooled last hidden states of token rows, optionally with the loss of the same forward pass."""

from collections.abc import Sequence
from typing import Literal
from weakref import WeakKeyDictionary

import numpy as np
import torch
from accelerate.utils import is_peft_model
from torch import nn

from ...compat.accelerate import device_of
from ..runtime.batching import WIDTHS, padded, rounded
from ..runtime.model_state import evaluating, scoring, scoring_dtype, unprepared
from ..runtime.model_state import positions as positions_of
from ..runtime.runtime import Runtime
from ..runtime.sharding import callable_by_parts
from ..runtime.token_rows import TokenRows
from .likelihood import logits_at
from .token_losses import token_losses


#: Loss of a row of one token, which has a hidden state but no label.
NO_LOSS = -1.0
_widths: WeakKeyDictionary[nn.Module, int] = WeakKeyDictionary()


def state_width(model: nn.Module) -> int:
    """
    Width of the last hidden states, from those of one token: configs name it differently, and some models (OPT-350m)
    project the states that `hidden_size` is of. A model is asked once.
    """
    if model in _widths:
        return _widths[model]
    inner = model.get_base_model() if is_peft_model(model) else model
    token = torch.zeros((1, 1), dtype=torch.int64, device=device_of(model))
    with torch.no_grad(), evaluating(model), unprepared(model), callable_by_parts(model):
        _widths[model] = inner.base_model(input_ids=token, use_cache=False).last_hidden_state.shape[-1]
    return _widths[model]


def hidden_state(
    model: nn.Module,
    rows: TokenRows,
    runtime: Runtime,
    pool: Literal["mean", "last", "position"],
    with_loss: bool = False,
    layers: Sequence[int] = (),
) -> np.ndarray:
    """
    Last hidden state (after the final norm): its mean over all positions of a row, or that of the row's last token.

    Args:
        pool (`str`):
            `"mean"`; `"last"`; or `"position"`: the mean with position i (from 1) weighted by i, as in RDS+ (arXiv
            2503.01807), since later states of a causal model have more context.
        with_loss (`bool`, *optional*, defaults to `False`):
            One more column: the row's mean loss per token, in nats, from the same forward pass; `NO_LOSS` for a row
            of one token.
        layers (`Sequence[int]`, *optional*):
            Layers whose states are pooled and stand side by side, in place of the last ones: 0 is the embeddings, the
            number of layers the last, after the final norm. Not together with `with_loss`.

    Returns:
        `np.ndarray`: float32 `(n, width)`, `(n, layers x width)` or `(n, width + 1)`; NaN for an empty row or one that
        did not fit in memory.
    """
    inner = model.get_base_model() if is_peft_model(model) else model
    device, columns = device_of(model), state_width(model) * max(1, len(layers)) + with_loss

    def compute(batch: np.ndarray) -> np.ndarray:
        ids = [ids for ids, _ in rows.take(batch)]
        width = rounded(max(map(len, ids)), WIDTHS, next(model.parameters()), positions_of(model))
        filled = padded(ids, width=width).to(device)
        lengths = torch.tensor([[len(row)] for row in ids])
        if filled.shape[1] == 0:
            return np.full((len(ids), columns), np.nan, np.float32)
        positions = torch.arange(filled.shape[1])
        losses = torch.zeros((len(ids), 0))
        if with_loss:
            states, predicts = [], positions < lengths - 1
            indices, targets = predicts.flatten().nonzero()[:, 0].to(device), filled.roll(-1, 1).flatten()
            parts = [
                token_losses(logits, targets[indices[part]].to(logits.device))[0]
                for logits, part in logits_of(filled, indices, 0, states=states)
            ]
            (hidden,), token_loss = states, torch.zeros(predicts.shape, dtype=torch.float64)
            token_loss[predicts] = torch.cat([part.double().cpu() for part in parts] or [token_loss[predicts]])
            losses = torch.where(lengths > 1, token_loss.sum(1, keepdim=True) / (lengths - 1), NO_LOSS).float()
        elif layers:
            states = inner.base_model(input_ids=filled, use_cache=False, output_hidden_states=True).hidden_states
            hidden = torch.cat([states[layer] for layer in layers], -1)
        else:
            hidden = inner.base_model(input_ids=filled, use_cache=False).last_hidden_state
        weights = (positions == lengths - 1 if pool == "last" else positions < lengths).float()
        weights = (weights * (positions + 1) if pool == "position" else weights).to(hidden.device)
        total = (hidden.float() * weights[..., None]).sum(1)
        return torch.cat([(total / weights.sum(1, keepdim=True)).cpu(), losses], 1).numpy()

    with torch.no_grad(), scoring(model, scoring_dtype(model, runtime.dtype)):
        logits_of = logits_at(model, inner, device, np.zeros(0))[0] if with_loss else None
        return runtime.map(compute, rows.lengths, columns, dtype=np.float32)
