"""Per-example gradients of the mean loss, projected, normalized to unit vectors, and stored as they are computed."""

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from ...compat.transformers import attention_implementation
from ..runtime.model_state import preserved, scoring, scoring_dtype
from ..runtime.runtime import Runtime
from ..runtime.shared_work import missing, of_part
from ..runtime.stored_vectors import read_back
from ..runtime.token_rows import TokenRows
from ..store.identity import digest
from ..store.vector_store import StoredVectors, blocks, check_room, vector_record
from .adam import AdamFeature
from .layers import lora_layers
from .per_example import Batch, differentiated, recompute_layers
from .projection import Projection, Projector
from .quantized import Codes, DecodedVectors
from .subspace import Subspace


#: Raise it when a vector, loss or norm of an unchanged row, model, optimizer state and projection changes by more than
#: rounding: with the loss, the label tokens, Adam's update or a projection. Other versions are not read.
VERSION = 1
_FACTS = 2
#: Part of a batch that may be padding: each batch reads all weights anew, which costs as much as some 60 tokens.
MOST_PADDING = 0.2
#: A batch of one row.
SHORTEST: Batch = [(np.arange(3, 6, dtype=np.int32), np.array([[1, 3]]))]
_REMEDY = "a smaller `projection_dim`, fewer `gradient_bits`, or another `projection`"


class Gradients(NamedTuple):
    """Per row, in the order of the token rows."""

    #: Unit vectors `(n, width)`, an array, or read from disk when indexed. NaN for a row without label tokens,
    #: with a loss or gradient that is not finite, with a zero gradient, or that did not fit in memory.
    vectors: np.ndarray | StoredVectors | DecodedVectors
    #: Mean loss of the label tokens, nats, float64 `(n,)`.
    loss: np.ndarray
    #: Norm of the vector before normalization, float64 `(n,)`.
    norm: np.ndarray
    #: Whether the row fitted in memory, bool `(n,)`.
    fits: np.ndarray
    #: Norm of the vector before projection to a [`~subspace.Subspace`], float64 `(n,)`; `None` for other projections.
    whole: np.ndarray | None = None


class ReducedGradients(NamedTuple):
    """[`Gradients`] with reduced vectors."""

    #: `(n, r)`; NaN where the vector is NaN.
    reduced: np.ndarray
    #: Vectors of the rows to keep, `(k, width)`.
    kept: np.ndarray
    loss: np.ndarray
    norm: np.ndarray
    fits: np.ndarray


def gradients(
    model: nn.Module,
    rows: TokenRows,
    runtime: Runtime,
    layers: dict[str, nn.Linear] | None = None,
    adam: AdamFeature | None = None,
    project: Projection | Subspace | None = None,
    label: str | None = None,
) -> Gradients:
    """
    Gradient of each row's mean loss over its label tokens, as a unit vector. Equal rows are computed once.

    Dropout is off. The model is restored afterwards, `requires_grad` and `grad` included.

    Args:
        model ([`~transformers.PreTrainedModel`] or [`~peft.PeftModel`]):
            Any causal language model; full, half precision or quantized.
        rows ([`TokenRows`]):
            Token ids and label spans.
        runtime ([`Runtime`]):
            Ranks, dtype, cache. A batch has a quarter of its tokens, since activations of all layers are in memory, as
            in training, but not less than twice the longest row. Without a cache, vectors are held in memory.
        layers (`dict[str, nn.Linear]`, *optional*):
            Layers to differentiate, by module name; by default [`lora_layers`]. See also [`linear_layers`].
        adam ([`AdamFeature`], *optional*):
            Converts gradients to Adam's updates before the projection.
        project ([`Projection`] or [`Subspace`], *optional*):
            By default a sketch with 8,192 dimensions.
        label (`str`, *optional*):
            Label of the progress bar.

    Returns:
        [`Gradients`]

    Raises:
        [`SelectionError`]: no layers, layers that do not process every token, an optimizer without their state, or no
            disk space for the vectors.
    """
    vectors, _, facts, fits = _collected(model, rows, runtime, layers, adam, project, label)
    loss, norm, *whole = facts.T
    return Gradients(vectors, loss, norm, fits, *whole)


