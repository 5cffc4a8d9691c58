from collections import Counter

import numpy as np
import pytest

from hf_dataselect.engines.store import vector_store
from hf_dataselect.engines.subset import choose as subset
from hf_dataselect.engines.subset.choose import (
    cosine,
    exponential_distance,
    facility_location,
    k_center,
    top_k,
)
from hf_dataselect.engines.subset.percentile import percentile
from hf_dataselect.engines.subset.tag_coverage import tag_cover
from tests.shared_data import golden, golden_arrays


KERNELS = {"cosine": cosine, "euclidean": exponential_distance}


@pytest.fixture(params=[subset.MATRIX_BYTES, 0], ids=["matrix", "as needed"])
def both_ways(request, monkeypatch):
    """Facility location with a matrix of all similarities, and without."""
    monkeypatch.setattr(subset, "MATRIX_BYTES", request.param)


def unit_vectors(n, width=8, seed=0):
    vectors = np.random.default_rng(seed).normal(size=(n, width))
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def greedy(vectors, k, kernel):
    """
    The naive twin: every gain anew in every round; the first of those that are equal up to rounding wins. Also the gap
    between the two best gains.
    """
    vectors = np.asarray(vectors, np.float64)
    columns = [kernel(vectors, vectors[row : row + 1])[:, 0] for row in range(len(vectors))]
    covered, picked, gains, gaps = np.zeros(len(vectors)), [], [], []
    for _ in range(min(k, len(vectors))):
        gain = np.array([np.maximum(column - covered, 0).sum() for column in columns])
        gain[picked] = -1
        best = int(np.flatnonzero(gain >= gain.max() - 1e-8 * (1 + gain.max()))[0])
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
def test_lazy_facility_location_is_the_greedy_one(kernel, seed, both_ways):
    vectors = unit_vectors(70, seed=seed)
    picked, gains, _ = greedy(vectors, 70, kernel)
    rows, found = facility_location(vectors, 40, kernel, block=16)
    assert rows.tolist() == picked[:40] and rows.dtype == np.int64
    # The root of a distance to itself, about 0, differs by 1e-8 between a product of a block and one of a row.
    np.testing.assert_allclose(found, gains[:40], rtol=1e-12, atol=1e-12 if kernel is cosine else 1e-8)


@pytest.mark.parametrize("kernel", KERNELS.values(), ids=KERNELS)
@pytest.mark.parametrize("seed", range(6))
def test_of_equal_gains_the_earlier_row_comes_first(kernel, seed, both_ways):
    draw = np.random.default_rng(seed)
    vectors = unit_vectors(9, width=5, seed=seed)[draw.integers(0, 9, 64)]  # most rows have exact copies
    picked, _, gaps = greedy(vectors, 30, kernel)
    rows, _ = facility_location(vectors, 30, kernel, block=7)
    assert rows.tolist() == picked
    assert min(gaps[:8]) == 0, "no ties in the test data"
    firsts = [int(np.flatnonzero((vectors == vectors[row]).all(1))[0]) for row in rows[:8]]
    assert rows[:8].tolist() == firsts


def test_the_block_size_of_facility_location_does_not_matter(both_ways):
    vectors = unit_vectors(50)
    found = [facility_location(vectors, 20, cosine, block=block)[0].tolist() for block in (1, 7, 50, 4096)]
    assert all(rows == found[0] for rows in found)


@pytest.mark.parametrize("k, size", [(0, 0), (12, 12), (99, 12)])
def test_facility_location_gives_each_row_once_and_no_more_than_there_are(k, size):
    rows, gains = facility_location(unit_vectors(12), k, cosine)
    assert sorted(set(rows.tolist())) == sorted(rows.tolist()) and len(rows) == len(gains) == size
    assert (np.diff(gains) <= 1e-12).all()


