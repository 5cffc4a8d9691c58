"""Vectors kept by content: computed once, never all in memory, whole after a kill; and what a target makes of them."""

import tracemalloc
from types import SimpleNamespace

import numpy as np
import pytest

from hf_dataselect.engines.forward.sentence_encoder import text_keys
from hf_dataselect.engines.runtime import stored_vectors as computing
from hf_dataselect.engines.runtime.runtime import Runtime
from hf_dataselect.engines.store import vector_store as engine
from hf_dataselect.engines.store.row_store import RecordStore
from hf_dataselect.engines.store.vector_store import VectorStore, check_room, vector_record
from hf_dataselect.engines.subset.matchers import for_target, round_robin
from hf_dataselect.engines.subset.target_similarity import Similarity, Target, highest
from tests.engines.runtime.test_cached_map import Clock


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(computing, "time", clock)
    return clock


def store_in(folder, width=3, **options):
    return VectorStore(folder, {"engine": "test"}, width, **options)


def stored_vectors(store, keys, compute, **options):
    """What is found, and what was booked."""
    runtime = Runtime()
    return computing.stored_vectors(store, keys, compute, runtime, **options), runtime.account


def vectors_of(keys):
    return np.array([list(key.tobytes()[:3]) for key in keys], np.float32)


def test_vectors_are_computed_once_and_found_again_by_content(tmp_path):
    keys, asked, told = text_keys([f"text {i}" for i in range(10)]), [], []

    def compute(places):
        asked.append(places.tolist())
        return vectors_of(keys[places])

    found, account = stored_vectors(store_in(tmp_path), keys[:6], compute, chunk=4, on_rows=told.append)
    np.testing.assert_array_equal(found.vectors[:], vectors_of(keys[:6]))
    assert asked == [[0, 1, 2, 3], [4, 5]] and told == [0, 4, 2] and account.passes["cached_rows"] == 0
    keys = keys[[9, 3, 0, 8, 3]]
    found, account = stored_vectors(store_in(tmp_path), keys, compute)
    np.testing.assert_array_equal(found.vectors[:], vectors_of(keys))
    np.testing.assert_array_equal(found.vectors[1:3], vectors_of(keys[1:3]))
    np.testing.assert_array_equal(found.vectors[np.array([4, 0])], vectors_of(keys[[4, 0]]))
    assert (
        asked[2:] == [[0, 3]]
        and account.passes["cached_rows"] == 3
        and account.cached_seconds > 0
        and found.usable.all()
    )


@pytest.mark.parametrize("kept", [True, False])
def test_equal_rows_are_computed_once(kept, tmp_path):
    keys, asked = text_keys(list("abcab")), []

    def compute(places):
        asked.append(places.tolist())
        return np.where((places == 1)[:, None], np.nan, vectors_of(keys[places]))

    found, account = stored_vectors(store_in(tmp_path if kept else None), keys, compute)
    assert (
        asked == [[0, 1, 2]]
        and account.passes["cached_rows"] == 2
        and found.usable.tolist() == [True, False, True, True, False]
    )
    np.testing.assert_array_equal(found.vectors[[0, 2, 3]], vectors_of(keys[[0, 2, 3]]))
    assert np.isnan(found.vectors[[1, 4]]).all()


def test_only_what_an_earlier_run_spent_counts_and_of_equal_rows_once(tmp_path, clock):
    keys, this_run = text_keys(list("abcde")), {}

    def seconds(store, rows):
        asked = keys[rows]

        def compute(places):
            clock.now += len(places)
            return vectors_of(asked[places])

        return stored_vectors(store, asked, compute)[1].cached_seconds

    store = store_in(tmp_path, files=this_run)
    assert seconds(store, [0, 1, 0]) == seconds(store, [0, 1]) == 0
    assert seconds(store_in(tmp_path, files=this_run), [1, 2]) == 0, "another store of the same run"
    later = store_in(tmp_path)
    assert seconds(later, [0, 1, 2, 1, 3]) == pytest.approx(3) and seconds(later, [3, 4]) == 0
    assert clock.now == 5


def test_without_a_folder_they_are_held_and_nothing_is_kept():
    keys = text_keys(["a", "b"])
    for _ in range(2):
        found, account = stored_vectors(store_in(None), keys, lambda places: vectors_of(keys[places]))
        assert account.passes["cached_rows"] == 0 and found.usable.all()
        np.testing.assert_array_equal(found.vectors, vectors_of(keys))


@pytest.mark.parametrize("kept", [True, False])
def test_what_did_not_fit_in_memory_is_tried_again(kept, tmp_path):
    keys, folder = text_keys(list("abcd")), tmp_path if kept else None

    def compute(places):
        return np.where((places == 2)[:, None], np.nan, vectors_of(keys[places]))

    found, account = stored_vectors(store_in(folder), keys, compute)
    assert found.usable.tolist() == [True, True, False, True] and np.isnan(found.vectors[2:3]).all()
    again, account = stored_vectors(store_in(folder), keys, lambda places: vectors_of(keys[places]))
    assert account.passes["cached_rows"] == 3 * kept and again.usable.all()


