"""Distances between vectors: of each, that to its how manyeth nearest other one."""

import hashlib
import sys
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from accelerate import Accelerator

from ..runtime import batching
from ..runtime.batching import found_by_main, map_batches
from ..store.identity import code_version
from ..store.row_store import RowStore


#: Rows, and others that they are compared with, at a time.
ROWS, OTHERS = 512, 16_384


class Distances(NamedTuple):
    """Per vector, in order."""

    #: Euclidean, float64 `(n,)`; NaN where a block of one row did not fit in memory.
    distance: np.ndarray
    #: Vectors of which it was read from the cache.
    cached: int
    #: Seconds that these took when they were computed.
    cached_seconds: float


def nearest_distance(
    vectors: np.ndarray,
    neighbour: int,
    *,
    accelerator: Accelerator | None = None,
    cache_dir: Path | None = None,
    progress: str | None = None,
) -> Distances:
    """
    Distance of each vector to its `neighbour`-th nearest other one; a copy is at distance 0.

    All pairs are compared, block by block in float64 (in float32, what two near vectors differ by is lost), and of
    each block the nearest are kept: memory is that of the vectors and a block.

    Args:
        vectors (`np.ndarray`):
            `(n, width)`, finite, of at least `neighbour + 1` rows.
        neighbour (`int`):
            Which one, from 1.
        accelerator ([`~accelerate.Accelerator`], *optional*):
            Deals the rows over its ranks, and says where to compute.
        cache_dir (`Path`, *optional*):
            Where distances are kept as they come, for the same set of vectors.
        progress (`str`, *optional*):
            Label of the progress bar.

    Returns:
        [`Distances`]
    """
    device = accelerator.device if accelerator and accelerator.device.type != "mps" else torch.device("cpu")
    vectors = np.ascontiguousarray(vectors)
    namespace = {
        "engine": "nearest distance",
        "code": code_version(sys.modules[__name__], batching),
        "vectors": hashlib.blake2b(vectors).hexdigest() if cache_dir else None,
        "neighbour": neighbour,
    }
    store = RowStore(cache_dir, namespace, 2)
    digests = b"".join(hashlib.blake2b(vector, digest_size=16).digest() for vector in vectors) if cache_dir else b""
    keys = np.frombuffer(digests or bytes(16 * len(vectors)), "V16")
    found, known = found_by_main(accelerator, *store.load(keys))
    # Distances are those of vectors moved to their mean, where products cancel least.
    moved = torch.from_numpy(vectors - vectors.mean(0)).to(device)
    squares = torch.cat([part.double().square().sum(1) for part in moved.split(OTHERS)])
    ranks = accelerator.num_processes if accelerator else 1

    def compute(batch: np.ndarray) -> np.ndarray:
        started, rows = time.perf_counter(), torch.from_numpy(batch).to(device)
        mine, best = moved[rows].double(), torch.zeros((len(rows), 0), dtype=torch.float64, device=device)
        for first in range(0, len(moved), OTHERS):
            part = slice(first, first + OTHERS)
            squared = torch.addmm(squares[part], mine, moved[part].double().T, alpha=-2)  # less one's own square
            own = torch.nonzero((rows >= first) & (rows < first + OTHERS))[:, 0]
            squared[own, rows[own] - first] = torch.inf
            near = squared.topk(min(neighbour, squared.shape[1]), largest=False).values
            best = torch.cat([best, near], 1)
            best = best.topk(min(neighbour, best.shape[1]), largest=False).values
        distance = (best.amax(1) + squares[rows]).clamp(min=0).sqrt().cpu().numpy()
        seconds = (time.perf_counter() - started) / len(rows) / ranks
        return np.column_stack([distance, np.full(len(rows), seconds)])

    if not known.all():
        found[~known] = map_batches(
            compute,
            np.ones(len(vectors), np.int64),
            2,
            batch_tokens=ROWS,
            rows=np.flatnonzero(~known),
            accelerator=accelerator,
            progress=progress,
            on_batch=lambda batch, result: store.append(keys[batch], result),
        )[~known]
    store.close()
    return Distances(found[:, 0], int(known.sum()), float(found[known, 1].sum()))
