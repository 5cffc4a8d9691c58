"""From scores, vectors or tags to rows: top-k, lazy facility location, diverse filter, k-center, tag cover."""

import heapq
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import torch

from .state import has_fast_bfloat16


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


#: Rows whose gains facility location brings up to date together; one product for all costs about as much as a few.
AT_A_TIME = 32


def facility_location(
    vectors: np.ndarray, k: int, similarity: Callable[[np.ndarray, np.ndarray], np.ndarray], block: int = 1024
) -> tuple[np.ndarray, np.ndarray]:
    """
    Greedy maximisation of sum over rows of the largest similarity to a chosen row, with lazy evaluation.

    The gain of a row never grows, so an old gain is an upper bound: only rows near the top of the heap are computed
    anew, first some at a time, then the top one alone. The result is the plain greedy one; equal gains go to the
    earlier row. Similarities are float64 and computed in blocks, never as an n x n matrix (the kernel of
    Superfiltering.D differs in the 4th digit only).

    Args:
        vectors (`np.ndarray`):
            `(n, width)`.
        k (`int`):
            Rows wanted.
        similarity (`Callable`):
            `(rows (a, width), rows (b, width)) -> (a, b)`, from 0 to about 1.

    Returns:
        `tuple`: rows in the order chosen, int64 `(k,)`, and the gain of each, float64 `(k,)`.
    """
    vectors = np.asarray(vectors, np.float64)
    n = len(vectors)
    covered = np.zeros(n)

    def bounds(some: np.ndarray, picks: int) -> list[tuple[float, int, int]]:
        gains = np.maximum(similarity(vectors, vectors[some]) - covered[:, None], 0).sum(0)
        # A block rounds otherwise than a single row (the root of a distance to itself by 1e-8): a hair more keeps
        # these upper bounds, and so the order of ties.
        gains += 1e-9 * gains + 1e-6
        return [(-gain, row, picks) for gain, row in zip(gains.tolist(), some.tolist(), strict=True)]

    heap = [bound for start in range(0, n, block) for bound in bounds(np.arange(start, min(start + block, n)), 0)]
    heapq.heapify(heap)
    rows, gains = [], []
    while len(rows) < min(k, n):
        if heap[0][2] < len(rows):  # a bound from before the last pick, and so are others behind it
            old = [heapq.heappop(heap) for _ in range(min(AT_A_TIME, len(heap)))]
            for bound in bounds(np.array([row for _, row, _ in old]), len(rows)):
                heapq.heappush(heap, bound)
            continue
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


#: Two unit vectors whose float32 product is this near to the threshold are compared again in float64.
DOUBT = 1e-4
#: What the product of two unit vectors in bfloat16 is off at most: three roundings of 2^-8, and a little for the sum.
COARSE = 3 * 2**-8 + 1e-3


def diverse_filter(
    order: Sequence[int] | np.ndarray,
    vectors: np.ndarray | Callable[[np.ndarray], np.ndarray],
    k: int | None = None,
    threshold: float = 0.9,
    block: int = 1024,
    device: torch.device | str = "cpu",
) -> np.ndarray:
    """
    Walk rows from best to worst and keep each whose cosine to every row kept so far is at most `threshold`
    (score-first, diversity-aware: arXiv 2312.15685, section 2.4).

    A block of rows is compared with the kept ones by one matrix product, in bfloat16 where the hardware multiplies in
    it and in float32 where that is too coarse to tell, and then its rows one by one with those kept out of it. So the
    result is that of one row at a time, whatever the block. Memory: the kept rows' unit vectors and a few blocks.

    Args:
        order (`Sequence[int]`):
            Rows, best first.
        vectors (`np.ndarray` or `Callable`):
            `(n, width)`, of any length, or a function from rows `(b,)` to their vectors `(b, width)`: only rows that
            the walk comes to are asked for. A row with a vector that is not finite, or all zeros, is never kept.
        k (`int`, *optional*):
            Rows wanted; the walk ends when it has them. By default it goes to the end.
        threshold (`float`, *optional*, defaults to `0.9`):
            A row is rejected if some kept row's cosine with it is above this.
        block (`int`, *optional*, defaults to `1024`):
            Rows compared at a time.
        device (`torch.device`, *optional*, defaults to `"cpu"`):
            Where the bfloat16 products are made; on one without them all is done on the CPU.

    Returns:
        `np.ndarray`: rows in the order kept, int64, at most `k`.
    """
    order = np.asarray(order, np.int64)
    limit = len(order) if k is None else min(max(k, 0), len(order))
    rows, count, kept, rough = np.zeros(limit, np.int64), 0, None, None
    for start in range(0, len(order), block):
        if count == limit:
            break
        part = order[start : start + block]
        unit = _unit_rows(vectors(part) if callable(vectors) else vectors[part])
        if kept is None:
            kept = np.empty((limit, unit.shape[1]), np.float32)
            if has_fast_bfloat16(torch.device(device)):
                rough = torch.empty(kept.shape, dtype=torch.bfloat16, device=device)
        places, before = np.flatnonzero(np.isfinite(unit).all(1)), count
        for first in range(0, count, 8 * block):
            others = slice(first, min(first + 8 * block, count))
            near = np.full(len(places), np.nan) if rough is None else _highest(unit[places], rough[others])
            doubtful = ~(np.abs(near - threshold) > COARSE)
            near = near > threshold
            near[doubtful] = _near_any(unit[places[doubtful]], kept[others], threshold)
            places = places[~near]
        unit = unit[places]
        near, free = _near(unit, unit, threshold), np.ones(len(places), bool)
        for place in range(len(places)):
            if count == limit:
                break
            if free[place]:
                rows[count], kept[count], count = part[places[place]], unit[place], count + 1
                free &= ~near[place]
        if rough is not None:
            rough[before:count] = torch.from_numpy(kept[before:count]).to(rough)
    return rows[:count]


