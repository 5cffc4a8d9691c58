"""Distance of each vector to its k-th nearest neighbour."""

import hashlib
from collections.abc import Callable

import numpy as np
import torch

from ..runtime.cached_map import cached_map
from ..runtime.runtime import Runtime
from ..store.vector_store import StoredVectors, blocks
from .choose import mean_vector


#: Block sizes: rows, and rows that they are compared with.
ROWS, OTHERS = 512, 16_384


def nearest_distance(
    vectors: np.ndarray | StoredVectors,
    neighbour: int,
    runtime: Runtime,
    label: str | None = None,
) -> np.ndarray:
    """
    Euclidean distance of each vector to its k-th nearest neighbour, k = `neighbour`; a copy is at distance 0.

    All pairs are compared in float64 (float32 loses the difference of close vectors), block by block, keeping the
    nearest of each: in memory are the vectors, on the device, and a block.

    Args:
        vectors (`np.ndarray` or [`StoredVectors`]):
            `(n, width)`, finite, of at least `neighbour + 1` rows.
        neighbour (`int`):
            k, from 1.
        runtime ([`Runtime`]):
            Ranks, device, and the cache of distances, which is valid for the same set of vectors.
        label (`str`, *optional*):
            Label of the progress bar.

    Returns:
        `np.ndarray`: float64 `(n,)`; NaN if a block of one row did not fit in memory.
    """
    device = runtime.device if runtime.device.type != "mps" else torch.device("cpu")
    whole, digests = hashlib.blake2b(), bytearray()
    for part in blocks(vectors.shape):
        rows = np.ascontiguousarray(vectors[part])
        whole.update(rows)
        digests += b"".join(hashlib.blake2b(row, digest_size=16).digest() for row in rows)
    namespace = {
        "engine": "nearest distance",
        # Raise it when a distance between unchanged vectors changes by more than rounding.
        "version": 1,
        "vectors": whole.hexdigest() if runtime.cache_dir else None,
        "neighbour": neighbour,
    }

    def begin(todo: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
        # Centered vectors have the same distances, and lose the fewest digits to cancellation.
        mean = mean_vector(vectors)
        centered = torch.empty(vectors.shape, dtype=torch.from_numpy(mean).dtype, device=device)
        for part in blocks(vectors.shape):
            centered[part] = torch.from_numpy(vectors[part] - mean).to(device)
        squares = torch.cat([part.double().square().sum(1) for part in centered.split(OTHERS)])

        def compute(batch: np.ndarray) -> np.ndarray:
            rows = torch.from_numpy(batch).to(device)
            queries, best = centered[rows].double(), torch.zeros((len(rows), 0), dtype=torch.float64, device=device)
            for first in range(0, len(centered), OTHERS):
                part = slice(first, first + OTHERS)
                squared = torch.addmm(
                    squares[part], queries, centered[part].double().T, alpha=-2
                )  # without the row's own square
                in_part = torch.nonzero((rows >= first) & (rows < first + OTHERS))[:, 0]
                squared[in_part, rows[in_part] - first] = torch.inf
                nearest = squared.topk(min(neighbour, squared.shape[1]), largest=False).values
                best = torch.cat([best, nearest], 1)
                best = best.topk(min(neighbour, best.shape[1]), largest=False).values
            return (best.amax(1) + squares[rows]).clamp(min=0).sqrt().cpu().numpy()[:, None]

        return compute

    options = {"batch_tokens": ROWS, "passes": None, "label": label}
    keys, ones = np.frombuffer(bytes(digests), "V16"), np.ones(len(vectors), np.int64)
    distances = cached_map(begin, keys, ones, 1, namespace, runtime, **options)
    runtime.book(cached_rows=distances.cached, cached_seconds=distances.cached_seconds)
    return distances.values[:, 0]
