"""One pass over rows for all that is wanted of them and not known yet; each result is kept where it is looked for."""

import time
from collections.abc import Collection, Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np
import torch
from torch import nn

from ..runtime.model_state import scoring, scoring_dtype
from ..runtime.runtime import Runtime
from ..runtime.shared_work import missing, of_part
from ..runtime.token_rows import TokenRows
from ..store.ragged_store import RaggedStore
from ..store.row_store import RecordStore
from ..store.vector_store import check_room
from .cached_vectors import vectors_namespace
from .hidden_states import state_width
from .likelihood import common_prefix, namespace_of, scorer
from .wants import STATES, TOKENS, Want


#: Raise it when the loss or the rank of a token of an unchanged row and model changes by more than rounding.
VERSION = 1


def compute_together(
    model: nn.Module, rows: TokenRows, runtime: Runtime, wants: Collection[Want], label: str | None = None
) -> None:
    """
    Compute what the cache lacks of `wants`, in one pass; those who ask for one of them then find it there. Nothing is
    done where only one is lacking, or where nothing can be kept: whoever asks for it computes it.

    Args:
        model, rows, runtime, label:
            As in [`~engines.forward.likelihood.likelihood`].
        wants (`Collection`):
            Of [`ONE_PASS`].
    """
    if len(wants) < 2 or runtime.cache_dir is None:
        return
    stores = {want: _store(model, runtime, want) for want in sorted(wants)}
    if runtime.broadcast(all(store.writable for store in stores.values())):
        _compute(model, rows, runtime, stores, label, least=2)


def token_values(
    model: nn.Module, rows: TokenRows, runtime: Runtime, want: Want, label: str | None = None
) -> Sequence[np.ndarray]:
    """
    A number for each label token of each row, float32 `(tokens,)` a row: its loss in nats (`"token losses"`), or its
    rank from 1 (`"token ranks"`): 1 + tokens with a strictly higher logit. On disk where there is a cache.
    """
    keys, store = rows.keys(), _store(model, runtime, want)
    assert isinstance(store, RaggedStore)
    _compute(model, rows, runtime, {want: store}, label)
    if store.folder is None:
        return store.in_memory(keys)
    found, known, *_ = store.find(keys)
    held = store.in_memory(keys)
    return [found[row] if known[row] else held[row] for row in range(len(keys))] if store.memory else found


def _store(model: nn.Module, runtime: Runtime, want: Want) -> RecordStore:
    dtype = {"dtype": str(scoring_dtype(model, runtime.dtype))}
    if want in STATES:
        options = {"pool": STATES[want], "scaled": want == "position state", **dtype}
        return runtime.vector_store(vectors_namespace(runtime, model, options), state_width(model))
    likelihood = namespace_of(model) | {"model": runtime.identity(model)} | dtype
    if want in TOKENS:
        return runtime.token_store({"engine": want, "version": VERSION, "of": likelihood})
    return runtime.store(likelihood, 3)


def _compute(
    model: nn.Module,
    rows: TokenRows,
    runtime: Runtime,
    stores: dict[Want, Any],
    label: str | None,
    least: int = 1,
) -> None:
    """One pass for the rows that at least one of `stores` lacks, if `least` stores lack some."""
    keys, lengths = rows.keys(), rows.lengths
    _, first = np.unique(keys, return_index=True)
    with ExitStack() as stack:
        found = {want: stack.enter_context(missing(runtime, store, keys[first])) for want, store in stores.items()}
        # One pass gave all of them, so that its seconds are those of the slowest, not their sum.
        earlier = np.max([stored.earlier for stored in found.values()], 0, initial=0.0)
        lacking = {want: ~stored.known for want, stored in found.items() if not stored.known.all()}
        todo = np.sort(first[np.any([*lacking.values(), np.zeros(len(first), bool)], 0)])
        mine = int(of_part(runtime, keys).sum()) if least == 1 else 0
        if len(lacking) < least or len(todo) == 0:
            runtime.book(cached_rows=mine, cached_seconds=float(earlier.sum()))
            return
        for want in set(STATES) & set(lacking):
            store = stores[want]
            check_room(store.folder and store.folder.parent, len(todo), store.record, "fewer methods at once")
        _pass(model, rows, runtime, {want: stores[want] for want in lacking}, keys, todo, label)
    for store in stores.values():
        store.close()
    runtime.wait()
    cached = mine - len(todo) if least == 1 else 0
    tokens = int(lengths[todo].sum())
    runtime.book(
        forward_rows=len(todo), forward_tokens=tokens, cached_rows=cached, cached_seconds=float(earlier.sum())
    )


def _pass(
    model: nn.Module,
    rows: TokenRows,
    runtime: Runtime,
    stores: dict[Want, Any],
    keys: np.ndarray,
    todo: np.ndarray,
    label: str | None,
) -> None:
    """Compute rows for all stores, and keep each batch as it is computed."""
    began = time.perf_counter()
    with torch.no_grad(), scoring(model, scoring_dtype(model, runtime.dtype)):
        score, _, _ = scorer(model, common_prefix(rows, todo), wants=tuple(stores))
        setup, more = (time.perf_counter() - began) / len(todo), {}

        def timed(batch: np.ndarray) -> np.ndarray:
            started = time.perf_counter()
            more.clear()
            sums = score(rows.take(batch), more)
            spent = (time.perf_counter() - started) / len(batch) / runtime.world + setup
            return np.column_stack([sums, np.full(len(batch), spent)])

        def keep(batch: np.ndarray, result: np.ndarray) -> None:
            for want, store in stores.items():
                if want == "loss":
                    store.append(keys[batch], result[:, :-1], result[:, -1])
                elif want in TOKENS:
                    store.append(keys[batch], more[want], result[:, -1])
                else:
                    vectors = np.stack(more[want])
                    finite = np.isfinite(vectors).all(1)
                    store.append(keys[batch[finite]], vectors[finite], result[finite, -1])

        runtime.map(timed, rows.lengths, 4, rows=todo, label=label, on_batch=keep)
    for store in stores.values():
        if isinstance(store, RaggedStore) and store.memory:
            for part in runtime.gather(store.memory):
                store.memory.update(part)
