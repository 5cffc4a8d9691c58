"""Last hidden states of token rows, pooled."""

from typing import Literal

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import is_peft_model
from torch import nn

from ..runtime.batching import map_batches
from ..runtime.model_state import cast, evaluating, scoring_dtype
from ..runtime.token_rows import TokenRows


def hidden_state(
    model: nn.Module,
    rows: TokenRows,
    *,
    pool: Literal["mean", "last", "position"],
    batch_tokens: int = 4096,
    dtype: str = "auto",
    accelerator: Accelerator | None = None,
    progress: str | None = None,
) -> np.ndarray:
    """
    Last hidden state (after the final norm): its mean over all positions of a row, or that of the row's last token.

    Args:
        pool (`str`):
            `"mean"`; `"last"`; or `"position"`: the mean with position i (from 1) weighed by i, as in RDS+ (arXiv
            2503.01807), since in a causal model the later states have seen more.

    Returns:
        `np.ndarray`: float32 `(n, width)`; NaN for an empty row or one that did not fit in memory.
    """
    inner = model.get_base_model() if is_peft_model(model) else model
    device = next(model.parameters()).device

    def compute(batch: np.ndarray) -> np.ndarray:
        ids = [torch.from_numpy(ids.astype(np.int64)) for ids, _ in rows.take(batch)]
        padded = torch.nn.utils.rnn.pad_sequence(ids, batch_first=True).to(device)
        lengths = torch.tensor([[len(row)] for row in ids])
        if padded.shape[1] == 0:
            return np.full((len(ids), inner.config.get_text_config().hidden_size), np.nan, np.float32)
        hidden = inner.base_model(input_ids=padded, use_cache=False).last_hidden_state
        places = torch.arange(padded.shape[1])
        weights = (places == lengths - 1 if pool == "last" else places < lengths).float()
        weights = (weights * (places + 1) if pool == "position" else weights).to(hidden.device)
        total = (hidden.float() * weights[..., None]).sum(1)
        return (total / weights.sum(1, keepdim=True)).cpu().numpy()

    with torch.no_grad(), evaluating(model), cast(model, scoring_dtype(model, dtype)):
        return map_batches(
            compute,
            rows.lengths,
            inner.config.get_text_config().hidden_size,
            batch_tokens=batch_tokens,
            accelerator=accelerator,
            progress=progress,
            dtype=np.float32,
        )
