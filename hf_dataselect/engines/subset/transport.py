"""Mass that a target sends to rows: unbalanced optimal transport, and nearest rows, of which a crowd shares (TSDS)."""

from collections.abc import Iterator

import numpy as np
from scipy.special import logsumexp
from sklearn.metrics import euclidean_distances

from ..store.vector_store import READ, StoredVectors, blocks
from .target_similarity import Similarity, best_of_columns, best_of_parts, parts_of


#: Of TSDS (arXiv 2410.11303) as a matcher: how much near rows are preferred to many, the scale of distances, the width
#: of a crowd; and, of all rows, the nearest of a column, and of a row, that are looked at.
ALPHA, SCALE, SIGMA, NEAREST, CROWD = 0.01, 5.0, 0.75, 5000, 1000
#: Rows whose kernel with as many others stays in the processor's cache, and rows that tell if most are in a crowd.
TILE, SAMPLE = 1024, 64
#: Entropy and freedom of the candidates' side of the transport, and when its potentials stand still.
ENTROPY, FREEDOM, STILL = 0.01, 1e-4, 1e-9


def transported_mass(
    similarity: np.ndarray | Similarity, scores: np.ndarray | None = None, weights: np.ndarray | None = None
) -> np.ndarray:
    """
    Mass that rows receive in unbalanced optimal transport from the columns: each sends all of its mass, at the cost
    (1 - similarity) / 2, with an entropy of 0.01 that spreads it; a row that receives another mass than the others is
    charged 0.0001 times their divergence, next to nothing. So it is about a column's softmax over rows at temperature
    0.02, summed over columns. The potentials of the columns are iterated in logarithms; each of some 6 passes reads
    the similarities in blocks.

    Args:
        similarity, scores, weights:
            As in [`~matchers.for_target`].

    Returns:
        `np.ndarray`: float64 `(n,)`, of sum 1; 0 for rows without a score.
    """
    mass, columns = np.zeros(similarity.shape[0]), np.zeros(similarity.shape[1], bool)
    for _, values in parts_of(similarity, scores):
        columns |= np.isfinite(values).any(0)
    if not columns.any():
        return mass
    log_shares = np.log(_shares(weights, columns))
    power = FREEDOM / (FREEDOM + ENTROPY)
    potential, change = np.zeros(len(log_shares)), np.inf
    while change > STILL:
        reached = np.full(len(log_shares), -np.inf)
        for part, values in parts_of(similarity, scores):
            rows = np.isfinite(values[:, columns]).all(1)
            kernel = (values[np.ix_(rows, columns)].astype(np.float64) - 1) / (2 * ENTROPY)
            received = logsumexp(kernel + log_shares + potential, axis=1)
            mass[part.start + np.flatnonzero(rows)] = (1 - power) * received
            if len(received):
                reached = np.logaddexp(reached, logsumexp(kernel - power * received[:, None], axis=0))
        change, potential = np.abs(potential + reached).max(), -reached
    scored = mass != 0
    mass[scored] = np.exp(mass[scored] - logsumexp(mass[scored]))
    return mass


def uniform_neighbours(
    similarity: np.ndarray | Similarity,
    scores: np.ndarray | None = None,
    weights: np.ndarray | None = None,
    ties: np.ndarray | None = None,
    alpha: float = ALPHA,
) -> np.ndarray:
    """
    Probabilities of rows: each column shares its own out among its K nearest rows, the same K for all. K is the
    largest with alpha / 5 x sum of (distance of the next one - distance) < 1 - alpha, a column, of distances
    1 - similarity. With the paper's alpha, 0.01, it is some thousand: on a smaller pool all rows get the same.

    Args:
        similarity, scores, weights, ties:
            As in [`~matchers.for_target`].
        alpha (`float`, *optional*, defaults to `0.01`):
            More prefers nearer rows to more.

    Returns:
        `np.ndarray`: float64 `(n,)`, of sum 1.
    """
    probability = np.zeros(similarity.shape[0])
    rows, distances, shares = _nearest(similarity, NEAREST, scores, weights, ties)
    if rows.size:
        places = np.arange(1, rows.shape[1])
        gaps = shares @ (distances[:, 1:] * places - np.cumsum(distances, 1)[:, :-1])
        far = np.flatnonzero(alpha / SCALE * gaps >= 1 - alpha)
        nearest = places[far[0]] if len(far) else rows.shape[1]
        np.add.at(probability, rows[:, :nearest], shares[:, None] / nearest)
    return probability


