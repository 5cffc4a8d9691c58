"""Rows in proportion to a transport of target rows to their neighbours, which crowded rows share (TSDS)."""

import heapq

import numpy as np
from sklearn.metrics import euclidean_distances

from ..store.vector_store import READ, StoredVectors, blocks
from .choose import top_k


def nearest_rows(
    vectors: np.ndarray | StoredVectors, usable: np.ndarray, queries: np.ndarray, count: int, ties: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """
    The nearest rows of each query by Euclidean distance: exact, in float64, read in blocks.

    Args:
        vectors (`np.ndarray` or [`StoredVectors`]):
            `(n, width)`.
        usable (`np.ndarray`):
            Rows to search, bool `(n,)`.
        queries (`np.ndarray`):
            `(m, width)`, finite.
        count (`int`):
            Neighbours of each; no more than there are usable rows.
        ties (`np.ndarray`):
            As in [`top_k`].

    Returns:
        `tuple`: rows, int64, and their distances, float64, both `(m, count)`, nearest first.
    """
    queries = queries.astype(np.float64)
    best = [(np.zeros(0, np.int64), np.zeros(0))] * len(queries)
    for part in blocks((len(vectors), max(vectors.shape[1], len(queries)))):
        near = -euclidean_distances(queries, np.nan_to_num(vectors[part].astype(np.float64)))
        near[:, ~usable[part]] = np.nan
        for query, (rows, values) in enumerate(best):
            new = top_k(near[query], count, ties[part])
            rows, values = np.append(rows, new + part.start), np.append(values, near[query, new])
            kept = top_k(values, count, ties[rows])
            best[query] = rows[kept], values[kept]
    return np.stack([rows for rows, _ in best]), -np.stack([values for _, values in best])


def densities(vectors: np.ndarray, width: float, count: int) -> np.ndarray:
    """
    Kernel density of each of some vectors among them: the sum of 1 - distance^2 / width^2, as far as it is positive,
    over its `count` nearest ones, itself among them. Computed in blocks, from float32 products.

    Args:
        vectors (`np.ndarray`):
            `(m, width)`, finite, about as long as the kernel is wide.
        width (`float`):
            Of the kernel; 0 gives each a density of 1.
        count (`int`):
            Neighbours at most.

    Returns:
        `np.ndarray`: float64 `(m,)`, at least 1.
    """
    found = np.ones(len(vectors))
    if width == 0 or len(vectors) == 0:
        return found
    centred = (vectors - vectors.mean(0)).astype(np.float32)
    squares = np.einsum("ij,ij->i", centred, centred)
    step = max(1, READ // len(vectors))
    for rows in (slice(first, first + step) for first in range(0, len(vectors), step)):
        kernel = centred[rows] @ centred.T
        kernel *= 2
        kernel -= squares
        kernel -= squares[rows, None]
        kernel /= width**2
        kernel += 1
        np.maximum(kernel, 0, out=kernel)
        own = np.arange(len(kernel))
        kernel[own, own + rows.start] = 1
        crowded = np.flatnonzero((kernel > 0).sum(1) > count)
        if len(crowded):
            nearest = -np.partition(-kernel[crowded], count - 1, axis=1)[:, :count]
            kernel[crowded] = 0
            kernel[crowded, :count] = nearest
        found[rows] = kernel.sum(1, dtype=np.float64)
    return found


def transport_probabilities(
    rows: np.ndarray, distances: np.ndarray, density: np.ndarray, alpha: float, scale: float, n: int
) -> np.ndarray:
    """
    Probability of each row where the mass of target rows, equal for all, is moved to near rows and spread: each target
    row gives its nearest rows, in their order, 1 / density each, all targets to the same depth of such a sum, which
    grows while

        alpha / scale x distance that the mass moves, summed over targets < (1 - alpha) x targets

    Args:
        rows, distances, density (`np.ndarray`):
            Nearest rows of each target row, how far they are, and the density around them, `(targets, neighbours)`.
        alpha (`float`):
            Between 0 and 1: lower spreads more.
        scale (`float`):
            What a distance is divided by.
        n (`int`):
            Number of candidates.

    Returns:
        `np.ndarray`: float64 `(n,)`, sums to 1.
    """
    targets, neighbours = rows.shape
    found = np.zeros(n)
    if neighbours == 1:
        np.add.at(found, rows[:, 0], 1 / targets)
        return found
    share = 1 / density
    heap = [(share[target, 0], 0, target) for target in range(targets)]
    heapq.heapify(heap)
    depth, moved = share[:, 0].copy(), distances[:, 0] * share[:, 0]
    last, cost, total, reached = np.zeros(targets, np.int64), np.zeros(targets), 0.0, 0.0
    while heap:
        reached, place, target = heapq.heappop(heap)
        total -= cost[target]
        cost[target] = distances[target, place + 1] * reached - moved[target]
        total += cost[target]
        if alpha / scale * total >= (1 - alpha) * targets:
            break
        last[target] = place
        if place < neighbours - 2:
            depth[target] += share[target, place + 1]
            moved[target] += distances[target, place + 1] * share[target, place + 1]
            heapq.heappush(heap, (depth[target], place + 1, target))
    for target in range(targets):
        given = share[target, : last[target] + 1] / (targets * reached)
        np.add.at(found, rows[target, : last[target] + 1], given)
        found[rows[target, last[target] + 1]] += max(1 / targets - given.sum(), 0)
    return found
