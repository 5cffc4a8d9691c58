"""The gradient of each row's own mean answer loss, as a short unit vector, kept on disk as it comes."""

import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from accelerate import Accelerator
from torch import nn

from ..gradients import adam, per_example, projection
from ..runtime import batching
from ..runtime import token_rows as tokens
from ..runtime.batching import found_by_main, map_batches
from ..runtime.model_state import cast, evaluating, preserved, scoring_dtype
from ..runtime.token_rows import TokenRows
from ..store.identity import code_version, digest, model_identity
from ..store.vector_store import StoredVectors, VectorStore, blocks, check_room, record_of
from .adam import AdamFeature
from .layers import lora_layers
from .per_example import Batch, differentiated, recompute_layers
from .projection import Projection


class Gradients(NamedTuple):
    """Per row, in the order of the token rows."""

    #: Unit vectors `(n, width)`, an array or read from the disk as they are indexed, or what `reduce` made of them.
    #: NaN: no counted token, a loss or gradient that is not finite or is zero, or a row that did not fit in memory.
    vectors: np.ndarray | StoredVectors
    #: Mean loss of the counted tokens, nats, float64 `(n,)`.
    loss: np.ndarray
    #: Length of the vector before it was scaled to 1, float64 `(n,)`.
    norm: np.ndarray
    #: Whether the row fitted in memory, bool `(n,)`.
    fits: np.ndarray
    #: Rows that took no computing: read from the cache, or equal to another row.
    cached: int
    #: Tokens of the rows that were computed.
    computed_tokens: int
    #: Seconds that an earlier run spent on the rows read from the cache.
    cached_seconds: float


def gradients(
    model: nn.Module,
    rows: TokenRows,
    layers: dict[str, nn.Linear] | None = None,
    *,
    adam: AdamFeature | None = None,
    project: Projection | None = None,
    batch_tokens: int = 1024,
    dtype: str = "auto",
    gradient_checkpointing: bool = False,
    vector_dtype: str = "float16",
    reduce: Callable[[np.ndarray], np.ndarray] | None = None,
    accelerator: Accelerator | None = None,
    cache_dir: Path | None = None,
    progress: str | None = None,
) -> Gradients:
    """
    Gradient of each row's mean loss over its counted tokens, as a unit vector. Equal rows are computed once.

    Dropout is off. The model is afterwards as it was, its `requires_grad` and `grad` included.

    Args:
        model ([`~transformers.PreTrainedModel`] or [`~peft.PeftModel`]):
            Any causal language model; full, half precision or quantized.
        rows ([`TokenRows`]):
            Token ids and counted spans.
        layers (`dict[str, nn.Linear]`, *optional*):
            Whose weights the gradient is of, by module name; by default [`lora_layers`]. See also [`linear_layers`].
        adam ([`AdamFeature`], *optional*):
            Turns gradients into Adam's updates before they are projected.
        project ([`Projection`], *optional*):
            By default a sketch of 8,192 numbers.
        batch_tokens (`int`, *optional*, defaults to `1024`):
            Tokens of a batch, padding included; the activations of all layers are held for it, as in training.
        dtype (`str`, *optional*, defaults to `"auto"`):
            See [`scoring_dtype`].
        gradient_checkpointing (`bool`, *optional*, defaults to `False`):
            Trade compute for memory.
        vector_dtype (`str`, *optional*, defaults to `"float16"`):
            Dtype of the vectors, in memory and on disk.
        reduce (`Callable`, *optional*):
            Some rows' vectors `(b, width)` -> what is wanted of them, float `(b, r)`. With it, no more than a block of
            vectors is in memory at a time.
        accelerator ([`~accelerate.Accelerator`], *optional*):
            Deals the batches over its ranks.
        cache_dir (`Path`, *optional*):
            Vectors are appended there batch by batch and read from there; what is found is not computed again. Without
            it they, or what `reduce` makes of them, are held in memory.
        progress (`str`, *optional*):
            Label of the progress bar.

    Returns:
        [`Gradients`]

    Raises:
        [`SelectionError`]: no layers, layers that do not see every token, an optimizer without their state, or no room
            on the disk for the vectors.
    """
    layers = lora_layers(model) if layers is None else layers
    names = [f"{name}.weight" for name in layers]
    if adam is not None:
        adam.check(names)
    target, project = scoring_dtype(model, dtype), project or Projection()
    projector = project.of([layer.weight.numel() for layer in layers.values()])
    store, keys = None, rows.keys()
    _, first, place = np.unique(keys, return_index=True, return_inverse=True)
    found, known = np.full((len(first), _FACTS), np.nan), np.zeros(len(first), bool)
    if cache_dir is not None:
        namespace = {
            "engine": "gradients",
            "code": code_version(sys.modules[__name__], *_CODE),
            "model": model_identity(model),
            "layers": digest(names),
            "feature": adam.identity if adam else "plain",
            "projection": asdict(project),
            "vectors": vector_dtype,
            "dtype": str(target),
            "attention": getattr(model.config, "_attn_implementation", None),
        }
        store = VectorStore(cache_dir, namespace, projector.width, _FACTS, vector_dtype)
        found, known = found_by_main(accelerator, *store.find(keys[first])[1:])
    todo = np.sort(first[~known])
    cached_seconds = float(np.nansum(found[known, 2]))
    wanted = (lambda vectors: vectors) if reduce is None else reduce
    empty = wanted(np.zeros((0, projector.width), vector_dtype))
    held = None if store else np.zeros((len(rows), empty.shape[1]), empty.dtype)
    if len(todo):
        if store is not None:
            check_room(cache_dir, len(todo), store.record, _REMEDY)
        with preserved(model), evaluating(model), cast(model, target):
            if gradient_checkpointing:
                recompute_layers(model)
            with differentiated(model, layers, names, adam, projector) as differentiate:
                ranks = accelerator.num_processes if accelerator else 1

                def compute(batch: np.ndarray) -> np.ndarray:
                    started = time.perf_counter()
                    facts, vectors = _unit_rows(differentiate, rows.take(batch), projector.width, vector_dtype)
                    facts[:, 2] = (time.perf_counter() - started) / len(batch) / ranks
                    if store is None:
                        held[batch] = wanted(vectors)
                    else:
                        store.append(keys[batch], vectors, facts)
                    return facts

                options = {"batch_tokens": batch_tokens, "rows": todo, "accelerator": accelerator}
                result = map_batches(compute, rows.lengths, _FACTS, progress=progress, **options)
                found[~known] = result[first[~known]]
    found, source = found[place], first[place]
    fits = ~np.isnan(found[:, 2])
    if store is not None:
        vectors = store.read(keys, fits, accelerator)
        store.close()
        if reduce is not None:
            vectors = np.concatenate([reduce(vectors[part]) for part in blocks(vectors.shape)])
    else:
        vectors = held
        if accelerator is not None and accelerator.num_processes > 1:
            vectors = accelerator.reduce(torch.from_numpy(held).to(accelerator.device), "sum").cpu().numpy()
        repeated = np.flatnonzero(source != np.arange(len(rows)))
        vectors[repeated] = vectors[source[repeated]]
        vectors[~fits] = np.nan
    computed = int(rows.lengths[todo].sum())
    return Gradients(vectors, found[:, 0], found[:, 1], fits, len(rows) - len(todo), computed, cached_seconds)


