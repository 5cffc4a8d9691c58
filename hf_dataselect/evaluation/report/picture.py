"""Pictures of the report: PIR by run, PIR by budget, the plane of SDF and PIR, rows kept by column, scores."""

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ..comparison.comparison import Comparison
from ..comparison.efficiency import BASE
from ..comparison.evaluated_runs import Group
from ..comparison.pir import PIR
from ..comparison.published import published


if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_KEPT, _LEFT = "#c0392b", "#b8c4ce"


class Picture(NamedTuple):
    """A figure and its text alternative."""

    name: str
    figure: "Figure"
    alt: str

    @property
    def file(self) -> str:
        """File name of the PNG."""
        return "report-" + re.sub(r"[^\w.-]+", "-", self.name) + ".png"


def draw(comparison: Comparison) -> list[Picture]:
    """
    Draw the pictures for which the comparison has data.

    Raises:
        `ImportError`: matplotlib is not installed (extra `report`).
    """
    return [
        *_ratios(comparison),
        *_curves(comparison),
        *_plane(comparison),
        *_tallies(comparison),
        *_scores(comparison),
    ]


def _axes(height: float = 4.0) -> "tuple[Figure, Axes]":
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, height), layout="constrained")
    axis = figure.subplots()
    axis.spines[["top", "right"]].set_visible(False)
    return figure, axis


def _rated(comparison: Comparison) -> list[Group]:
    return [group for group in comparison.groups if group.pir and np.isfinite(group.pir.value)]


def _has_bar(pir: PIR) -> bool:
    """Whether the interval is finite and covers all settings of the PIR."""
    return bool(np.isfinite([pir.low, pir.high]).all())


def _ratios(comparison: Comparison) -> Iterator[Picture]:
    """PIR of each run with its interval, and the ratio of each setting."""
    groups = _rated(comparison)
    if not groups:
        return
    figure, axis = _axes(1.4 + 0.45 * len(groups))
    names = list(dict.fromkeys(name for group in groups for name in group.pir.settings))
    markers = dict(zip(names, "sD^v<>ph*XP" * len(names), strict=False))
    for place, group in enumerate(groups):
        pir = group.pir
        axis.plot(pir.value, place, "o", color=_KEPT, zorder=3, label=None if place else "PIR with 95 % interval")
        if _has_bar(pir):
            axis.hlines(place, pir.low, pir.high, color=_KEPT, linewidth=2)
        for name, ratio in pir.settings.items():
            first = name not in axis.get_legend_handles_labels()[1]
            axis.plot(
                ratio, place, markers[name], mfc="none", color="#47525e", markersize=5, label=name if first else None
            )
    axis.axvline(1, color="black", linewidth=1)
    axis.set_yticks(range(len(groups)), [f"{group.name} ({group.sdf:.1%})" for group in groups])
    axis.set_ylim(len(groups) - 0.4, -0.6)
    axis.set(xlabel="score / baseline; above 1: better than training on everything")
    _legend_below(axis)
    texts = [
        f"{g.name} {g.pir.value:.3f}" + (f" ({g.pir.low:.3f} to {g.pir.high:.3f})" if _has_bar(g.pir) else "")
        for g in groups
    ]
    yield Picture("ratios", figure, f"PIR by benchmark ratio with 95 % intervals: {'; '.join(texts)}.")


def _curves(comparison: Comparison) -> Iterator[Picture]:
    """PIR by SDF, one line per method."""
    methods: dict[str, list[Group]] = {}
    for group in _rated(comparison):
        methods.setdefault(group.method, []).append(group)
    methods = {name: sorted(groups, key=lambda g: g.sdf) for name, groups in methods.items() if len(groups) > 1}
    if not methods:
        return
    figure, axis = _axes()
    # Shifted, so that the error bars of methods at the same budget do not overlap.
    apart = 0.01 * np.ptp([group.sdf for groups in methods.values() for group in groups])
    for place, (name, groups) in enumerate(methods.items()):
        pirs = [group.pir for group in groups]
        values = np.array([pir.value for pir in pirs])
        ends = [(p.value - p.low, p.high - p.value) if _has_bar(p) else (0, 0) for p in pirs]
        sdfs = [group.sdf + apart * (place - (len(methods) - 1) / 2) for group in groups]
        axis.errorbar(sdfs, values, np.clip(np.transpose(ends), 0, None), marker="o", label=name, capsize=3)
    axis.axhline(1, color="black", linewidth=1)
    axis.set(xlabel="SDF: fraction of the rows kept", ylabel="PIR (benchmark ratio)")
    _legend_below(axis)
    texts = [f"{n}: " + ", ".join(f"{g.pir.value:.3f} at {g.sdf:.1%}" for g in gs) for n, gs in methods.items()]
    yield Picture("curves", figure, f"PIR by fraction of the rows kept. {'; '.join(texts)}.")


