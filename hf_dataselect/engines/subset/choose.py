"""Select rows by scores or vectors: top-k, lazy facility location, k-center."""

from collections.abc import Callable, Iterable, Iterator

import numpy as np

from ..store.vector_store import StoredVectors, blocks
from .lazy_vectors import LazyVectors


def top_k(scores: np.ndarray, k: int, ties: np.ndarray | None = None) -> np.ndarray:
    """
    Rows of the `k` highest finite scores, best first.

    Args:
        scores (`np.ndarray`):
            `(n,)`; rows with NaN or infinite scores are never selected.
        k (`int`):
            Rows to select; fewer are returned if fewer have a score.
        ties (`np.ndarray`, *optional*):
            Rank of each row among equal scores `(n,)`, lowest first; by default the row number.

    Returns:
        `np.ndarray`: int64, at most `k`.
    """
    scores = np.asarray(scores, np.float64)
    rows = np.flatnonzero(np.isfinite(scores))
    if k < len(rows):
        # Only rows at or above the k-th score need sorting; the sort below breaks ties at the cut.
        cut = np.partition(scores[rows], len(rows) - k)[len(rows) - k] if k > 0 else np.inf
        rows = rows[scores[rows] >= cut]
    order = np.lexsort((rows if ties is None else ties[rows], -scores[rows]))
    return rows[order][: max(k, 0)].astype(np.int64)


def drawn_places(n: int, seed: int) -> np.ndarray:
    """A seeded permutation of `n` rows, which breaks ties independently of file order."""
    return np.random.default_rng([seed, n]).permutation(n)


def tied_at_the_cut(scores: np.ndarray, kept: np.ndarray) -> tuple[int, int]:
    """
    Number of rows that share the lowest selected score, and how many of them are selected; (0, 0) if all or none are,
    or if the selection is not by score.

    Args:
        scores (`np.ndarray`):
            `(n,)`; NaN for rows that can't be selected.
        kept (`np.ndarray`):
            Selected row numbers.
    """
    if len(kept) == 0:
        return 0, 0
    chosen = np.zeros(len(scores), bool)
    chosen[kept] = True
    cut = scores[kept].min()
    tied = scores == cut
    if (chosen | ~tied).all() or (~chosen & (scores > cut)).any():
        return 0, 0
    return int(tied.sum()), int((tied & chosen).sum())


#: Rows that are compared with others together; one product for all costs about as much as for a few.
AT_A_TIME = 32
#: All gains are updated once single updates have taken this fraction of the work of updating all.
PATIENCE = 1 / 16
#: Gains that differ by less, relative to 1 and to themselves, are equal.
TIE = 1e-8
#: Rows whose distances k-center updates at each pick.
FARTHEST = 4096
#: Similarities that are computed together at most.
PRODUCTS = 2**24
#: A matrix of all similarities of at most so many bytes is kept in memory: of 11,585 rows.
MATRIX_BYTES = 2**30