def _highest(a: np.ndarray, b: torch.Tensor) -> np.ndarray:
    """Highest product of each of `a` with any of `b`, as coarse as `b`, float32 `(a,)`."""
    return (torch.from_numpy(a).to(b) @ b.T).amax(1).float().cpu().numpy()


def _unit_rows(vectors: np.ndarray) -> np.ndarray:
    """Float32 vectors of length 1; NaN where there is no direction."""
    vectors = np.asarray(vectors, np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def _near(a: np.ndarray, b: np.ndarray, threshold: float) -> np.ndarray:
    """Whether unit vectors have a cosine above the threshold, `(a, b)`."""
    product = a @ b.T
    near = product > threshold
    rows, columns = np.nonzero(np.abs(product - threshold) < DOUBT)
    for first in range(0, len(rows), 2**14):  # a product in blocks rounds otherwise than one of two rows
        i, j = rows[first : first + 2**14], columns[first : first + 2**14]
        near[i, j] = np.einsum("ij,ij->i", a[i], b[j], dtype=np.float64) > threshold
    return near


def _near_any(a: np.ndarray, b: np.ndarray, threshold: float) -> np.ndarray:
    """Whether any of `b` has a cosine above the threshold with each of `a`, `(a,)`."""
    highest = (a @ b.T).max(1)
    near = highest > threshold
    doubtful = np.flatnonzero(np.abs(highest - threshold) < DOUBT)
    if len(doubtful):
        near[doubtful] = _near(a[doubtful], b, threshold).any(1)
    return near


def k_center(vectors: np.ndarray, k: int, first: Iterable[int] = (0,)) -> tuple[np.ndarray, np.ndarray]:
    """
    Greedy k-center: each next row is the one farthest (Euclidean) from its nearest picked row; of equally far rows the
    earlier one. Distances to the nearest picked row are brought up to date with one matrix-vector product a pick.

    Args:
        vectors (`np.ndarray`):
            `(n, width)`; computed in their own dtype.
        k (`int`):
            Rows wanted, those of `first` included.
        first (`Iterable[int]`, *optional*, defaults to `(0,)`):
            Rows picked already.

    Returns:
        `tuple`: rows in the order picked, int64, and for each pick after the given ones its distance at that time,
        then the largest distance left, float64.
    """
    vectors = np.asarray(vectors)
    # Distances do not change with the origin, and near it the products lose the fewest digits.
    vectors = vectors - vectors.mean(0)
    squares = np.einsum("ij,ij->i", vectors, vectors)
    nearest = np.full(len(vectors), np.inf)
    rows, radii = [], []

    def pick(row: int) -> None:
        rows.append(row)
        np.minimum(nearest, np.maximum(squares - 2 * (vectors @ vectors[row]) + squares[row], 0), out=nearest)
        nearest[row] = -1

    for row in first:
        pick(int(row))
    while len(rows) < min(k, len(vectors)):
        farthest = int(nearest.argmax())
        radii.append(nearest[farthest])
        pick(farthest)
    return np.array(rows, np.int64), np.sqrt(np.array([*radii, max(nearest.max(initial=0), 0)], np.float64))


def tag_cover(tags: Sequence[Iterable[str]], k: int) -> tuple[np.ndarray, list[int]]:
    """
    Complexity-first diverse sampling (arXiv 2308.07074, algorithm 1): rows by number of tags, most first; in each pass
    a row is taken if it brings a tag that the pass has not seen; passes go on over the rows left until `k` are taken.

    Rows of equally many tags keep their order. Rows without tags are never taken, so that it always ends.

    Args:
        tags (`Sequence`):
            Tags of each row; a tag named twice counts once.
        k (`int`):
            Rows wanted.

    Returns:
        `tuple`: rows in the order taken, int64, at most `k`, and how many each pass took.
    """
    sets = [frozenset(row) for row in tags]
    left = sorted((row for row, found in enumerate(sets) if found), key=lambda row: -len(sets[row]))
    available = Counter(tag for row in left for tag in sets[row])
    rows, passes = [], []
    while left and len(rows) < k:
        seen, before, passed, goal = set(), len(rows), [], len(available)
        walked = 0
        for row in left:
            walked += 1
            if sets[row] <= seen:
                passed.append(row)
                continue
            seen |= sets[row]
            rows.append(row)
            for tag in sets[row]:
                available[tag] -= 1
                if not available[tag]:
                    del available[tag]
            if len(rows) == k or len(seen) == goal:  # no row further down can bring a new tag
                break
        left = passed + left[walked:]
        passes.append(len(rows) - before)
    return np.array(rows, np.int64), passes