def check_room_for_gradients(
    cache_dir: Path | None, rows: int, layers: dict[str, nn.Linear], project: Projection, vector_dtype: str = "float16"
) -> None:
    """
    Refuse what [`gradients`] of `rows` rows, of as many checkpoints together, would find no room for in `cache_dir`.

    Raises:
        [`SelectionError`]: the disk has no room.
    """
    width = project.of([layer.weight.numel() for layer in layers.values()]).width
    check_room(cache_dir, rows, record_of(width, _FACTS, vector_dtype), _REMEDY)


_FACTS = 3
_REMEDY = "a smaller `projection_dim`, or another `projection`"
_CODE = (adam, batching, per_example, projection, tokens)


def _unit_rows(differentiate: Callable, batch: Batch, width: int, dtype: str) -> tuple[np.ndarray, np.ndarray]:
    """Facts `(rows, 3)` (loss, norm, and room for seconds) and unit vectors `(rows, width)` of a batch."""
    facts, vectors = np.full((len(batch), _FACTS), np.nan), np.full((len(batch), width), np.nan, dtype)
    counted = [row for row, (ids, spans) in enumerate(batch) if any(max(a, 1) < min(b, len(ids)) for a, b in spans)]
    if counted:
        loss, found = differentiate([batch[row] for row in counted])
        norm = found.square().sum(1, keepdim=True).sqrt()  # `vector_norm` of a million numbers is off by 5e-5
        norm[~(torch.isfinite(norm) & (norm > 0) & torch.isfinite(loss[:, None]))] = np.nan
        facts[counted, 0], facts[counted, 1] = loss.cpu().numpy(), norm[:, 0].cpu().numpy()
        vectors[counted] = (found / norm).cpu().numpy()
    return facts, vectors
