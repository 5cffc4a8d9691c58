"""Numbers of token rows under a model: read from the cache where they are known, else computed batch by batch."""

import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import torch
from accelerate import Accelerator
from torch import nn

from ..runtime import batching
from ..runtime import token_rows as tokens
from ..store.identity import code_version, model_identity
from ..store.row_store import RowStore
from .batching import found_by_main, map_batches
from .model_state import cast, evaluating, scoring_dtype
from .token_rows import TokenRows


class Measured(NamedTuple):
    """Per row, in order, and what it took."""

    #: Float64 `(n, width)`; NaN for a row that alone did not fit in memory.
    values: np.ndarray
    #: Rows that took no computing: read from the cache, or equal to another row.
    cached: int
    #: Rows that were computed, and their tokens.
    computed: int
    computed_tokens: int
    #: Seconds that the rows read from the cache took when they were computed.
    cached_seconds: float


def measured(
    model: nn.Module,
    rows: TokenRows,
    width: int,
    namespace: dict[str, Any],
    code: tuple[ModuleType, ...],
    begin: Callable[[np.ndarray], Callable[[np.ndarray], np.ndarray]],
    *,
    batch_tokens: int,
    dtype: str = "auto",
    accelerator: Accelerator | None = None,
    cache_dir: Path | None = None,
    progress: str | None = None,
) -> Measured:
    """
    `width` numbers a row. Equal rows are computed once; each batch is kept as it comes, with the seconds it took and
    its share of those that went by before the first.

    Args:
        model ([`~transformers.PreTrainedModel`]):
            In eval mode, in `dtype` and without gradients while it computes.
        rows ([`TokenRows`]):
            What the numbers are of.
        width (`int`):
            Numbers a row.
        namespace (`dict`):
            What decides the numbers besides the row, the model, its dtype and the code.
        code (`tuple`):
            Modules whose source decides the numbers too.
        begin (`Callable`):
            Rows to compute -> a function from a batch of them to its numbers `(b, width)`; not called if all are
            known.
        batch_tokens, dtype, accelerator, cache_dir, progress:
            As in [`likelihood`].

    Returns:
        [`Measured`]
    """
    target = scoring_dtype(model, dtype)
    namespace = namespace | {
        "code": code_version(*code, sys.modules[__name__], tokens, batching),
        "model": model_identity(model) if cache_dir else None,
        "dtype": str(target),
    }
    store, keys = RowStore(cache_dir, namespace, width + 1), rows.keys()
    _, first, place = np.unique(keys, return_index=True, return_inverse=True)
    values, known = found_by_main(accelerator, *store.load(keys[first]))
    todo = np.sort(first[~known])
    ranks = accelerator.num_processes if accelerator else 1
    if len(todo):
        began = time.perf_counter()
        with torch.no_grad(), evaluating(model), cast(model, target):
            compute = begin(todo)
            ahead = (time.perf_counter() - began) / len(todo)

            def timed(batch: np.ndarray) -> np.ndarray:
                started = time.perf_counter()
                result = compute(batch)
                seconds = (time.perf_counter() - started) / len(batch) / ranks + ahead
                return np.column_stack([result, np.full(len(batch), seconds)])

            values[~known] = map_batches(
                timed,
                rows.lengths,
                width + 1,
                batch_tokens=batch_tokens,
                rows=todo,
                accelerator=accelerator,
                progress=progress,
                on_batch=lambda batch, result: store.append(keys[batch], result),
            )[first[~known]]
    store.close()
    spared = float(values[known, -1].sum())
    return Measured(values[place, :-1], len(rows) - len(todo), len(todo), int(rows.lengths[todo].sum()), spared)
