import numpy as np
import pytest

from hf_dataselect.engines.subset import cosine, exponential_distance, facility_location, top_k
from tests.shared_data import golden, golden_arrays


KERNELS = {"cosine": cosine, "euclidean": exponential_distance}


def unit_vectors(n, width=8, seed=0):
    vectors = np.random.default_rng(seed).normal(size=(n, width))
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def greedy(vectors, k, kernel):
    """The naive twin: every gain anew in every round; the first of equal gains wins. Also the two best gains."""
    vectors = np.asarray(vectors, np.float64)
    columns = [kernel(vectors, vectors[row : row + 1])[:, 0] for row in range(len(vectors))]
    covered, picked, gains, gaps = np.zeros(len(vectors)), [], [], []
    for _ in range(min(k, len(vectors))):
        gain = np.array([np.maximum(column - covered, 0).sum() for column in columns])
        gain[picked] = -1
        best = int(gain.argmax())
        picked.append(best)
        gains.append(gain[best])
        gaps.append(gain[best] - np.partition(gain, -2)[-2])
        covered = np.maximum(covered, columns[best])
    return picked, gains, gaps


@pytest.mark.parametrize("seed", range(5))
def test_top_k_is_the_head_of_a_full_sort(seed):
    draw = np.random.default_rng(seed)
    scores = draw.normal(size=500).astype(np.float32)
    order = sorted(range(500), key=lambda row: -float(scores[row]))
    for k in (1, 2, 37, 499, 500):
        assert top_k(scores, k).tolist() == order[:k]


@pytest.mark.parametrize("seed", range(5))
def test_of_equal_scores_the_earlier_row_comes_first_also_at_the_cut(seed):
    scores = np.random.default_rng(seed).integers(0, 4, 60).astype(np.float32)
    order = sorted(range(60), key=lambda row: (-scores[row], row))
    for k in range(61):
        assert top_k(scores, k).tolist() == order[:k]


def test_rows_without_a_finite_score_are_never_chosen():
    scores = np.array([np.nan, 1, np.inf, 3, -np.inf, 2, np.nan, -5])
    assert top_k(scores, 8).tolist() == [3, 5, 1, 7]
    assert top_k(scores, 2).tolist() == [3, 5]
    assert top_k(np.full(4, np.nan), 2).tolist() == []


@pytest.mark.parametrize("k, chosen", [(0, []), (-3, []), (3, [1, 0, 2]), (99, [1, 0, 2])])
def test_a_k_of_zero_or_beyond_the_rows_is_no_error(k, chosen):
    found = top_k(np.array([2.0, 3.0, 1.0]), k)
    assert found.tolist() == chosen and found.dtype == np.int64


def test_scores_of_any_real_dtype_keep_their_order():
    assert top_k(np.array([1, 3, 2]), 2).tolist() == [1, 2]
    # Two neighbours in float64 that a cut in float32 would make equal.
    assert top_k(np.array([1.0, 1.0 + 1e-12]), 1).tolist() == [1]


@pytest.mark.parametrize("kernel", KERNELS.values(), ids=KERNELS)
@pytest.mark.parametrize("seed", range(4))
def test_lazy_facility_location_is_the_greedy_one(kernel, seed):
    vectors = unit_vectors(70, seed=seed)
    picked, gains, _ = greedy(vectors, 70, kernel)
    rows, found = facility_location(vectors, 40, kernel, block=16)
    assert rows.tolist() == picked[:40] and rows.dtype == np.int64
    np.testing.assert_allclose(found, gains[:40], rtol=1e-12)


@pytest.mark.parametrize("kernel", KERNELS.values(), ids=KERNELS)
@pytest.mark.parametrize("seed", range(6))
def test_of_equal_gains_the_earlier_row_comes_first(kernel, seed):
    draw = np.random.default_rng(seed)
    vectors = unit_vectors(9, width=5, seed=seed)[draw.integers(0, 9, 64)]  # most rows have exact copies
    picked, _, gaps = greedy(vectors, 30, kernel)
    rows, _ = facility_location(vectors, 30, kernel, block=7)
    assert rows.tolist() == picked
    assert min(gaps[:8]) == 0, "no ties in the test data"
    firsts = [int(np.flatnonzero((vectors == vectors[row]).all(1))[0]) for row in rows[:8]]
    assert rows[:8].tolist() == firsts


def test_the_block_size_of_facility_location_does_not_matter():
    vectors = unit_vectors(50)
    found = [facility_location(vectors, 20, cosine, block=block)[0].tolist() for block in (1, 7, 50, 4096)]
    assert all(rows == found[0] for rows in found)


@pytest.mark.parametrize("k, size", [(0, 0), (12, 12), (99, 12)])
def test_facility_location_gives_each_row_once_and_no_more_than_there_are(k, size):
    rows, gains = facility_location(unit_vectors(12), k, cosine)
    assert sorted(set(rows.tolist())) == sorted(rows.tolist()) and len(rows) == len(gains) == size
    assert (np.diff(gains) <= 1e-12).all()


@pytest.mark.parametrize("case", [0, 1], ids=["euclidean", "cosine"])
def test_facility_location_picks_what_submodlib_picks(case):
    expected = golden("facility_location")["cases"][case]
    vectors = golden_arrays("facility_location_vectors")
    vectors = next(iter(vectors.values()))
    rows, gains = facility_location(vectors, expected["k"], KERNELS[expected["metric"]])
    assert rows.tolist() == expected["picks"]
    # The kernel of the reference is float32; gains of the euclidean one are differences of large sums.
    np.testing.assert_allclose(gains, expected["gains"], rtol=1e-5 if expected["metric"] == "cosine" else 1e-3)