def facility_location(
    vectors: np.ndarray | StoredVectors | LazyVectors,
    k: int,
    similarity: Callable[[np.ndarray, np.ndarray], np.ndarray],
    block: int = 256,
    worth: np.ndarray | float = 0.0,
) -> tuple[np.ndarray, np.ndarray]:
    """
    Greedy maximisation of the sum over rows of the largest similarity to a selected row, and of what selected rows are
    worth by themselves.

    Gains never grow, so an old gain is an upper bound, and only rows with a high bound are recomputed (lazy greedy).
    If that takes too long, as on rows without structure, all gains are corrected for the rows that are covered better
    than at the last correction: about n / t of them at the t-th pick. The result is that of plain greedy selection;
    ties go to the earlier row. Similarities are float64 (the kernel of Superfiltering.D differs in the 4th digit
    only). An n x n matrix of them is kept where it takes at most `MATRIX_BYTES`; of more rows, they are computed as
    they are needed, in the memory of the vectors in float64 and of a few arrays `(block, n)`.

    Args:
        vectors (`np.ndarray`, [`StoredVectors`] or [`LazyVectors`]):
            `(n, width)`.
        k (`int`):
            Rows to select; at most all rows.
        similarity (`Callable`):
            `(rows (a, width), rows (b, width)) -> (a, b)`, from 0 to about 1, symmetric.
        block (`int`, *optional*, defaults to `256`):
            Rows whose similarities are computed together; fewer of many rows.
        worth (`np.ndarray` or `float`, *optional*, defaults to `0.0`):
            Added to the gain of each row `(n,)`.

    Returns:
        `tuple`: rows in the order of selection, int64 `(k,)`, and the gain of each, float64 `(k,)`.
    """
    vectors = _in_float64(vectors)
    n = len(vectors)
    block = max(1, min(block, PRODUCTS // max(1, n)))
    worth = np.broadcast_to(np.asarray(worth, np.float64), n)
    covered = np.zeros(n)
    corrected, gains = covered.copy(), np.zeros(n)  # gains for rows covered as in `corrected`
    matrix = _similarities(vectors, similarity, block) if 8 * n * n <= MATRIX_BYTES else None

    def to_all(rows: np.ndarray | slice) -> np.ndarray:
        return similarity(vectors[rows], vectors) if matrix is None else matrix[rows]

    def blocks(rows: np.ndarray) -> Iterator[np.ndarray]:
        return (rows[start : start + block] for start in range(0, len(rows), block))

    def bounds(gains: np.ndarray) -> np.ndarray:
        # A block rounds differently from a single row (the root of a distance to itself by 1e-8): a small margin
        # keeps these upper bounds, and thereby the order of ties.
        return gains + 1e-9 * np.abs(gains) + 1e-6

    for rows in blocks(np.arange(n)):
        gains[rows] = to_all(rows).sum(1) + worth[rows]
    bound, fresh = bounds(gains), np.ones(n, bool)
    chosen, picked_gains = [], []
    while len(chosen) < min(k, n):
        best, tried, spent = None, [], 0
        while best is None or bound.max() >= best[0]:
            row = int(bound.argmax())
            if fresh[row]:
                column = to_all(slice(row, row + 1))[0]
                gain = float(np.maximum(column - covered, 0).sum() + worth[row])
                # Two rows that only cover each other better gain the same: rounding must not choose between them.
                tie = TIE * (1 + gain)
                if best is None or gain > best[0] + tie or (gain >= best[0] - tie and row < best[1]):
                    best = gain, row, column
                tried.append((row, gain))
                bound[row] = -np.inf
                continue
            better = np.flatnonzero(covered > corrected)
            if spent < PATIENCE * len(better):
                stale = np.argpartition(-np.where(fresh, -np.inf, bound), min(AT_A_TIME, n) - 1)[:AT_A_TIME]
                stale, spent = stale[~fresh[stale] & (bound[stale] > -np.inf)], spent + AT_A_TIME
                fresh_gains = np.maximum(to_all(stale), covered).sum(1) - covered.sum()
                bound[stale], fresh[stale] = bounds(fresh_gains + worth[stale]), True
                continue
            for rows in blocks(better):
                low, high = corrected[rows, None], covered[rows, None]
                gains -= np.clip(to_all(rows), low, high).sum(0) - low.sum()
            corrected, fresh[:] = covered.copy(), True
            bound = bounds(gains)
            bound[[*chosen, *(row for row, _ in tried)]] = -np.inf
        for row, gain in tried:
            bound[row] = bounds(np.array(gain))
        gain, row, column = best
        chosen.append(row)
        picked_gains.append(gain)
        covered = np.maximum(covered, column)
        bound[row], fresh[:] = -np.inf, False
    return np.array(chosen, np.int64), np.array(picked_gains)


def _in_float64(vectors: np.ndarray | StoredVectors | LazyVectors) -> np.ndarray:
    if isinstance(vectors, np.ndarray):
        return vectors.astype(np.float64, copy=False)
    whole = np.empty(vectors.shape)
    for part in blocks(vectors.shape):
        whole[part] = vectors[part]
    return whole


def _similarities(vectors: np.ndarray, similarity: Callable, block: int) -> np.ndarray:
    """All similarities `(n, n)`, block by block; those of exact copies are equal to the last bit, so that they tie."""
    n = len(vectors)
    _, first, inverse = np.unique(vectors, axis=0, return_index=True, return_inverse=True)
    original, matrix = first[inverse.reshape(-1)], np.empty((n, n))
    for start in range(0, n, block):
        end = min(start + block, n)
        matrix[start:end, :end] = similarity(vectors[start:end], vectors[:end])
        matrix[:start, start:end] = matrix[start:end, :start].T
    for row in np.flatnonzero(original != np.arange(n)):
        matrix[row], matrix[:, row] = matrix[original[row]], matrix[:, original[row]]
    return matrix


def cosine(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Cosine of unit vectors, clipped at 0, `(a, b)`."""
    product = a @ b.T
    return np.maximum(product, 0, out=product)


def exponential_distance(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """exp(-Euclidean distance / width), the kernel that Superfiltering.D uses, `(a, b)`."""
    squared = (a**2).sum(1)[:, None] + (b**2).sum(1)[None] - 2 * a @ b.T
    return np.exp(-np.sqrt(np.maximum(squared, 0)) / a.shape[1])


def k_center(
    vectors: np.ndarray | StoredVectors, k: int, first: Iterable[int] = (0,)
) -> tuple[np.ndarray, np.ndarray]:
    """
    Greedy k-center: the next row is the one farthest (Euclidean) from its nearest selected row; ties go to the earlier
    row.

    Distances to the nearest selected row never grow. Those of the farthest rows are updated at each pick, and all,
    by one matrix product, when another row might be farther. Vectors are read in blocks: in memory are one of them
    and two numbers a row.

    Args:
        vectors (`np.ndarray` or [`StoredVectors`]):
            `(n, width)`; computed in float32 at least.
        k (`int`):
            Rows to select, those of `first` included.
        first (`Iterable[int]`, *optional*, defaults to `(0,)`):
            Rows that are already selected.

    Returns:
        `tuple`: rows in the order of selection, int64, and the distance of each row after `first` when it is selected,
        then the largest remaining distance, float64.
    """
    n, width = vectors.shape
    # Distances are translation-invariant, and products of centered vectors lose the fewest digits.
    mean = mean_vector(vectors)
    squares = np.zeros(n, mean.dtype)
    for part in blocks((n, width)):
        centered = vectors[part] - mean
        squares[part] = np.einsum("ij,ij->i", centered, centered)
    nearest, radii = np.full(n, np.inf), []
    rows = [int(row) for row in first]
    pending = [*rows]
    while True:
        picked, count = vectors[np.array(pending, np.int64)] - mean, len(pending)
        for part in blocks((n if count else 0, max(width, count))):
            squared = (vectors[part] - mean) @ picked.T
            squared *= -2
            squared += squares[part, None]
            squared += squares[pending]
            np.minimum(nearest[part], np.maximum(squared.min(1), 0), out=nearest[part])
        nearest[pending] = -1
        if len(rows) >= min(k, n):
            return np.array(rows, np.int64), np.sqrt(np.array([*radii, max(nearest.max(initial=0), 0)], np.float64))
        row, limit, near = int(nearest.argmax()), -np.inf, np.arange(n)
        if n > FARTHEST:
            limit = -np.partition(-nearest, FARTHEST)[FARTHEST]
            near = np.flatnonzero(nearest > limit)
        centered, distance, pending = vectors[near] - mean, nearest[near], []
        reached = float(nearest[row])
        while reached > limit or not pending:
            radii.append(reached)
            rows.append(row)
            pending.append(row)
            if len(rows) == min(k, n) or len(near) == 0:
                break
            own = vectors[row : row + 1][0] - mean
            squared = squares[near] - 2 * (centered @ own) + squares[row]
            np.minimum(distance, np.maximum(squared, 0), out=distance)
            distance[near == row] = -1
            place = int(distance.argmax())
            row, reached = int(near[place]), float(distance[place])


def mean_vector(vectors: np.ndarray | StoredVectors) -> np.ndarray:
    """Mean of vectors `(n, width)`, read in blocks, in float32 at least."""
    (n, width), dtype = vectors.shape, np.promote_types(vectors.dtype, np.float32)
    mean = np.zeros(width)
    for part in blocks((n, width)):
        mean += vectors[part].mean(0, dtype=dtype) * (len(range(n)[part]) / n)
    return mean.astype(dtype)


def distances_to(vectors: np.ndarray | StoredVectors, centers: np.ndarray) -> np.ndarray:
    """Euclidean distance of each vector `(n, width)`, read in blocks, to the nearest of some centers, `(n,)`."""
    from sklearn.metrics import pairwise_distances_argmin_min  # takes a while, and [`~Context`] imports this module

    parts = [pairwise_distances_argmin_min(vectors[part], centers)[1] for part in blocks(vectors.shape)]
    return np.concatenate([np.zeros(0), *parts])
