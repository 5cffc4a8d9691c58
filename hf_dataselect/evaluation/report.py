"""
The report: finished runs side by side, from their folders alone.

Every PIR stands with its kind and its settings. It is a single measurement of one run each; whether a difference would
show again is not known from it.
"""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..preprocessing.records import Records
from ..run_folder import plain, read_evaluation, read_selection
from ..selector import Selection
from .benchmarks import Setting, from_json
from .pir import PIR, benchmark_pir


@dataclass
class Run:
    """
    A finished run.

    Args:
        name (`str`):
            Folder name.
        selection ([`Selection`]):
            What it kept.
        settings (`dict[str, Setting]`):
            Its scores.
        train_seconds (`float`, *optional*):
            Training time without evaluations.
        pir ([`PIR`], *optional*):
            Against the baseline; `None` for the baseline itself and where there is none.
        str_ratio (`float`, *optional*):
            Selection seconds / training seconds of the baseline.
    """

    name: str
    selection: Selection
    settings: dict[str, Setting]
    train_seconds: float | None
    pir: PIR | None = None
    str_ratio: float | None = None


@dataclass
class Comparison:
    """
    Runs side by side.

    Args:
        runs (`list[Run]`):
            In the order given, the baseline first.
        baseline (`Run`, *optional*):
            The run that the others are measured against.
        tallies (`dict[str, dict[str, int]]`, *optional*):
            Rows kept by value of a column, of the candidates (`"candidates"`) and of each run.
        examples (`dict[str, list[dict]]`, *optional*):
            A few rows of a run with their scores.
    """

    runs: list[Run]
    baseline: Run | None
    tallies: dict[str, dict[str, int]] = field(default_factory=dict)
    examples: dict[str, list[dict[str, Any]]] = field(default_factory=dict)


def compare_runs(folders: list[Path], baseline: Path | None = None) -> Comparison:
    """
    Read runs and measure them against the baseline: the folder given, else the one run of `full`.

    Raises:
        `ValueError`: a folder is no finished run, or several runs are `full` and none is named.
    """
    folders = [Path(folder) for folder in folders]
    if baseline is not None and Path(baseline) not in folders:
        folders = [Path(baseline), *folders]
    runs = []
    for folder in folders:
        evaluation = read_evaluation(folder, "runs")
        seconds = evaluation.get("train_seconds")
        runs.append(Run(folder.name, read_selection(folder), from_json(evaluation["settings"]), seconds))
    full = [
        run
        for run, folder in zip(runs, folders, strict=True)
        if folder == baseline or baseline is None and run.selection.method == "full"
    ]
    if len(full) > 1:
        raise ValueError(f"Several runs are `full` ({', '.join(run.name for run in full)}): name one with --baseline.")
    reference = full[0] if full else None
    for run in runs:
        if reference is not None and run is not reference:
            run.pir = benchmark_pir(run.settings, reference.settings)
            if reference.train_seconds:
                run.str_ratio = run.selection.seconds / reference.train_seconds
    runs.sort(key=lambda run: run is not reference)
    return Comparison(runs, reference)


