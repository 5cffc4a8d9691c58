"""Pictures of the report: PIR by run, PIR by budget, the plane of SDF and PIR, rows kept by column, scores."""

from collections.abc import Iterator

import numpy as np

from ..comparison.comparison import Comparison
from ..comparison.efficiency import BASE
from ..comparison.evaluated_runs import Group
from ..comparison.pir import PIR, SAME
from ..comparison.published import published
from .drawing import (
    COLOURS,
    INK,
    LINES,
    MARKERS,
    PALE,
    SOFT,
    Picture,
    axes,
    label_ends,
    label_points,
    legend_below,
    legible,
    name_row,
    rows_of,
    style,
)
from .section import abridged
from .verdict import interval_text


#: Marker and colour of a verdict; also told apart in black and white.
_VERDICTS = {
    "better": (">", COLOURS[0], COLOURS[0]),
    "worse": ("<", COLOURS[1], COLOURS[1]),
    SAME: ("o", INK, "white"),
    "unknown": ("x", SOFT, SOFT),
}
#: Runs whose names are written beside their points; more are numbered.
_NAMED = 8
#: Values of a column that are drawn apart.
_SHOWN = 6


def draw(comparison: Comparison) -> list[Picture]:
    """
    Draw the pictures for which the comparison has data.

    Raises:
        `ImportError`: matplotlib is not installed (extra `report`).
    """
    with style():
        return [
            *_ratios(comparison),
            *_curves(comparison),
            *_plane(comparison),
            *_tallies(comparison),
            *_scores(comparison),
        ]


def _rated(comparison: Comparison, compared: str = "pir") -> list[Group]:
    pirs = [(group, getattr(group, compared)) for group in comparison.groups]
    return [group for group, pir in pirs if pir and np.isfinite(pir.value)]


def _has_bar(pir: PIR) -> bool:
    """Whether the interval is finite and covers all settings of the PIR."""
    return bool(np.isfinite([pir.low, pir.high]).all())


def _ratios(comparison: Comparison) -> Iterator[Picture]:
    """PIR of each run with its interval, against the baseline and against as many random rows."""
    for compared, name, against in (
        ("pir", "ratios", "training on everything"),
        ("over_control", "over control", "as many random rows"),
    ):
        groups = _rated(comparison, compared)
        if not groups:
            continue
        figure, axis = rows_of(len(groups))
        for place, group in enumerate(groups):
            pir = getattr(group, compared)
            marker, colour, fill = _VERDICTS[pir.verdict]
            if _has_bar(pir):
                axis.hlines(place, pir.low, pir.high, color=colour, linewidth=1.6)
            shown = pir.verdict not in axis.get_legend_handles_labels()[1]
            options = {"color": colour, "mfc": fill, "markersize": 6, "zorder": 3}
            axis.plot(pir.value, place, marker, label=pir.verdict if shown else None, **options)
            numbers = f"{pir.value:.3f}" + (f" ({interval_text(pir)})" if interval_text(pir) else "")
            name_row(axis, place, f"{abridged(group.name, 28)}, {group.sdf:.1%}", numbers)
        axis.axvline(1, color="black", linewidth=0.8, zorder=0)
        axis.set(xlabel=f"PIR (benchmark ratio) with 95 % interval;\nabove 1: better than {against}")
        legend_below(axis)
        texts = [f"{g.name} {_value(getattr(g, compared))}" for g in groups]
        alt = f"PIR by benchmark ratio against {against} with 95 % intervals: {'; '.join(texts)}."
        yield Picture(name, figure, alt, paper=True)


def _value(pir: PIR) -> str:
    return f"{pir.value:.3f}" + (f" ({pir.low:.3f} to {pir.high:.3f})" if _has_bar(pir) else "")


def _curves(comparison: Comparison) -> Iterator[Picture]:
    """PIR by SDF, one line per method."""
    methods: dict[str, list[Group]] = {}
    for group in _rated(comparison):
        methods.setdefault(group.method, []).append(group)
    methods = {name: sorted(groups, key=lambda g: g.sdf) for name, groups in methods.items() if len(groups) > 1}
    if not methods:
        return
    figure, axis = axes(3.4)
    # Shifted, so that the error bars of methods at the same budget do not overlap.
    apart = 0.012 * np.ptp([group.sdf for groups in methods.values() for group in groups])
    lasts, colours = [], []
    for place, groups in enumerate(methods.values()):
        pirs = [group.pir for group in groups]
        values = np.array([pir.value for pir in pirs])
        ends = [(p.value - p.low, p.high - p.value) if _has_bar(p) else (0, 0) for p in pirs]
        sdfs = [group.sdf + apart * (place - (len(methods) - 1) / 2) for group in groups]
        colours.append(COLOURS[place % len(COLOURS)])
        options = {"color": colours[-1], "marker": MARKERS[place % len(MARKERS)], "markersize": 4, "capsize": 2}
        options |= {"linewidth": 1.2, "linestyle": LINES[place % len(LINES)]}
        axis.errorbar(sdfs, values, np.clip(np.transpose(ends), 0, None), **options)
        lasts.append((sdfs[-1], values[-1]))
    axis.axhline(1, color="black", linewidth=0.8, zorder=0)
    axis.set(xlabel="SDF: fraction of the rows kept", ylabel="PIR (benchmark ratio)")
    label_ends(axis, lasts, [abridged(name.rpartition(":")[2], 18) for name in methods], colours)
    texts = [f"{n}: " + ", ".join(f"{g.pir.value:.3f} at {g.sdf:.1%}" for g in gs) for n, gs in methods.items()]
    yield Picture("curves", figure, f"PIR by fraction of the rows kept. {'; '.join(texts)}.", paper=True)


