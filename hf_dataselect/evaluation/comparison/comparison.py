"""Compares finished runs, read from their folders, with the baseline."""

import math
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from ...data.records import Records
from ...engines.llm.judge import Judge
from ...engines.store.identity import digest
from ...errors import printable
from ...options import nearest
from ...runs.files import WINS, answer_files, plain, read, write
from ..judging.win_rate import VERDICT_TOKENS, asked_about, win_rate
from .efficiency import Efficiency, Unranked, estimate, rank_by_efficiency, why_unranked
from .evaluated_runs import UNSCORED, Group, Run, grouped, read_run
from .pir import PIR, benchmark_pir, selection_to_tuning_ratio
from .published import Point, published
from .wins import wins_pir


#: Distinct values of a column that are counted; the rest are "others".
VALUES_SHOWN = 12


@dataclass
class Comparison:
    """
    Groups of runs and the baseline.

    Args:
        groups (`list[Group]`):
            Groups, the baseline first.
        baseline (`Group`, *optional*):
            The baseline.
        column (`str`, *optional*):
            Column of `tallies`.
        tallies (`dict[str, dict[str, int]]`, *optional*):
            Number of rows by value of that column, among the candidates (`"candidates"`) and kept by each group's
            first run.
        examples (`dict[str, list[dict]]`, *optional*):
            A few rows with the scores of a group's first run.
    """

    groups: list[Group]
    baseline: Group | None
    column: str | None = None
    tallies: dict[str, dict[str, int]] = field(default_factory=dict)
    examples: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    @property
    def scored(self) -> list[Group]:
        """Groups whose method computes scores."""
        return [group for group in self.groups if group.method not in UNSCORED]

    def overlaps(self) -> Iterator[tuple[Group, Group, float | None, float | None]]:
        """
        For each pair of groups with the same number of candidates: rows that both kept / rows that either kept, and
        Spearman's correlation of their scores, `None` if undefined. Of the first runs.
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
        """The groups with a wins rate and its interval, ranked among the published methods; empty without one."""
        own = [Point(g.name, g.sdf, g.wins.value) for g in self._compared if why_unranked(g.wins) is None]
        return rank_by_efficiency([*own, *(method.point for method in published())]) if own else []

    def unranked(self) -> list[Unranked]:
        """The other groups, with the reason; those that no judge compared with an estimate, where there is one."""
        others = []
        for group in self._compared:
            if reason := why_unranked(group.wins):
                pir, words = estimate(group.pir) if group.wins is None else (math.nan, "")
                if group.wins is None and group.judge:
                    reason = group.judge.rstrip(".")
                elif group.wins is None and len(group.runs) > 1:
                    reason = "no judge compared the answers of all its runs"
                others.append(Unranked(Point(group.name, group.sdf, pir), reason, words))
        return others

    @property
    def _compared(self) -> list[Group]:
        """Groups that are measured against the baseline, except other runs of `full`."""
        return [group for group in self.groups if group.pir and not group.is_full]


def compare_runs(folders: list[Path], baseline: Path | None = None) -> Comparison:
    """
    Read runs, group those that differ only in the seed, and compare them with the baseline: the folder given, or else
    the runs of `full`.

    Raises:
        `ValueError`: A folder is not that of a finished run, or the baseline is ambiguous.
    """
    folders = list({Path(f).resolve(): Path(f) for f in [*([baseline] if baseline else []), *folders]}.values())
    shared = [name for name, times in Counter(folder.resolve().name for folder in folders).items() if times > 1]
    runs = [read_run(folder, shared) for folder in folders]
    groups = [Group(runs[0].name, runs[:1]), *grouped(runs[1:])] if baseline else grouped(runs)
    full = groups[:1] if baseline else [group for group in groups if group.is_full]
    if len(full) > 1:
        raise ValueError(
            f"Several runs of `full` differ in more than the seed, or share it "
            f"({', '.join(run.name for group in full for run in group.runs)}): choose one with --baseline."
        )
    reference = full[0] if full else None
    for group in groups:
        if reference is not None and group is not reference:
            group.pir = _pir(group, reference)
            group.str_ratio = selection_to_tuning_ratio(group.selection_seconds, reference.train_seconds)
        control = next((other for other in groups if other.controls(group)), None)
        if control is not None:
            group.over_control = _pir(group, control)
    groups.sort(key=lambda group: group is not reference)
    comparison = Comparison(groups, reference)
    add_wins(comparison)
    return comparison


def _pir(group: Group, reference: Group) -> PIR:
    if any(run.protocol != reference.runs[0].protocol for run in (*group.runs, *reference.runs)):
        return PIR(float("nan"), left_out={"all": "evaluated on different rows, metrics or answer lengths"})
    return benchmark_pir([run.settings for run in group.runs], [run.settings for run in reference.runs])


def add_wins(comparison: Comparison, judge: Judge | None = None) -> None:
    """
    Compare the answers of each run with those of the baseline run of its seed. The verdicts of the judge are written
    to `wins.json` in the run folder; without a judge they are read from there, if they belong to these answers.

    Raises:
        `ValueError`: The comparison has no baseline.
        [`JudgeError`]: See [`Judge.ask`].
    """
    reference = comparison.baseline
    if judge is not None and reference is None:
        raise ValueError("`judge` compares answers with the baseline's, and there is no run of `full`: add one.")
    if reference is None:
        return
    compared = {
        group.name: [
            (run, next((other for other in reference.runs if other.seed == run.seed), reference.runs[0]))
            for run in group.runs
        ]
        for group in comparison.groups
        if group is not reference
    }
    with _asked_together(judge, [pair for pairs in compared.values() for pair in pairs]):
        _add_wins(comparison, compared, judge)


def _asked_together(judge: Judge | None, pairs: list[tuple[Run, Run]]) -> AbstractContextManager[None]:
    """All questions about these runs are announced, and their cost is said, once."""
    if not isinstance(judge, Judge):
        return nullcontext()
    questions = []
    for run, baseline in pairs:
        with suppress(ValueError):  # no answers, or to other questions: said where they are judged
            questions += asked_about(run.folder, baseline.folder)
    return judge.together(questions, VERDICT_TOKENS)


def _add_wins(comparison: Comparison, compared: dict[str, list[tuple[Run, Run]]], judge: Judge | None) -> None:
    for group in comparison.groups:
        if group.name not in compared:
            continue
        verdicts, against = [], [baseline for _, baseline in compared[group.name]]
        for run, baseline in compared[group.name]:
            try:
                verdicts.append(_wins(run, baseline, judge))
            except ValueError as error:
                group.judge = f"not judged: {error}"
        verdicts = [wins for wins in verdicts if wins]
        judges = {wins["judge"] for wins in verdicts}
        if len(verdicts) < len(group.runs) or len(judges) != 1:
            continue
        sets = {
            name: [wins["sets"][name]["outcomes"] for wins in verdicts if name in wins["sets"]]
            for name in dict.fromkeys(name for wins in verdicts for name in wins["sets"])
        }
        alike = {name for name, runs in sets.items() if len(runs) == len(verdicts) and len({*map(len, runs)}) == 1}
        group.wins = wins_pir({name: np.array(runs, np.float64) for name, runs in sets.items() if name in alike})
        group.wins.left_out |= dict.fromkeys(sets.keys() - alike, "the runs answered other questions of it")
        group.judge = judges.pop()
        unseen = sum(len(given.get("identical", ())) for wins in verdicts for given in wins["sets"].values())
        if unseen:
            group.wins.interval += f"; {unseen} ties are identical answers, which the judge did not see"
        if len({baseline.name for baseline in against}) < len(against):
            group.wins.interval += "; variance between runs of the baseline is not included"


def _wins(run: Run, baseline: Run, judge: Judge | None) -> dict[str, Any] | None:
    """Content of `wins.json`: the judge, and the outcome of each question by test set."""
    if judge is None and not (run.folder / WINS).is_file():
        return None
    answers = [_answers(run.folder), _answers(baseline.folder)]
    if judge is not None:
        sets = {name: verdicts.as_json() for name, verdicts in win_rate(run.folder, baseline.folder, judge).items()}
        kept = plain({"judge": judge.name, "against": baseline.name, "answers": answers, "sets": sets})
        write(run.folder, WINS, kept)
        return kept
    kept = read(run.folder, WINS)
    return kept if kept.get("answers") == answers else None


def _answers(folder: Path) -> str:
    """Hash of a run's answers."""
    return digest({path.name: path.read_text(encoding="utf-8") for path in answer_files(folder, "answers")})


