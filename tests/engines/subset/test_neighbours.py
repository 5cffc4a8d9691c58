"""Distances to the nearest vectors, block by block and on several ranks, beside those of all pairs."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from hf_dataselect.engines.runtime.account import Account
from hf_dataselect.engines.runtime.runtime import Runtime
from hf_dataselect.engines.store import vector_store
from hf_dataselect.engines.store.row_store import RowStore
from hf_dataselect.engines.subset import neighbours
from hf_dataselect.engines.subset.neighbours import nearest_distance


def cloud(n: int = 70) -> np.ndarray:
    """Vectors far from the origin, two of them equal and two nearly."""
    vectors = np.random.default_rng(0).normal(50, 1, (n, 6)).astype(np.float32)
    vectors[3], vectors[20] = vectors[9], np.nextafter(vectors[30], np.float32(0))
    return vectors


def of_all_pairs(vectors: np.ndarray, neighbour: int) -> np.ndarray:
    every = np.linalg.norm(vectors[:, None].astype(float) - vectors[None], axis=-1)
    np.fill_diagonal(every, np.inf)
    return np.sort(every, axis=1)[:, neighbour - 1]


def rank_of(ranks: int, rank: int, parts: list | None = None) -> SimpleNamespace:
    """One of several ranks, which computes its part for itself and leaves it in `parts`."""
    parts = [] if parts is None else parts
    own = {"num_processes": ranks, "process_index": rank, "is_main_process": rank == 0, "device": torch.device("cpu")}
    return SimpleNamespace(**own, reduce=lambda part, how: parts.append(part.numpy()) or part)


@pytest.mark.parametrize("rows, others", [(16, 9), (7, 70), (512, 3), (512, 16_384)])
@pytest.mark.parametrize("neighbour", [1, 6, 69])
def test_distances_are_those_of_all_pairs(neighbour, rows, others, monkeypatch):
    monkeypatch.setattr(neighbours, "ROWS", rows)
    monkeypatch.setattr(neighbours, "OTHERS", others)
    monkeypatch.setattr(vector_store, "READ", 9 * others)
    vectors = cloud()
    found = nearest_distance(vectors, neighbour, Runtime())
    np.testing.assert_allclose(found, of_all_pairs(vectors, neighbour), rtol=1e-5, atol=5e-6)


def test_ranks_compare_their_part_of_the_rows_with_all(monkeypatch):
    monkeypatch.setattr(neighbours, "ROWS", 8)
    vectors, parts = cloud(), []
    for rank in range(2):
        nearest_distance(vectors, 6, Runtime(accelerator=rank_of(2, rank, parts)))
    assert not (parts[0][:, 0] * parts[1][:, 0]).any() and (parts[0][:, 0] > 0).sum() in range(30, 41)
    different = np.unique(vectors, axis=0, return_index=True)[1]  # equal vectors are computed once
    found = (parts[0] + parts[1])[different, 0]
    np.testing.assert_allclose(found, of_all_pairs(vectors, 6)[different], rtol=1e-5, atol=5e-6)


def test_a_killed_run_compares_what_is_missing_and_no_other_vectors_are_served(tmp_path, monkeypatch):
    monkeypatch.setattr(neighbours, "ROWS", 8)
    clock = SimpleNamespace(now=0.0, perf_counter=lambda: clock.now)
    monkeypatch.setattr("hf_dataselect.engines.runtime.cached_map.time", clock)
    vectors, append, kept = cloud(), RowStore.append, []

    def killed(store, keys, *values):
        append(store, keys, *values)
        kept.append(len(keys))
        if len(kept) == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(RowStore, "append", killed)
        with pytest.raises(KeyboardInterrupt):
            nearest_distance(vectors, 6, Runtime(cache_dir=tmp_path))
    again, cached = with_cached(vectors, 6, tmp_path)
    assert cached == 25, "three blocks, and a copy of a row"
    np.testing.assert_array_equal(again, nearest_distance(vectors, 6, Runtime()))
    assert with_cached(vectors, 6, tmp_path)[1] == 70
    assert with_cached(vectors, 5, tmp_path)[1] <= 1, "the copy"
    assert with_cached(vectors[:-1], 6, tmp_path)[1] <= 1


def with_cached(vectors, neighbour, folder):
    """Distances, and how many of them were read from the cache."""
    runtime = Runtime(cache_dir=folder)
    return nearest_distance(vectors, neighbour, runtime), runtime.account.passes["cached_rows"]


@pytest.mark.parametrize("ranks", [1, 2])
def test_seconds_of_cached_distances_are_those_of_all_ranks(ranks, tmp_path, monkeypatch):
    monkeypatch.setattr(neighbours, "ROWS", 10)
    clock = SimpleNamespace(now=0.0)
    clock.perf_counter = lambda: setattr(clock, "now", clock.now + 1) or clock.now
    monkeypatch.setattr("hf_dataselect.engines.runtime.cached_map.time", clock)
    monkeypatch.setattr(Runtime, "on_main", lambda self, function: function())  # each has a cache of its own
    for rank in range(ranks):
        nearest_distance(cloud(), 6, Runtime(accelerator=rank_of(ranks, rank), cache_dir=tmp_path / str(rank)))
    accounts = [Account() for _ in range(ranks)]
    for rank, account in enumerate(accounts):
        nearest_distance(cloud(), 6, Runtime(cache_dir=tmp_path / str(rank), account=account))
    assert sum(account.passes["cached_rows"] for account in accounts) in (70, 71), "one row is a copy"
    seconds = sum(account.cached_seconds for account in accounts)
    assert seconds == pytest.approx(7 / ranks + 1), "seven blocks of a second each, and one before the first"