@pytest.mark.parametrize("patience", [0, 1 / 16, 10])
@pytest.mark.parametrize("kernel", KERNELS.values(), ids=KERNELS)
def test_facility_location_takes_no_row_twice_where_nothing_is_left_to_gain(kernel, patience, monkeypatch, both_ways):
    monkeypatch.setattr(subset, "PATIENCE", patience)
    copies = np.repeat(unit_vectors(3), 20, axis=0)
    rows, _ = facility_location(copies, 60, kernel, block=7)
    assert sorted(rows.tolist()) == list(range(60)) and rows.tolist() == greedy(copies, 60, kernel)[0]


@pytest.mark.parametrize("patience", [0, 1 / 16, 10])
@pytest.mark.parametrize("seed", range(3))
def test_when_all_gains_are_corrected_does_not_matter(seed, patience, monkeypatch, both_ways):
    monkeypatch.setattr(subset, "PATIENCE", patience)
    monkeypatch.setattr(subset, "AT_A_TIME", 5)
    vectors = unit_vectors(150, width=30, seed=seed)
    assert facility_location(vectors, 60, cosine, block=40)[0].tolist() == greedy(vectors, 60, cosine)[0]


@pytest.mark.parametrize("case", [0, 1], ids=["euclidean", "cosine"])
def test_facility_location_picks_what_submodlib_picks(case, both_ways):
    expected = golden("facility_location")["cases"][case]
    vectors = golden_arrays("facility_location_vectors")
    vectors = next(iter(vectors.values()))
    rows, gains = facility_location(vectors, expected["k"], KERNELS[expected["metric"]])
    assert rows.tolist() == expected["picks"]
    # The kernel of the reference is float32; gains of the euclidean one are differences of large sums.
    np.testing.assert_allclose(gains, expected["gains"], rtol=1e-5 if expected["metric"] == "cosine" else 1e-3)


# k-center ------------------------------------------------------------------------------------------------------------


def centers(vectors, k, first):
    """The naive twin: all distances to all picked rows anew in each round."""
    picked, radii = list(first), []
    while True:
        nearest = np.linalg.norm(vectors[:, None] - vectors[None, picked], axis=2).min(1)
        radii.append(nearest.max())
        if len(picked) >= min(k, len(vectors)):
            return picked, radii
        nearest[picked] = -1
        picked.append(int(nearest.argmax()))


@pytest.mark.parametrize("farthest", [4096, 7])
@pytest.mark.parametrize("seed", range(6))
def test_k_center_is_the_plain_greedy_one(seed, farthest, monkeypatch):
    monkeypatch.setattr(subset, "FARTHEST", farthest)
    monkeypatch.setattr("hf_dataselect.engines.store.vector_store.READ", 100 * farthest)  # 80 rows or more, or 28
    vectors = np.random.default_rng(seed).normal(size=(80, 5)) + 100 * (seed % 2)
    for k, first in ((25, [3]), (80, [0]), (10, [5, 17, 4])):
        picked, radii = centers(vectors, k, first)
        rows, found = k_center(vectors, k, first)
        assert rows.tolist() == picked and rows.dtype == np.int64
        np.testing.assert_allclose(found, radii, rtol=1e-7, atol=1e-6)


@pytest.mark.parametrize("case", [0, 1])
def test_k_center_picks_what_mods_picks(case):
    expected = golden("mods")["cases"][case]
    vectors = golden_arrays("mods_vectors")[expected["vectors"]]
    rows, radii = k_center(vectors, expected["k"], [expected["first_centre"]])
    assert rows.tolist() == expected["picks"]
    np.testing.assert_allclose(radii, expected["radius"], rtol=1e-4)
    given = expected["with_given_centres"]
    rows, _ = k_center(vectors, len(given["given"]) + given["k_more"], given["given"])
    assert rows.tolist() == given["picks"]


def test_k_center_reads_blocks(monkeypatch):
    vectors = np.random.default_rng(0).normal(size=(300, 5))
    vectors[200] = vectors[100]
    whole = k_center(vectors, 40, [7, 250])
    monkeypatch.setattr(vector_store, "READ", 5 * 32)
    rows, radii = k_center(vectors, 40, [7, 250])
    assert rows.tolist() == whole[0].tolist()
    np.testing.assert_allclose(radii, whole[1])


