"""Similarity of rows to a target, computed block by block, and what errors of it could change."""

from collections.abc import Callable, Iterable, Iterator

import numpy as np

from ..store.vector_store import StoredVectors, blocks
from .choose import top_k
from .lazy_vectors import LazyVectors


class Target:
    """
    Target rows, in groups.

    Args:
        vectors (`np.ndarray` or [`StoredVectors`]):
            `(m, width)`, held in memory; rows that are not finite are excluded.
        groups (`np.ndarray`):
            Group of each row, consecutive integers from 0 `(m,)`.
        rule (`str`):
            `"mean"` or `"max"` over the members of a group.
    """

    def __init__(self, vectors: np.ndarray | StoredVectors, groups: np.ndarray, rule: str):
        vectors = vectors[:].astype(np.float32)
        usable = np.isfinite(vectors).all(1)
        members = [np.flatnonzero(usable & (groups == group)) for group in range(int(groups.max(initial=-1)) + 1)]
        if rule == "mean":  # the mean of inner products is the inner product with the mean
            none = np.full(vectors.shape[1], np.nan, np.float32)
            vectors = np.stack([vectors[rows].mean(0) if len(rows) else none for rows in members])
            members = [np.array([group] * (len(rows) > 0), int) for group, rows in enumerate(members)]
        self.vectors, self.members = vectors, members

    def __len__(self) -> int:
        """Number of groups."""
        return len(self.members)

    def similarity(self, vectors: np.ndarray) -> np.ndarray:
        """
        Inner products of vectors `(b, width)` with the members of each group, aggregated, float32 `(b, groups)`; NaN
        for NaN vectors, and for a group without members.
        """
        products = vectors.astype(np.float32) @ self.vectors.T
        columns = [products[:, rows].max(1, initial=-np.inf) for rows in self.members]
        similarity = np.stack(columns, 1)
        similarity[:, [len(rows) == 0 for rows in self.members]] = np.nan
        return similarity


class Similarity:
    """
    [`Target.similarity`] of many rows, `(n, groups)`, computed when indexed by slices of rows: neither the vectors nor
    the matrix need to fit in memory.

    Args:
        vectors (`np.ndarray` or [`StoredVectors`]):
            `(n, width)`.
        target ([`Target`]):
            Its groups are the columns.
    """

    def __init__(self, vectors: np.ndarray | StoredVectors, target: Target):
        self.vectors, self.target, self.shape = vectors, target, (len(vectors), len(target))

    def __getitem__(self, rows: slice) -> np.ndarray:
        first, end, _ = rows.indices(self.shape[0])
        result = np.empty((max(0, end - first), self.shape[1]), np.float32)
        for part in blocks((len(result), self.vectors.shape[1])):
            result[part] = self.target.similarity(self.vectors[first + part.start : min(end, first + part.stop)])
        return result


def highest(
    similarity: np.ndarray | Similarity, weighted: Callable[[np.ndarray], np.ndarray] = lambda values: values
) -> np.ndarray:
    """
    Similarity of each row to its most similar group, float32 `(n,)`; NaN groups are ignored. `weighted` changes the
    similarities `(b, groups)` of some rows before.
    """
    parts = [np.fmax.reduce(weighted(similarity[part]), axis=1) for part in blocks(similarity.shape)]
    return np.concatenate([np.zeros(0), *parts]).astype(np.float32)


def directions(vectors: np.ndarray | StoredVectors) -> LazyVectors:
    """Vectors `(n, width)` at length 1, float64, as they are read."""
    return LazyVectors(vectors, lambda rows: unit(rows.astype(np.float64)), vectors.shape[1])


def unit(vectors: np.ndarray, of_zeros: float = np.nan) -> np.ndarray:
    """Vectors `(n, width)` at length 1. One of zeros has no direction: all its numbers are `of_zeros`."""
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    with np.errstate(invalid="ignore"):
        vectors = vectors / np.where(length == 0, 1, length)
    vectors[length[:, 0] == 0] = of_zeros
    return vectors


def weighted(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Values `(..., columns)` times positive weights `(columns,)`; negative ones divided, so that more is more."""
    return np.where(values > 0, values * weights, values / weights)


def best_of_columns(
    similarity: np.ndarray | Similarity, depth: int, scores: np.ndarray | None, ties: np.ndarray | None
) -> list[tuple[np.ndarray, np.ndarray]]:
    """The `depth` best rows of each column, best first, and their similarities; read in blocks."""
    ties = np.arange(similarity.shape[0]) if ties is None else ties
    return best_of_parts(parts_of(similarity, scores), similarity.shape[1], depth, ties)


def best_of_parts(
    parts: Iterable[tuple[slice, np.ndarray]], columns: int, depth: int, ties: np.ndarray
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Rows of the `depth` highest numbers of each column, and these, of a matrix `(n, columns)` given in blocks."""
    best = [(np.zeros(0, np.int64), np.zeros(0))] * columns
    for part, values in parts:
        for column, (rows, best_values) in enumerate(best):
            new = top_k(values[:, column], depth, ties[part])
            rows, best_values = np.append(rows, new + part.start), np.append(best_values, values[new, column])
            kept = top_k(best_values, depth, ties[rows])
            best[column] = rows[kept], best_values[kept]
    return best


def parts_of(similarity: np.ndarray | Similarity, scores: np.ndarray | None) -> Iterator[tuple[slice, np.ndarray]]:
    """Blocks of the similarity; NaN for rows without a score."""
    for part in blocks(similarity.shape):
        values = similarity[part]
        yield part, values if scores is None else np.where(np.isfinite(scores[part])[:, None], values, np.nan)


def error_of_scores(similarity: np.ndarray, error: np.ndarray) -> np.ndarray:
    """
    Error of each score of [`highest`], `(n,)`: that of the row's most similar group.

    Args:
        similarity (`np.ndarray`):
            `(n, groups)`.
        error (`np.ndarray`):
            Of a row's similarity to each group, `(groups,)`.
    """
    return error[np.where(np.isnan(similarity), -np.inf, similarity).argmax(1)]


def near_the_cut(similarity: np.ndarray, scores: np.ndarray, k: int, rule: str, error: np.ndarray) -> np.ndarray:
    """
    Rows that a matcher might take or leave but for errors: less than an error away from the middle between the
    last row taken and the first one left; of each column, which takes an equal share, if they take turns. Rows that
    are tied there (copies, which err alike) are not among them.

    Args:
        similarity, scores, k, rule:
            As in [`~matchers.for_target`]; rules other than `"max"` count as taking turns.
        error (`np.ndarray`):
            Of a row's similarity to each group, `(groups,)`.

    Returns:
        `np.ndarray`: bool `(n,)`.
    """
    columns, errors = similarity, np.broadcast_to(error, similarity.shape)
    if rule == "max":
        columns, errors = scores[:, None], error_of_scores(similarity, error)[:, None]
    near = np.zeros(len(scores), bool)
    for values, away in zip(columns.T, errors.T, strict=True):
        usable = np.flatnonzero(np.isfinite(scores) & np.isfinite(values))
        share = -(-k // columns.shape[1])
        if 0 < share < len(usable):
            last, first = -np.partition(-values[usable], [share - 1, share])[[share - 1, share]]
            distance = np.abs(values[usable] - (last + first) / 2)
            near[usable] |= (distance > 0) & (distance < away[usable])
    return near
