"""
The report: finished runs side by side, from their folders alone.

Every PIR stands with its kind and its settings. It is a single measurement of one run each; whether a difference would
show again is not known from it.
"""

import json
import unicodedata
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from ..preprocessing.records import Records
from ..run_folder import plain, read_evaluation, read_selection
from ..selector import Selection
from .benchmarks import Setting, from_json
from .picture import draw
from .pir import PIR, benchmark_pir, selection_to_tuning_ratio


#: Options that may differ between runs that are compared: what is chosen, and where things are written.
_FREE = ("selection_", "output_dir", "baseline_dir", "run_name", "report_to", "logging_", "save_", "eval_on_start")


@dataclass
class Run:
    """
    A finished run.

    Args:
        name (`str`):
            Folder name; the path where two folders have the same.
        selection ([`Selection`]):
            What it kept.
        settings (`dict[str, Setting]`):
            Its scores.
        train_seconds (`float`, *optional*):
            Training time without evaluations.
        untrained (`dict[str, float]`, *optional*):
            Scores before training, where the run was evaluated then (`eval_on_start`).
        recipe, protocol (`dict`, *optional*):
            Its resolved configuration; rows, metrics and answer length of its evaluation.
        pir ([`PIR`], *optional*):
            Against the baseline; `None` for the baseline itself and where there is none.
        str_ratio (`float`, *optional*):
            Selection seconds / training seconds of the baseline.
    """

    name: str
    selection: Selection
    settings: dict[str, Setting]
    train_seconds: float | None
    untrained: dict[str, float] = field(default_factory=dict)
    recipe: dict[str, Any] = field(default_factory=dict)
    protocol: dict[str, Any] | None = None
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
        column (`str`, *optional*):
            What `tallies` count by.
        tallies (`dict[str, dict[str, int]]`, *optional*):
            Rows kept by value of that column, of the candidates (`"candidates"`) and of each run.
        examples (`dict[str, list[dict]]`, *optional*):
            A few rows of a run with their scores.
    """

    runs: list[Run]
    baseline: Run | None
    column: str | None = None
    tallies: dict[str, dict[str, int]] = field(default_factory=dict)
    examples: dict[str, list[dict[str, Any]]] = field(default_factory=dict)


def compare_runs(folders: list[Path], baseline: Path | None = None) -> Comparison:
    """
    Read runs and measure them against the baseline: the folder given, else the one run of `full`.

    Raises:
        `ValueError`: a folder is no finished run, or several runs are `full` and none is named.
    """
    folders = list({Path(f).resolve(): Path(f) for f in [*([baseline] if baseline else []), *folders]}.values())
    shared = [name for name, times in Counter(folder.resolve().name for folder in folders).items() if times > 1]
    runs = [_read_run(folder, shared) for folder in folders]
    full = runs[:1] if baseline else [run for run in runs if run.selection.method == "full"]
    if len(full) > 1:
        raise ValueError(f"Several runs are `full` ({', '.join(run.name for run in full)}): name one with --baseline.")
    reference = full[0] if full else None
    for run in runs:
        if reference is not None and run is not reference:
            run.pir = benchmark_pir(run.settings, reference.settings)
            if run.protocol != reference.protocol:
                run.pir = PIR(float("nan"), left_out={"all": "evaluated on other rows, metrics or answer lengths"})
            run.str_ratio = selection_to_tuning_ratio(run.selection.seconds, reference.train_seconds)
    runs.sort(key=lambda run: run is not reference)
    return Comparison(runs, reference)


def _read_run(folder: Path, shared_names: list[str]) -> Run:
    evaluation = read_evaluation(folder, "runs")
    name = str(folder) if folder.resolve().name in shared_names else folder.resolve().name
    settings, history = from_json(evaluation["settings"]), evaluation.get("history") or [{}]
    before = history[0] if history[0].get("step") == 0 else {}
    before = {s: before[f"benchmark/{s}"] for s in settings if before.get(f"benchmark/{s}") is not None}
    path = folder / "recipe.yaml"
    recipe = (yaml.safe_load(path.read_text(encoding="utf-8")) or {}) if path.is_file() else {}
    seconds, protocol = evaluation.get("train_seconds"), evaluation.get("protocol")
    return Run(name, read_selection(folder), settings, seconds, before, recipe, protocol)


def add_rows(comparison: Comparison, records: Records, column: str | None = None, examples: int = 3) -> None:
    """
    Show the candidate rows themselves: how many each run kept by value of `column`, and a few rows with their scores.

    Raises:
        `ValueError`: the rows are not those that the runs chose from, or have no such column.
    """
    for run in comparison.runs:
        if run.selection.candidates != len(records):
            raise ValueError(f"{run.name} chose from {run.selection.candidates:,} rows, not from {len(records):,}.")
    values = None
    if column is not None:
        if column not in records.dataset.column_names:
            raise ValueError(f"The dataset has no column {column!r}.")
        values = np.array(["none" if v is None else str(v) for v in records.dataset.with_format(None)[column]])
        groups = {"candidates": np.arange(len(records))} | {run.name: run.selection.indices for run in comparison.runs}
        names = [name for name, _ in Counter(values.tolist()).most_common()]
        comparison.column = column
        comparison.tallies = {n: {v: int((values[rows] == v).sum()) for v in names} for n, rows in groups.items()}
    for run in comparison.runs:
        if run.selection.method in ("full", "random"):
            continue
        scores, kept = run.selection.scores, run.selection.indices
        dropped = sorted({row for rows in run.selection.dropped.values() for row in rows})
        left = np.setdiff1d(np.flatnonzero(np.isfinite(scores)), [*kept, *dropped])
        shown = {"kept": kept[:examples], "left out": left[np.argsort(scores[left], kind="stable")][:examples]}
        shown["dropped"] = np.array(dropped, np.int64)[:examples]
        comparison.examples[run.name] = [
            {"what": what, "row": int(row), "score": float(scores[row])}
            | ({} if values is None else {f"`{column}`": str(values[row])})
            | {"prompt": _short(records[int(row)].prompt), "answer": _short(records[int(row)].answer)}
            for what, rows in shown.items()
            for row in rows
        ]


def to_markdown(comparison: Comparison) -> str:
    """The comparison as Markdown whose tables are aligned, so that it reads well on a terminal too."""
    runs, reference = comparison.runs, comparison.baseline
    named = {run.name: f"{run.name} (BM)" if run is reference else run.name for run in runs}
    head = ["run", "method", "rows kept", "SDF", "PIR (benchmark ratio)", "STR", "selection s", "training s"]
    rows = [
        [named[run.name], run.selection.method, f"{len(run.selection.indices):,}", f"{run.selection.sdf:.3f}"]
        + [_number(run.pir and run.pir.value), _number(run.str_ratio)]
        + [f"{run.selection.seconds:.1f}", _number(run.train_seconds, 1)]
        for run in runs
    ]
    lines = ["## Runs", "", *_table(head, rows, left=2), "", *(f"- {line}" for line in _verdicts(comparison))]
    settings = {name: setting.higher_is_better for run in runs for name, setting in run.settings.items()}
    if settings:
        before = reference.untrained if reference else {}
        head = ["setting", *(["before training"] if before else []), *named.values()]
        rows = [
            [f"{name} ({'higher' if higher else 'lower'} is better)"]
            + ([_number(before.get(name), 4)] if before else [])
            + [_score(run, name) for run in runs]
            for name, higher in settings.items()
        ]
        note = "" if reference is None else ": score (score / baseline, inverted where lower is better)"
        lines += ["", f"## Held-out rows{note}", "", *_table(head, rows)]
    if comparison.tallies:
        totals = {name: max(1, sum(tally.values())) for name, tally in comparison.tallies.items()}
        head = [str(comparison.column), *(named.get(name, name) for name in totals)]
        rows = [
            [value, *(f"{tally[value]:,} ({tally[value] / totals[n]:.0%})" for n, tally in comparison.tallies.items())]
            for value in comparison.tallies["candidates"]
        ]
        lines += ["", f"## Rows kept by `{comparison.column}` (share of the run's rows)", "", *_table(head, rows)]
    for name, found in comparison.examples.items():
        rows = [[_number(v) if isinstance(v, float) else str(v) for v in row.values()] for row in found]
        lines += ["", f"## Rows of {name} with their scores", "", *_table(list(found[0]), rows, left=None)]
    return "\n".join(lines)


def _verdicts(comparison: Comparison) -> list[str]:
    """What the numbers say and what they don't, in plain words."""
    reference, lines = comparison.baseline, []
    if reference is None:
        lines.append("No run of `full` among these: PIR and STR need a baseline.")
    controls = [run for run in comparison.runs if run.selection.method == "random" and run.pir and run.pir.value > 0]
    for run in comparison.runs:
        if run.pir and np.isfinite(run.pir.value):
            line = f"{run.name}: {_better(run.pir.value, 1)} training on everything"
            for control in controls if run not in controls else []:
                same = len(control.selection.indices) == len(run.selection.indices)
                line += f", {_better(run.pir.value, control.pir.value)} as many random rows" if same else ""
            lines.append(f"{line}, with {run.selection.sdf:.1%} of the rows.")
        if run.str_ratio is not None and run.str_ratio > 1:
            lines.append(f"{run.name}: selecting alone took longer than training on everything (STR above 1).")
        if cached := run.selection.passes.get("cached_rows"):
            spared = f"{run.selection.cached_seconds:.1f} of the {run.selection.seconds:.1f} selection seconds"
            lines.append(f"{run.name}: {cached:,} scores came from the cache; it spared {spared} this time.")
        for kind in ("unscorable", "dropped", "truncated"):
            for reason, rows in getattr(run.selection, kind).items():
                lines.append(f"{run.name}: {len(rows):,} {'row' if len(rows) == 1 else 'rows'} {kind}: {reason}.")
        if run.pir and run.pir.left_out:
            named = "; ".join(f"{name}: {why}" for name, why in run.pir.left_out.items())
            lines.append(f"{run.name}: left out of the PIR: {named}.")
        if reference is not None and run is not reference and (differing := _differences(run, reference)):
            lines.append(f"{run.name}: differs from the baseline in more than the rows: {', '.join(differing)}.")
    if reference is not None:
        lines.append("PIR is the mean of score / baseline. One run each: a small difference may be chance.")
    return lines


