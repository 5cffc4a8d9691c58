"""From scores or vectors to rows: top-k and lazy facility location."""

import heapq
from collections.abc import Callable

import numpy as np


def top_k(scores: np.ndarray, k: int) -> np.ndarray:
    """
    Rows of the `k` highest finite scores, best first; of equal scores the earlier row comes first.

    Args:
        scores (`np.ndarray`):
            `(n,)`; NaN and infinite scores are never chosen.
        k (`int`):
            Rows wanted; fewer come back where fewer have a score.

    Returns:
        `np.ndarray`: int64, at most `k`.
    """
    scores = np.asarray(scores, np.float64)
    rows = np.flatnonzero(np.isfinite(scores))
    if k < len(rows):
        # Only rows at or above the k-th score need sorting; ties at the cut are settled by the stable sort below.
        cut = np.partition(scores[rows], len(rows) - k)[len(rows) - k] if k > 0 else np.inf
        rows = rows[scores[rows] >= cut]
    return rows[np.argsort(-scores[rows], kind="stable")][: max(k, 0)].astype(np.int64)


def facility_location(
    vectors: np.ndarray, k: int, similarity: Callable[[np.ndarray, np.ndarray], np.ndarray], block: int = 1024
) -> tuple[np.ndarray, np.ndarray]:
    """
    Greedy maximisation of sum over rows of the largest similarity to a chosen row, with lazy evaluation.

    The gain of a row never grows, so an old gain is an upper bound: only the row on top of the heap is computed anew.
    The result is the plain greedy one; equal gains go to the earlier row. Similarities are float64 and computed in
    blocks, never as an n x n matrix (the kernel of Superfiltering.D differs in the 4th digit only).

    Args:
        vectors (`np.ndarray`):
            `(n, width)`.
        k (`int`):
            Rows wanted.
        similarity (`Callable`):
            `(rows (a, width), rows (b, width)) -> (a, b)`, not negative.

    Returns:
        `tuple`: rows in the order chosen, int64 `(k,)`, and the gain of each, float64 `(k,)`.
    """
    vectors = np.asarray(vectors, np.float64)
    n = len(vectors)
    covered = np.zeros(n)
    heap = []
    for start in range(0, n, block):
        sums = similarity(vectors, vectors[start : start + block]).sum(0)
        # A block rounds otherwise than a single row: a hair more keeps these upper bounds, and so the order of ties.
        heap += [(-gain * (1 + 1e-9), start + place, 0) for place, gain in enumerate(sums)]
    heapq.heapify(heap)
    rows, gains = [], []
    while len(rows) < min(k, n):
        _, row, _ = heapq.heappop(heap)
        column = similarity(vectors, vectors[row : row + 1])[:, 0]
        gain = float(np.maximum(column - covered, 0).sum())
        # (gain, row) decides: with equal gains the earlier row has to come first, as in the plain greedy loop.
        if heap and (-gain, row) > heap[0][:2]:
            heapq.heappush(heap, (-gain, row, len(rows)))
            continue
        rows.append(row)
        gains.append(gain)
        covered = np.maximum(covered, column)
    return np.array(rows, np.int64), np.array(gains)


def cosine(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Cosine of unit vectors, negative values as 0, `(a, b)`."""
    return np.maximum(a @ b.T, 0)


def exponential_distance(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """exp(-Euclidean distance / width), the kernel that Superfiltering.D uses, `(a, b)`."""
    squared = (a**2).sum(1)[:, None] + (b**2).sum(1)[None] - 2 * a @ b.T
    return np.exp(-np.sqrt(np.maximum(squared, 0)) / a.shape[1])
