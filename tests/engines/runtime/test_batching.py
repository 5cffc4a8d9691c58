import itertools
import random
import threading
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from hf_dataselect.engines.runtime import runtime as batching
from hf_dataselect.engines.runtime.batching import batches_by_tokens, padded, rounded
from hf_dataselect.engines.runtime.runtime import Runtime


OUT_OF_MEMORY = "CUDA out of memory. Tried to allocate 20.00 MiB"


def some_lengths(n=200, seed=0):
    draw = random.Random(seed)
    return [draw.choice((1, 3, 7, 7, 30, 150)) for _ in range(n)]


def on_ranks(world, work):
    """Run `work(accelerator)` on `world` fake ranks at once; `reduce` adds up what they bring, as real ranks do."""
    brought, barrier, results = [None] * world, threading.Barrier(world, timeout=30), [None] * world

    def accelerator(rank):
        def reduce(tensor, reduction):
            assert reduction == "sum"
            brought[rank] = tensor.clone()
            barrier.wait()
            total = torch.stack(brought).sum(0)
            barrier.wait()
            return total

        return SimpleNamespace(
            num_processes=world,
            process_index=rank,
            is_main_process=rank == 0,
            device=torch.device("cpu"),
            reduce=reduce,
        )

    def run(rank):
        try:
            results[rank] = work(accelerator(rank))
        except BaseException as error:
            results[rank] = error
            barrier.abort()

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(world)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    errors = [result for result in results if isinstance(result, BaseException)]
    if errors:
        raise errors[0]
    return results


def squares(batch):
    return np.stack([batch, batch**2], 1).astype(np.float64)


@pytest.mark.parametrize("budget", [1, 30, 100, 1000, 10**9])
def test_a_batch_of_several_rows_stays_within_the_budget_with_its_padding(budget):
    lengths = np.array(some_lengths())
    for batch in batches_by_tokens(lengths, budget):
        assert len(batch) == 1 or len(batch) * lengths[batch].max() <= budget


@pytest.mark.parametrize("budget", [1, 30, 100, 1000, 10**9])
def test_each_row_is_in_one_batch_longest_first_and_equal_lengths_in_order(budget):
    lengths = some_lengths()
    order = np.concatenate(batches_by_tokens(lengths, budget)).tolist()
    assert order == sorted(range(len(lengths)), key=lambda row: (-lengths[row], row))


@pytest.mark.parametrize("most", [0.05, 1])
def test_no_batch_could_take_the_next_row_as_well(most):
    lengths, budget = np.array(some_lengths()), 100
    batches = batches_by_tokens(lengths, budget, most_padding=most)
    for batch, after in itertools.pairwise(batches):
        one_more = lengths[[*batch, after[0]]]
        size = len(one_more) * one_more.max()
        assert size > budget or one_more.sum() < (1 - most) * size


@pytest.mark.parametrize("n", [40, 100, 500])
def test_little_of_a_batch_is_padding_and_no_batch_is_tiny(n):
    lengths = np.round(np.random.default_rng(n).lognormal(4.3, 0.7, n)).astype(int) + 1  # as rows of Alpaca
    sizes = [len(batch) * lengths[batch].max() for batch in batches_by_tokens(lengths, 1536)]
    uncut = batches_by_tokens(lengths, 1536, most_padding=1)
    assert lengths.sum() / sum(sizes) > 0.95
    assert sum(len(batch) * lengths[batch].max() for batch in uncut) > sum(sizes)
    assert min(sizes[:-1]) >= 1536 / 16


def test_only_the_asked_rows_are_cut_into_batches():
    lengths = some_lengths()
    rows = np.array([150, 3, 77, 4])
    assert sorted(np.concatenate(batches_by_tokens(lengths, 50, rows)).tolist()) == [3, 4, 77, 150]
    assert batches_by_tokens(lengths, 50, np.array([], int)) == []
    assert batches_by_tokens([0, 0], 50)[0].tolist() == [0, 1]


