"""Matchers agree with the code of arXiv 2602.14696, and do what they say of weights, ties and what can't be used."""

import numpy as np
import pytest

from hf_dataselect.engines.subset.matchers import for_target, round_robin
from hf_dataselect.engines.subset.target_similarity import Similarity, Target, highest
from hf_dataselect.engines.subset.transport import dense_neighbours, transported_mass, uniform_neighbours
from tests.shared_data import golden, golden_arrays


def ordered(mass: np.ndarray, k: int) -> list[int]:
    kept = np.lexsort((np.arange(len(mass)), -mass))[:k]
    return kept[mass[kept] > 0].tolist()


@pytest.mark.parametrize("number", [0, 1])
def test_agree_with_the_authors_code(number):
    case, arrays = golden("matchers")["cases"][number], golden_arrays("matchers_arrays")
    similarity, k = arrays[case["sim"]].T, case["k"]
    found = for_target(similarity, highest(similarity), k, "max")
    assert found.tolist() == case["doubly_greedy"]["picks"]
    assert round_robin(similarity, k, free=True).tolist() == case["round_robin"]["picks"]
    mass = transported_mass(similarity)
    np.testing.assert_allclose(mass, case["uot"]["mass"], rtol=1e-4)
    assert ordered(np.array([float(f"{value:.6e}") for value in mass]), k) == case["uot"]["picks"]
    weighted = zip(case["train"], case["checkpoint_weights"], strict=True)
    vectors = np.concatenate([np.sqrt(weight) * arrays[name] for name, weight in weighted], 1)
    for name, expected in case.items():
        if name.startswith("knn_uniform"):
            found = uniform_neighbours(similarity, alpha=float(expected["alpha"]))
            np.testing.assert_allclose(found, expected["probability"], rtol=1e-4, atol=1e-9)
            assert ordered(np.round(found, 9), k) == expected["picks"]
        elif name.startswith("knn_kde"):
            found = dense_neighbours(similarity, vectors, alpha=float(expected["alpha"]))
            np.testing.assert_allclose(found, expected["probability"], rtol=1e-4, atol=1e-9)
            # The reference sums in float32: rows that tie differ there in the 8th decimal.
            given = np.array(expected["probability"])
            assert ordered(np.round(found, 7), k) == ordered(np.round(given, 7), k)
            assert set(expected["picks"]) <= set(np.flatnonzero(found > found[expected["picks"][-1]] - 1e-7))
            assert np.count_nonzero(found > 1e-9) == expected["non_zero"]


#: Two columns and rows of a pool of which one has no similarity, and one copies another.
SIMILARITY = np.array([[0.9, 0.0], [0.8, 0.1], [0.8, 0.1], [0.1, 0.7], [0.0, 0.6], [np.nan] * 2], np.float32)
RULES = ["max", "round_robin", "round_robin_free", "optimal_transport", "knn_uniform", "knn_kde"]


@pytest.mark.parametrize("rule", RULES)
def test_every_rule_keeps_each_usable_row_once_and_no_other(rule):
    vectors = np.eye(6, dtype=np.float32)[[0, 1, 1, 3, 4, 5]]
    scores = highest(SIMILARITY)
    for k in (0, 1, 4, 5, 99):
        found = for_target(SIMILARITY, scores, k, rule, vectors=vectors).tolist()
        assert len(found) == len({*found}) == min(k, 5) and 5 not in found
    banned = np.where(np.arange(6) == 0, np.nan, scores)
    assert sorted(for_target(SIMILARITY, banned, 9, rule, vectors=vectors).tolist()) == [1, 2, 3, 4]
    with_empty = np.column_stack([SIMILARITY, np.full(6, np.nan)])
    whole = for_target(SIMILARITY, scores, 3, rule, vectors=vectors).tolist()
    assert for_target(with_empty, scores, 3, rule, vectors=vectors).tolist() == whole
    one = SIMILARITY[:, :1]
    assert for_target(one, one[:, 0], 3, rule, vectors=vectors).tolist() == [0, 1, 2]
    assert for_target(one, one[:, 0], 2, rule, np.arange(6)[::-1], vectors=vectors).tolist() == [0, 2]
    assert len(for_target(SIMILARITY[:1], scores[:1], 3, rule, vectors=vectors)) == 1
    assert len(for_target(SIMILARITY[5:], scores[5:], 3, rule, vectors=vectors)) == 0


def test_weights_share_turns_and_mass():
    scores, heavy = highest(SIMILARITY), np.array([1.0, 3.0])
    for free in (False, True):
        found = round_robin(SIMILARITY, 2, weights=heavy, free=free).tolist()
        assert found == [3, 4] and round_robin(SIMILARITY, 2, free=free).tolist() == [0, 3]
        np.testing.assert_array_equal(
            round_robin(SIMILARITY, 5, weights=np.array([2.0, 2.0]), free=free), round_robin(SIMILARITY, 5, free=free)
        )
    mass = transported_mass(SIMILARITY, scores, heavy)
    assert mass.sum() == pytest.approx(1) and mass[3:5].sum() == pytest.approx(0.75, abs=0.01)
    assert uniform_neighbours(SIMILARITY, weights=heavy, alpha=0.95)[3:5].sum() == pytest.approx(0.75)
    vectors = np.eye(6, dtype=np.float32)
    assert dense_neighbours(SIMILARITY, vectors, weights=heavy)[3:5].sum() == pytest.approx(0.75)


def test_copies_share_what_one_of_them_would_get_by_density_only():
    vectors = np.random.default_rng(0).normal(size=(200, 16)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    copied = np.concatenate([vectors, np.repeat(vectors[:1], 9, 0)])
    target = Target(vectors[:1] + 0.1 * vectors[1:4], np.arange(3), "max")
    alone, crowd = (dense_neighbours(Similarity(rows, target), rows, alpha=0.9) for rows in (vectors, copied))
    assert crowd[[0, *range(200, 209)]].sum() == pytest.approx(alone[0], rel=0.2)
    crowd = uniform_neighbours(Similarity(copied, target), alpha=0.95)
    assert crowd[[0, *range(200, 209)]].sum() > 0.5


def test_a_row_that_another_column_took_costs_a_turn_or_not():
    similarity = np.array([[0.9, 0.9], [0.8, 0.1], [0.1, 0.5], [0.2, 0.4]])
    assert round_robin(similarity, 3).tolist() == [0, 1, 2]
    assert round_robin(similarity, 3, free=True).tolist() == [0, 2, 1]
    assert round_robin(similarity, 3, free=True, ties=np.arange(4)[::-1]).tolist() == [0, 2, 1]
    many = np.tile(np.linspace(1, 0, 300)[:, None], (1, 7))  # all columns want the same rows
    assert round_robin(many, 100, free=True).tolist() == round_robin(many, 100).tolist() == list(range(100))
