"""
Efficiency: which method gets more out of the rows it keeps, when each keeps another part of them (paper, section 6.1).

A method is a point in the plane (SDF, PIR), PIR being of the kind wins rate. As rows of one quality are added, PIR is
assumed to rise along a curve, and a better method's curve to be steeper everywhere. The line through
Instruction-Mining and InstructionGPT-4, two methods that choose alike, stands for one such curve (`l_base`), and a
method's efficiency is its distance to that line, above it positive:

    distance = (PIR - slope * SDF - intercept) * cos(theta),   theta: angle between the line and the SDF axis

That is the distance of a point to a line. The paper's Eq. 6 prints cos(90 degrees - theta), which would be right for
the angle to the PIR axis; both keep the order. Two methods can't be told apart where one lies in the area that the
other's curve may run through: its infeasible area (appendix A.3), see [`infeasible_pairs`].
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.stats import rankdata

from .published import Point, published


#: Distances are equal to so many decimals: the two methods that the line goes through lie on it.
_DECIMALS = 9


@dataclass(frozen=True)
class Line:
    """PIR = slope * SDF + intercept."""

    slope: float
    intercept: float

    @classmethod
    def through(cls, a: Point, b: Point) -> "Line":
        """The line through two points that differ in SDF."""
        slope = (b.pir - a.pir) / (b.sdf - a.sdf)
        return cls(slope, a.pir - slope * a.sdf)

    @property
    def theta(self) -> float:
        """Angle to the SDF axis, in radians."""
        return math.atan(self.slope)

    def at(self, sdf: float) -> float:
        """PIR on the line."""
        return self.slope * sdf + self.intercept

    def distance(self, point: Point) -> float:
        """Signed distance of a point, positive above the line."""
        return round((point.pir - self.at(point.sdf)) * math.cos(self.theta), _DECIMALS)


_POINTS = {method.method: method.point for method in published()}
INSTRUCTION_MINING = _POINTS["Instruction-Mining"]
#: The paper's `l_base`.
BASE = Line.through(INSTRUCTION_MINING, _POINTS["InstructionGPT-4"])


class Efficiency(NamedTuple):
    """
    A method's place.

    Args:
        point ([`Point`]):
            The method.
        distance (`float`):
            Signed distance to the line.
        rank (`int`, *optional*):
            Dense rank, 1 is the most efficient; `None` without a PIR.
    """

    point: Point
    distance: float
    rank: int | None


def rank_by_efficiency(points: Iterable[Point], line: Line = BASE) -> list[Efficiency]:
    """
    Methods in the order of their efficiency.

    Args:
        points (`Iterable[Point]`):
            Published ones, the user's own, or both.
        line ([`Line`], *optional*, defaults to the paper's `l_base`):
            What the distances are measured to.

    Returns:
        `list[Efficiency]`: best first, equal ones by name; points without a PIR last and unranked.
    """
    points = list(points)
    distances = np.array([line.distance(point) for point in points])
    ranks = rankdata(-distances, method="dense", nan_policy="omit")
    found = [
        Efficiency(point, float(distance), None if np.isnan(rank) else int(rank))
        for point, distance, rank in zip(points, distances, ranks, strict=True)
    ]
    return sorted(found, key=lambda item: (item.rank or math.inf, item.point.name))


def infeasible_pairs(points: Iterable[Point], line: Line = BASE) -> list[tuple[Point, Point]]:
    """
    Which methods can't be told apart by their distance: pairs `(k, j)` where `j` lies in the infeasible area of `k`.

    Below the line the area of `k` is to its right, between the horizontal (more rows of the same quality don't make a
    model worse) and the parallel to the line. Above it, it is to the left, between the parallel and the chord to
    Instruction-Mining (curves do not cross), as far as that reaches. Borders are outside, and a method on the line has
    no area.

    Args:
        points (`Iterable[Point]`):
            Methods; those without a PIR have no place.
        line ([`Line`], *optional*, defaults to the paper's `l_base`):
            The line; it must go through [`INSTRUCTION_MINING`].

    Returns:
        `list[tuple[Point, Point]]`: in the order of `points`.
    """
    points = [point for point in points if np.isfinite(point.pir)]
    return [(k, j) for k in points for j in points if _in_area_of(k, j, line)]


def _in_area_of(k: Point, j: Point, line: Line) -> bool:
    parallel = k.pir + line.slope * (j.sdf - k.sdf)
    if line.distance(k) < 0:
        return j.sdf > k.sdf and k.pir < j.pir < parallel
    if line.distance(k) > 0 and INSTRUCTION_MINING.sdf < j.sdf < k.sdf:
        return Line.through(INSTRUCTION_MINING, k).at(j.sdf) < j.pir < parallel
    return False
