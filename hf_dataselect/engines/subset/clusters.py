"""Clusters of vectors, for a million of them as well: what is central in each, and what is best."""

import warnings

import numpy as np
from sklearn.cluster import KMeans, SpectralClustering
from sklearn.metrics import euclidean_distances
from sklearn.neighbors import NearestNeighbors

from ..store.vector_store import StoredVectors, blocks


#: Nearest vectors that each one is joined to.
NEIGHBOURS = 10
#: Distances that differ by this part are equal (both rows of a cluster of two are as near to its centroid), and the
#: earlier row is nearer: so batches, which move the last digits of an embedding, decide nothing.
TIE = 1e-4


def central_rows(
    vectors: np.ndarray | StoredVectors,
    usable: np.ndarray,
    clusters: int,
    sample: int = 65_536,
    seed: int = 0,
) -> np.ndarray:
    """
    Rows nearest to the centroids of a k-means (scikit-learn's, its own random state 0).

    Args:
        vectors (`np.ndarray` or [`StoredVectors`]):
            `(n, width)`; read block by block.
        usable (`np.ndarray`):
            Rows that take part, `(m,)`; their vectors are finite.
        clusters (`int`):
            Centroids, or as many as there are different vectors.
        sample (`int`, *optional*, defaults to `65536`):
            Rows that are clustered at most; of more, that many are drawn. The nearest row is looked for among all.
        seed (`int`, *optional*, defaults to `0`):
            Of the draw.

    Returns:
        `np.ndarray`: different rows, sorted, int64; at most `clusters`. Of equally near rows the earlier one.
    """
    drawn = usable
    if len(usable) > sample:
        drawn = np.sort(np.random.default_rng(seed).choice(usable, sample, replace=False))
    drawn = vectors[drawn]
    model = KMeans(min(clusters, len(np.unique(drawn, axis=0))), random_state=0).fit(drawn)
    centroids = model.cluster_centers_
    nearest, least = np.zeros(len(centroids), np.int64), np.full(len(centroids), np.inf)
    for part in blocks((len(usable), vectors.shape[1])):
        rows = usable[part]
        distances = euclidean_distances(vectors[rows], centroids)
        shortest = distances.min(0)
        first = rows[(distances <= shortest * (1 + TIE)).argmax(0)]
        nearer = shortest < least * (1 - TIE)
        nearest, least = np.where(nearer, first, nearest), np.where(nearer, shortest, least)
    return np.unique(nearest)


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
