"""Spectral clusters of vectors, for a million of them as well, and the best of each cluster."""

import warnings

import numpy as np
from sklearn.cluster import SpectralClustering
from sklearn.neighbors import NearestNeighbors


#: Nearest vectors that each one is joined to.
NEIGHBOURS = 10


def spectral_clusters(vectors: np.ndarray, clusters: int, sample: int = 10_000, seed: int = 0) -> np.ndarray:
    """
    Spectral clustering over the graph of nearest neighbours (scikit-learn's).

    Its cost grows with the square of the vectors: of more than `sample`, that many are drawn and clustered, and each
    other one goes where the nearest of these is. Equal vectors are in one cluster; if no more than `clusters` are
    different, each of these is a cluster.

    Args:
        vectors (`np.ndarray`):
            `(n, width)`, finite.
        clusters (`int`):
            How many.
        sample (`int`, *optional*, defaults to `10000`):
            Vectors that are clustered at most.
        seed (`int`, *optional*, defaults to `0`):
            Of the sample and the clustering.

    Returns:
        `np.ndarray`: int64 `(n,)`, from 0.
    """
    n = len(vectors)
    drawn = np.arange(n)
    if n > sample:
        drawn = np.sort(np.random.default_rng(seed).choice(n, sample, replace=False))
    different, which = np.unique(vectors[drawn], axis=0, return_inverse=True)
    labels = _clustered(different, clusters, seed)
    if n > sample:
        nearest = NearestNeighbors(n_neighbors=1).fit(different)
        return labels[nearest.kneighbors(vectors, return_distance=False)[:, 0]]
    return labels[which.reshape(-1)]


def _clustered(vectors: np.ndarray, clusters: int, seed: int) -> np.ndarray:
    """Clusters of different vectors."""
    if len(vectors) <= clusters:
        return np.arange(len(vectors))
    if clusters == 1:
        return np.zeros(len(vectors), np.int64)
    neighbours = min(NEIGHBOURS, len(vectors) - 1)
    model = SpectralClustering(clusters, affinity="nearest_neighbors", n_neighbors=neighbours, random_state=seed)
    with warnings.catch_warnings():
        # Far groups are in parts of the graph that nothing joins, and that is what is looked for.
        warnings.filterwarnings("ignore", message="Graph is not fully connected")
        warnings.filterwarnings("ignore", message="The spectral clustering API has changed")
        return model.fit_predict(vectors).astype(np.int64)


def best_of_clusters(scores: np.ndarray, labels: np.ndarray, k: int) -> np.ndarray:
    """
    Rows of the highest scores, every cluster in proportion to its size: of each, floor(k x size / n) rows and one at
    least; of these the best `k`. Places that rounding leaves go to the best of the rest.

    Args:
        scores (`np.ndarray`):
            `(n,)`, finite.
        labels (`np.ndarray`):
            Cluster of each row, int `(n,)`.
        k (`int`):
            Rows wanted.

    Returns:
        `np.ndarray`: int64, at most `k`, best first; of equal scores the earlier row comes first.
    """
    order = np.argsort(-np.asarray(scores, np.float64), kind="stable")
    sizes = np.bincount(labels) if len(labels) else np.zeros(0, np.int64)
    quota = np.maximum(1, k * sizes // max(1, len(labels)))
    taken, first, rest = np.zeros(len(sizes), np.int64), [], []
    for row in order.tolist():
        label = labels[row]
        (first if taken[label] < quota[label] else rest).append(row)
        taken[label] += 1
    kept = np.array((first[:k] + rest[: max(0, k - len(first))]), np.int64)
    return kept[np.lexsort((kept, -np.asarray(scores, np.float64)[kept]))]