def add_rows(comparison: Comparison, records: Records, column: str | None = None, examples: int = 3) -> None:
    """
    Show the candidate rows themselves: how many each run kept by value of `column`, and a few rows with their scores.

    Raises:
        `ValueError`: the rows are not those that the runs chose from, or have no such column.
    """
    if any(run.selection.candidates != len(records) for run in comparison.runs):
        raise ValueError(f"The runs chose from {comparison.runs[0].selection.candidates} rows, not {len(records)}.")
    if column is not None:
        if column not in records.dataset.column_names:
            raise ValueError(f"The dataset has no column {column!r}.")
        values = np.array([str(value) for value in records.dataset.with_format(None)[column]])
        groups = {"candidates": np.arange(len(records))} | {run.name: run.selection.indices for run in comparison.runs}
        names = sorted(set(values))
        comparison.tallies = {
            name: {v: int((values[rows] == v).sum()) for v in names} for name, rows in groups.items()
        }
    for run in comparison.runs:
        if run.selection.method in ("full", "random"):
            continue
        scores, kept = run.selection.scores, run.selection.indices
        left = np.setdiff1d(np.flatnonzero(np.isfinite(scores)), kept)
        dropped = sorted({row for rows in run.selection.dropped.values() for row in rows})
        left = left[~np.isin(left, dropped)]
        shown = {"kept": kept[:examples], "left out": left[np.argsort(scores[left], kind="stable")][:examples]}
        shown["dropped"] = np.array(dropped, np.int64)[:examples]
        comparison.examples[run.name] = [
            {"what": what, "row": int(row), "score": float(scores[row])} | _texts(records[int(row)])
            for what, rows in shown.items()
            for row in rows
        ]


def _texts(record) -> dict[str, str]:
    return {"prompt": _short(record.prompt), "answer": _short(record.answer)}


def _short(text: str, length: int = 90) -> str:
    text = " ".join(text.split()).replace("|", "/")
    return text if len(text) <= length else text[: length - 1] + "…"


def to_markdown(comparison: Comparison) -> str:
    """The comparison as Markdown tables."""
    settings = list(dict.fromkeys(name for run in comparison.runs for name in run.settings))
    arrow = {
        name: "↑" if run.settings[name].higher_is_better else "↓" for run in comparison.runs for name in run.settings
    }
    head = ["run", "method", "rows kept", "SDF", *(f"{name} {arrow[name]}" for name in settings)]
    head += ["PIR (benchmark ratio)", "STR", "selection s", "training s"]
    lines = [_line(head), _line(["---"] * len(head))]
    for run in comparison.runs:
        cells = [run.name, run.selection.method, f"{len(run.selection.indices):,}", f"{run.selection.sdf:.3f}"]
        for name in settings:
            setting = run.settings.get(name)
            ratio = run.pir.settings.get(name) if run.pir else None
            score = "" if setting is None else f"{setting.score:.4f}"
            cells.append(score if ratio is None else f"{score} ({ratio:.3f})")
        cells += [_number(run.pir and run.pir.value), _number(run.str_ratio), f"{run.selection.seconds:.1f}"]
        lines.append(_line([*cells, _number(run.train_seconds, 1)]))
    lines += ["", _verdict(comparison)]
    for run in comparison.runs:
        if run.pir and run.pir.left_out:
            named = "; ".join(f"{name}: {why}" for name, why in run.pir.left_out.items())
            lines.append(f"Left out of the PIR of {run.name}: {named}.")
        for kind in ("unscorable", "dropped", "truncated"):
            for reason, rows in getattr(run.selection, kind).items():
                lines.append(f"{run.name}: {len(rows):,} rows {kind}: {reason}.")
    if comparison.tallies:
        values = list(next(iter(comparison.tallies.values())))
        lines += ["", _line(["rows kept", *values]), _line(["---"] * (len(values) + 1))]
        for name, tally in comparison.tallies.items():
            total = max(1, sum(tally.values()))
            lines.append(_line([name, *(f"{number} ({number / total:.0%})" for number in tally.values())]))
    for name, rows in comparison.examples.items():
        lines += [
            "",
            f"Rows of {name}, by score:",
            "",
            _line(["", "row", "score", "prompt", "answer"]),
            _line(["---"] * 5),
        ]
        lines += [_line([r["what"], r["row"], _number(r["score"]), r["prompt"], r["answer"]]) for r in rows]
    return "\n".join(lines)


def _verdict(comparison: Comparison) -> str:
    if comparison.baseline is None:
        return "No run of `full` among these: PIR and STR need a baseline."
    text = (
        "In brackets: score / baseline, inverted where lower is better (↓); PIR is their mean, above 1 is better than "
    )
    text += f"training on everything ({comparison.baseline.name}). One run each, so a small difference may be chance."
    costly = [run.name for run in comparison.runs if run.str_ratio is not None and run.str_ratio > 1]
    if costly:
        text += f" Selecting cost more than training on everything: {', '.join(costly)}."
    return text


