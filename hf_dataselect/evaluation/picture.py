"""The report as a picture: ratios to the baseline, rows kept by value of a column, scores of kept and other rows."""

from typing import TYPE_CHECKING

import numpy as np


if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from .report import Comparison, Run


def draw(comparison: "Comparison") -> "Figure":
    """
    Draw what there is to draw of a comparison, a panel each.

    Raises:
        `ImportError`: matplotlib is missing (extra `quickstart`).
    """
    from matplotlib.figure import Figure

    scored = [run for run in comparison.runs if run.selection.method not in ("full", "random")]
    panels = [lambda axis: _ratios(axis, comparison)] if any(run.pir for run in comparison.runs) else []
    panels += [lambda axis: _tallies(axis, comparison)] if comparison.tallies else []
    panels += [lambda axis, run=run: _scores(axis, run) for run in scored]
    figure = Figure(figsize=(5.2 * max(1, len(panels)), 4.4), layout="constrained")
    if panels:
        for panel, axis in zip(panels, np.atleast_1d(figure.subplots(1, len(panels))), strict=True):
            panel(axis)
            axis.spines[["top", "right"]].set_visible(False)
            axis.set_title(axis.get_title(), fontsize=11)
    return figure


def _ratios(axis: "Axes", comparison: "Comparison") -> None:
    runs = [run for run in comparison.runs if run.pir]
    settings = list(dict.fromkeys(name for run in runs for name in run.pir.settings))
    names = [*settings, "PIR (mean)"]
    height = 0.8 / len(runs)
    for place, run in enumerate(runs):
        ratios = np.array([run.pir.settings.get(name, np.nan) for name in settings] + [run.pir.value])
        y = np.arange(len(names)) + height * (place - (len(runs) - 1) / 2)
        bars = axis.barh(y, ratios - 1, 0.9 * height, left=1, label=run.name)
        labels = [f"{ratio:.3f}" if np.isfinite(ratio) else "" for ratio in ratios]
        axis.bar_label(bars, labels, padding=3, fontsize=8)
    axis.axvline(1, color="black", linewidth=1)
    axis.set_yticks(range(len(names)), names)
    axis.invert_yaxis()
    axis.use_sticky_edges = False  # room on both sides of 1
    axis.margins(x=0.2)
    axis.set(title="Held-out rows: score / baseline", xlabel="above 1: better than training on everything")
    _legend_below(axis)


def _tallies(axis: "Axes", comparison: "Comparison") -> None:
    groups = list(comparison.tallies)
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
    axis.set(title=f"Rows kept, by {comparison.column}", xlabel="share of the run's rows", xlim=(0, 1))
    _legend_below(axis)


def _scores(axis: "Axes", run: "Run") -> None:
    scores = run.selection.scores.astype(np.float64)
    kept = np.zeros(len(scores), bool)
    kept[run.selection.indices] = True
    finite = np.isfinite(scores)
    # A few far outliers would squeeze all the rest into one bar: they are counted in the outermost bars.
    low, high = np.percentile(scores[finite], [0.5, 99.5]) if finite.any() else (0.0, 1.0)
    parts = [np.clip(scores[rows & finite], low, high) for rows in (~kept, kept)]
    axis.hist(parts, bins=40, stacked=True, label=["left out", "kept"], color=["#b8c4ce", "#c0392b"])
    axis.set(title=f"{run.name}: scores of the candidates", xlabel="quality label", ylabel="rows")
    _legend_below(axis)


def _legend_below(axis: "Axes") -> None:
    columns = min(3, len(axis.get_legend_handles_labels()[1]))
    axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=max(1, columns), fontsize=8, frameon=False)
