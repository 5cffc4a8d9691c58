"""
The published comparison of arXiv 2406.14115, so that a run can be shown among the methods of the literature.

`published.json` holds facts only, with their sources and with notes on the figures that do not follow from their own
inputs; distances and ranks are computed from it by [`efficiency`] and [`feasibility`].
"""

import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, NamedTuple

from .feasibility import Facts


class Point(NamedTuple):
    """
    A method in the plane (SDF, PIR), published or the user's own.

    Args:
        name (`str`):
            What it is shown as.
        sdf (`float`):
            Selected dataset fraction.
        pir (`float`):
            PIR of the kind wins rate, or bridged to it; NaN if there is none.
    """

    name: str
    sdf: float
    pir: float


@dataclass(frozen=True)
class Published:
    """
    A method as published.

    Args:
        method (`str`):
            Its name there.
        paper (`str`):
            arXiv id of its own paper.
        point ([`Point`]):
            SDF and PIR (wins rate against the same model).
        estimated (`bool`):
            Whether that PIR was bridged from a benchmark ratio.
        facts ([`Facts`]):
            What its feasibility is judged by.
    """

    method: str
    paper: str
    point: Point
    estimated: bool
    facts: Facts


@cache
def table() -> dict[str, Any]:
    """The file whole: `sources`, `notes`, `bridge`, `v1` and `v2`."""
    return json.loads((files(__package__) / "published.json").read_text(encoding="utf-8"))


def published(version: str = "v1") -> list[Published]:
    """
    The methods of the paper (`v1`, 9 of them) or of its later site (`v2`, 12).

    Raises:
        `ValueError`: there is no such version.
    """
    if version not in ("v1", "v2"):
        raise ValueError(f"`version={version!r}` must be 'v1' (the paper) or 'v2' (its site).")
    found = []
    for row in table()[version]:
        row = dict(row)
        method, paper, estimated = row.pop("method"), row.pop("paper"), row.pop("estimated")
        point = Point(method, row.pop("sdf"), row.pop("pir"))
        found.append(Published(method, paper, point, estimated, Facts(**row)))
    return found
