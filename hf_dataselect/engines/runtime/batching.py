"""Length-sorted batches by token budget, dealt over the ranks, halved on out-of-memory, gathered and un-sorted."""

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import broadcast, gather_object
from accelerate.utils.memory import should_reduce_batch_size
from datasets import Dataset
from tqdm.auto import tqdm


@contextmanager
def main_process_first(dataset: Dataset) -> Iterator[None]:
    """
    Let each node's main process do a [`~datasets.Dataset.map`] alone where the other ranks can then read its result
    from the disk; a dataset in memory leaves no file, so that all ranks work at once.
    """
    if dataset.cache_files and PartialState._shared_state and PartialState().num_processes > 1:
        with PartialState().local_main_process_first():
            yield
    else:
        yield


def found_by_main(accelerator: Accelerator | None, *arrays: np.ndarray) -> tuple[np.ndarray, ...]:
    """What the main process found in a cache, on every rank: ranks must deal the same rows. NaN stays NaN."""
    if accelerator is None or accelerator.num_processes == 1:
        return arrays
    sent = (torch.from_numpy(np.ascontiguousarray(array)).to(accelerator.device) for array in arrays)
    return tuple(broadcast(tensor).cpu().numpy() for tensor in sent)


def same_on_all_ranks(accelerator: Accelerator | None, value: Any) -> bool:
    """Whether every rank has this value (one that can be hashed and pickled)."""
    return accelerator is None or accelerator.num_processes == 1 or len({*gather_object([value])}) == 1


def batches_by_tokens(lengths: Sequence[int], batch_tokens: int, rows: np.ndarray | None = None) -> list[np.ndarray]:
    """
    Cut rows into batches whose padded size, rows x longest row, stays within `batch_tokens`.

    Longest rows come first, so that a model that does not fit fails in the first minute and not in the last. A row
    longer than the budget is a batch of its own.

    Args:
        lengths (`Sequence[int]`):
            Tokens of each row, `(n,)`.
        batch_tokens (`int`):
            Tokens of a batch, padding included.
        rows (`np.ndarray`, *optional*):
            Rows to cut, all by default.

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


def map_batches(
    compute: Callable[[np.ndarray], np.ndarray],
    lengths: Sequence[int],
    width: int,
    *,
    batch_tokens: int,
    rows: np.ndarray | None = None,
    accelerator: Accelerator | None = None,
    progress: str | None = None,
    on_batch: Callable[[np.ndarray, np.ndarray], None] | None = None,
    dtype: type = np.float64,
) -> np.ndarray:
    """
    Compute `width` numbers a row, batch by batch, on all ranks.

    Args:
        compute (`Callable`):
            Row numbers of a batch -> array `(rows, width)`.
        lengths (`Sequence[int]`):
            Tokens of each row, `(n,)`.
        width (`int`):
            Numbers a row.
        batch_tokens (`int`):
            Tokens of a batch, padding included. A batch that runs out of memory is halved, and so is every later one.
        rows (`np.ndarray`, *optional*):
            Rows to compute, all by default.
        accelerator ([`~accelerate.Accelerator`], *optional*):
            Deals the batches over its ranks; every rank gets the whole result.
        progress (`str`, *optional*):
            Label of the progress bar of the main process.
        on_batch (`Callable`, *optional*):
            Called on the rank that computed a batch with its rows and results, before the next batch starts.

    Returns:
        `np.ndarray`: `(n, width)`; NaN for rows that were not asked for and for a row that alone does not fit in
        memory.
    """
    world, rank = (accelerator.num_processes, accelerator.process_index) if accelerator else (1, 0)
    lengths = np.asarray(lengths)
    batches = batches_by_tokens(lengths, batch_tokens, rows)
    queue = batches[rank::world][::-1]
    result = np.zeros((len(lengths), width), dtype=dtype)
    limit = None  # rows x longest row that is known to fit, once something did not
    shown = progress is not None and (accelerator is None or accelerator.is_main_process)
    bar = tqdm(total=sum(map(len, batches)), desc=progress, unit="row", disable=not shown, smoothing=0.05)
    with bar:
        while queue:
            batch = queue.pop()
            size = len(batch) * int(lengths[batch].max())
            if limit is not None and size > limit and len(batch) > 1:
                queue.extend(np.array_split(batch, 2)[::-1])
                continue
            try:
                result[batch] = compute(batch)
            except Exception as error:
                if not (should_reduce_batch_size(error) or isinstance(error, MemoryError)):
                    raise
                if len(batch) > 1:
                    limit = min(size // 2, limit or size)
                    queue.append(batch)
                else:
                    result[batch] = np.nan
                    bar.update(world)
                failed = True
            else:
                failed = False
                if on_batch is not None:
                    on_batch(batch, result[batch])
                bar.update(min(len(batch) * world, bar.total - bar.n))
            if failed:  # outside the handler: the traceback holds the tensors that did not fit
                gc.collect()
                if torch.cuda.is_available():
                    torch.cuda.empty_cache()
    if world > 1:
        # Ranks hold disjoint rows and zeros elsewhere, so that the sum is exact.
        gathered = torch.from_numpy(result)
        if accelerator.device.type == "mps":
            gathered = gathered.float()
        result = accelerator.reduce(gathered.to(accelerator.device), "sum").cpu().numpy().astype(dtype)
    if rows is not None:
        untouched = np.ones(len(lengths), bool)
        untouched[rows] = False
        result[untouched] = np.nan
    return result