def _plane(comparison: Comparison) -> Iterator[Picture]:
    """The published methods, the reference line, the ranked runs, and the estimates of others."""
    points = [method.point for method in published()]
    ranked = [item.point for item in comparison.efficiencies() if item.point not in points]
    estimates = [item.point for item in comparison.unranked() if np.isfinite(item.point.pir)]
    own = [*ranked, *estimates]
    if not own:
        return
    figure, axis = _axes(4.6)
    hollow = [method.point for method in published() if method.estimated]
    for shown, style in (
        ([p for p in points if p not in hollow], {"color": "#47525e", "label": "published (wins rate)"}),
        (hollow, {"color": "#47525e", "mfc": "none", "label": "published (estimated)"}),
        (ranked, {"color": _KEPT, "label": "these runs (wins rate)"}),
        (estimates, {"color": _KEPT, "mfc": "none", "label": "these runs (estimated)"}),
    ):
        if shown:
            axis.plot([p.sdf for p in shown], [p.pir for p in shown], "o", **style)
    for point in points:
        axis.annotate(point.name, (point.sdf, point.pir), (4, 4), textcoords="offset points", fontsize=8)
    for sdf in {round(point.sdf, 2) for point in own}:  # runs of one budget are close: stack their names
        near = sorted((point for point in own if round(point.sdf, 2) == sdf), key=lambda point: point.pir)
        for place, point in enumerate(near):
            shift = (7, 10 * (place - (len(near) - 1) / 2) - 3)
            axis.annotate(
                point.name, (point.sdf, point.pir), shift, textcoords="offset points", fontsize=7, color=_KEPT
            )
    ends = np.array([0, max(p.sdf for p in [*points, *own]) * 1.05])
    axis.plot(ends, [BASE.at(sdf) for sdf in ends], "--", color="black", linewidth=1, label="line of equal efficiency")
    axis.set(xlabel="SDF: fraction of the rows kept", ylabel="PIR (wins scale)")
    axis.margins(x=0.12)
    _legend_below(axis)
    texts = [f"{p.name} at {p.sdf:.1%}, {p.pir:.3f}{' (estimated, no rank)' if p in estimates else ''}" for p in own]
    yield Picture("plane", figure, f"These runs among the published methods, on the wins scale: {'; '.join(texts)}.")


def _tallies(comparison: Comparison) -> Iterator[Picture]:
    """Composition of the kept rows."""
    if not comparison.tallies:
        return
    groups = list(comparison.tallies)
    figure, axis = _axes(1.4 + 0.45 * len(groups))
    left = np.zeros(len(groups))
    for value in comparison.tallies["candidates"]:
        counts = np.array([tally[value] for tally in comparison.tallies.values()])
        share = counts / [max(1, sum(tally.values())) for tally in comparison.tallies.values()]
        bars = axis.barh(groups, share, left=left, label=value)
        labels = [str(count) if part > 0.04 else "" for count, part in zip(counts, share, strict=True)]
        axis.bar_label(bars, labels, label_type="center", fontsize=8, color="white")
        left += share
    axis.invert_yaxis()
    axis.xaxis.set_major_formatter("{x:.0%}")
    axis.set(xlabel=f"share of the run's rows, by {comparison.column}", xlim=(0, 1))
    _legend_below(axis)
    texts = [
        f"{name}: " + ", ".join(f"{n} {value}" for value, n in t.items()) for name, t in comparison.tallies.items()
    ]
    yield Picture("tallies", figure, f"Rows kept by {comparison.column}. {'; '.join(texts)}.")


def _scores(comparison: Comparison) -> Iterator[Picture]:
    """Histogram of the scores of kept and other rows."""
    for group in comparison.scored:
        scores = group.selection.scores.astype(np.float64)
        finite = np.isfinite(scores)
        if not finite.any():
            continue
        kept = np.zeros(len(scores), bool)
        kept[group.selection.indices] = True
        figure, axis = _axes(3.2)
        # Outliers are counted in the outermost bars, or they would squeeze all other scores into one.
        low, high = np.percentile(scores[finite], [0.5, 99.5])
        parts = [np.clip(scores[rows & finite], low, high) for rows in (~kept, kept)]
        axis.hist(parts, bins=40, stacked=True, label=["not kept", "kept"], color=[_LEFT, _KEPT])
        axis.set(xlabel=f"quality label of {group.name}", ylabel="rows")
        _legend_below(axis)
        quartiles = ", ".join(f"{value:.3f}" for value in np.percentile(scores[finite], [25, 50, 75]))
        alt = f"Scores of {group.name}: quartiles {quartiles}; {kept.sum():,} of {len(scores):,} rows kept."
        yield Picture(f"scores-{group.name}", figure, alt)


def _legend_below(axis: "Axes") -> None:
    columns = min(4, len(axis.get_legend_handles_labels()[1]))
    axis.figure.legend(loc="outside lower center", ncols=max(1, columns), fontsize=8, frameon=False)
