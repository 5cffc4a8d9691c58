"""The subspace of a target's gradients agrees with GIST's code, and divides by nothing that is almost nothing."""

import numpy as np
import pytest
import torch

from hf_dataselect.engines.gradients.subspace import Subspace
from hf_dataselect.engines.subset.target_similarity import Target, highest, unit
from tests.shared_data import golden, golden_arrays


def groups_of(case: dict, rows: int) -> np.ndarray:
    """The authors' subtasks: consecutive rows; each row for itself where they do not divide."""
    count = case["subtasks"]
    return np.arange(rows) // (rows // count) if rows % count == 0 else np.arange(rows)


@pytest.mark.parametrize("number", range(4))
def test_agrees_with_the_authors_code(number):
    case, arrays = golden("gist")["cases"][number], golden_arrays("gist_gradients")
    similarity, weights = 0, np.array(case["checkpoint_weights"]) / sum(case["checkpoint_weights"])
    for train, val, weight in zip(case["train"], case["val"], weights, strict=True):
        space = Subspace(arrays[val], case["target_dim"])
        project = space.of([100, arrays[val].shape[1] - 100])
        out = torch.zeros(len(arrays[train]), project.width + project.extra)
        for piece, values in enumerate(torch.from_numpy(arrays[train]).split([100, arrays[val].shape[1] - 100], 1)):
            project.add(piece, values, out)
        np.testing.assert_allclose(out[:, -1].sqrt(), np.linalg.norm(arrays[train], axis=1), rtol=1e-5)
        target = Target(space.examples, groups_of(case, len(arrays[val])), "mean")
        similarity = similarity + weight * unit(out[:, :-1].numpy()) @ unit(target.vectors).T
    scores = highest(similarity)
    np.testing.assert_allclose(scores, case["score"], atol=1e-4)
    expected = np.array(case["score"])
    ours, theirs = np.argsort(-scores), np.argsort(-expected, kind="stable")
    moved = ours != theirs
    np.testing.assert_allclose(expected[ours[moved]], expected[theirs[moved]], atol=2e-4)


def test_repeated_examples_and_more_dimensions_than_examples_add_no_direction():
    random = np.random.default_rng(0)
    few, rows = random.normal(size=(6, 300)).astype(np.float32), random.normal(size=(40, 300)).astype(np.float32)
    noisy = np.concatenate([few, few * (1 + 1e-7 * random.normal(size=few.shape))]).astype(np.float32)
    once, twice, wide = Subspace(few, 6), Subspace(noisy, 12), Subspace(few, 150)
    assert (once.spanned, twice.spanned, wide.dim, wide.share) == (6, 6, 6, 1)
    found = [unit(rows @ space.basis.T) @ unit(space.examples[:6]).T for space in (once, twice, wide)]
    np.testing.assert_allclose(found[1], found[0], atol=1e-5)
    np.testing.assert_allclose(found[2], found[0], atol=1e-6)


def test_excluded_examples_span_nothing():
    few = np.random.default_rng(0).normal(size=(4, 50)).astype(np.float32)
    few[1] = np.nan
    space, without = Subspace(few, 2), Subspace(few[[0, 2, 3]], 2)
    assert np.isnan(space.examples[1]).all() and space.spanned == 3 and 0 < space.share < 1
    np.testing.assert_allclose(space.basis, without.basis, atol=1e-6)
    np.testing.assert_allclose(space.basis @ space.basis.T, np.eye(2), atol=1e-5)
