from collections import Counter

import numpy as np
import pytest
import torch

from hf_dataselect.engines import subset
from hf_dataselect.engines.subset import (
    cosine,
    diverse_filter,
    exponential_distance,
    facility_location,
    k_center,
    tag_cover,
    top_k,
)
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


# Diverse filter ------------------------------------------------------------------------------------------------------


def filtered(order, vectors, k, threshold):
    """The naive twin: one row at a time against each kept row, in float64."""
    kept = []
    for row in order:
        if len(kept) == k:
            break
        unit = vectors[row] / np.linalg.norm(vectors[row])
        if all(unit @ vectors[other] / np.linalg.norm(vectors[other]) <= threshold for other in kept):
            kept.append(row)
    return kept


def crowd(n, seed, width=6):
    """Vectors of any length in a few bundles, so that many are near each other."""
    draw = np.random.default_rng(seed)
    centres = draw.normal(size=(8, width))
    vectors = centres[draw.integers(0, 8, n)] + 0.35 * draw.normal(size=(n, width))
    return vectors * draw.uniform(0.1, 9, (n, 1))


@pytest.fixture(params=[True, False], ids=["bfloat16", "float32"])
def coarse_products(request, monkeypatch):
    """The filter with and without products in bfloat16, which torch has on any CPU, if not fast ones."""
    monkeypatch.setattr(subset, "has_fast_bfloat16", lambda device: request.param)


@pytest.mark.usefixtures("coarse_products")
@pytest.mark.parametrize("threshold", [0.5, 0.9, 0.99])
@pytest.mark.parametrize("block", [1, 3, 64])
@pytest.mark.parametrize("k", [None, 7, 60])
def test_the_diverse_filter_in_blocks_is_the_one_of_one_row_at_a_time(threshold, block, k):
    for seed in range(3):
        vectors, order = crowd(200, seed), np.random.default_rng(seed + 9).permutation(200)
        expected = filtered(order, vectors, k, threshold)
        found = diverse_filter(order, vectors, k, threshold, block)
        assert found.tolist() == expected and found.dtype == np.int64
        assert 1 < len(expected) < 200


@pytest.mark.usefixtures("coarse_products")
def test_the_diverse_filter_keeps_what_deitas_code_keeps():
    expected = golden("deita")["filter"]
    vectors = next(iter(golden_arrays("deita_filter_vectors").values()))
    order = np.argsort(-np.array(expected["final_score"]), kind="stable")
    # With a bigger batch the reference also rejects rows that are near to rejected ones.
    cases = [case for case in expected["cases"] if case["batch_size"] == 1]
    assert len(cases) == 6
    for case in cases:
        k = None if case["data_size"] < 0 else case["data_size"]
        for block in (1, 16, 1024):
            assert diverse_filter(order, vectors, k, case["threshold"], block).tolist() == case["kept"]


def test_a_bfloat16_product_is_off_by_no_more_than_is_allowed_for():
    draw = np.random.default_rng(0)
    for width in (1, 2, 24, 768):
        vectors = draw.normal(size=(300, width)) * draw.choice([1, 1e-3], (300, width))
        unit = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
        rough = torch.from_numpy(unit).to(torch.bfloat16)
        for row in range(0, 300, 7):
            exact = float(unit[row].astype(np.float64) @ unit[row - 1].astype(np.float64))
            found = subset._highest(unit[row : row + 1], rough[[row - 1]])
            assert abs(float(found[0]) - exact) < subset.COARSE


def test_a_row_is_compared_with_kept_rows_only():
    angles = np.deg2rad([0, 20, 40])  # neighbours are near each other, the ends are not
    chain = np.column_stack([np.cos(angles), np.sin(angles)])
    assert diverse_filter([0, 1, 2], chain, threshold=0.9).tolist() == [0, 2]
    assert diverse_filter([1, 0, 2], chain, threshold=0.9).tolist() == [1]


@pytest.mark.usefixtures("coarse_products")
def test_a_cosine_at_the_threshold_is_kept_and_a_hair_above_is_not():
    # The cosines are off the threshold by less than a float32 product can tell.
    draw = np.random.default_rng(0)
    base = draw.normal(size=(40, 384))
    base /= np.linalg.norm(base, axis=1, keepdims=True)
    other = draw.normal(size=(40, 384))
    other -= (other * base).sum(1, keepdims=True) * base
    other /= np.linalg.norm(other, axis=1, keepdims=True)
    wanted = 0.9 + np.where(np.arange(40) % 2, 3e-7, -3e-7)[:, None]
    pairs = np.stack([base, wanted * base + np.sqrt(1 - wanted**2) * other], 1).reshape(80, 384)
    for block in (1, 7, 80):
        kept = set(diverse_filter(np.arange(80), pairs, threshold=0.9, block=block).tolist())
        assert kept == {row for row in range(80) if row % 4 != 3}


def test_the_diverse_filter_asks_only_for_the_rows_it_comes_to():
    vectors, asked = unit_vectors(100, width=30), []

    def take(rows):
        asked.extend(rows.tolist())
        return vectors[rows]

    order = np.arange(100)[::-1]
    assert diverse_filter(order, take, 10, 0.9, block=16).tolist() == order[:10].tolist()
    assert asked == order[:16].tolist()


def test_rows_without_a_direction_are_never_kept():
    vectors = unit_vectors(5)
    vectors[1], vectors[3, 2] = 0, np.nan
    assert diverse_filter(range(5), vectors, threshold=1.0).tolist() == [0, 2, 4]


@pytest.mark.parametrize("k", [0, -2])
def test_a_diverse_filter_of_nothing_is_empty(k):
    assert diverse_filter(range(5), unit_vectors(5), k).tolist() == []
    assert diverse_filter([], unit_vectors(5)).tolist() == []


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


@pytest.mark.parametrize("seed", range(6))
def test_k_center_is_the_plain_greedy_one(seed):
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


def test_k_center_takes_copies_last_and_no_row_twice():
    vectors = unit_vectors(6)[[0, 1, 0, 2, 1, 3]]
    rows, radii = k_center(vectors, 99)
    assert sorted(rows.tolist()) == list(range(6)) and set(rows[-2:].tolist()) == {2, 4}
    np.testing.assert_allclose(radii[-3:], 0, atol=1e-6)


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


def test_tag_cover_of_rows_without_tags_ends():
    assert tag_cover([[], [], []], 2)[0].tolist() == []
    assert tag_cover([[], ["a"], []], 3)[0].tolist() == [1]
