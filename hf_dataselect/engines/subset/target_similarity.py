"""Select rows by similarity to a target, computed block by block: the highest, or round-robin."""

import numpy as np

from ..store.vector_store import StoredVectors, blocks
from .choose import top_k


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


def highest(similarity: np.ndarray | Similarity) -> np.ndarray:
    """Similarity of each row to its most similar group, float32 `(n,)`; NaN groups are ignored."""
    parts = [np.fmax.reduce(similarity[part], axis=1) for part in blocks(similarity.shape)]
    return np.concatenate([np.zeros(0), *parts]).astype(np.float32)


def round_robin(
    similarity: np.ndarray | Similarity, k: int, scores: np.ndarray | None = None, ties: np.ndarray | None = None
) -> np.ndarray:
    """
    Rows that the columns of a similarity select in turn, so that a small budget covers each (the rule of RDS+, arXiv
    2503.01807): a column names its next best row; if that is already selected, the turn is over.

    Args:
        similarity (`np.ndarray` or [`Similarity`]):
            `(n, columns)`; NaN and infinite values are ignored.
        k (`int`):
            Rows to select; fewer are returned if fewer have a similarity.
        scores (`np.ndarray`, *optional*):
            `(n,)`; rows without a finite score are never selected.
        ties (`np.ndarray`, *optional*):
            As in [`top_k`].

    Returns:
        `np.ndarray`: int64, at most `k`, in the order of selection.
    """
    depth = 2 * -(-max(k, 0) // max(1, similarity.shape[1])) + 16
    while True:
        depth = min(depth, max(k, 0))  # a column needs at most its `k` best rows
        queues = _best_of_columns(similarity, depth, scores, ties)
        turns = np.full((depth, len(queues)), -1, np.int64)
        for column, queue in enumerate(queues):
            turns[: len(queue), column] = queue
        named = turns[turns >= 0]
        _, first = np.unique(named, return_index=True)
        chosen = named[np.sort(first)][: max(k, 0)]
        if len(chosen) == k or depth == max(k, 0):
            return chosen
        depth *= 4


def _best_of_columns(
    similarity: np.ndarray | Similarity, depth: int, scores: np.ndarray | None, ties: np.ndarray | None
) -> list[np.ndarray]:
    """The `depth` best rows of each column, best first; read in blocks."""
    ties = np.arange(similarity.shape[0]) if ties is None else ties
    best = [(np.zeros(0, np.int64), np.zeros(0))] * similarity.shape[1]
    for part in blocks(similarity.shape):
        values = similarity[part]
        if scores is not None:
            values = np.where(np.isfinite(scores[part])[:, None], values, np.nan)
        for column, (rows, best_values) in enumerate(best):
            new = top_k(values[:, column], depth, ties[part])
            rows, best_values = np.append(rows, new + part.start), np.append(best_values, values[new, column])
            kept = top_k(best_values, depth, ties[rows])
            best[column] = rows[kept], best_values[kept]
    return [rows for rows, _ in best]


def for_target(
    similarity: np.ndarray | Similarity, scores: np.ndarray, k: int, rule: str, ties: np.ndarray | None = None
) -> np.ndarray:
    """
    Rows for a target of several columns: the `k` highest scores (`"max"`), or [`round_robin`] over the columns
    (`"round_robin"`), among rows with a score.
    """
    return top_k(scores, k, ties) if rule == "max" else round_robin(similarity, k, scores, ties)


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
    Rows that [`for_target`] might take or leave but for errors: less than an error away from the middle between the
    last row taken and the first one left; of each column, which takes an equal share, if they take turns. Rows that
    are tied there (copies, which err alike) are not among them.

    Args:
        similarity, scores, k, rule:
            As in [`for_target`].
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