def reduced_gradients(
    model: nn.Module,
    rows: TokenRows,
    runtime: Runtime,
    reduce: Callable[[np.ndarray], np.ndarray],
    keep: Sequence[int] = (),
    **options: Any,
) -> ReducedGradients:
    """
    As [`gradients`], but returns a function of the vectors, of which no more than a block is in memory.

    Args:
        reduce (`Callable`):
            Vectors of some rows `(b, width)` -> their reduction, float `(b, r)`; NaN for NaN.
        keep (`Sequence[int]`, *optional*):
            A few rows whose vectors are returned too.
        model, rows, runtime, options:
            As in [`gradients`].

    Returns:
        [`ReducedGradients`]
    """
    options = {"layers": None, "adam": None, "project": None, "label": None, **options}
    reduced, kept, facts, fits = _collected(model, rows, runtime, reduce=reduce, keep=keep, **options)
    return ReducedGradients(reduced, kept, *facts.T, fits)


def _collected(model, rows, runtime, layers, adam, project, label, reduce=None, keep=()):
    """
    Vectors or their reductions `(n, width)`, vectors of the rows to keep, losses and norms `(n, 2)`, and whether each
    row fitted in memory.
    """
    layers = lora_layers(model) if layers is None else layers
    names = [f"{name}.weight" for name in layers]
    if adam is not None:
        adam.check(names)
    target, project = scoring_dtype(model, runtime.dtype), project or Projection()
    projector = project.of([layer.weight.numel() for layer in layers.values()])
    namespace = {
        "engine": "gradients",
        "version": VERSION,
        "model": runtime.identity(model),
        "layers": digest(names),
        "feature": adam.identity if adam and runtime.cache_dir else "plain",
        "projection": project.identity,
        "dtype": str(target),
        "attention": attention_implementation(model),
    }
    numbers = _FACTS + projector.extra
    codes, kept_as = _kept_as(projector.width, project)
    store = runtime.vector_store(namespace, facts=numbers, **kept_as)
    keys, keep = rows.keys(), np.asarray(keep, np.int64)
    _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
    with missing(runtime, store, keys[first], "taking gradients") as (stored, known, _, earlier):
        (facts,) = runtime.broadcast_arrays(stored.field("facts"))
        todo, mine = np.sort(first[~known]), of_part(runtime, keys)
        fits = known & mine[first]
        reduction = (lambda vectors: vectors) if reduce is None else reduce
        kept, source = np.zeros((len(keep), projector.width), project.dtype), first[inverse]
        empty, in_memory = reduction(kept[:0]), None
        if store.folder is None:
            in_memory = np.zeros((len(rows), empty.shape[1]), empty.dtype)
        if len(todo):
            check_room(store.folder and store.folder.parent, len(todo), store.record, _REMEDY)
            with preserved(model), scoring(model, target):
                if runtime.gradient_checkpointing:
                    recompute_layers(model)
                with differentiated(model, layers, names, adam, projector, target) as differentiate:

                    def compute(batch: np.ndarray) -> np.ndarray:
                        started = time.perf_counter()
                        vectors, facts = _unit_rows(differentiate, rows.take(batch), projector, project.dtype)
                        spent = (time.perf_counter() - started) / len(batch) / runtime.world
                        if in_memory is None:
                            store.append(keys[batch], codes.encode(vectors) if codes else vectors, spent, facts=facts)
                        else:
                            vectors = codes.decode(codes.encode(vectors)) if codes else vectors
                            in_memory[batch] = reduction(vectors)
                            place, row = np.nonzero(source[keep][:, None] == batch)
                            kept[place] = vectors[row]
                        return np.column_stack([facts, np.ones(len(batch))])  # all NaN for a row that does not fit

                    # A backward pass keeps the activations of all layers, a forward pass those of one.
                    options = {"batch_tokens": backward_tokens(runtime, rows.lengths[todo]), "rows": todo}
                    options |= {"label": label, "most_padding": MOST_PADDING}
                    options["make_pass"] = partial(differentiate, SHORTEST)
                    result = runtime.map(compute, rows.lengths, numbers + 1, **options)[first[~known]]
                    facts[~known], fits[~known] = result[:, :-1], ~np.isnan(result[:, -1])
    facts, fits = facts[inverse], fits[inverse]
    if in_memory is None:
        vectors = read_back(store, keys, fits, runtime)
        vectors = DecodedVectors(vectors, codes) if codes else vectors
        kept = vectors[keep]
        if reduce is not None:
            vectors = np.concatenate([empty, *(reduce(vectors[part]) for part in blocks(vectors.shape))])
    else:
        vectors = runtime.sum(in_memory)
        repeated = np.flatnonzero(source != np.arange(len(rows)))
        vectors[repeated] = vectors[source[repeated]]
        vectors[~fits] = np.nan
        kept = runtime.sum(kept)
        kept[~fits[keep]] = np.nan
    runtime.book(
        backward_rows=len(todo),
        backward_tokens=int(rows.lengths[todo].sum()),
        cached_rows=int(mine.sum()) - len(todo),
        cached_seconds=float(earlier.sum()),
    )
    return vectors, kept, facts, fits