def test_results_stand_at_their_rows_and_rows_not_asked_for_are_nan():
    lengths = some_lengths(50)
    np.testing.assert_array_equal(Runtime(batch_tokens=60).map(squares, lengths, 2), squares(np.arange(50)))
    rows = np.array([40, 2, 7])
    found = Runtime(batch_tokens=60).map(squares, lengths, 2, rows=rows)
    np.testing.assert_array_equal(found[rows], squares(rows))
    assert np.isnan(np.delete(found, rows, 0)).all()


@pytest.mark.parametrize("world", [2, 3, 7])
def test_every_rank_gets_the_whole_result_and_computes_only_its_share(world):
    lengths = some_lengths(60)
    seen = {rank: [] for rank in range(world)}

    def work(accelerator):
        def compute(batch):
            seen[accelerator.process_index] += batch.tolist()
            return squares(batch)

        return Runtime(batch_tokens=40, accelerator=accelerator).map(compute, lengths, 2)

    for result in on_ranks(world, work):
        np.testing.assert_array_equal(result, squares(np.arange(60)))
    assert sorted(row for rows in seen.values() for row in rows) == list(range(60))
    tokens = [sum(lengths[row] for row in rows) for rows in seen.values()]
    assert max(tokens) - min(tokens) <= 150  # the longest row


def test_more_ranks_than_batches_is_no_error():
    for result in on_ranks(4, lambda one: Runtime(batch_tokens=99, accelerator=one).map(squares, [5, 5], 2)):
        np.testing.assert_array_equal(result, squares(np.arange(2)))


def test_nan_and_infinite_results_of_one_rank_reach_all_and_spoil_no_other_row():
    def work(accelerator):
        def compute(batch):
            values = batch.astype(np.float64)[:, None]
            values[batch % 5 == 0] = np.nan
            values[batch == 7] = np.inf
            return values

        rows = np.arange(1, 40)
        return Runtime(batch_tokens=8, accelerator=accelerator).map(compute, [4] * 40, 1, rows=rows)

    expected = np.arange(40.0)
    expected[::5], expected[7] = np.nan, np.inf
    for result in on_ranks(2, work):
        np.testing.assert_array_equal(result[:, 0], expected)


def test_whole_numbers_survive_the_sum_over_ranks_exactly():
    def work(accelerator):
        big = np.array([2**31 - 1, -5, 3, 2**24 + 1], np.int32)
        compute = lambda batch: big[batch, None]  # noqa: E731
        return Runtime(batch_tokens=1, accelerator=accelerator).map(compute, [1] * 4, 1, dtype=np.int32)

    for result in on_ranks(3, work):
        assert result.dtype == np.int32 and result[:, 0].tolist() == [2**31 - 1, -5, 3, 2**24 + 1]


@pytest.mark.parametrize("error", [RuntimeError(OUT_OF_MEMORY), MemoryError()], ids=["cuda", "main memory"])
@pytest.mark.parametrize("room", [301, 61, 15])
def test_a_batch_that_does_not_fit_is_halved_until_it_does(room, error, monkeypatch):
    monkeypatch.setattr(batching, "gc", SimpleNamespace(collect=lambda: None))  # slow, and of no matter here
    lengths, sizes = np.array(some_lengths(24)), []

    def compute(batch):
        size = len(batch) * lengths[batch].max()
        sizes.append((size, len(batch)))
        if size > room:
            raise error
        return squares(batch)

    found = Runtime(batch_tokens=500).map(compute, lengths, 2)
    fits = lengths <= room
    np.testing.assert_array_equal(found[fits], squares(np.flatnonzero(fits)))
    assert np.isnan(found[~fits]).all()
    refused = [size for size, rows in sizes if size > room and rows > 1]
    # Halved for good: not every later batch has to fail on its own. Nor is any cut smaller than it has to be.
    assert refused == sorted(set(refused), reverse=True)
    assert max(rows for size, rows in sizes if size <= room) > 1


