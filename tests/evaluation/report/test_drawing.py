"""Pictures of the report: labels that do not overlap, names that are drawn as they are."""

from itertools import combinations

import numpy as np

from hf_dataselect.evaluation.comparison.comparison import add_rows, compare_runs
from hf_dataselect.evaluation.report import drawing
from hf_dataselect.evaluation.report.drawing import axes, label_points, spread, style
from hf_dataselect.evaluation.report.picture import draw
from hf_dataselect.evaluation.report.section import abridged
from tests.reported_runs import candidates, make_run


def test_names_beside_points_cover_neither_each_other_nor_points():
    rng = np.random.default_rng(0)
    points = [(0.05, value) for value in rng.uniform(1, 1.1, 12)] + [
        tuple(point) for point in rng.uniform(0, 1, (20, 2))
    ]
    with style():
        figure, axis = axes(4.4)
        axis.plot(*zip(*points, strict=True), "o", markersize=4)
        label_points(axis, points, [f"method {i}" for i in range(len(points))], ["black"] * len(points), [])
    boxes = [text.get_window_extent() for text in axis.texts if text.get_text()]
    assert len(boxes) == len(points)
    assert not any(one.overlaps(other) for one, other in combinations(boxes, 2))
    centres = axis.transData.transform(points)
    assert not any(box.contains(*centre) for box in boxes for centre in centres)


def test_positions_are_spread_in_order_and_no_further_than_needed():
    found = spread([0.5, 0.5, 0.5, 0.0, 2.0], 0.1)
    np.testing.assert_allclose(found, [0.4, 0.5, 0.6, 0.0, 2.0])
    np.testing.assert_allclose(spread([0.3, 0.1], 0.1), [0.3, 0.1])
    assert len(spread([], 0.1)) == 0


def test_names_that_matplotlib_would_read_as_something_else_are_drawn(tmp_path):
    runs = [make_run(tmp_path / "full"), make_run(tmp_path / "$ifd_{$", "ifd", 1.5, noise=0.1, rows=[1, 2])]
    rows = candidates()
    values = ["_hidden", r"$\frac{1$", *(f"group {i} " + "with a long name " * 5 for i in range(10))]
    dataset = rows.dataset.remove_columns("fault").add_column("fault", values)
    found = compare_runs(runs)
    for group in found.groups:
        del group.selection.facts["dataset"]
    add_rows(found, type(rows)(dataset), "fault")
    (picture,) = (picture for picture in draw(found) if picture.name == "tallies")
    legend = [text.get_text() for text in picture.figure.legends[0].get_texts()]
    assert legend[:2] == [" _hidden", r"$\frac{1$"] and legend[-1] == "others" and len(legend) == 7
    assert all(len(text) <= 24 for text in legend) and picture.svg


def test_a_name_is_abridged_in_its_middle():
    assert abridged("x" * 20, 20) == "x" * 20
    assert abridged("InstructionFollowing-60-seed0", 20) == "Instructi…g-60-seed0"
    assert len(abridged("a" * 50, 21)) == 21 and drawing.WIDTH * 96 < 390 * 1.1
