"""Cached per-row computation: values are read from the cache, or computed batch by batch."""

import hashlib
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from .model_state import scoring, scoring_dtype
from .runtime import Runtime
from .shared_work import missing, of_part
from .token_rows import TokenRows


class Mapped(NamedTuple):
    """Values per row, in order, and their cost."""

    #: Float64 `(n, width)`; NaN for a row that does not fit in memory even as a batch of one.
    values: np.ndarray
    #: Number of computed rows, and of their tokens.
    computed: int
    tokens: int
    #: Number of other rows of the runtime's part: read from the cache, or equal to another row.
    cached: int
    #: Seconds that an earlier run spent on the rows read from the cache.
    cached_seconds: float


def cached_map(
    begin: Callable[[np.ndarray], Callable[[np.ndarray], np.ndarray]],
    keys: np.ndarray,
    lengths: np.ndarray,
    width: int,
    namespace: dict[str, Any],
    runtime: Runtime,
    *,
    passes: str | None = "forward",
    **options: Any,
) -> Mapped:
    """
    Cached [`Runtime.map`]. Equal rows are computed once; each batch is saved as it is computed, with the seconds
    it took and its share of the setup time.

    Args:
        begin (`Callable`):
            Rows to compute -> the function that computes a batch of them; not called if all are cached.
        keys (`np.ndarray`):
            Content key of each row, `V16` `(n,)`.
        namespace (`dict`):
            Everything besides the row that determines its values.
        runtime ([`Runtime`]):
            Ranks, batches, cache, and the account of rows, tokens and seconds.
        passes (`str`, *optional*, defaults to `"forward"`):
            Kind of pass that computed rows and tokens are booked as; `None` books none.
        lengths, width, options:
            As in [`Runtime.map`].

    Returns:
        [`Mapped`]
    """
    store = runtime.store(namespace, width)
    _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
    with missing(runtime, store, keys[first]) as (values, known, _, earlier):
        todo = np.sort(first[~known])
        if len(todo):
            began = time.perf_counter()
            compute = begin(todo)
            setup = (time.perf_counter() - began) / len(todo)

            def timed(batch: np.ndarray) -> np.ndarray:
                started = time.perf_counter()
                result = compute(batch)
                spent = (time.perf_counter() - started) / len(batch) / runtime.world + setup
                return np.column_stack([result, np.full(len(batch), spent)])

            options["on_batch"] = lambda batch, result: store.append(keys[batch], result[:, :-1], result[:, -1])
            values[~known] = runtime.map(timed, lengths, width + 1, rows=todo, **options)[first[~known], :-1]
    store.close()
    cached, tokens = int(of_part(runtime, keys).sum()) - len(todo), int(lengths[todo].sum())
    if passes is not None:
        spent = {f"{passes}_rows": len(todo), f"{passes}_tokens": tokens}
        runtime.book(cached_rows=cached, cached_seconds=float(earlier.sum()), **spent)
    return Mapped(values[inverse], len(todo), tokens, cached, float(earlier.sum()))


def measured(
    model: nn.Module,
    rows: TokenRows,
    runtime: Runtime,
    width: int,
    namespace: dict[str, Any],
    begin: Callable[[np.ndarray], Callable[[np.ndarray], np.ndarray]],
    label: str | None = None,
    passes: str | None = "forward",
) -> Mapped:
    """
    Compute `width` values per row with a model, cached. The model is in eval mode, in the runtime's dtype and without
    gradients meanwhile.

    Args:
        model ([`~transformers.PreTrainedModel`]):
            The model.
        rows ([`TokenRows`]):
            The rows.
        runtime ([`Runtime`]):
            Ranks, batches, dtype, cache.
        width (`int`):
            Values per row.
        namespace (`dict`):
            Everything besides the row, the model and its dtype that determines the values: `engine`, `version` of its
            formula, options.
        begin (`Callable`):
            Rows to compute -> a function from a batch of them `(b,)` to its values `(b, width)`; not called if all
            are cached.
        label (`str`, *optional*):
            Label of the progress bar.
        passes (`str`, *optional*, defaults to `"forward"`):
            As in [`cached_map`].

    Returns:
        [`Mapped`]
    """
    target = scoring_dtype(model, runtime.dtype)
    namespace = namespace | {"model": runtime.identity(model), "dtype": str(target)}
    with torch.no_grad(), ExitStack() as stack:

        def prepared(todo: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
            stack.enter_context(scoring(model, target))
            return begin(todo)

        keys, lengths = rows.keys(), rows.lengths
        return cached_map(prepared, keys, lengths, width, namespace, runtime, passes=passes, label=label)


def cached_value(compute: Callable[[], float], content: bytes, namespace: dict[str, Any], runtime: Runtime) -> float:
    """
    One number, computed by all ranks together, whatever their part: read from the cache by its content, or computed
    and saved.

    Args:
        compute (`Callable`):
            Returns the number, the same on all ranks.
        content (`bytes`):
            Content that the number is computed from.
        namespace, runtime:
            As in [`cached_map`].
    """
    store = runtime.store(namespace, 1)
    key = np.frombuffer(hashlib.blake2b(content, digest_size=16).digest(), "V16")
    with missing(replace(runtime, part=None), store, key, "fine-tuning on a subset") as stored:
        if stored.known[0]:
            runtime.book(cached_seconds=float(stored.earlier[0]))
            return float(stored.values[0, 0])
        started = time.perf_counter()
        value = compute()
        if runtime.is_main:
            store.append(key, np.array([[value]]), time.perf_counter() - started)
            store.close()
    return value