def test_what_a_kill_tore_or_a_disk_spoiled_is_computed_again(tmp_path):
    keys = text_keys(list("abcdef"))

    def dies(places):
        if places[0] == 4:
            raise KeyboardInterrupt
        return vectors_of(keys[places])

    with pytest.raises(KeyboardInterrupt):
        stored_vectors(store_in(tmp_path), keys, dies, chunk=2)
    (part,) = tmp_path.glob("*/*.rows")
    data = bytearray(part.read_bytes())
    size = len(data) // 4
    data[size + 20] ^= 1
    part.write_bytes(data[: 4 * size - 3])
    vectors, known, *_ = store_in(tmp_path).find(keys)
    assert known.tolist() == [True, False, True, False, False, False]
    np.testing.assert_array_equal(vectors[known], vectors_of(keys[known]))
    found, account = stored_vectors(store_in(tmp_path), keys, lambda places: vectors_of(keys[places]))
    assert account.passes["cached_rows"] == 2 and np.array_equal(found.vectors[:], vectors_of(keys))


def test_a_record_is_checked_once_and_what_others_add_is_seen(tmp_path, monkeypatch):
    keys, checked, intact = text_keys([str(i) for i in range(40)]), [], RecordStore._intact
    monkeypatch.setattr(
        RecordStore, "_intact", staticmethod(lambda records: checked.append(len(records)) or intact(records))
    )
    first, second = store_in(tmp_path), store_in(tmp_path)
    for start in range(0, 40, 10):
        part = keys[start : start + 10]
        first.append(part, vectors_of(part), 0)
        vectors, known, *_ = second.find(keys)
        assert known.sum() == start + 10 and np.array_equal(vectors[: start + 10], vectors_of(keys[: start + 10]))
    second.find(keys[::-1])
    assert sum(checked) == 40


def test_a_million_numbers_are_read_and_compared_in_blocks(tmp_path, monkeypatch):
    monkeypatch.setattr(engine, "READ", 2**14)
    rows, width, draw = 4000, 250, np.random.default_rng(0)
    matrix, target = draw.normal(size=(rows, width)).astype(np.float32), draw.normal(size=(5, width))
    keys = text_keys([str(i) for i in range(rows)])
    tracemalloc.start()
    try:
        found, account = stored_vectors(store_in(tmp_path, width), keys, lambda places: matrix[places], chunk=100)
        similarity = Similarity(found.vectors, Target(target, np.arange(5), "max"))
        scores, chosen = highest(similarity), round_robin(similarity, 40)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < matrix.nbytes / 2, peak
    exact = matrix @ target.T
    np.testing.assert_allclose(scores, exact.max(1), rtol=1e-4, atol=1e-4)
    assert chosen.tolist() == round_robin(exact.astype(np.float32), 40).tolist()


def test_a_disk_without_room_is_refused_before_anything_is_computed(tmp_path, monkeypatch):
    monkeypatch.setattr(engine.shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    keys = text_keys([str(i) for i in range(40)])
    with pytest.raises(ValueError, match="selection_cache_dir=.* has 0.0 GB left, and 40 vectors take 0.0 GB"):
        stored_vectors(store_in(tmp_path), keys, None)
    check_room(tmp_path / "to" / "come", 20, vector_record(3), "")
    check_room(None, 10**9, vector_record(3), "")


# What a target makes of them -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", ["mean", "max"])
@pytest.mark.parametrize("read", [1, 40, 2**24])
def test_similarity_to_groups_equals_its_naive_twin(rule, read, monkeypatch):
    monkeypatch.setattr(engine, "READ", read)
    draw = np.random.default_rng(0)
    vectors, target = draw.normal(size=(9, 4)).astype(np.float16), draw.normal(size=(6, 4)).astype(np.float16)
    vectors[3], target[1], target[4] = np.nan, np.nan, np.nan
    groups = np.array([0, 1, 2, 0, 2, 3])  # of group 1 nothing is usable, of group 2 one row
    found = Similarity(vectors, Target(target, groups, rule))
    assert found.shape == (9, 4)
    reduce = {"mean": np.mean, "max": np.max}[rule]
    expected = np.full((9, 4), np.nan)
    for group, members in {0: [0, 3], 2: [2], 3: [5]}.items():
        expected[:, group] = reduce(vectors.astype(float) @ target[members].astype(float).T, axis=1)
    np.testing.assert_allclose(found[:], expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(found[2:5], found[:][2:5])
    np.testing.assert_allclose(highest(found), np.fmax.reduce(expected, axis=1), rtol=1e-5)


def test_rules_for_a_target_leave_out_what_has_no_score():
    found = np.array([[1.5, np.nan, 5], [6, np.nan, 1], [9, np.nan, 9]])
    assert for_target(found, np.array([5, 8, np.nan]), 2, "max").tolist() == [1, 0]
    assert for_target(found, np.array([5, np.nan, np.nan]), 3, "round_robin").tolist() == [0]


def naive_round_robin(similarity, k):
    """The twin: the columns take turns, each pops its best row that is left to it; a row taken uses up the turn."""
    left = [sorted(np.flatnonzero(np.isfinite(c)), key=lambda row: (-c[row], row)) for c in similarity.T]
    chosen = []
    while len(chosen) < k and any(left):
        for queue in left:
            if queue and len(chosen) < k:
                row = int(queue.pop(0))
                chosen += [] if row in chosen else [row]
    return chosen


@pytest.mark.parametrize("seed", range(20))
def test_round_robin_equals_its_naive_twin(seed, monkeypatch):
    draw = np.random.default_rng(seed)
    monkeypatch.setattr(engine, "READ", int(draw.integers(1, 40)))
    similarity = draw.integers(0, 12, (int(draw.integers(1, 30)), int(draw.integers(1, 6)))).astype(float)
    similarity[draw.random(similarity.shape) < 0.2] = np.nan
    for k in (0, 1, 3, 10, 100):
        found = round_robin(similarity, k)
        assert found.tolist() == naive_round_robin(similarity, k) and found.dtype == np.int64