def _plane(comparison: Comparison) -> Iterator[Picture]:
    """The published methods, the reference line, the ranked runs, and the estimates of others."""
    points = [method.point for method in published()]
    ranked = [item.point for item in comparison.efficiencies() if item.point not in points]
    estimates = [item.point for item in comparison.unranked() if np.isfinite(item.point.pir)]
    own = [*ranked, *estimates]
    if not own:
        return
    figure, axis = axes(4.4)
    hollow = [method.point for method in published() if method.estimated]
    for shown, options in (
        ([p for p in points if p not in hollow], {"color": SOFT, "label": "published (wins rate)"}),
        (hollow, {"color": SOFT, "mfc": "none", "label": "published (estimated)"}),
        (ranked, {"color": COLOURS[1], "marker": "D", "label": "these runs (wins rate)"}),
        (estimates, {"color": COLOURS[1], "marker": "D", "mfc": "none", "label": "these runs (estimated)"}),
    ):
        if shown:
            xs, ys = [p.sdf for p in shown], [p.pir for p in shown]
            axis.plot(xs, ys, **{"linestyle": "", "marker": "o", "markersize": 5} | options)
    ends = np.array([0, max(p.sdf for p in [*points, *own]) * 1.05])
    axis.plot(ends, [BASE.at(sdf) for sdf in ends], "--", color="black", linewidth=0.8, label="equal efficiency")
    axis.set(xlabel="SDF: fraction of the rows kept", ylabel="PIR (wins scale)")
    axis.margins(x=0.1, y=0.1)
    legend_below(axis, columns=2)
    numbered = len(own) > _NAMED
    names = [str(place) if numbered else abridged(p.name, 24) for place, p in enumerate(own, start=1)]
    where = [(p.sdf, p.pir) for p in [*own, *points]]
    colours = [COLOURS[1]] * len(own) + [SOFT] * len(points)
    along = [(sdf, BASE.at(sdf)) for sdf in np.linspace(*ends, 50)]
    label_points(axis, where, [*names, *(p.name for p in points)], colours, along)
    key = [f"{place} " if numbered else "" for place in range(1, len(own) + 1)]
    texts = [
        f"{number}{p.name} at {p.sdf:.1%}, {p.pir:.3f}{' (estimated, no rank)' if p in estimates else ''}"
        for number, p in zip(key, own, strict=True)
    ]
    alt = f"These runs among the published methods, on the wins scale: {'; '.join(texts)}."
    yield Picture("plane", figure, alt, paper=True, caption=f"{'; '.join(texts)}." if numbered else "")


def _tallies(comparison: Comparison) -> Iterator[Picture]:
    """Composition of the kept rows."""
    if not comparison.tallies:
        return
    values = list(comparison.tallies["candidates"])
    apart, rest = (values, []) if len(values) <= _SHOWN + 1 else (values[:_SHOWN], values[_SHOWN:])
    figure, axis = rows_of(len(comparison.tallies))
    left = np.zeros(len(comparison.tallies))
    for place, value in enumerate([*apart, *(["others"] if rest else [])]):
        counted = rest if place == len(apart) else [value]
        counts = np.array([sum(tally[each] for each in counted) for tally in comparison.tallies.values()])
        share = counts / [max(1, sum(tally.values())) for tally in comparison.tallies.values()]
        colour = PALE if counted is rest else COLOURS[place % len(COLOURS)]
        options = {
            "color": colour,
            "edgecolor": "white",
            "height": 0.45,
            "label": " " * value.startswith("_") + abridged(value, 24),
        }
        bars = axis.barh(range(len(left)), share, left=left, **options)
        labels = [f"{count:,}" if part > 0.09 else "" for count, part in zip(counts, share, strict=True)]
        axis.bar_label(bars, labels, label_type="center", fontsize=7.5, color=legible(colour))
        left += share
    for place, name in enumerate(comparison.tallies):
        name_row(axis, place, abridged(name, 48))
    axis.xaxis.set_major_formatter("{x:.0%}")
    axis.set(xlabel=f"share of the run's rows, by {abridged(str(comparison.column), 40)}", xlim=(0, 1))
    legend_below(axis, columns=2)
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
        figure, axis = axes(2.6)
        # Outliers are counted in the outermost bars, or they would squeeze all other scores into one.
        low, high = np.percentile(scores[finite], [0.5, 99.5])
        parts = [np.clip(scores[rows & finite], low, high) for rows in (~kept, kept)]
        axis.hist(parts, bins=40, stacked=True, label=["not kept", "kept"], color=[PALE, COLOURS[0]])
        axis.set(xlabel=f"quality label of {abridged(group.name, 40)}", ylabel="rows")
        legend_below(axis)
        quartiles = ", ".join(f"{value:.3f}" for value in np.percentile(scores[finite], [25, 50, 75]))
        alt = f"Scores of {group.name}: quartiles {quartiles}; {kept.sum():,} of {len(scores):,} rows kept."
        yield Picture(f"scores-{group.name}", figure, alt)
