"""Rows nearest to centroids; spectral clusters, whole, of a sample, of equal vectors; and the best of each."""

import numpy as np
import pytest
from sklearn.cluster import KMeans, SpectralClustering
from sklearn.metrics import adjusted_rand_score

from hf_dataselect.engines.store import vector_store as store
from hf_dataselect.engines.subset.clusters import NEIGHBOURS, best_of_clusters, central_rows, spectral_clusters


def rings(n: int = 300, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Points on two circles around the same centre, and which one."""
    draw = np.random.default_rng(seed)
    which, angle = np.arange(n) % 2, draw.uniform(0, 2 * np.pi, n)
    radius = np.where(which == 0, 1.0, 4.0) + draw.normal(0, 0.05, n)
    return np.column_stack([radius * np.cos(angle), radius * np.sin(angle)]).astype(np.float32), which


@pytest.mark.parametrize("read", [40, 10**6])
def test_central_rows_are_those_nearest_to_the_centroids_of_scikit_learn(read, monkeypatch):
    monkeypatch.setattr(store, "READ", read)  # numbers held at a time
    vectors = np.random.default_rng(0).normal(size=(90, 4)).astype(np.float32)
    vectors[[3, 50]] = np.nan
    usable = np.flatnonzero(np.isfinite(vectors).all(1))
    centroids = KMeans(9, random_state=0).fit(vectors[usable]).cluster_centers_
    distances = np.linalg.norm(centroids[:, None] - vectors, axis=-1)
    assert central_rows(vectors, usable, 9).tolist() == np.unique(np.nanargmin(distances, axis=1)).tolist()


def test_of_two_rows_that_make_a_cluster_the_earlier_one_is_central_whatever_the_last_digits():
    near = np.array([[0, 0], [9, 9], [1, 0], [9, 8]], np.float64)
    for noise in (-1e-9, 0, 1e-9):
        assert central_rows(near + noise * np.eye(4, 2), np.arange(4), 2).tolist() == [0, 1]


def test_central_rows_of_a_sample_are_looked_for_among_all():
    groups = np.array([[0.0, 0], [100, 0], [0, 100]])
    vectors = groups[np.arange(600) % 3] + np.random.default_rng(1).normal(size=(600, 2))
    found = central_rows(vectors, np.arange(600), 3, sample=60, seed=5)
    assert (central_rows(vectors, np.arange(600), 3, sample=60, seed=5) == found).all()
    drawn = np.sort(np.random.default_rng(5).choice(600, 60, replace=False))
    centroids = KMeans(3, random_state=0).fit(vectors[drawn]).cluster_centers_
    nearest = np.linalg.norm(centroids[:, None] - vectors, axis=-1).argmin(1)
    assert found.tolist() == sorted(nearest) and not set(found) <= set(drawn)


@pytest.mark.filterwarnings("error:Number of distinct clusters")
def test_equal_vectors_are_one_centre():
    assert central_rows(np.ones((5, 3)), np.arange(5), 4).tolist() == [0]


@pytest.mark.parametrize("sample", [150, 10_000])
def test_rings_are_told_apart_whole_or_by_a_sample(sample):
    vectors, which = rings()
    found = spectral_clusters(vectors, 2, sample=sample, seed=1)
    assert adjusted_rand_score(found, which) == 1
    assert (spectral_clusters(vectors, 2, sample=sample, seed=1) == found).all()


def test_they_are_those_of_scikit_learn():
    vectors = np.random.default_rng(0).normal(size=(120, 5))
    model = SpectralClustering(4, affinity="nearest_neighbors", n_neighbors=NEIGHBOURS, random_state=3)
    assert adjusted_rand_score(spectral_clusters(vectors, 4, seed=3), model.fit_predict(vectors)) > 0.99


def test_others_go_where_their_nearest_sampled_vector_is():
    vectors = np.random.default_rng(1).normal(size=(200, 3))
    found = spectral_clusters(vectors, 3, sample=80, seed=5)
    drawn = vectors[np.sort(np.random.default_rng(5).choice(200, 80, replace=False))]
    labels = spectral_clusters(drawn, 3, seed=5)
    nearest = np.linalg.norm(vectors[:, None] - drawn[None], axis=2).argmin(1)
    assert adjusted_rand_score(found, labels[nearest]) == 1


def test_equal_vectors_are_together_and_few_are_each_their_own():
    vectors = np.repeat(rings(40)[0], 5, axis=0)
    found = spectral_clusters(vectors, 2)
    assert (found.reshape(40, 5) == found.reshape(40, 5)[:, :1]).all() and len(set(found.tolist())) == 2
    few = spectral_clusters(np.array([[1.0, 0], [0, 1], [1, 0]]), 10)
    assert few[0] == few[2] != few[1]
    assert spectral_clusters(np.ones((1, 4)), 10).tolist() == [0]
    assert set(spectral_clusters(np.eye(11), 10).tolist()) == set(range(10))
    assert set(spectral_clusters(vectors, 1).tolist()) == {0}
    assert len(set(spectral_clusters(vectors, 2, sample=3).tolist())) == 2


@pytest.mark.parametrize("k", [1, 3, 10, 17, 59, 60, 80])
def test_the_best_of_each_cluster_in_proportion(k):
    draw = np.random.default_rng(k)
    scores, labels = draw.integers(0, 30, 60).astype(float), draw.choice(4, 60, p=[0.6, 0.3, 0.07, 0.03])
    found = best_of_clusters(scores, labels, k)
    order = sorted(range(60), key=lambda row: (-scores[row], row))
    first = []
    for label in set(labels.tolist()):
        members = [row for row in order if labels[row] == label]
        first += members[: max(1, k * len(members) // 60)]
    first = [row for row in order if row in first][:k]
    first += [row for row in order if row not in first][: k - len(first)]
    assert found.tolist() == [row for row in order if row in first] and len(found) == min(k, 60)


def test_nothing_of_nothing():
    assert best_of_clusters(np.zeros(0), np.zeros(0, np.int64), 3).tolist() == []
