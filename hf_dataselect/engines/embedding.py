"""Row embeddings: the mean of a causal model's last hidden states, or a sentence encoder's vectors."""

from collections.abc import Sequence

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import is_peft_model
from torch import nn

from .batching import map_batches
from .state import cast, evaluating, scoring_dtype
from .tokens import TokenRows


def mean_hidden_state(
    model: nn.Module,
    rows: TokenRows,
    *,
    batch_tokens: int = 4096,
    dtype: str = "auto",
    accelerator: Accelerator | None = None,
    progress: str | None = None,
) -> np.ndarray:
    """
    Mean over all positions of the last hidden state (after the final norm).

    Returns:
        `np.ndarray`: float32 `(n, width)`; NaN for an empty row or one that did not fit in memory.
    """
    inner = model.get_base_model() if is_peft_model(model) else model
    device = next(model.parameters()).device

    def compute(batch: np.ndarray) -> np.ndarray:
        ids = [torch.from_numpy(ids.astype(np.int64)) for ids, _ in rows.take(batch)]
        padded = torch.nn.utils.rnn.pad_sequence(ids, batch_first=True).to(device)
        real = (torch.arange(padded.shape[1]) < torch.tensor([[len(row)] for row in ids])).to(device)
        if padded.shape[1] == 0:
            return np.full((len(ids), inner.config.get_text_config().hidden_size), np.nan, np.float32)
        hidden = inner.base_model(input_ids=padded, use_cache=False).last_hidden_state.float()
        real = real.to(hidden.device)
        total = (hidden * real[..., None]).sum(1)
        return (total / real.sum(1, keepdim=True)).cpu().numpy()

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


def sentence_embeddings(texts: Sequence[str], encoder: str, accelerator: Accelerator | None = None) -> np.ndarray:
    """
    Unit vectors of a sentence-transformers encoder, float32 `(n, width)`; texts are dealt over the ranks.

    Raises:
        `ImportError`: sentence-transformers is missing (extra `embed`).
    """
    from sentence_transformers import SentenceTransformer

    world, rank = (accelerator.num_processes, accelerator.process_index) if accelerator else (1, 0)
    model = SentenceTransformer(encoder, device=str(accelerator.device) if accelerator else None)
    mine = model.encode(list(texts)[rank::world], normalize_embeddings=True, show_progress_bar=rank == 0)
    vectors = np.zeros((len(texts), model.get_embedding_dimension()), np.float32)
    vectors[rank::world] = mine
    if world > 1:
        vectors = accelerator.reduce(torch.from_numpy(vectors).to(accelerator.device), "sum").cpu().numpy()
    return vectors
