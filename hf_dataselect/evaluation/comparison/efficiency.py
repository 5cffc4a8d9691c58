"""
Efficiency: compares methods that keep different fractions of the rows (paper, section 6.1).

A method is a point in the plane of SDF and PIR (wins rate). PIR is assumed to rise along a curve as rows of equal
quality are added, and a better method's curve to be steeper everywhere. The line through Instruction-Mining and
InstructionGPT-4, two similar methods, approximates one such curve (`l_base`). A method's efficiency is its signed
distance to that line, positive above it:

    distance = (PIR - slope * SDF - intercept) * cos(theta),   theta: angle between the line and the SDF axis

That is the distance of a point to a line. The paper's Eq. 6 prints cos(90 degrees - theta), which is right for the
angle to the PIR axis; both give the same order. Two methods can't be compared if one lies in the infeasible area of
the other (appendix A.3), through which its curve may run, see [`infeasible_pairs`].

The plane is one of wins rates. A run is ranked in it only by a wins rate of its own, see [`why_unranked`]; a benchmark
ratio gives at best an estimate, see [`estimate`], which has no rank.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.stats import rankdata

from .pir import PIR, bridged_pir
from .published import Point, published


#: Decimals of a distance: 0 for the two methods on the line.
_DECIMALS = 9


@dataclass(frozen=True)
class Line:
    """PIR = slope * SDF + intercept."""

    slope: float
    intercept: float

    @classmethod
    def through(cls, a: Point, b: Point) -> "Line":
        """Line through two points of different SDF."""
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
    Efficiency of a method.

    Args:
        point ([`Point`]):
            The method.
        distance (`float`):
            Signed distance to the line.
        rank (`int`, *optional*):
            Dense rank, 1 for the most efficient; `None` without a PIR.
    """

    point: Point
    distance: float
    rank: int | None


def rank_by_efficiency(points: Iterable[Point], line: Line = BASE) -> list[Efficiency]:
    """
    Rank methods by efficiency.

    Args:
        points (`Iterable[Point]`):
            Methods.
        line ([`Line`], *optional*, defaults to the paper's `l_base`):
            Reference line.

    Returns:
        `list[Efficiency]`: Best first, ties by name; points without a PIR last and unranked.
    """
    points = list(points)
    distances = np.array([line.distance(point) for point in points])
    ranks = rankdata(-distances, method="dense", nan_policy="omit")
    efficiencies = [
        Efficiency(point, float(distance), None if np.isnan(rank) else int(rank))
        for point, distance, rank in zip(points, distances, ranks, strict=True)
    ]
    return sorted(efficiencies, key=lambda item: (item.rank or math.inf, item.point.name))


class Unranked(NamedTuple):
    """
    A run that is not ranked.

    Args:
        point ([`Point`]):
            The run; its PIR is the [`estimate`], NaN without one.
        reason (`str`):
            Why it is not ranked.
        estimated (`str`):
            The estimate in words, or why there is none; empty for a run that a judge compared.
    """

    point: Point
    reason: str
    estimated: str


def why_unranked(wins: PIR | None) -> str | None:
    """Why a run with this wins rate has no place among the published methods; `None` if it has."""
    if wins is None:
        return "no judge compared its answers"
    if not math.isfinite(wins.value):
        return f"its wins rate has no value ({'; '.join(f'{k}: {v}' for k, v in wins.left_out.items())})"
    if math.isnan(wins.low):
        return "its wins rate has no interval"
    return None if wins.low > 0 and math.isfinite(wins.high) else "the interval of its wins rate has no end"


def estimate(ratio: PIR) -> tuple[float, str]:
    """
    PIR on the wins scale of a run that no judge compared, by [`bridged_pir`], and the estimate in words; NaN and the
    reason, where the benchmark ratio can't be mapped, is not significant or has no interval.
    """
    bridged = bridged_pir(ratio)
    if not math.isfinite(ratio.value):
        reason = "it has no benchmark ratio"
    elif math.isnan(ratio.low):
        reason = "its benchmark ratio has no interval"
    elif not math.isfinite(bridged.value):
        reason = bridged.left_out["all"]
    else:
        between = f"{bridged.low:.3f} to {bridged.high:.3f} without the error of the line"
        return bridged.value, f"estimated PIR (wins scale) {bridged.value:.3f} ({between}), from its benchmark ratio"
    return math.nan, f"not estimated: {reason}"


def infeasible_pairs(points: Iterable[Point], line: Line = BASE) -> list[tuple[Point, Point]]:
    """
    Methods that can't be compared by distance: pairs `(k, j)` where `j` lies in the infeasible area of `k`.

    Below the line, the area of `k` extends to its right, between the horizontal (more rows of equal quality don't make
    a model worse) and the parallel to the line. Above it, the area extends to the left as far as Instruction-Mining,
    between the parallel and the chord to it (curves do not cross). The area is open; that of a method on the line is
    empty.

    Args:
        points (`Iterable[Point]`):
            Methods; those without a PIR are ignored.
        line ([`Line`], *optional*, defaults to the paper's `l_base`):
            Reference line; it must pass through [`INSTRUCTION_MINING`].

    Returns:
        `list[tuple[Point, Point]]`: In the order of `points`.
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
