"""The diverse filter keeps what one row at a time keeps, however its products are made."""

import numpy as np
import pytest
import torch

from hf_dataselect.engines.subset import diverse_filter as diverse
from hf_dataselect.engines.subset.diverse_filter import diverse_filter
from tests.engines.subset.test_choose import unit_vectors
from tests.shared_data import golden, golden_arrays


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
    monkeypatch.setattr(diverse, "has_fast_bfloat16", lambda device: request.param)


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


def bundles(n, seed, width, directions):
    """Vectors that differ from each other in some directions much more than in the others, so that bounds tell."""
    draw = np.random.default_rng(seed)
    scale = np.where(np.arange(width) < directions, 1.0, 0.1)
    centres = draw.normal(size=(max(2, n // 4), width)) * scale
    return centres[draw.integers(0, len(centres), n)] + 0.4 * scale * draw.normal(size=(n, width))


@pytest.mark.usefixtures("coarse_products")
@pytest.mark.parametrize("threshold", [0.0, 0.5, 0.85, 0.95])
@pytest.mark.parametrize("width, directions", [(64, 5), (96, 96), (160, 30)])
@pytest.mark.parametrize("part", [1, 20, 2048])
def test_short_vectors_change_no_choice(width, directions, threshold, part, monkeypatch):
    monkeypatch.setattr(diverse, "PART", part)
    used, near = [], diverse._Kept.near

    def recorded(self, unit):
        used.append(self.directions is not None)
        return near(self, unit)

    monkeypatch.setattr(diverse._Kept, "near", recorded)
    vectors, order = bundles(300, 1, width, directions), np.random.default_rng(2).permutation(300)
    assert diverse_filter(order, vectors, None, threshold, 40).tolist() == filtered(order, vectors, None, threshold)
    if threshold != 0.5:
        assert set(used) == {threshold > 0}, "bounds are used where they can tell"


@pytest.mark.parametrize("width", [64, 384])
def test_the_product_of_short_vectors_is_never_below_the_cosine(width):
    unit = diverse._unit_rows(bundles(400, 3, width, width // 3))
    unit[1] = unit[0]  # nothing is left out between a row and itself
    kept = diverse._Kept(unit[:100], 0.99, torch.device("cpu"))
    short = kept._shortened(unit).astype(np.float64)
    assert short.shape == (400, width // 4)
    exact = unit.astype(np.float64) @ unit.astype(np.float64).T
    assert (short @ short.T > exact - diverse.DOUBT / 10).all()


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
            found = diverse._highest(rough[[row]], rough[[row - 1]])
            assert abs(float(found[0]) - exact) < diverse.COARSE


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
