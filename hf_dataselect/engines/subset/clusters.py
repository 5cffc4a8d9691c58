"""Clusters of up to a million vectors: the central rows and the best rows of each, or as many of each."""

import warnings
from collections.abc import Callable

import numpy as np
from sklearn.cluster import KMeans, SpectralClustering
from sklearn.decomposition import PCA
from sklearn.metrics import euclidean_distances
from sklearn.neighbors import NearestNeighbors

from ..runtime.runtime import Runtime
from ..store import vector_store
from ..store.scratch import scratch
from ..store.vector_store import StoredVectors, blocks
from .whitening import Whitening


#: Nearest neighbours of each vector in the graph.
NEIGHBOURS = 10
#: Distances within this relative tolerance are equal (both rows of a cluster of two are equally far from its
#: centroid), and the earlier row wins, so that batching, which changes the last digits of an embedding, has no effect.
TIE = 1e-4


def central_rows(
    vectors: np.ndarray | StoredVectors,
    usable: np.ndarray,
    clusters: int,
    sample: int = 65_536,
    seed: int = 0,
) -> np.ndarray:
    """
    Rows nearest to the centroids of k-means (scikit-learn's, with random state 0).

    Args:
        vectors (`np.ndarray` or [`StoredVectors`]):
            `(n, width)`; read in blocks.
        usable (`np.ndarray`):
            Rows to cluster, `(m,)`; their vectors are finite.
        clusters (`int`):
            Number of centroids; at most that of distinct vectors.
        sample (`int`, *optional*, defaults to `65536`):
            Largest number of rows to cluster; more are subsampled. The nearest rows are searched among all.
        seed (`int`, *optional*, defaults to `0`):
            Seed of the subsample.

    Returns:
        `np.ndarray`: distinct rows, sorted, int64; at most `clusters`. Ties go to the earlier row.
    """
    sampled = usable
    if len(usable) > sample:
        sampled = np.sort(np.random.default_rng(seed).choice(usable, sample, replace=False))
    sampled = vectors[sampled]
    model = KMeans(min(clusters, len(np.unique(sampled, axis=0))), random_state=0).fit(sampled)
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


def principal_clusters(
    vectors: np.ndarray | StoredVectors, clusters: int, variance: float, seed: int, runtime: Runtime
) -> np.ndarray:
    """
    k-means (scikit-learn's, one start) of the principal components. Those of one block of vectors are scikit-learn's;
    of more, they come from the covariance, and lie in a file where there is a cache.

    Args:
        vectors (`np.ndarray` or [`StoredVectors`]):
            `(n, width)`, finite; read in blocks.
        clusters (`int`):
            Number of clusters; at most that of distinct vectors.
        variance (`float`):
            Part of the variance that the components explain; 1 clusters the vectors themselves.
        seed (`int`):
            Seed of the start.
        runtime ([`Runtime`]):
            Cache.

    Returns:
        `np.ndarray`: cluster labels from 0 `(n,)`.
    """
    distinct = np.zeros((0, vectors.shape[1]), vectors.dtype)
    for part in blocks(vectors.shape):
        distinct = np.unique(np.concatenate([distinct, vectors[part]]), axis=0)
        if len(distinct) > clusters:
            break
    if len(distinct) < 2:
        return np.zeros(len(vectors), np.int64)
    parts, width = (vectors[part] for part in blocks(vectors.shape)), vectors.shape[1]
    if variance < 1 and len(vectors) * width <= vector_store.READ:
        reduced = PCA(variance, svd_solver="full").fit_transform(vectors[:])
        parts, width = iter([reduced]), reduced.shape[1]
    elif variance < 1:
        principal = Whitening(vectors, np.ones(len(vectors), bool), variance)
        parts, width = (principal(part) * principal.deviation for part in parts), principal.components
    # From a copy, the mean would be taken off in memory, where its tolerance takes as much for a moment.
    model = KMeans(min(clusters, len(distinct)), random_state=seed, n_init=1, copy_x=False)
    with scratch(runtime.cache_dir, parts, (len(vectors), width)) as reduced:
        return model.fit_predict(reduced)


