"""From the vectors of rows and of a target to the rows kept: similarities, block by block; highest, or round-robin."""

import numpy as np

from ..store.vector_store import StoredVectors, blocks
from .choose import top_k


class Target:
    """
    Rows to be alike to, in groups.

    Args:
        vectors (`np.ndarray` or [`StoredVectors`]):
            `(m, width)`, held in memory; rows that are not finite are no members of their groups.
        groups (`np.ndarray`):
            Group of each row, integers `(m,)`, from 0 on without a gap.
        rule (`str`):
            `"mean"` or `"max"` over the members of a group.
    """

    def __init__(self, vectors: np.ndarray | StoredVectors, groups: np.ndarray, rule: str):
        vectors = vectors[:].astype(np.float32)
        usable = np.isfinite(vectors).all(1)
        members = [np.flatnonzero(usable & (groups == group)) for group in range(int(groups.max(initial=-1)) + 1)]
        if rule == "mean":  # the mean of inner products is the inner product with the mean
            vectors = np.stack([vectors[rows].mean(0) if len(rows) else vectors[0] for rows in members])
            members = [np.array([group] * (len(rows) > 0), int) for group, rows in enumerate(members)]
        self.vectors, self.members = vectors, members

    def __len__(self) -> int:
        """Number of groups."""
        return len(self.members)

    def similarity(self, vectors: np.ndarray) -> np.ndarray:
        """
        Inner products of vectors `(b, width)` with the members of each group, drawn together, float32 `(b, groups)`;
        NaN for NaN, and for a group without members.
        """
        products = vectors.astype(np.float32) @ self.vectors.T
        columns = [products[:, rows].max(1, initial=-np.inf) for rows in self.members]
        found = np.stack(columns, 1)
        found[:, [len(rows) == 0 for rows in self.members]] = np.nan
        return found


class Similarity:
    """
    [`Target.similarity`] of many rows, `(n, groups)`, computed as it is indexed by slices of rows: neither their
    vectors nor the whole of it need fit in memory.

    Args:
        vectors (`np.ndarray` or [`StoredVectors`]):
            `(n, width)`.
        target ([`Target`]):
            The columns.
    """

    def __init__(self, vectors: np.ndarray | StoredVectors, target: Target):
        self.vectors, self.target, self.shape = vectors, target, (len(vectors), len(target))

    def __getitem__(self, rows: slice) -> np.ndarray:
        first, end, _ = rows.indices(self.shape[0])
        found = np.empty((max(0, end - first), self.shape[1]), np.float32)
        for part in blocks((len(found), self.vectors.shape[1])):
            found[part] = self.target.similarity(self.vectors[first + part.start : min(end, first + part.stop)])
        return found


def highest(similarity: np.ndarray | Similarity) -> np.ndarray:
    """Similarity of each row to the group it is most similar to, float32 `(n,)`; groups that are NaN don't count."""
    parts = [np.fmax.reduce(similarity[part], axis=1) for part in blocks(similarity.shape)]
    return np.concatenate([np.zeros(0), *parts]).astype(np.float32)


def round_robin(similarity: np.ndarray | Similarity, k: int, scores: np.ndarray | None = None) -> np.ndarray:
    """
    Rows that the columns of a similarity choose in turn, so that none is left out at a small budget (the rule of RDS+,
    arXiv 2503.01807): each time, a column names its next best row; one that is taken already uses up the turn.

    Args:
        similarity (`np.ndarray` or [`Similarity`]):
            `(n, columns)`; NaN and infinite values are never chosen by.
        k (`int`):
            Rows wanted; fewer come back where fewer have a similarity.
        scores (`np.ndarray`, *optional*):
            `(n,)`; rows without a finite one are never chosen.

    Returns:
        `np.ndarray`: int64, at most `k`, in the order chosen.
    """
    depth = 2 * -(-max(k, 0) // max(1, similarity.shape[1])) + 16
    while True:
        depth = min(depth, max(k, 0))  # a column's k-th best row is never asked for later than at its k-th turn
        queues = _best_of_columns(similarity, depth, scores)
        turns = np.full((depth, len(queues)), -1, np.int64)
        for column, queue in enumerate(queues):
            turns[: len(queue), column] = queue
        named = turns[turns >= 0]
        _, first = np.unique(named, return_index=True)
        chosen = named[np.sort(first)][: max(k, 0)]
        if len(chosen) == k or depth == max(k, 0):
            return chosen
        depth *= 4


def _best_of_columns(similarity: np.ndarray | Similarity, depth: int, scores: np.ndarray | None) -> list[np.ndarray]:
    """Of each column the `depth` best rows, best first, the earlier one of two alike; read block by block."""
    best = [(np.zeros(0, np.int64), np.zeros(0))] * similarity.shape[1]
    for part in blocks(similarity.shape):
        values = similarity[part]
        if scores is not None:
            values = np.where(np.isfinite(scores[part])[:, None], values, np.nan)
        for column, (rows, so_far) in enumerate(best):
            new = top_k(values[:, column], depth)
            rows, so_far = np.append(rows, new + part.start), np.append(so_far, values[new, column])
            kept = top_k(so_far, depth)
            best[column] = rows[kept], so_far[kept]
    return [rows for rows, _ in best]


def for_target(similarity: np.ndarray | Similarity, scores: np.ndarray, k: int, rule: str) -> np.ndarray:
    """
    Rows for a target of several columns: the `k` highest scores (`"max"`), or [`round_robin`] over the columns
    (`"round_robin"`), of the rows that have a score.
    """
    return top_k(scores, k) if rule == "max" else round_robin(similarity, k, scores)
