"""
The published comparison of arXiv 2406.14115, to place a run among the methods of the literature.

`published.json` holds facts and their sources, and notes on figures that do not follow from their inputs; distances
and ranks are computed by [`efficiency`] and [`feasibility`].
"""

import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, NamedTuple

from .feasibility import Facts


class Point(NamedTuple):
    """
    A method in the plane of SDF and PIR, published or the user's own.

    Args:
        name (`str`):
            Displayed name.
        sdf (`float`):
            Selected dataset fraction.
        pir (`float`):
            PIR by wins rate, or an estimate of it; NaN if unknown.
    """

    name: str
    sdf: float
    pir: float


@dataclass(frozen=True)
class Published:
    """
    A published method.

    Args:
        method (`str`):
            Name in the comparison.
        paper (`str`):
            arXiv id of the method's own paper.
        point ([`Point`]):
            SDF and PIR (wins rate against the same model).
        estimated (`bool`):
            Whether the PIR was mapped from a benchmark ratio.
        facts ([`Facts`]):
            Facts that determine its feasibility.
    """

    method: str
    paper: str
    point: Point
    estimated: bool
    facts: Facts


@cache
def table() -> dict[str, Any]:
    """Content of the file: `sources`, `notes`, `bridge`, `v1` and `v2`."""
    return json.loads((files(__package__) / "published.json").read_text(encoding="utf-8"))


def published(version: str = "v1") -> list[Published]:
    """
    The 9 methods of the paper (`v1`) or the 12 of its later site (`v2`).

    Raises:
        `ValueError`: Unknown version.
    """
    if version not in ("v1", "v2"):
        raise ValueError(f"`version={version!r}` must be 'v1' (the paper) or 'v2' (its site).")
    methods = []
    for row in table()[version]:
        row = dict(row)
        method, paper, estimated = row.pop("method"), row.pop("paper"), row.pop("estimated")
        point = Point(method, row.pop("sdf"), row.pop("pir"))
        methods.append(Published(method, paper, point, estimated, Facts(**row)))
    return methods
