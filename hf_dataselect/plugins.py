"""
Selectors of other packages, by name: a distribution lists them as entry points of the group
`hf_dataselect.selectors`, and each is imported when its name is first asked for.
"""

import logging
from functools import cache
from importlib.metadata import EntryPoint, entry_points


logger = logging.getLogger(__name__)
GROUP = "hf_dataselect.selectors"


def plugins() -> dict[str, list[EntryPoint]]:
    """The selectors that installed distributions list, by name; several of one name are a clash."""
    found: dict[str, list[EntryPoint]] = {}
    for point in sorted(entry_points(group=GROUP), key=lambda point: (point.name, point.value)):
        found.setdefault(point.name, []).append(point)
    return found


def plugin_of(name: str) -> EntryPoint | None:
    """
    The selector of this name in an installed distribution.

    Raises:
        `ValueError`: several distributions list one.
    """
    points = plugins().get(name, [])
    if len(points) > 1:
        raise ValueError(
            f"`selection_method={name!r}` is listed by several packages: {', '.join(map(described, points))}. Name "
            "the class, or uninstall one."
        )
    return points[0] if points else None


@cache
def warn_of_clash(name: str) -> None:
    """Say once that a method of this package keeps its name, where another package lists it too."""
    for point in plugins().get(name, []):
        logger.warning(
            "`selection_method=%r` is the method of hf_dataselect; that of another package is %s.",
            name,
            described(point),
        )


def described(point: EntryPoint) -> str:
    """The class of an entry point, and the distribution that lists it."""
    by = f" of {point.dist.name} {point.dist.version}" if point.dist else ""
    return f"`{point.value}`{by}"


def plugin_list() -> str:
    """Markdown list of the selectors of installed distributions; empty without any."""
    lines = [f"- `{name}`: {described(point)}" for name, points in plugins().items() for point in points]
    return "\n".join(["", "", "Of other packages:", "", *lines]) if lines else ""