def add_rows(comparison: Comparison, records: Records, column: str | None = None, examples: int = 3) -> None:
    """
    Add candidate rows: how many each group kept by value of `column`, and a few rows with their scores.

    Raises:
        `ValueError`: The rows are not the candidates of the runs, or lack the column.
    """
    content = records.content_hash()
    for run in (run for group in comparison.groups for run in group.runs):
        if run.selection.candidates != len(records):
            raise ValueError(
                f"{run.name} selected from {run.selection.candidates:,} rows, not from these {len(records):,}."
            )
        if run.selection.facts.get("dataset") not in (None, content):
            raise ValueError(f"{run.name} selected from as many, but different rows.")
    values = None
    if column is not None:
        if column not in records.dataset.column_names:
            raise ValueError(f"The dataset has no column {column!r}{nearest(column, records.dataset.column_names)}")
        values = np.array(
            ["none" if v is None else printable(v) for v in records.dataset.with_format(None)[column]], object
        )
        names = [name for name, _ in Counter(values.tolist()).most_common()]
        if len(names) > VALUES_SHOWN:
            names = [*names[: VALUES_SHOWN - 1], "others"]
            values[~np.isin(values, names)] = "others"
        kept = {group.name: group.selection.indices for group in comparison.groups}
        groups = {"candidates": np.arange(len(records))} | kept
        counts = {name: Counter(values[rows].tolist()) for name, rows in groups.items()}
        comparison.column = printable(column)
        comparison.tallies = {name: {value: tally[value] for value in names} for name, tally in counts.items()}
    for group in comparison.scored:
        scores, kept = group.selection.scores, group.selection.indices
        dropped = sorted({row for rows in group.selection.dropped.values() for row in rows})
        left = np.setdiff1d(np.flatnonzero(np.isfinite(scores)), [*kept, *dropped])
        shown = {"kept": kept[:examples], "not kept": left[np.argsort(scores[left], kind="stable")][:examples]}
        shown["dropped"] = np.array(dropped, np.int64)[:examples]
        comparison.examples[group.name] = [
            {"what": what, "row": int(row), "score": float(scores[row])}
            | ({} if values is None else {f"`{column}`": str(values[row])})
            | {"prompt": records[int(row)].prompt, "answer": records[int(row)].answer}
            for what, rows in shown.items()
            for row in rows
        ]
