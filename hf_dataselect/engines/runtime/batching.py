"""Length-sorted batches by token budget, padded batches, and dataset maps shared by the ranks."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from accelerate import PartialState
from datasets import Dataset
from torch import nn

from ...compat.accelerate import several_processes


@contextmanager
def main_process_first(dataset: Dataset) -> Iterator[None]:
    """
    Run a [`~datasets.Dataset.map`] on each node's main process first, so that the other ranks read its cache files. A
    dataset in memory has none, so that all ranks run at once.
    """
    if dataset.cache_files and several_processes():
        with PartialState().local_main_process_first():
            yield
    else:
        yield


def batches_by_tokens(lengths: Sequence[int], batch_tokens: int, rows: np.ndarray | None = None) -> list[np.ndarray]:
    """
    Split rows into batches whose padded size, rows x longest row, stays within `batch_tokens`.

    Longest rows come first, so that a model that does not fit in memory fails early. A row longer than the budget is
    a batch of its own.

    Args:
        lengths (`Sequence[int]`):
            Tokens of each row, `(n,)`.
        batch_tokens (`int`):
            Tokens of a batch, padding included.
        rows (`np.ndarray`, *optional*):
            Rows to split, all by default.

    Returns:
        `list[np.ndarray]`: row numbers of each batch; equal lengths keep their order.
    """
    lengths = np.asarray(lengths)
    rows = np.arange(len(lengths)) if rows is None else np.asarray(rows)
    rows = rows[np.argsort(-lengths[rows], kind="stable")]
    batches, start = [], 0
    while start < len(rows):
        size = max(1, int(batch_tokens // max(1, lengths[rows[start]])))
        batches.append(rows[start : start + size])
        start += size
    return batches


def padded(rows: Sequence[np.ndarray], filler: int = 0) -> torch.Tensor:
    """Rows in one int64 tensor, filled on the right."""
    tensors = [torch.from_numpy(row.astype(np.int64)) for row in rows]
    return nn.utils.rnn.pad_sequence(tensors, batch_first=True, padding_value=filler)
