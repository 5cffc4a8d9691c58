"""
Matchers: which rows a target takes, from the similarities of rows to its subtasks or examples ("columns").

arXiv 2602.14696 ("targeted instruction selection") compares them over the same similarities, and finds that they
matter less than what is compared: `round_robin_free` is never worse than another on average.

| rule | rows that are taken |
|---|---|
| `max` | those with the highest scores: the highest similarity to any column, unless a method says otherwise |
| `round_robin` | columns name their next best row in turn; one that is already taken costs the turn (RDS+) |
| `round_robin_free` | columns take their best row that is still free in turn, so that all take equally many |
| `optimal_transport` | those that receive most mass from the columns, see [`~transport.transported_mass`] |
| `knn_uniform` | those that are among the nearest rows of most columns, see [`~transport.uniform_neighbours`] |
| `knn_kde` | the same, and rows in a crowd share what one of them would get, see [`~transport.dense_neighbours`] |
"""

import heapq
from collections.abc import Callable

import numpy as np

from ..store.vector_store import StoredVectors
from .choose import top_k
from .target_similarity import Similarity, best_of_columns, weighted
from .transport import dense_neighbours, transported_mass, uniform_neighbours


def for_target(
    similarity: np.ndarray | Similarity,
    scores: np.ndarray,
    k: int,
    rule: str,
    ties: np.ndarray | None = None,
    weights: np.ndarray | None = None,
    vectors: np.ndarray | StoredVectors | None = None,
) -> np.ndarray:
    """
    Rows for a target of several columns, by one of the rules above. Rows of equal mass (k-nearest gives many, or none
    to most of a pool) come in the order of their scores.

    Args:
        similarity (`np.ndarray` or [`Similarity`]):
            `(n, columns)`; NaN and infinite values are ignored.
        scores (`np.ndarray`):
            `(n,)`; rows without a finite score are never taken.
        k (`int`):
            Rows to take; fewer are returned if fewer have a score.
        rule (`str`):
            The matcher.
        ties (`np.ndarray`, *optional*):
            As in [`top_k`].
        weights (`np.ndarray`, *optional*):
            Positive weights of the columns `(columns,)`: turns, or mass, are shared in proportion. Equal by default.
        vectors (`np.ndarray` or [`StoredVectors`], *optional*):
            Unit vectors of the rows `(n, width)`, for `knn_kde`.

    Returns:
        `np.ndarray`: int64, at most `k`, in the order in which they are taken.
    """
    if rule == "max":
        return top_k(scores, k, ties)
    if rule in ("round_robin", "round_robin_free"):
        return round_robin(similarity, k, scores, ties, weights, free=rule == "round_robin_free")
    if rule == "optimal_transport":
        mass = transported_mass(similarity, scores, weights)
    elif rule == "knn_uniform":
        mass = uniform_neighbours(similarity, scores, weights, ties)
    else:
        mass = dense_neighbours(similarity, vectors, scores, weights, ties)
    mass = mass.astype(np.float32)  # copies differ by rounding only
    order = np.lexsort((np.arange(len(mass)) if ties is None else ties, -scores, -mass))
    return order[np.isfinite(scores[order])][: max(k, 0)].astype(np.int64)


def round_robin(
    similarity: np.ndarray | Similarity,
    k: int,
    scores: np.ndarray | None = None,
    ties: np.ndarray | None = None,
    weights: np.ndarray | None = None,
    free: bool = False,
) -> np.ndarray:
    """
    Rows that the columns of a similarity select in turn, so that a small budget covers each (the rule of RDS+, arXiv
    2503.01807): a column names its next best row; if that is already selected, the turn is over, or, if `free`, it
    names the next one until one is free. A column of twice the weight has two turns for one.

    Args:
        similarity, k, scores, ties, weights:
            As in [`for_target`].
        free (`bool`, *optional*, defaults to `False`):
            Whether a column takes a row at each turn.

    Returns:
        `np.ndarray`: int64, at most `k`, in the order of selection.
    """
    pace = np.ones(similarity.shape[1]) if weights is None else np.max(weights) / np.asarray(weights, np.float64)
    return _from_queues(similarity, k, scores, ties, lambda best, depth: _in_turn(best, max(k, 0), pace, depth, free))