def dense_neighbours(
    similarity: np.ndarray | Similarity,
    vectors: np.ndarray | StoredVectors,
    scores: np.ndarray | None = None,
    weights: np.ndarray | None = None,
    ties: np.ndarray | None = None,
    alpha: float = ALPHA,
) -> np.ndarray:
    """
    Probabilities of rows by TSDS (arXiv 2410.11303) over distances 1 - similarity: each column shares its own out
    among its nearest rows, at most a tenth of the pool, to each in inverse proportion to its density, so that copies
    of a row get together what it would get.

    Args:
        similarity, scores, weights, ties:
            As in [`~matchers.for_target`].
        vectors (`np.ndarray` or [`StoredVectors`]):
            Unit vectors `(n, width)`; those of the columns' nearest rows are held in memory.
        alpha (`float`, *optional*, defaults to `0.01`):
            More prefers nearer rows to more.

    Returns:
        `np.ndarray`: float64 `(n,)`, of sum 1.
    """
    n = similarity.shape[0]
    rows, distances, shares = _nearest(similarity, min(NEAREST, max(2, n // 10)), scores, weights, ties)
    if rows.size == 0:
        return np.zeros(n)
    density = densities_around(vectors, rows, SIGMA, min(CROWD, max(1, n // 10)))
    return transport_probabilities(rows, np.maximum(distances, 0), density, alpha, SCALE, n, shares)


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

    def nearness() -> Iterator[tuple[slice, np.ndarray]]:
        for part in blocks((len(vectors), max(vectors.shape[1], len(queries)))):
            near = -euclidean_distances(queries, np.nan_to_num(vectors[part].astype(np.float64)))
            near[:, ~usable[part]] = np.nan
            yield part, near.T

    best = best_of_parts(nearness(), len(queries), count, ties)
    return np.stack([rows for rows, _ in best]), -np.stack([values for _, values in best])


def densities_around(vectors: np.ndarray | StoredVectors, rows: np.ndarray, width: float, count: int) -> np.ndarray:
    """[`densities`] of rows `(targets, neighbours)` among all that are named there; float64, of the same shape."""
    named, place = np.unique(rows, return_inverse=True)
    return densities(vectors[named], width, count)[place.reshape(rows.shape)]


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
    density = np.ones(len(vectors))
    if width == 0 or len(vectors) == 0:
        return density
    centred = ((vectors - vectors.mean(0)) / width).astype(np.float32)
    squares = np.einsum("ij,ij->i", centred, centred)
    near = np.ones(len(vectors), np.int64)
    some = np.arange(0, len(vectors), max(1, len(vectors) // SAMPLE))
    if np.mean(np.count_nonzero(_kernel(centred, squares, some, slice(None)), 1) > count) > 0.5:
        near += count  # most rows need a sorted one anyway
    tiles = [slice(first, first + TILE) for first in range(0, len(vectors), TILE)] if near[0] == 1 else []
    for number, one in enumerate(tiles):
        for other in tiles[number:]:  # the kernel is symmetric
            kernel = _kernel(centred, squares, one, other)
            if one == other:
                np.fill_diagonal(kernel, 0)
            density[one] += kernel.sum(1, dtype=np.float64)
            near[one] += np.count_nonzero(kernel, 1)
            if one != other:
                density[other] += kernel.sum(0, dtype=np.float64)
                near[other] += np.count_nonzero(kernel, 0)
    crowded = np.flatnonzero(near > count)
    step = max(1, READ // len(vectors))
    for rows in (crowded[first : first + step] for first in range(0, len(crowded), step)):
        kernel = _kernel(centred, squares, rows, slice(None))
        kernel[np.arange(len(rows)), rows] = 1
        density[rows] = -np.partition(-kernel, count - 1, axis=1)[:, :count].sum(1, dtype=np.float64)
    return density


def _kernel(
    vectors: np.ndarray, squares: np.ndarray, rows: slice | np.ndarray, others: slice | np.ndarray
) -> np.ndarray:
    """The part of 1 - distance^2 that is positive, `(rows, others)`."""
    kernel = vectors[rows] @ vectors[others].T
    kernel *= 2
    kernel -= squares[others]
    kernel -= squares[rows, None]
    kernel += 1
    return np.maximum(kernel, 0, out=kernel)


def transport_probabilities(
    rows: np.ndarray,
    distances: np.ndarray,
    density: np.ndarray,
    alpha: float,
    scale: float,
    n: int,
    shares: np.ndarray | None = None,
) -> np.ndarray:
    """
    Probability of each row where the mass of target rows is moved to near rows and spread: each target row gives its
    nearest rows, in their order, 1 / density each, all targets to the same depth of such a sum, which grows while

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
        shares (`np.ndarray`, *optional*):
            Mass of each target row `(targets,)`, of sum 1; equal by default.

    Returns:
        `np.ndarray`: float64 `(n,)`, sums to 1.
    """
    targets, neighbours = rows.shape
    shares, probability = np.full(targets, 1 / targets) if shares is None else shares, np.zeros(n)
    if neighbours == 1:
        np.add.at(probability, rows[:, 0], shares)
        return probability
    # A target row moves on to its next row as the mass that each row may take, 1 / (s x density), gets smaller; all of
    # them are at the same s. What that costs rises with s, until it is worth more than the spread.
    reach = np.cumsum(1 / density, 1)
    cost = distances[:, 1:] * reach[:, :-1] - np.cumsum(distances / density, 1)[:, :-1]
    target, step = np.indices(cost.shape)
    order = np.lexsort((target.ravel(), step.ravel(), reach[:, :-1].ravel()))
    rise = (shares[:, None] * np.diff(cost, axis=1, prepend=0)).ravel()[order]
    far = np.flatnonzero(alpha / scale * np.cumsum(rise) >= 1 - alpha)
    end = far[0] if len(far) else len(order) - 1
    s, passed = reach[:, :-1].ravel()[order[end]], order[: end if len(far) else None]
    last = np.zeros(targets, np.int64)
    np.maximum.at(last, target.ravel()[passed], step.ravel()[passed])
    for near, share, crowd, own in zip(rows, shares, density, last + 1, strict=True):
        given = 1 / crowd[:own] / (s / share)
        np.add.at(probability, near[:own], given)
        probability[near[own]] += max(share - given.sum(), 0)
    return probability


def _nearest(
    similarity: np.ndarray | Similarity,
    depth: int,
    scores: np.ndarray | None,
    weights: np.ndarray | None,
    ties: np.ndarray | None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """
    The nearest rows of each column that has any and their distances, `(columns, depth or less)`, nearest first, and
    the columns' shares.
    """
    best = best_of_columns(similarity, depth, scores, ties)
    used = np.array([len(rows) > 0 for rows, _ in best], bool)
    rows = [rows for rows, _ in best if len(rows)]
    if not rows:
        return np.zeros((0, 0), np.int64), np.zeros((0, 0)), np.zeros(0)
    depth = min(map(len, rows))  # a row has a similarity to all columns or to none
    distances = [1 - values[:depth].astype(np.float64) for _, values in best if len(values)]
    return np.stack([part[:depth] for part in rows]), np.stack(distances), _shares(weights, used)


def _shares(weights: np.ndarray | None, used: np.ndarray) -> np.ndarray:
    """Weights of the columns in use, of sum 1."""
    shares = np.ones(used.sum()) if weights is None else np.asarray(weights, np.float64)[used]
    return shares / shares.sum()