def spectral_clusters(vectors: np.ndarray, clusters: int, sample: int = 10_000, seed: int = 0) -> np.ndarray:
    """
    Spectral clustering on the nearest-neighbour graph (scikit-learn's).

    The cost is quadratic in the number of vectors: of more than `sample`, a subsample is clustered, and each vector
    joins the cluster of the nearest one in it. Equal vectors share a cluster; at most `clusters` distinct vectors are
    a cluster each.

    Args:
        vectors (`np.ndarray`):
            `(n, width)`, finite.
        clusters (`int`):
            Number of clusters.
        sample (`int`, *optional*, defaults to `10000`):
            Largest number of vectors to cluster.
        seed (`int`, *optional*, defaults to `0`):
            Seed of the subsample and the clustering.

    Returns:
        `np.ndarray`: cluster labels from 0, int64 `(n,)`.
    """
    n = len(vectors)
    sampled = np.arange(n)
    if n > sample:
        sampled = np.sort(np.random.default_rng(seed).choice(n, sample, replace=False))
    distinct, inverse = np.unique(vectors[sampled], axis=0, return_inverse=True)
    labels = _clustered(distinct, clusters, seed)
    if n > sample:
        nearest = NearestNeighbors(n_neighbors=1).fit(distinct)
        return labels[nearest.kneighbors(vectors, return_distance=False)[:, 0]]
    return labels[inverse.reshape(-1)]


def _clustered(vectors: np.ndarray, clusters: int, seed: int) -> np.ndarray:
    """Cluster labels of distinct vectors."""
    if len(vectors) <= clusters:
        return np.arange(len(vectors))
    if clusters == 1:
        return np.zeros(len(vectors), np.int64)
    neighbours = min(NEIGHBOURS, len(vectors) - 1)
    model = SpectralClustering(clusters, affinity="nearest_neighbors", n_neighbors=neighbours, random_state=seed)
    with warnings.catch_warnings():
        # Distant groups are disconnected components of the graph, as they should be.
        warnings.filterwarnings("ignore", message="Graph is not fully connected")
        warnings.filterwarnings("ignore", message="The spectral clustering API has changed")
        return model.fit_predict(vectors).astype(np.int64)


def best_of_clusters(scores: np.ndarray, labels: np.ndarray, k: int) -> np.ndarray:
    """
    Rows with the highest scores, each cluster in proportion to its size: floor(k x size / n) rows of each, at least
    one; of these the best `k`. The remainder goes to the best of the other rows.

    Args:
        scores (`np.ndarray`):
            `(n,)`, finite.
        labels (`np.ndarray`):
            Cluster of each row, int `(n,)`.
        k (`int`):
            Rows to select.

    Returns:
        `np.ndarray`: int64, at most `k`, best first; ties go to the earlier row.
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


def even_rows(
    labels: np.ndarray, sources: np.ndarray, k: int, draw: Callable[[np.ndarray, int], np.ndarray]
) -> np.ndarray:
    """
    Rows of sources and, within these, of clusters, as evenly as they allow (S2L, arXiv 2403.07384): the smallest are
    visited first, and each gets an equal share of what is left, or all that it has. Clusters of one or two rows count
    as one, and only fill up what the others leave.

    Args:
        labels (`np.ndarray`):
            Cluster of each row within its source, int `(n,)`.
        sources (`np.ndarray`):
            Source of each row, int `(n,)`.
        k (`int`):
            Rows to select.
        draw (`Callable`):
            Rows and a number -> so many of them.

    Returns:
        `np.ndarray`: int64, at most `k`.
    """
    groups = sorted(members_of(sources), key=len)
    picked, left = [np.zeros(0, np.int64)], k
    for place, members in enumerate(groups):
        quota = left // (len(groups) - place)
        taken = [members] if len(members) <= quota else _of_clusters(members, labels[members], quota, draw)
        picked += taken
        left -= sum(map(len, taken))
    return np.concatenate(picked)


def members_of(labels: np.ndarray) -> list[np.ndarray]:
    """Rows of each label of `(n,)`, int64, ascending; by one sort, however many labels there are."""
    order = np.argsort(labels, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(labels[order])) + 1) if len(order) else []


def _of_clusters(members: np.ndarray, labels: np.ndarray, quota: int, draw: Callable) -> list[np.ndarray]:
    clusters = sorted((members[places] for places in members_of(labels)), key=len)
    large = [mine for mine in clusters if len(mine) > 2]
    picked: list[np.ndarray] = []
    for place, mine in enumerate(large):
        share = (quota - sum(map(len, picked))) // (len(large) - place)
        picked.append(mine if len(mine) <= share else draw(mine, share))
    rest = np.sort(np.concatenate([np.zeros(0, np.int64), *clusters[: len(clusters) - len(large)]]))
    left = quota - sum(map(len, picked))
    return [*picked, rest if len(rest) <= left else draw(rest, left)]