def test_what_did_not_fit_in_memory_is_let_go_before_the_next_try():
    import weakref

    held = []

    def compute(batch):
        assert not any(reference() is not None for reference in held)
        if len(batch) > 1:
            tensor = torch.zeros(10)
            held.append(weakref.ref(tensor))
            raise RuntimeError(OUT_OF_MEMORY)
        return squares(batch)

    Runtime(batch_tokens=99).map(compute, [3] * 4, 2)
    assert held


def test_any_other_error_is_raised():
    def compute(batch):
        raise RuntimeError("the model is broken")

    with pytest.raises(RuntimeError, match="the model is broken"):
        Runtime(batch_tokens=6).map(compute, [3] * 4, 2)


def test_on_batch_is_called_once_a_row_with_its_results_also_after_halving():
    told = []

    def compute(batch):
        if len(batch) > 2:
            raise RuntimeError(OUT_OF_MEMORY)
        return squares(batch)

    def on_batch(rows, results):
        np.testing.assert_array_equal(results, squares(rows))
        told.extend(rows.tolist())

    Runtime(batch_tokens=30).map(compute, [3] * 40, 2, on_batch=on_batch)
    assert sorted(told) == list(range(40))


def test_on_batch_hears_of_a_batch_before_the_next_one_starts():
    events = []

    def compute(batch):
        events.append("compute")
        return squares(batch)

    Runtime(batch_tokens=6).map(compute, [3] * 4, 2, on_batch=lambda *_: events.append("kept"))
    assert events == ["compute", "kept"] * 2


def test_a_row_that_never_fits_is_not_reported_as_a_result():
    told = []

    def compute(batch):
        if 0 in batch:
            raise MemoryError
        return squares(batch)

    found = Runtime(batch_tokens=3).map(compute, [3] * 4, 2, on_batch=lambda rows, _: told.extend(rows.tolist()))
    assert np.isnan(found[0]).all() and sorted(told) == [1, 2, 3]


def test_only_the_main_process_shows_a_progress_bar_and_it_ends_at_all_rows(monkeypatch):
    bars = []

    def bar(*args, disable):
        bars.append((progress_bar(*args, disable=disable), disable))
        return bars[-1][0]

    progress_bar = batching.progress_bar
    monkeypatch.setattr(batching, "progress_bar", bar)
    on_ranks(2, lambda one: Runtime(batch_tokens=8, accelerator=one).map(squares, [4] * 21, 2, label="Scoring"))
    assert sorted(disabled for _, disabled in bars) == [False, True]
    assert [bar.n for bar, disabled in bars if not disabled] == [21]
    bars.clear()
    Runtime(batch_tokens=8).map(squares, [4] * 21, 2)
    assert bars[0][1], "no label, no bar"
    bars.clear()

    def compute(batch):
        if 3 in batch:
            raise MemoryError
        return squares(batch)

    Runtime(batch_tokens=8).map(compute, [4] * 21, 2, label="Scoring")
    assert bars[0][0].n == 21, "a row that never fits is done with too"


def test_sizes_are_rounded_up_in_bfloat16_on_a_cpu_only_and_never_beyond_the_limit():
    half, full = torch.zeros(1, dtype=torch.bfloat16), torch.zeros(1)
    elsewhere = SimpleNamespace(device=torch.device("cuda"), dtype=torch.bfloat16)
    assert [rounded(size, 8, half) for size in (0, 1, 8, 9)] == [0, 8, 8, 16]
    assert rounded(9, 8, full) == rounded(9, 8, elsewhere) == 9 and rounded(9, 8, half.to("meta")) == 16
    assert rounded(9, 8, half, most=12) == 12 and rounded(13, 8, half, most=12) == 13
    assert padded([np.array([1, 2]), np.array([3])], filler=7, width=4).tolist() == [[1, 2, 7, 7], [3, 7, 7, 7]]
