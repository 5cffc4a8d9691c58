"""The estimated error of projected similarities against the measured one, over many projections."""

import numpy as np
import pytest
import torch

from hf_dataselect.engines.gradients.projection import Projection
from hf_dataselect.engines.gradients.projection_error import KEEPS, PILOT, WIDTHS, ProjectionError, narrowest
from hf_dataselect.engines.gradients.quantized import rank_correlation


SIZES, DIM, WEIGHTS = [1500, 300, 900, 1500], 128, [0.5, 0.3, 0.2]


def unit(vectors):
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def checkpoints(alike: float, shared: float, spread: float):
    """
    Unit vectors of 40 rows and means of two groups of target rows at three checkpoints: `alike`, what rows keep from
    one to the next; `shared`, what all rows have in common; `spread`, how unequal coordinates are.
    """
    draw, size = np.random.default_rng(0), sum(SIZES)
    scale = np.exp(spread * draw.normal(size=size))
    base, target, common = (draw.normal(size=(n, size)) * scale for n in (40, 6, 1))
    for weight in WEIGHTS:
        rows, examples = (
            alike * x + (1 - alike**2) ** 0.5 * draw.normal(size=x.shape) * scale for x in (base, target)
        )
        yield weight, unit(unit(rows) + shared * unit(common)), unit(examples + 0.3 * rows[:6])


def projected(vectors, settings):
    projector = settings.of(SIZES)
    out = torch.zeros(len(vectors), DIM)
    for piece, part in enumerate(torch.from_numpy(vectors).float().split(SIZES, 1)):
        projector.add(piece, part, out)
    return unit(out.numpy())


def means(vectors):
    return vectors.reshape(2, 3, -1).mean(1)


@pytest.mark.parametrize("kind", ["sketch", "rademacher"])
@pytest.mark.parametrize(
    ("alike", "shared", "spread"), [(0, 0, 0), (1, 0, 0), (0.7, 3, 0), (0.9, 0.5, 1), (1, 3, 0.5)]
)
def test_the_estimate_is_the_measured_error(kind, alike, shared, spread):
    given, errors, estimates = list(checkpoints(alike, shared, spread)), [], []
    exact = sum(weight * rows @ means(examples).T for weight, rows, examples in given)
    for seed in range(25):
        settings, found, error = Projection(kind, DIM, seed), 0, ProjectionError(DIM)
        for weight, rows, examples in given:
            small, target = projected(rows, settings), means(projected(examples, settings))
            found = found + weight * small @ target.T
            error.add(weight, small.astype(np.float16), target)
        apart = found - exact
        errors.append(np.square(apart - apart.mean(0)).mean(0))  # an error that all rows share reorders none
        estimates.append(error.of_groups())
    ratio = np.mean(estimates, 0) / np.sqrt(np.mean(errors, 0))
    assert (ratio > 0.75).all() and (ratio < 1.4).all(), ratio


def test_groups_that_compete_err_by_what_all_rows_share_too():
    draw, errors, estimates = np.random.default_rng(0), [], []
    common, base, target = (unit(draw.normal(size=(n, sum(SIZES)))) for n in (1, 40, 2))
    rows = unit(8 * common + 3 * np.tile(target, (20, 1)) + base)  # each group is the nearest to every other row
    for seed in range(150):
        settings, error = Projection("sketch", DIM, seed), ProjectionError(DIM)
        small = [projected(vectors, settings) for vectors in (rows, target)]
        error.add(1.0, *small)
        errors.append(((small[0] @ small[1].T).max(1) - (rows @ target.T).max(1)).var())
        estimates.append([error.of_groups(compete=compete).mean() for compete in (False, True)])
    alone, competing = np.mean(estimates, 0) / np.sqrt(np.mean(errors))
    assert alone < 0.6 and 0.8 < competing < 1.25, (alone, competing)


def test_errors_average_out_over_checkpoints_that_differ_and_not_over_those_that_are_alike():
    found = []
    for alike in (0, 1):
        error = ProjectionError(DIM)
        for weight, rows, examples in checkpoints(alike, 0, 0):
            settings = Projection(dim=DIM)
            error.add(weight, projected(rows, settings), means(projected(examples, settings)))
        found.append(error.of_groups())
    np.testing.assert_allclose(found[0] / found[1], np.sqrt(np.square(WEIGHTS).sum()), rtol=0.1)


def test_unusable_rows_do_not_count_and_one_row_tells_nothing():
    draw = np.random.default_rng(0)
    rows, target = unit(draw.normal(size=(9, DIM))), unit(draw.normal(size=(2, DIM)))
    found = []
    for sample in (rows, np.concatenate([rows, np.full((3, DIM), np.nan)])):
        error = ProjectionError(DIM)
        error.add(1.0, sample, target)
        found.append(error.of_groups())
    np.testing.assert_array_equal(*found)
    error = ProjectionError(DIM)
    error.add(1.0, rows[:1], target)
    assert np.isnan(error.of_groups()).all()


def test_the_narrowest_width_keeps_the_ranking_and_the_one_below_does_not():
    draw, rows = np.random.default_rng(0), 2000
    for signal, error in ((1, 0.05), (1, 0.3), (1, 1)):  # at the pilot's width
        width, expected = narrowest((signal**2 + error**2) ** 0.5, error)
        exact = signal * draw.normal(size=rows)
        kept = [
            rank_correlation(exact, exact + draw.normal(size=rows) * error * (PILOT / dim) ** 0.5)
            for dim in (width, width // 2)
        ]
        assert expected == pytest.approx(kept[0], abs=0.02)
        assert kept[0] > KEEPS - 0.02 and (kept[1] < KEEPS + 0.01 or width == WIDTHS[0])
    assert narrowest(1.0, 0.01)[0] == WIDTHS[0]
    assert narrowest(1.0, 1.1) == (WIDTHS[-1], 0)  # no difference that is not error
    assert narrowest(0.0, 0.0)[0] == WIDTHS[-1] and narrowest(float("nan"), float("nan"))[0] == WIDTHS[-1]