def underserved(
    similarity: np.ndarray, k: int, scores: np.ndarray, ties: np.ndarray, weights: np.ndarray | None = None
) -> np.ndarray:
    """
    Rows that serve what is served least (the rule of BIDS, arXiv 2501.12147): the next one is that whose similarity to
    some column exceeds most the mean, over the rows taken so far, of the similarities to it. The first one has the
    highest similarity. A column's gain counts by its weight, see [`weighted`]. The best row of each column in turn is
    compared, so a step takes as many operations as there are columns.

    Args:
        similarity, k, scores, ties, weights:
            As in [`for_target`].

    Returns:
        `np.ndarray`: int64, at most `k`, in the order of selection.
    """
    weights = np.ones(similarity.shape[1]) if weights is None else np.asarray(weights, np.float64)

    def choose(best: list[tuple[np.ndarray, np.ndarray]], depth: int) -> list[int]:
        place, taken, total = np.zeros(len(best), np.int64), np.zeros(len(similarity), bool), np.zeros(len(best))
        head = np.array([rows[0] if len(rows) else -1 for rows, _ in best])
        value = np.array([values[0] if len(values) else -np.inf for _, values in best], np.float64)
        chosen: list[int] = []
        while len(chosen) < k and np.isfinite(value).any():
            gain = weighted(value - total / max(1, len(chosen)), weights)
            row = min(head[gain == gain.max()], key=lambda row: ties[row])
            chosen.append(int(row))
            taken[row] = True
            total += np.nan_to_num(similarity[row].astype(np.float64))
            for column in np.flatnonzero(head == row):
                rows, values = best[column]
                while place[column] < len(rows) and taken[rows[place[column]]]:
                    place[column] += 1
                if place[column] < len(rows):
                    head[column], value[column] = rows[place[column]], values[place[column]]
                elif len(rows) == depth < k:
                    return chosen
                else:
                    head[column], value[column] = -1, -np.inf
        return chosen

    return _from_queues(similarity, k, scores, ties, choose)


def _from_queues(
    similarity: np.ndarray | Similarity,
    k: int,
    scores: np.ndarray | None,
    ties: np.ndarray | None,
    choose: Callable[[list[tuple[np.ndarray, np.ndarray]], int], list[int]],
) -> np.ndarray:
    """
    What is chosen of the best rows of each column and their similarities: of few at first, then of more, until there
    are `k` or each column had its `k` best.
    """
    k = max(k, 0)
    depth = 2 * -(-k // max(1, similarity.shape[1])) + 16
    while True:
        depth = min(depth, k)
        chosen = choose(best_of_columns(similarity, depth, scores, ties), depth)
        if len(chosen) == k or depth == k:
            return np.array(chosen, np.int64)
        depth *= 4


def _in_turn(best: list[tuple[np.ndarray, np.ndarray]], k: int, pace: np.ndarray, depth: int, free: bool) -> list[int]:
    """The rows that columns select, until `k` are or one that may have more than `depth` rows has no more."""
    queues = [rows for rows, _ in best]
    turns = [(pace[column], column, 0, 1) for column, queue in enumerate(queues) if len(queue)]
    heapq.heapify(turns)
    chosen: dict[int, None] = {}
    while turns and len(chosen) < k:
        _, column, place, turn = heapq.heappop(turns)
        queue = queues[column]
        while free and place < len(queue) and int(queue[place]) in chosen:
            place += 1
        if place < len(queue):
            chosen[int(queue[place])] = None
            heapq.heappush(turns, ((turn + 1) * pace[column], column, place + 1, turn + 1))
        elif len(queue) == depth < k:
            break
    return list(chosen)
