"""Last hidden states of a batch, and their means over the tokens of each row."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from ...compat.accelerate import device_of
from .wants import STATES, Want


def states_of(inner: nn.Module, ids: np.ndarray) -> torch.Tensor:
    """Last hidden states (after the final norm) of token ids `(rows, width)` or `(width,)`, `(rows, width, size)`."""
    tensor = torch.from_numpy(np.atleast_2d(ids).astype(np.int64)).to(device_of(inner))
    return inner.base_model(input_ids=tensor, use_cache=False).last_hidden_state


def pooled(hidden: torch.Tensor, lengths: Sequence[int], want: Want, begin: torch.Tensor | None = None) -> np.ndarray:
    """
    Mean over the positions of each row, or weighted by position and scaled to length 1.

    Args:
        hidden (`torch.Tensor`):
            `(rows, width, size)`, padded on the right.
        lengths (`Sequence[int]`):
            Tokens of each row, with those of `begin`.
        want (`str`):
            `"mean state"` or `"position state"`.
        begin (`torch.Tensor`, *optional*):
            States `(1, tokens, size)` that stand before each row.

    Returns:
        `np.ndarray`: float32 `(rows, size)`; NaN for a row without tokens.
    """
    skip = 0 if begin is None else begin.shape[1]
    places = torch.arange(hidden.shape[1] + skip, device=hidden.device)
    weights = (places < torch.tensor(lengths, device=hidden.device)[:, None]).float()
    weights = weights * (places + 1) if STATES[want] == "position" else weights
    total = (hidden.float() * weights[:, skip:, None]).sum(1)
    if begin is not None:
        total = total + (begin.float() * weights[:1, :skip, None]).sum(1)
    vectors = (total / weights.sum(1, keepdim=True)).cpu().numpy()
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True) if STATES[want] == "position" else vectors