def backward_tokens(runtime: Runtime, lengths: np.ndarray) -> int:
    """
    Tokens of a batch, padding included. Two of the longest row at least: of one alone, the logits take nearly as much.
    """
    return max(1, runtime.batch_tokens // 4, 2 * int(lengths.max(initial=0)))


def check_room_for_gradients(runtime: Runtime, rows: int, layers: dict[str, nn.Linear], project: Projection) -> None:
    """
    Check that the cache has disk space for [`gradients`] of `rows` rows, summed over checkpoints.

    Raises:
        [`SelectionError`]: too little disk space.
    """
    _, kept_as = _kept_as(project.of([layer.weight.numel() for layer in layers.values()]).width, project)
    check_room(runtime.cache_dir, rows, vector_record(facts=_FACTS, **kept_as), _REMEDY)


def _kept_as(width: int, project: Projection | Subspace) -> tuple[Codes | None, dict[str, Any]]:
    """The codes of vectors of so many numbers, if they are of few bits, and what the store keeps of each."""
    if project.bits == 16:
        return None, {"width": width, "dtype": project.dtype}
    codes = Codes(width, project.bits)
    return codes, {"width": codes.size, "dtype": "uint8"}


def _unit_rows(
    differentiate: Callable, batch: Batch, projector: Projector, dtype: str
) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors `(rows, width)` of a batch, and losses, norms and `extra` sums' roots `(rows, 2 + extra)`."""
    width, numbers = projector.width, _FACTS + projector.extra
    vectors, facts = np.full((len(batch), width), np.nan, dtype), np.full((len(batch), numbers), np.nan)
    labelled = [row for row, (ids, spans) in enumerate(batch) if any(max(a, 1) < min(b, len(ids)) for a, b in spans)]
    if labelled:
        loss, projected = differentiate([batch[row] for row in labelled])
        projected, squares = projected.split([width, projector.extra], 1)
        norm = projected.square().sum(1, keepdim=True).sqrt()  # `vector_norm` of a million numbers is off by 5e-5
        norm[~(torch.isfinite(norm) & (norm > 0) & torch.isfinite(loss[:, None]))] = np.nan
        facts[labelled] = torch.cat([loss[:, None], norm, squares.sqrt()], 1).cpu().numpy()
        vectors[labelled] = (projected / norm).cpu().numpy()
    return vectors, facts