def test_k_center_takes_copies_last_and_no_row_twice():
    vectors = unit_vectors(6)[[0, 1, 0, 2, 1, 3]]
    rows, radii = k_center(vectors, 99)
    assert sorted(rows.tolist()) == list(range(6)) and set(rows[-2:].tolist()) == {2, 4}
    np.testing.assert_allclose(radii[-3:], 0, atol=1e-6)


def test_k_center_updates_all_rows_seldom(monkeypatch):
    monkeypatch.setattr(subset, "FARTHEST", 50)
    vectors, reads = np.random.default_rng(0).normal(size=(400, 8)), []

    class Counted:
        shape, dtype = vectors.shape, vectors.dtype

        def __getitem__(self, rows):
            reads.append(len(vectors[rows]))
            return vectors[rows]

    rows, _ = k_center(Counted(), 60)
    assert rows.tolist() == centers(vectors, 60, [0])[0]
    assert reads.count(400) < 30  # two for mean and lengths


# Tag cover -----------------------------------------------------------------------------------------------------------


def covered(tags, k):
    """The naive twin: the paper's loop, word for word."""
    left = sorted(range(len(tags)), key=lambda row: -len(set(tags[row])))
    picked, passes = [], []
    while len(picked) < k:
        seen, took = set(), []
        for row in left:
            if len(seen | set(tags[row])) > len(seen) and len(picked) + len(took) < k:
                seen |= set(tags[row])
                took.append(row)
        if not took:
            break
        picked += took
        passes.append(len(took))
        left = [row for row in left if row not in took]
    return picked, passes


@pytest.mark.parametrize("seed", range(8))
def test_tag_cover_is_the_papers_loop(seed):
    draw = np.random.default_rng(seed)
    tags = [draw.choice(list("abcdefghijkl")[: 3 + seed], draw.integers(0, 5)).tolist() for _ in range(70)]
    for k in (0, 1, 5, 30, 70, 100):
        rows, passes = tag_cover(tags, k)
        assert (rows.tolist(), passes) == covered(tags, k) and rows.dtype == np.int64
    assert Counter(rows.tolist()) == Counter(row for row in range(70) if tags[row])


@pytest.mark.parametrize("case", range(3))
def test_tag_cover_picks_what_the_papers_rule_picks(case):
    case = golden("instag")["cases"][case]
    for expected in case["picks"]:
        rows, passes = tag_cover(case["tags"], expected["k"])
        assert rows.tolist() == expected["picks"] and passes == expected["rows_per_pass"]


def test_tag_cover_of_many_passes():
    """One row a pass: a loop that looks at all rows left would look at 200 million."""
    n = 20_000
    rows, passes = tag_cover([["common"]] * n, n)
    assert rows.tolist() == list(range(n)) and passes == [1] * n


def test_tag_cover_of_rows_without_tags_ends():
    assert tag_cover([[], [], []], 2)[0].tolist() == []
    assert tag_cover([[], ["a"], []], 3)[0].tolist() == [1]


@pytest.mark.parametrize("numbers", [1, 5, 4000])
@pytest.mark.parametrize("q", [0, 37.5, 50, 100])
def test_a_percentile_of_parts_is_that_of_all(numbers, q):
    draw = np.random.default_rng(numbers)
    values = np.abs(draw.normal(size=numbers) * 10.0 ** draw.integers(-8, 8, numbers)).astype(np.float32)
    values[: numbers // 3] = draw.integers(0, 3)  # copies
    assert percentile(lambda: np.split(values, range(700, numbers, 700)), q) == np.percentile(values, q)
    assert np.isnan(percentile(list, q))
    assert percentile(lambda: [np.array([1, np.inf, 2], np.float32)], 50) == 2
