"""Finished runs side by side, read from their folders alone and measured against the baseline."""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from ...data.records import Records
from ...engines.llm.judge import Judge
from ...engines.store.files import write_atomic
from ...engines.store.identity import digest
from ...runs.folder import plain
from ..judging.win_rate import win_rate
from .efficiency import Efficiency, rank_by_efficiency
from .evaluated_runs import UNSCORED, Group, Run, grouped, read_run
from .pir import PIR, benchmark_pir, bridged_pir, selection_to_tuning_ratio, wins_pir
from .published import Point, published


#: In a run's folder: what a judge made of its answers and the baseline's.
WINS = "wins.json"
#: Values of a column that are counted each for itself.
VALUES_SHOWN = 12


@dataclass
class Comparison:
    """
    Groups of runs side by side.

    Args:
        groups (`list[Group]`):
            In the order given, the baseline first.
        baseline (`Group`, *optional*):
            What the others are measured against.
        column (`str`, *optional*):
            What `tallies` count by.
        tallies (`dict[str, dict[str, int]]`, *optional*):
            Rows kept by value of that column, of the candidates (`"candidates"`) and of each group's first run.
        examples (`dict[str, list[dict]]`, *optional*):
            A few rows of a group's first run with their scores.
    """

    groups: list[Group]
    baseline: Group | None
    column: str | None = None
    tallies: dict[str, dict[str, int]] = field(default_factory=dict)
    examples: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    @property
    def scored(self) -> list[Group]:
        """Groups whose method scores rows."""
        return [group for group in self.groups if group.method not in UNSCORED]

    def overlaps(self) -> Iterator[tuple[Group, Group, float | None, float | None]]:
        """
        Pairs of groups with: rows that both kept / rows that one of them kept, and Spearman's correlation of their
        scores; `None` where there is nothing to compare. Of the first runs.
        """
        partial = [group for group in self.groups if group.method != "full"]
        for one, other in combinations(partial, 2):
            if one.selection.candidates != other.selection.candidates:
                continue
            kept = [set(group.selection.indices.tolist()) for group in (one, other)]
            correlation = None
            if not {one.method, other.method} & set(UNSCORED):
                scores = np.column_stack([one.selection.scores, other.selection.scores]).astype(np.float64)
                scores = scores[np.isfinite(scores).all(1)]
                varied = len(scores) > 2 and (np.ptp(scores, axis=0) > 0).all()
                correlation = float(spearmanr(scores).statistic) if varied else None
            yield one, other, len(kept[0] & kept[1]) / len(kept[0] | kept[1]), correlation

    def efficiencies(self) -> list[Efficiency]:
        """
        The groups' places among the published methods, by their wins rate; without one, the benchmark ratio is
        bridged to the wins scale, an estimate.
        """
        rated = [group for group in self.groups if group.pir and group.method != "full"]
        own = [Point(g.name, g.sdf, g.wins.value if g.judged else bridged_pir(g.pir).value) for g in rated]
        own = [point for point in own if np.isfinite(point.pir)]
        return rank_by_efficiency([*own, *(method.point for method in published())]) if own else []


def compare_runs(folders: list[Path], baseline: Path | None = None) -> Comparison:
    """
    Read runs, put those together that differ in the seed alone, and measure them against the baseline: the folder
    given, else the runs of `full`.

    Raises:
        `ValueError`: a folder is no finished run, or several baselines are there and none is named.
    """
    folders = list({Path(f).resolve(): Path(f) for f in [*([baseline] if baseline else []), *folders]}.values())
    shared = [name for name, times in Counter(folder.resolve().name for folder in folders).items() if times > 1]
    runs = [read_run(folder, shared) for folder in folders]
    groups = [Group(runs[0].name, runs[:1]), *grouped(runs[1:])] if baseline else grouped(runs)
    full = groups[:1] if baseline else [group for group in groups if group.method == "full"]
    if len(full) > 1:
        raise ValueError(
            f"Several runs are `full` and differ in more than the seed, or have the same "
            f"({', '.join(run.name for group in full for run in group.runs)}): name one with --baseline."
        )
    reference = full[0] if full else None
    for group in groups:
        if reference is not None and group is not reference:
            group.pir = _pir(group, reference)
            group.str_ratio = selection_to_tuning_ratio(group.selection_seconds, reference.train_seconds)
        control = next((g for g in groups if g.method == "random" and _controls(g, group)), None)
        if control is not None and group.method not in UNSCORED:
            group.over_control = _pir(group, control)
    groups.sort(key=lambda group: group is not reference)
    comparison = Comparison(groups, reference)
    add_wins(comparison)
    return comparison


def _controls(control: Group, group: Group) -> bool:
    """Whether the one is the other's control: as many of the same rows, trained on in the same way."""
    one, other = control.selection, group.selection
    same_rows = one.facts.get("dataset") == other.facts.get("dataset") and len(one.indices) == len(other.indices)
    return same_rows and control.runs[0].training == group.runs[0].training


