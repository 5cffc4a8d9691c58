"""From scores, vectors or tags to rows: top-k, lazy facility location, k-center, tag cover."""

from collections.abc import Callable, Iterable, Iterator, Sequence

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


#: Rows whose gains facility location brings up to date together; one product for all costs about as much as a few.
AT_A_TIME = 32
#: All gains are brought up to date once this part of the work that it takes has gone into single ones.
PATIENCE = 1 / 16


def facility_location(
    vectors: np.ndarray, k: int, similarity: Callable[[np.ndarray, np.ndarray], np.ndarray], block: int = 256
) -> tuple[np.ndarray, np.ndarray]:
    """
    Greedy maximisation of sum over rows of the largest similarity to a chosen row.

    The gain of a row never grows, so an old gain is an upper bound, and only rows with a high bound are computed anew
    (lazy greedy). Where that does not end soon, as on rows without any structure, the gains of all are corrected for
    the rows that are covered better than at the last correction: about n / t of them at the t-th pick. The result is
    the plain greedy one; equal gains go to the earlier row. Similarities are float64 (the kernel of Superfiltering.D
    differs in the 4th digit only) and never an n x n matrix: memory is that of the vectors and of two arrays
    `(n, block)`.

    Args:
        vectors (`np.ndarray`):
            `(n, width)`.
        k (`int`):
            Rows wanted; all rows, in the order of their gains, where there are no more.
        similarity (`Callable`):
            `(rows (a, width), rows (b, width)) -> (a, b)`, from 0 to about 1, the same both ways.
        block (`int`, *optional*, defaults to `256`):
            Rows whose similarities are computed together.

    Returns:
        `tuple`: rows in the order chosen, int64 `(k,)`, and the gain of each, float64 `(k,)`.
    """
    vectors = np.asarray(vectors, np.float64)
    n = len(vectors)
    covered = np.zeros(n)
    corrected, gains = covered.copy(), np.zeros(n)  # gains as of when rows were covered as in `corrected`

    def blocks(rows: np.ndarray) -> Iterator[np.ndarray]:
        return (rows[start : start + block] for start in range(0, len(rows), block))

    def bounds(gains: np.ndarray) -> np.ndarray:
        # A block rounds otherwise than a single row (the root of a distance to itself by 1e-8): a hair more keeps
        # these upper bounds, and so the order of ties.
        return gains + 1e-9 * np.abs(gains) + 1e-6

    for rows in blocks(np.arange(n)):
        gains[rows] = similarity(vectors, vectors[rows]).sum(0)
    bound, fresh = bounds(gains), np.ones(n, bool)
    chosen, found = [], []
    while len(chosen) < min(k, n):
        best, tried, spent = None, [], 0
        while best is None or bound.max() >= best[0]:
            row = int(bound.argmax())
            if fresh[row]:
                column = similarity(vectors, vectors[row : row + 1])[:, 0]
                gain = float(np.maximum(column - covered, 0).sum())
                # With equal gains the earlier row has to come first, as in the plain greedy loop.
                if best is None or (gain, -row) > (best[0], -best[1]):
                    best = gain, row, column
                tried.append((row, gain))
                bound[row] = -np.inf
                continue
            better = np.flatnonzero(covered > corrected)
            if spent < PATIENCE * len(better):
                some = np.argpartition(-np.where(fresh, -np.inf, bound), min(AT_A_TIME, n) - 1)[:AT_A_TIME]
                some, spent = some[~fresh[some] & (bound[some] > -np.inf)], spent + AT_A_TIME
                now = np.maximum(similarity(vectors, vectors[some]), covered[:, None]).sum(0) - covered.sum()
                bound[some], fresh[some] = bounds(now), True
                continue
            for part in blocks(better):
                low, high = corrected[part], covered[part]
                gains -= np.clip(similarity(vectors, vectors[part]), low, high).sum(1) - low.sum()
            corrected, fresh[:] = covered.copy(), True
            bound = bounds(gains)
            bound[[*chosen, *(row for row, _ in tried)]] = -np.inf
        for row, gain in tried:
            bound[row] = bounds(np.array(gain))
        gain, row, column = best
        chosen.append(row)
        found.append(gain)
        covered = np.maximum(covered, column)
        bound[row], fresh[:] = -np.inf, False
    return np.array(chosen, np.int64), np.array(found)


def cosine(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Cosine of unit vectors, negative values as 0, `(a, b)`."""
    return np.maximum(a @ b.T, 0)


def exponential_distance(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """exp(-Euclidean distance / width), the kernel that Superfiltering.D uses, `(a, b)`."""
    squared = (a**2).sum(1)[:, None] + (b**2).sum(1)[None] - 2 * a @ b.T
    return np.exp(-np.sqrt(np.maximum(squared, 0)) / a.shape[1])


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
    order = sorted((row for row, found in enumerate(sets) if found), key=lambda row: -len(sets[row]))
    # Of each tag the places in the order that have it, the first one at the end of the list.
    having: dict[str, list[int]] = {}
    for place in reversed(range(len(order))):
        for tag in sets[order[place]]:
            having.setdefault(tag, []).append(place)
    taken, rows, passes = np.zeros(len(order), bool), [], []
    while having and len(rows) < k:
        # A pass takes the first row with an unseen tag, again and again, so that only the first row left of each tag
        # matters. If that one was taken meanwhile, the tag has been seen.
        for tag, places in list(having.items()):
            while places and taken[places[-1]]:
                places.pop()
            if not places:
                del having[tag]
        seen, before = set(), len(rows)
        for tag in sorted(having, key=lambda tag: having[tag][-1]):
            if tag not in seen and len(rows) < k:
                place = having[tag][-1]
                taken[place] = True
                rows.append(order[place])
                seen |= sets[order[place]]
        passes += [len(rows) - before] if len(rows) > before else []
    return np.array(rows, np.int64), passes