def _line(cells: list) -> str:
    return "| " + " | ".join(map(str, cells)) + " |"


def _number(value: float | None, digits: int = 3) -> str:
    return "" if value is None or not np.isfinite(value) else f"{value:.{digits}f}"


def write_report(comparison: Comparison, folder: Path) -> list[Path]:
    """Write report.md, report.json and, where matplotlib is installed, report.png; returns the paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / "report.md", folder / "report.json"]
    paths[0].write_text(to_markdown(comparison) + "\n", encoding="utf-8")
    described = [asdict(run) for run in comparison.runs]
    for run in described:
        del run["selection"]["scores"]  # in the run's own scores.parquet
    content = {"runs": described, "tallies": comparison.tallies, "examples": comparison.examples}
    paths[1].write_text(json.dumps(plain(content), ensure_ascii=False), encoding="utf-8")
    try:
        figure = draw(comparison)
    except ImportError:
        return paths
    figure.savefig(folder / "report.png", dpi=150)
    return [*paths, folder / "report.png"]


def draw(comparison: Comparison):
    """
    Picture of the comparison, a `matplotlib` figure: settings of each run, scores of kept and other rows, and rows
    kept by value of a column, where there is one.

    Raises:
        `ImportError`: matplotlib is missing (extra `quickstart`).
    """
    from matplotlib.figure import Figure

    scored = [run for run in comparison.runs if run.selection.method not in ("full", "random")]
    panels = 1 + bool(comparison.tallies) + len(scored)
    figure = Figure(figsize=(4.6 * panels, 3.8), layout="constrained")
    axes = iter(np.atleast_1d(figure.subplots(1, panels)))
    _draw_ratios(next(axes), comparison)
    if comparison.tallies:
        _draw_tallies(next(axes), comparison)
    for run in scored:
        axis, scores = next(axes), run.selection.scores
        kept = np.zeros(len(scores), bool)
        kept[run.selection.indices] = True
        shown = [scores[~kept & np.isfinite(scores)], scores[kept]]
        axis.hist(shown, bins=40, stacked=True, label=["other rows", "kept"], color=["#b8c4ce", "#c0392b"])
        axis.set(title=f"{run.name}: scores", xlabel="quality label", ylabel="rows")
        axis.legend()
    return figure


def _draw_ratios(axis, comparison: Comparison) -> None:
    runs = [run for run in comparison.runs if run.pir]
    names = list(dict.fromkeys(name for run in runs for name in run.pir.settings))
    for place, run in enumerate(runs):
        x = np.arange(len(names)) + 0.8 * (place + 0.5) / len(runs) - 0.4
        bars = axis.bar(x, [run.pir.settings.get(n, np.nan) for n in names], 0.75 / len(runs), label=run.name)
        axis.bar_label(bars, fmt="%.3f", fontsize=8)
    axis.axhline(1, color="black", linewidth=1)
    axis.set_xticks(range(len(names)), names)
    axis.set(title="score / baseline (above 1 is better)")
    ratios = [ratio for run in runs for ratio in run.pir.settings.values()] or [1]
    axis.set_ylim(min(0.95, min(ratios) - 0.03), max(1.05, max(ratios) + 0.05))
    if runs:
        axis.legend()


def _draw_tallies(axis, comparison: Comparison) -> None:
    names = list(comparison.tallies)
    bottom = np.zeros(len(names))
    for value in next(iter(comparison.tallies.values())):
        share = [tally[value] / max(1, sum(tally.values())) for tally in comparison.tallies.values()]
        axis.bar(names, share, bottom=bottom, label=value)
        bottom += share
    axis.set(title="share of rows kept")
    axis.legend(fontsize=8)
