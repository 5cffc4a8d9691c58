"""Efficiency: the line, signed distances, the order and infeasible areas, as published and by hand."""

import math

import numpy as np
import pytest

from hf_dataselect.evaluation.comparison.efficiency import (
    BASE,
    INSTRUCTION_MINING,
    Line,
    infeasible_pairs,
    rank_by_efficiency,
)
from hf_dataselect.evaluation.comparison.published import Point, published, table
from tests.shared_data import golden


@pytest.fixture(params=["v1", "v2"])
def version(request) -> tuple[dict, list[Point]]:
    return golden("tedd")["versions"][request.param], [method.point for method in published(request.param)]


def test_the_line_is_the_published_one(version):
    found, points = version
    assert (BASE.slope, BASE.intercept) == pytest.approx((found["slope"], found["intercept"]), rel=1e-6)
    assert math.degrees(BASE.theta) == pytest.approx(found["angle_degrees"], rel=1e-6)
    assert math.cos(BASE.theta) == pytest.approx(found["cos_theta"], rel=1e-6)
    named = {point.name: point for point in points}
    assert Line.through(named["Instruction-Mining"], named["InstructionGPT-4"]) == BASE


def test_the_order_of_methods_is_the_published_one(version):
    found, points = version
    ranked = rank_by_efficiency(points)
    assert [item.point.name for item in ranked] == [item["method"] for item in found["efficiency_order"]]
    assert [item.rank for item in ranked] == [item["rank"] for item in found["efficiency_order"]]
    distances = [item["signed_distance"] for item in found["efficiency_order"]]
    assert [item.distance for item in ranked] == pytest.approx(distances, abs=1e-6)


def test_the_infeasible_pairs_are_the_published_ones(version):
    found, points = version
    assert [[k.name, j.name] for k, j in infeasible_pairs(points)] == found["infeasible_pairs"]


def test_the_shipped_table_holds_the_published_facts():
    for version, found in golden("tedd")["versions"].items():
        shipped = {row["method"]: row for row in table()[version]}
        for row in found["methods"]:
            row["code"] = row.pop("reproducible")
            assert row.items() <= shipped.pop(row["method"]).items()
        assert not shipped
    bridged = golden("tedd")["notes"]["published"]["bridged"]
    assert sorted(method.method for method in published() if method.estimated) == sorted(bridged)


def test_every_figure_that_does_not_follow_is_noted():
    notes = " ".join(table()["notes"])
    for item in golden("tedd")["notes"]["not_reproduced"]:
        assert item["method"] in notes and f"{item['printed']:g}" in notes


def test_an_unknown_version_is_refused():
    with pytest.raises(ValueError, match="`version='v3'` must be"):
        published("v3")


def test_the_distance_is_that_to_the_nearest_point_of_the_line():
    for x, y in np.random.default_rng(0).uniform(0, 2, (20, 2)):
        along = np.linspace(-5, 8, 200_001)
        nearest = np.hypot(along - x, BASE.at(along) - y).min()
        assert BASE.distance(Point("mine", x, y)) == pytest.approx(math.copysign(nearest, y - BASE.at(x)), abs=1e-6)


def test_own_runs_take_their_place_among_the_published():
    mine = [Point("best", 0.05, 1.9), Point("on the line", 0.5, BASE.at(0.5)), Point("IFD", 0.05, 1.747)]
    ranked = {item.point: item.rank for item in rank_by_efficiency([*(m.point for m in published()), *mine])}
    ifd = Point("IFD", 0.05, 1.747)
    assert ranked[mine[0]] == 1 and ranked[ifd] == 2  # of the same name and place as the published one
    assert ranked[mine[1]] == ranked[INSTRUCTION_MINING] == 5


def test_a_run_without_a_pir_comes_last_and_is_not_ranked():
    ranked = rank_by_efficiency([Point("none", 0.1, math.nan), Point("low", 0.1, 0.2)])
    assert [(item.point.name, item.rank) for item in ranked] == [("low", 1), ("none", None)]
    assert math.isnan(ranked[1].distance) and rank_by_efficiency([]) == []
    assert infeasible_pairs([Point("none", 0.1, math.nan), Point("low", 0.05, 0.2)]) == []


@pytest.mark.parametrize(
    "k, inside, outside",
    [
        # Below the line: to the right, between the horizontal and the parallel.
        ((0.1, 1.3), [(0.2, 1.35), (0.9, 1.31)], [(0.2, 1.3), (0.2, 1.29), (0.2, 1.45), (0.05, 1.28), (0.1, 1.3)]),
        # Above it: to the left as far as Instruction-Mining, between the chord to it and the parallel.
        ((0.1, 1.6), [(0.05, 1.5), (0.09, 1.58)], [(0.05, 1.45), (0.05, 1.54), (0.02, 1.45), (0.2, 1.75), (0.1, 1.6)]),
        # On it, and left of Instruction-Mining: no area.
        ((0.5, BASE.at(0.5)), [], [(0.6, 2.1), (0.4, 1.9)]),
        ((0.01, 1.6), [], [(0.005, 1.55), (0.02, 1.5), (0.02, 1.62)]),
    ],
)
def test_areas_by_hand(k, inside, outside):
    k = Point("k", *k)
    for j in inside + outside:
        assert ((k, Point("j", *j)) in infeasible_pairs([k, Point("j", *j)])) == (j in inside), j
