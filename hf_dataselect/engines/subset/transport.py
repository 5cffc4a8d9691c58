"""Mass that a target sends to rows: unbalanced optimal transport, and nearest neighbours with or without density."""

import numpy as np
from scipy.special import logsumexp

from ..store.vector_store import StoredVectors, blocks
from .target_similarity import Similarity, best_of_columns, parts_of


#: Of TSDS (arXiv 2410.11303): how much near rows are preferred to many, and the scale of distances; and, of all rows,
#: the nearest of a column, and of a row, that are looked at.
ALPHA, SCALE, NEAREST, CROWD = 0.01, 5.0, 5000, 1000
#: Entropy and freedom of the candidates' side of the transport, and when its potentials stand still.
ENTROPY, FREEDOM, STILL = 0.01, 1e-4, 1e-9


def _shares(weights: np.ndarray | None, used: np.ndarray) -> np.ndarray:
    """Weights of the columns in use, of sum 1."""
    shares = np.ones(used.sum()) if weights is None else np.asarray(weights, np.float64)[used]
    return shares / shares.sum()


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
    n, probability = similarity.shape[0], np.zeros(similarity.shape[0])
    rows, distances, shares = _nearest(similarity, min(NEAREST, max(2, n // 10)), scores, weights, ties)
    if rows.size == 0:
        return probability
    distances, (named, place) = np.maximum(distances, 0), np.unique(rows, return_inverse=True)
    density = crowding(vectors[named], min(CROWD, max(1, n // 10)))[place].reshape(rows.shape)
    if rows.shape[1] == 1:
        np.add.at(probability, rows[:, 0], shares)
        return probability
    # A column moves on to its next row as the mass that each row may take, 1 / (s x density), gets smaller; all of
    # them are at the same s. What that costs rises with s, until it is worth more than the spread.
    reach = np.cumsum(1 / density, 1)
    cost = distances[:, 1:] * reach[:, :-1] - np.cumsum(distances / density, 1)[:, :-1]
    column, step = np.indices(cost.shape)
    order = np.lexsort((column.ravel(), step.ravel(), reach[:, :-1].ravel()))
    rise = (shares[:, None] * np.diff(cost, axis=1, prepend=0)).ravel()[order]
    far = np.flatnonzero(alpha / SCALE * np.cumsum(rise) >= 1 - alpha)
    end = far[0] if len(far) else len(order) - 1
    s, passed = reach[:, :-1].ravel()[order[end]], order[: end if len(far) else None]
    last = np.zeros(len(rows), np.int64)
    np.maximum.at(last, column.ravel()[passed], step.ravel()[passed])
    given = np.where(np.arange(rows.shape[1]) <= last[:, None], shares[:, None] / s / density, 0)
    np.add.at(probability, rows, given)
    np.add.at(probability, rows[np.arange(len(rows)), last + 1], np.maximum(shares - given.sum(1), 0))
    return probability


def crowding(vectors: np.ndarray, nearest: int, sigma: float = 0.75) -> np.ndarray:
    """
    Density of unit vectors `(n, width)`, float64 `(n,)`: the sum over its nearest ones, itself among them, of
    1 - squared distance / sigma^2 where that is positive.
    """
    vectors = np.asarray(vectors, np.float32)
    nearest, density = min(nearest, len(vectors)), np.zeros(len(vectors))
    for part in blocks((len(vectors), len(vectors))):
        cosine = np.minimum(vectors[part] @ vectors.T, 1)
        cosine[np.arange(len(cosine)), np.arange(len(vectors))[part]] = 1
        closest = -np.partition(-cosine, nearest - 1, axis=1)[:, :nearest]
        density[part] = np.maximum(1 - 2 * (1 - closest.astype(np.float64)) / sigma**2, 0).sum(1)
    return density


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
