"""Select rows by what they add to the labels that are covered already, labels that are alike included."""

from collections.abc import Iterable, Sequence

import numpy as np
from scipy.sparse import csr_array, diags_array, eye_array
from sklearn import config_context
from sklearn.neighbors import NearestNeighbors


#: Rows whose gains are computed at each pick, as long as no other row can have a higher one.
AT_HAND = 4096
#: MB that a block of cosines of labels takes.
WORKING_MEMORY = 64


def indicator_matrix(rows: Sequence[Sequence[str]], labels: Sequence[str]) -> csr_array:
    """Which row has which label, float64 `(rows, labels)`."""
    place = {label: i for i, label in enumerate(labels)}
    sizes = [len(row) for row in rows]
    columns = np.array([place[label] for row in rows for label in row], np.int64)
    starts = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])
    return csr_array((np.ones(len(columns)), columns, starts), shape=(len(rows), len(labels)))


def similar_labels(vectors: np.ndarray, threshold: float) -> csr_array:
    """
    Cosines of vectors `(n, width)` that are at least `threshold`, and 1 of each to itself, float64 `(n, n)`; computed
    in blocks.
    """
    near = NearestNeighbors(radius=1 - threshold, metric="cosine", algorithm="brute").fit(vectors)
    with config_context(working_memory=WORKING_MEMORY):
        alike = near.radius_neighbors_graph(vectors, mode="distance").tocoo()
    other = alike.row != alike.col
    places, shape = (alike.row[other], alike.col[other]), alike.shape
    return csr_array((1 - alike.data[other].astype(np.float64), places), shape) + eye_array(len(vectors), format="csr")


def propagated(weights: csr_array, similarity: csr_array) -> csr_array:
    """
    Weights of labels `(rows, labels)` spread to labels that are alike: times the similarity `(labels, labels)`, whose
    columns are scaled to sum to 1.
    """
    totals = np.asarray(similarity.sum(0)).reshape(-1)
    return csr_array(weights @ (similarity @ diags_array(1 / totals)))


def concave_cover(weights: csr_array, k: int, power: float = 0.8, epsilon: float = 1e-6) -> tuple[np.ndarray, int]:
    """
    Greedy choice of rows by the gain that the sum over labels of z^power promises, z being the weight that the rows
    chosen so far give a label (MIG, arXiv 2504.13835, algorithm 1):

        gain of a row = sum over labels of its weight x power x (z + epsilon)^(power - 1)

    Gains never grow, so that an old gain is an upper bound: those of the best rows are computed anew at each pick, and
    all others only when one of them might be higher. The result is that of computing all at each pick.

    Args:
        weights (`csr_array`):
            `(n, labels)`, finite and not negative.
        k (`int`):
            Rows to select.
        power (`float`, *optional*, defaults to `0.8`):
            From 0, excluded, to 1, where the rows of most weight are chosen.
        epsilon (`float`, *optional*, defaults to `1e-6`):
            Keeps the first gain of a label finite.

    Returns:
        `tuple`: rows in the order of selection, int64, at most `k`, of equal gains the earlier one; and how often all
        gains were computed.
    """
    covered, free, chosen, updates = np.zeros(weights.shape[1]), np.ones(weights.shape[0], bool), [], 0
    k = min(k, weights.shape[0])
    while len(chosen) < k:
        bound = np.where(free, weights @ _slope(covered, power, epsilon), -np.inf)
        updates += 1
        row, limit, hand = int(bound.argmax()), -np.inf, np.arange(len(bound))
        if len(bound) > AT_HAND:
            limit = -np.partition(-bound, AT_HAND)[AT_HAND]
            hand = np.flatnonzero(bound > limit)
        at_hand = weights[hand]
        while True:
            chosen.append(row)
            free[row] = False
            its = slice(*weights.indptr[row : row + 2])
            covered[weights.indices[its]] += weights.data[its]
            gains = np.where(free[hand], at_hand @ _slope(covered, power, epsilon), -np.inf)
            best = int(gains.argmax()) if len(gains) else 0
            if len(chosen) == k or len(gains) == 0 or gains[best] <= limit:
                break
            row = int(hand[best])
    return np.array(chosen, np.int64), updates


def _slope(covered: np.ndarray, power: float, epsilon: float) -> np.ndarray:
    return power * (covered + epsilon) ** (power - 1)


def tag_cover(tags: Sequence[Iterable[str]], k: int) -> tuple[np.ndarray, list[int]]:
    """
    Complexity-first diverse sampling (arXiv 2308.07074, algorithm 1): rows by number of tags, most first; each pass
    selects the rows with a tag that the pass has not seen; passes over the remaining rows continue until `k` are
    selected. Rows with equally many tags keep their order. Rows without tags are never selected.

    Args:
        tags (`Sequence`):
            Tags of each row; duplicates count once.
        k (`int`):
            Rows to select.

    Returns:
        `tuple`: rows in the order of selection, int64, at most `k`, and the number of rows that each pass selected.
    """
    sets = [frozenset(row) for row in tags]
    order = sorted((row for row, tag_set in enumerate(sets) if tag_set), key=lambda row: -len(sets[row]))
    # For each tag, the positions in `order` of the rows that have it, the first one last.
    holders: dict[str, list[int]] = {}
    for place in reversed(range(len(order))):
        for tag in sets[order[place]]:
            holders.setdefault(tag, []).append(place)
    taken, rows, passes = np.zeros(len(order), bool), [], []
    while holders and len(rows) < k:
        # A pass repeatedly selects the first row with an unseen tag, so that only the first remaining row of each tag
        # matters. If that row is taken meanwhile, the tag has been seen.
        for tag, places in list(holders.items()):
            while places and taken[places[-1]]:
                places.pop()
            if not places:
                del holders[tag]
        seen, taken_before = set(), len(rows)
        for tag in sorted(holders, key=lambda tag: holders[tag][-1]):
            if tag not in seen and len(rows) < k:
                place = holders[tag][-1]
                taken[place] = True
                rows.append(order[place])
                seen |= sets[order[place]]
        passes += [len(rows) - taken_before] if len(rows) > taken_before else []
    return np.array(rows, np.int64), passes