def _better(value: float, other: float) -> str:
    change = f"{abs(value / other - 1):.1%}"
    return "as good as" if change == "0.0%" else f"{change} {'better' if value > other else 'worse'} than"


def _differences(run: Run, other: Run) -> list[str]:
    """Options and data that both runs name and that differ, so that PIR measures more than the selection."""
    names = {**other.recipe, **run.recipe} if other.recipe and run.recipe else {}
    found = [f"`{n}`" for n in names if not n.startswith(_FREE) and run.recipe.get(n) != other.recipe.get(n)]
    same_rows = run.selection.facts.get("dataset") == other.selection.facts.get("dataset")
    return found + ([] if same_rows else ["the candidate rows"])


def _score(run: Run, name: str) -> str:
    if name not in run.settings:
        return ""
    ratio = run.pir.settings.get(name) if run.pir else None
    score = _number(run.settings[name].score, 4) or "none"
    return score if ratio is None else f"{score} ({ratio:.3f})"


def _number(value: float | None, digits: int = 3) -> str:
    return "" if value is None or not np.isfinite(value) else f"{value:.{digits}f}"


def _short(text: str, length: int = 44) -> str:
    text = " ".join(text.split()).replace("|", "/")
    return text if len(text) <= length else text[: length - 1].rstrip() + "…"


def _table(head: list[str], rows: list[list[str]], left: int | None = 1) -> list[str]:
    """Markdown table; the first `left` columns are words, the others numbers. `None`: all are words."""
    widths = [max(3, *map(_width, column)) for column in zip(head, *rows, strict=True)]
    words = [left is None or place < left for place in range(len(head))]

    def line(cells: list[str]) -> str:
        gaps = [" " * (width - _width(cell)) for cell, width in zip(cells, widths, strict=True)]
        padded = [cell + gap if word else gap + cell for cell, gap, word in zip(cells, gaps, words, strict=True)]
        return f"| {' | '.join(padded)} |"

    rule = ["-" * (width - 1) + ("-" if word else ":") for width, word in zip(widths, words, strict=True)]
    return [line(head), line(rule), *map(line, rows)]


def _width(text: str) -> int:
    """Columns of a terminal that the text takes: Chinese characters take two, combining marks none."""
    return sum(
        0 if unicodedata.combining(character) else 2 if unicodedata.east_asian_width(character) in "WF" else 1
        for character in text
    )


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
