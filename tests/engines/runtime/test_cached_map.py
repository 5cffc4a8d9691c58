"""Numbers of rows: each different row is computed once, and what it took is known for ever."""

from contextlib import contextmanager

import numpy as np
import pytest
from torch import nn

from hf_dataselect.engines.runtime import cached_map as measuring
from hf_dataselect.engines.runtime.cached_map import cached_value, measured
from hf_dataselect.engines.runtime.part import Part
from hf_dataselect.engines.runtime.runtime import Runtime
from hf_dataselect.engines.runtime.token_rows import TokenRows
from hf_dataselect.engines.store.row_store import RowStore


MODEL = nn.Linear(1, 1)


class Clock:
    """Seconds that pass only where a test says so."""

    now = 0.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(measuring, "time", clock)
    return clock


def rows_of(*ids) -> TokenRows:
    return TokenRows.from_lists([list(row) for row in ids], [[(1, len(row))] for row in ids])


def sums(rows: TokenRows, clock: Clock, cache_dir=None):
    """Sum and length of each row, a second a token; and the rows that were computed, batch by batch."""
    batches = []

    def begin(todo):
        def compute(batch):
            taken = [ids for ids, _ in rows.take(batch)]
            batches.append(batch.tolist())
            clock.now += sum(map(len, taken))
            return np.array([[ids.sum(), len(ids)] for ids in taken], np.float64)

        return compute

    runtime = Runtime(batch_tokens=6, cache_dir=cache_dir)
    return measured(MODEL, rows, runtime, 2, {"engine": "sums"}, begin), batches


@pytest.mark.parametrize("kept", [False, True])
def test_equal_rows_are_computed_once(kept, clock, tmp_path):
    rows = rows_of([1, 2], [3, 4, 5], [1, 2], [7], [3, 4, 5], [1, 2])
    found, batches = sums(rows, clock, tmp_path if kept else None)
    np.testing.assert_array_equal(found.values, [[3, 2], [12, 3], [3, 2], [7, 1], [12, 3], [3, 2]])
    assert sorted(row for batch in batches for row in batch) == [0, 1, 3], "the first of equal rows"
    assert (found.computed, found.cached, found.tokens, found.cached_seconds) == (3, 3, 6, 0)


def test_the_same_tokens_with_other_spans_are_another_row(clock):
    rows = TokenRows.from_lists([[1, 2, 3]] * 2, [[(1, 3)], [(2, 3)]])
    assert sums(rows, clock)[0].computed == 2


def test_seconds_once_spent_come_back_with_the_rows_that_took_them(clock, tmp_path):
    first, _ = sums(rows_of([1, 2], [3, 4], [5, 6]), clock, tmp_path)
    assert first.cached_seconds == 0
    again, batches = sums(rows_of([5, 6], [1, 2], [8, 9, 9], [5, 6]), clock, tmp_path)
    assert batches == [[2]] and again.cached == 3
    assert again.cached_seconds == pytest.approx(4), "two rows of two tokens, a second each, and none of them twice"
    all_known, batches = sums(rows_of([8, 9, 9], [3, 4]), clock, tmp_path)
    assert batches == [] and all_known.cached_seconds == pytest.approx(5)


def test_what_this_run_computed_is_no_earlier_run_s(clock, tmp_path):
    runtime = Runtime(cache_dir=tmp_path)

    def seconds(ids):
        rows = rows_of(*ids)

        def compute(batch):
            clock.now += len(batch)
            return np.zeros((len(batch), 1))

        return measured(MODEL, rows, runtime, 1, {"engine": "zeros"}, lambda todo: compute).cached_seconds

    assert [seconds([[1], [2]]), seconds([[2], [3]]), runtime.account.cached_seconds] == [0, 0, 0]
    runtime = Runtime(cache_dir=tmp_path)
    assert [seconds([[1], [2], [4]]), seconds([[4], [1]])] == [2, 0] and clock.now == 4


def test_one_number_is_that_of_every_part(tmp_path):
    computed = []
    for part in Part(2, 3).turns():
        value = cached_value(lambda: computed.append(1) or 0.5, b"rows", {}, Runtime(cache_dir=tmp_path, part=part))
        assert value == 0.5 and len(computed) == 1


def test_other_rows_than_those_of_a_part_are_not_counted(clock, tmp_path):
    rows, counts = rows_of([1], [2], [3], [4], [2]), []
    for part in (Part(1, 2), Part(1, 2), Part(2, 2)):
        runtime = Runtime(cache_dir=tmp_path, part=part)
        found = measured(MODEL, rows, runtime, 1, {}, lambda todo: lambda batch: np.zeros((len(batch), 1)))
        assert runtime.account.passes["cached_rows"] == found.cached
        counts.append((found.computed, found.cached))
    (first, repeated), again, (other, rest) = counts
    assert again == (0, 2 + repeated) and first == other == 2 and repeated + rest == 1


def test_what_other_ranks_of_this_run_computed_is_no_earlier_run_s(tmp_path):
    """Each rank writes a file of its own; all are this run's."""
    theirs, keys = Runtime(cache_dir=tmp_path), rows_of([1], [2]).keys()
    theirs.store({}, 1).append(keys, np.zeros((2, 1)), 3)

    class Ranks(Runtime):
        world, rank = 2, 0
        gather = staticmethod(lambda value: [value, [*theirs.account.cache_files]])
        broadcast_arrays = staticmethod(lambda *arrays: arrays)

    ours = Ranks(cache_dir=tmp_path)
    assert not ours.find(ours.store({}, 1), keys).earlier.any() and theirs.account.cache_files
    later = Runtime(cache_dir=tmp_path)
    assert later.find(later.store({}, 1), keys).earlier.tolist() == [3, 3]


def test_seconds_before_the_first_batch_are_shared_by_the_rows(clock, tmp_path, monkeypatch):
    @contextmanager
    def slow(model, dtype):
        clock.now += 2
        yield

    def begin(todo):
        clock.now += 4
        return lambda batch: np.zeros((len(batch), 1))

    monkeypatch.setattr(measuring, "scoring", slow)
    for rows, seconds in ((rows_of([1], [2], [3]), 0), (rows_of([1], [3], [1]), 4)):
        found = measured(MODEL, rows, Runtime(batch_tokens=2, cache_dir=tmp_path), 1, {}, begin)
        assert found.cached_seconds == pytest.approx(seconds)
    assert clock.now == 6


def test_batches_are_kept_as_they_come(clock, tmp_path, monkeypatch):
    kept, append = [], RowStore.append
    monkeypatch.setattr(RowStore, "append", lambda self, keys, *_: (kept.append(len(keys)), append(self, keys, *_)))
    _, batches = sums(rows_of([1, 2, 3], [4, 5, 6], [7, 8, 9]), clock, tmp_path)
    assert kept == [2, 1] == list(map(len, batches))


def test_nothing_begins_where_all_is_known(clock, tmp_path):
    sums(rows_of([1, 2]), clock, tmp_path)
    found = measured(MODEL, rows_of([1, 2]), Runtime(cache_dir=tmp_path), 2, {"engine": "sums"}, None)
    assert found.computed == 0


def test_no_rows_are_no_error(clock):
    found, _ = sums(rows_of(), clock)
    assert found.values.shape == (0, 2) and found.computed == found.cached == 0
