"""From similarities to target rows to the rows kept: highest of all, or round-robin."""

import numpy as np

from .subset import top_k


def round_robin(similarity: np.ndarray, k: int) -> np.ndarray:
    """
    Rows that the columns of a similarity choose in turn, so that none is left out at a small budget (the rule of RDS+,
    arXiv 2503.01807): each time, a column names its next best row; one that is taken already uses up the turn.

    Args:
        similarity (`np.ndarray`):
            `(n, columns)`; NaN and infinite values are never chosen by.
        k (`int`):
            Rows wanted; fewer come back where fewer have a similarity.

    Returns:
        `np.ndarray`: int64, at most `k`, in the order chosen.
    """
    similarity = np.asarray(similarity)
    depth = 2 * -(-max(k, 0) // max(1, similarity.shape[1])) + 16
    while True:
        depth = min(depth, max(k, 0))  # a column's k-th best row is never asked for later than at its k-th turn
        queues = [top_k(column, depth) for column in similarity.T]
        turns = np.full((depth, len(queues)), -1, np.int64)
        for column, queue in enumerate(queues):
            turns[: len(queue), column] = queue
        named = turns[turns >= 0]
        _, first = np.unique(named, return_index=True)
        chosen = named[np.sort(first)][: max(k, 0)]
        if len(chosen) == k or depth == max(k, 0):
            return chosen
        depth *= 4


def for_target(similarity: np.ndarray, scores: np.ndarray, k: int, rule: str) -> np.ndarray:
    """
    Rows for a target of several columns: the `k` highest scores (`"max"`), or [`round_robin`] over the columns
    (`"round_robin"`), of the rows that have a score.
    """
    if rule == "max":
        return top_k(scores, k)
    return round_robin(np.where(np.isfinite(scores)[:, None], similarity, np.nan), k)


def by_group(values: np.ndarray, groups: np.ndarray, rule: str) -> np.ndarray:
    """
    Columns of a similarity, one for each target row, drawn together to one for each group of them.

    Args:
        values (`np.ndarray`):
            `(n, columns)`; a column that is NaN in every row is no member of its group.
        groups (`np.ndarray`):
            Group of each column, integers `(columns,)`, from 0 on without a gap.
        rule (`str`):
            `"mean"` or `"max"`.

    Returns:
        `np.ndarray`: `(n, groups)`; NaN for a group without members.
    """
    reduce = {"mean": np.mean, "max": np.max}[rule]
    usable = ~np.isnan(values).all(0)
    found = np.full((len(values), int(groups.max(initial=-1)) + 1), np.nan, values.dtype)
    for group in range(found.shape[1]):
        members = usable & (groups == group)
        if members.any():
            found[:, group] = reduce(values[:, members], axis=1)
    return found