def _pir(group: Group, reference: Group) -> PIR:
    if any(run.protocol != reference.runs[0].protocol for run in (*group.runs, *reference.runs)):
        return PIR(float("nan"), left_out={"all": "evaluated on other rows, metrics or answer lengths"})
    return benchmark_pir([run.settings for run in group.runs], [run.settings for run in reference.runs])


def add_wins(comparison: Comparison, judge: Judge | None = None) -> None:
    """
    Compare the answers of each run with those of the baseline of its seed, by a judge; what it says is kept as
    `wins.json` in the run's folder. Without a judge, what is kept there is taken, if it is of these answers.

    Raises:
        `ValueError`: there is no baseline.
        [`JudgeError`]: see [`Judge.ask`].
    """
    reference = comparison.baseline
    if judge is not None and reference is None:
        raise ValueError("`judge`: there is no run of `full` whose answers the others could be compared with.")
    for group in comparison.groups if reference is not None else ():
        if group is reference:
            continue
        found, against = [], []
        for run in group.runs:
            against.append(next((other for other in reference.runs if other.seed == run.seed), reference.runs[0]))
            try:
                found.append(_wins(run, against[-1], judge))
            except ValueError as error:
                group.judge = f"not judged: {error}"
        found = [wins for wins in found if wins]
        judges = {wins["judge"] for wins in found}
        if len(found) < len(group.runs) or len(judges) != 1:
            continue
        sets = {name: [wins["sets"][name]["outcomes"] for wins in found] for name in found[0]["sets"]}
        group.wins = wins_pir({name: np.array(outcomes, np.float64) for name, outcomes in sets.items()})
        group.judge = judges.pop()
        if len({baseline.name for baseline in against}) < len(against):
            group.wins.interval += "; chance between runs of the baseline is not in it"


def _wins(run: Run, baseline: Run, judge: Judge | None) -> dict[str, Any] | None:
    """What `wins.json` holds: the judge, and the outcome of each question by test set."""
    path, answers = run.folder / WINS, [_answers(run.folder), _answers(baseline.folder)]
    if judge is not None:
        sets = {name: verdicts.as_json() for name, verdicts in win_rate(run.folder, baseline.folder, judge).items()}
        kept = plain({"judge": judge.name, "against": baseline.name, "answers": answers, "sets": sets})
        write_atomic(path, json.dumps(kept, ensure_ascii=False))
        return kept
    kept = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return kept if kept.get("answers") == answers else None


def _answers(folder: Path) -> str:
    """Content of a run's answers."""
    return digest({path.name: path.read_text(encoding="utf-8") for path in sorted(folder.glob("answers/*.jsonl"))})


def add_rows(comparison: Comparison, records: Records, column: str | None = None, examples: int = 3) -> None:
    """
    Show the candidate rows themselves: how many each group kept by value of `column`, and a few rows with their
    scores.

    Raises:
        `ValueError`: the rows are not those that the runs chose from, or have no such column.
    """
    content = records.content_hash()
    for run in (run for group in comparison.groups for run in group.runs):
        if run.selection.candidates != len(records):
            raise ValueError(f"{run.name} chose from {run.selection.candidates:,} rows, not from {len(records):,}.")
        if run.selection.facts.get("dataset") not in (None, content):
            raise ValueError(f"{run.name} chose from other rows than these, though as many.")
    values = None
    if column is not None:
        if column not in records.dataset.column_names:
            raise ValueError(f"The dataset has no column {column!r}.")
        values = np.array(["none" if v is None else str(v) for v in records.dataset.with_format(None)[column]], object)
        names = [name for name, _ in Counter(values.tolist()).most_common()]
        if len(names) > VALUES_SHOWN:
            names = [*names[: VALUES_SHOWN - 1], "others"]
            values[~np.isin(values, names)] = "others"
        kept = {group.name: group.selection.indices for group in comparison.groups}
        groups = {"candidates": np.arange(len(records))} | kept
        counts = {name: Counter(values[rows].tolist()) for name, rows in groups.items()}
        comparison.column = column
        comparison.tallies = {name: {value: found[value] for value in names} for name, found in counts.items()}
    for group in comparison.scored:
        scores, kept = group.selection.scores, group.selection.indices
        dropped = sorted({row for rows in group.selection.dropped.values() for row in rows})
        left = np.setdiff1d(np.flatnonzero(np.isfinite(scores)), [*kept, *dropped])
        shown = {"kept": kept[:examples], "left out": left[np.argsort(scores[left], kind="stable")][:examples]}
        shown["dropped"] = np.array(dropped, np.int64)[:examples]
        comparison.examples[group.name] = [
            {"what": what, "row": int(row), "score": float(scores[row])}
            | ({} if values is None else {f"`{column}`": str(values[row])})
            | {"prompt": records[int(row)].prompt, "answer": records[int(row)].answer}
            for what, rows in shown.items()
            for row in rows
        ]
