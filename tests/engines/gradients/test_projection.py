import subprocess
import sys

import numpy as np
import pytest
import torch

from hf_dataselect.engines.gradients import projection
from hf_dataselect.engines.gradients.projection import Projection


SIZES = [300, 64, 1000, 7]
KINDS = ["sketch", "rademacher"]


def vectors(rows=4, sizes=SIZES, seed=0, spread=0.0):
    """Random vectors; `spread` makes some coordinates, the same in each piece and row, far heavier than others."""
    draw = np.random.default_rng(seed)
    pieces = [
        draw.normal(size=(rows, size)) * np.exp(spread * np.random.default_rng(9).normal(size=size)) for size in sizes
    ]
    return torch.from_numpy(np.concatenate(pieces, 1)).float()


def projected(settings, values, sizes=SIZES, order=None):
    projector = settings.of(sizes)
    out = torch.zeros(len(values), projector.width)
    pieces = values.split(sizes, 1)
    for piece in order or range(len(sizes)):
        projector.add(piece, pieces[piece], out)
    return out


def matrix(settings, sizes=SIZES):
    """The whole projection, as what it makes of every unit vector."""
    return projected(settings, torch.eye(sum(sizes)), sizes)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dim", [1, 50, 64, 200, 5000])
def test_equals_the_product_with_its_whole_matrix_in_any_order_of_pieces(kind, dim):
    settings, values = Projection(kind, dim), vectors()
    whole = matrix(settings)
    expected = values.double() @ whole.double()
    for order in (None, [3, 1, 0, 2]):
        np.testing.assert_allclose(projected(settings, values, order=order), expected, rtol=1e-4, atol=1e-4)
    if kind == "rademacher":
        np.testing.assert_allclose(whole.abs(), dim**-0.5, rtol=1e-6)
        assert abs(float(whole.sign().mean())) < 5 / whole.numel() ** 0.5
    else:
        assert (whole != 0).sum(1).eq(1).all() and whole.abs().sum(1).eq(1).all(), "one sign in one bucket"
        assert (whole.abs().sum(0) >= sum(size // dim for size in SIZES)).all(), "no bucket is forgotten"
        for piece in whole.split(SIZES):
            for run in piece.split(dim):
                assert run.abs().sum(0).max() <= 1, "no two of a run share a bucket"


def test_none_keeps_everything():
    values = vectors()
    assert torch.equal(projected(Projection("none"), values), values)


@pytest.mark.parametrize("kind", KINDS)
def test_the_dense_stream_does_not_depend_on_how_it_is_cut(kind, monkeypatch):
    settings, values = Projection(kind, 100), vectors()
    expected = projected(settings, values)
    monkeypatch.setattr(projection, "BLOCK", 1)
    monkeypatch.setattr(projection, "KEPT_SIGNS", 0)
    np.testing.assert_allclose(projected(settings, values), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_other_processes_see_the_same_projection_and_other_seeds_another(kind):
    code = (
        "import sys; from tests.engines.gradients.test_projection import *; "
        f"torch.manual_seed(5); found = projected(Projection({kind!r}, 96, seed=3), vectors()); "
        "sys.stdout.buffer.write(found.numpy().tobytes())"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout
    here = projected(Projection(kind, 96, seed=3), vectors())
    assert found == here.numpy().tobytes()
    assert not torch.equal(projected(Projection(kind, 96, seed=4), vectors()), here)


def test_the_stream_is_pinned():
    # What other machines stored would mean nothing otherwise.
    found = projected(Projection("rademacher", 8), torch.eye(4), [4]).sign().int().tolist()
    assert found == PINNED_DENSE
    sketch = projected(Projection("sketch", 8), torch.eye(4), [4])
    assert [
        [int(row.argmax(-1) if row.max() > 0 else row.argmin(-1)), int(row.sum())] for row in sketch
    ] == PINNED_SKETCH


PINNED_DENSE = [
    [-1, 1, -1, -1, -1, -1, 1, -1],
    [-1, 1, 1, -1, -1, -1, 1, 1],
    [-1, 1, 1, -1, 1, 1, 1, 1],
    [1, -1, -1, -1, -1, 1, -1, 1],
]
PINNED_SKETCH = [[6, -1], [5, -1], [1, -1], [2, -1]]


@pytest.mark.parametrize("spread", [0.0, 2.0])
@pytest.mark.parametrize("kind", KINDS)
def test_inner_products_are_right_on_average_and_err_as_much_as_said(kind, spread):
    values, dim = vectors(8, spread=spread), 128
    exact = (values @ values.T).double()
    seeds = range(200)
    found = torch.stack([(p := projected(Projection(kind, dim, seed), values)) @ p.T for seed in seeds]).double()
    squares = values.double() ** 2
    norms = squares.sum(1)
    variance = (norms[:, None] * norms + exact**2 - 2 * squares @ squares.T) / dim
    mean, error = found.mean(0), (found - exact).square().mean(0)
    assert ((mean - exact).abs() < 5 * (variance / len(seeds)).sqrt()).all(), "no bias"
    upper = torch.triu(torch.ones_like(error), 1) > 0
    ratio = float((error[upper] / variance[upper]).mean())
    assert ratio < 1.15, ratio
    if kind == "rademacher":
        assert ratio > 0.85, ratio


@pytest.mark.parametrize(
    ("options", "message"), [({"kind": "srht"}, "`projection`: kind='srht'"), ({"dim": 0}, "`projection`: dim=0")]
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Projection(**options)
