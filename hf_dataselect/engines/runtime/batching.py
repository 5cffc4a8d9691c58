"""Length-sorted batches by token budget, padded batches, and dataset maps shared by the ranks."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from datasets import Dataset
from torch import nn

from ...compat.accelerate import several_processes
from ...errors import sendable
from .ranks import meeting, ranks


#: A batch with a larger part of padding is cut further, as long as it keeps 1 / `LEAST` of the tokens of a full one: a
#: batch has a cost of its own, however small it is, and a higher one on a GPU.
MOST_PADDING, LEAST = 0.05, 16


#: Steps that a batch's width and the rows of the head's product are rounded up to, see [`rounded`].
WIDTHS, HEAD_ROWS = 8, 32


@contextmanager
def main_process_first(dataset: Dataset | None = None) -> Iterator[None]:
    """
    Run what writes files on each node's main process first, so that the other ranks read them. These wait outside of a
    collective, so that it may take longer than the time-out of those; what it raises is raised on every rank.

    Args:
        dataset ([`~datasets.Dataset`], *optional*):
            What is mapped inside. One in memory writes no files, so that all ranks run at once.
    """
    told = ranks() if several_processes() and (dataset is None or dataset.cache_files) else None
    if told is None:
        yield
        return
    state, error, number = PartialState(), None, told.begin_on_main()
    if state.is_local_main_process:
        try:
            yield
        except Exception as raised:  # the other ranks would wait forever
            error = raised
        if state.is_main_process:
            told.finish_on_main(number)
    else:
        told.wait_for_main(number)
    with meeting():
        errors = gather_object([error and sendable(error)])
    if failed := error or next(filter(None, errors), None):
        raise failed
    if not state.is_local_main_process:
        yield


def batches_by_tokens(
    lengths: Sequence[int], batch_tokens: int, rows: np.ndarray | None = None, most_padding: float = MOST_PADDING
) -> list[np.ndarray]:
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
        most_padding (`float`, *optional*, defaults to `MOST_PADDING`):
            Part of a batch that may be padding before it is cut further; 1 never does, for what takes a time of its
            own for each batch, as generation does.

    Returns:
        `list[np.ndarray]`: row numbers of each batch; equal lengths keep their order.
    """
    lengths = np.asarray(lengths)
    rows = np.arange(len(lengths)) if rows is None else np.asarray(rows)
    rows = rows[np.argsort(-lengths[rows], kind="stable")]
    tokens = np.concatenate([[0], np.cumsum(lengths[rows])])
    batches, start = [], 0
    while start < len(rows):
        longest = max(1, int(lengths[rows[start]]))
        size = min(max(1, int(batch_tokens // longest)), len(rows) - start)
        if tokens[start + size] - tokens[start] < (1 - most_padding) * size * longest:
            filled = (tokens[start + 1 : start + size + 1] - tokens[start]) / (longest * np.arange(1, size + 1))
            least = -(-int(batch_tokens) // (LEAST * longest))
            size = min(size, max(1, least, int((filled >= 1 - most_padding).sum())))
        batches.append(rows[start : start + size])
        start += size
    return batches


def rounded(size: int, step: int, weights: torch.Tensor, most: int | None = None) -> int:
    """
    A number of rows or positions, on a CPU in bfloat16 rounded up to a multiple of `step`, not above `most`: there,
    each shape of a matrix product takes memory for as long as the process lives. Offloaded weights (`meta`) may be
    multiplied there, too.
    """
    if weights.device.type not in ("cpu", "meta") or weights.dtype != torch.bfloat16:
        return size
    up = -(-size // step) * step
    return up if most is None else max(size, min(up, most))


def padded(rows: Sequence[np.ndarray], filler: int = 0, width: int = 0) -> torch.Tensor:
    """Rows in one int64 tensor, filled on the right, up to `width` at least."""
    tensors = [torch.from_numpy(row.astype(np.int64)) for row in rows]
    filled = nn.utils.rnn.pad_sequence(tensors, batch_first=True, padding_value=filler)
    return nn.functional.pad(filled, (0, max(0, width - filled.shape[1])), value=filler)
