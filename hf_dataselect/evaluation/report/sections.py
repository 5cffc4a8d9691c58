"""
What the report of a [`Comparison`] says, section by section.

Every PIR stands with its kind, its settings and its interval; where the interval holds 1, the report says that no
difference is shown.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ...runs.folder import plain
from ..comparison.comparison import Comparison
from ..comparison.evaluated_runs import UNSCORED, Group
from ..comparison.pir import PIR, cost_warning


@dataclass
class Table:
    """
    Cells as text.

    Args:
        head (`list[str]`):
            Names of the columns.
        rows (`list[list[str]]`):
            The cells.
        left (`int`, *optional*, defaults to `1`):
            Columns of words at the left; the others hold numbers. `None`: all hold words.
        longest (`int`, *optional*):
            Characters of a cell that Markdown shows, whose lines don't wrap.
    """

    head: list[str]
    rows: list[list[str]]
    left: int | None = 1
    longest: int | None = None


@dataclass
class Section:
    """A part of the report: sentences, then a table, then pictures by name."""

    title: str
    text: list[str] = field(default_factory=list)
    table: Table | None = None
    pictures: tuple[str, ...] = ()


def sections(comparison: Comparison) -> list[Section]:
    """What the report says, in order; parts without content are left out."""
    parts = [
        Section("Verdict", [headline(comparison)]),
        _runs(comparison),
        _settings(comparison),
        _efficiency(comparison),
        _overlaps(comparison),
        _tallies(comparison),
        *_examples(comparison),
        _accounting(comparison),
        _reproduction(comparison),
    ]
    return [part for part in parts if part.text or part.table]


def headline(comparison: Comparison) -> str:
    """The verdict in a sentence."""
    if comparison.baseline is None:
        return "Whether selecting was worth it is not known: there is no run of `full` to compare with."
    rated = [group for group in comparison.groups if group.pir and np.isfinite(group.pir.value)]
    rated = [group for group in rated if group.method not in UNSCORED] or rated
    if not rated:
        return "Whether selecting was worth it is not known: no run has a PIR."
    best = max(rated, key=lambda group: group.pir.value)
    said = f"{best.name}, on {best.sdf:.1%} of the rows, {_against(best.pir, 'training on everything')}"
    if best.wins is not None:
        said += f"; its answers against the baseline's, by the judge: {best.wins.verdict} ({_stated(best.wins)})"
    if best.over_control is not None:
        said += f"; it {_against(best.over_control, 'as many random rows')}"
    elif best.method != "random":
        said += "; without a control of as many random rows, this may be the number of rows and not their choice"
    if len(rated) > 1:
        said += f". It has the highest PIR of {len(rated)}, which flatters it a little"
    return f"{said}."


def _against(pir: PIR, other: str) -> str:
    words = {
        "better": f"is better than {other}",
        "worse": f"is worse than {other}",
        "no difference shown": f"shows no difference to {other}",
    }
    # Without an interval, the number alone is no verdict.
    return f"{words.get(pir.verdict, f'can not be told from {other} without an interval')} ({_stated(pir)})"


def _stated(pir: PIR) -> str:
    text = f"PIR {pir.value:.3f}, {pir.kind}" if np.isfinite(pir.value) else f"no PIR, {pir.kind}"
    return text + (f", 95 % interval {_interval(pir)}" if _interval(pir) else "")


def _interval(pir: PIR | None) -> str:
    if pir is None or np.isnan(pir.low):
        return ""
    return f"{pir.low:.3f} to {pir.high:.3f}" + (" (some settings)" if pir.partial else "")


def _named(comparison: Comparison) -> dict[str, str]:
    return {g.name: f"{g.name} (BM)" if g is comparison.baseline else g.name for g in comparison.groups}


def _runs(comparison: Comparison) -> Section:
    groups, named = comparison.groups, _named(comparison)
    head = ["run", "method", "verdict", "rows kept", "SDF", "PIR (benchmark ratio)", "95 % interval", "over control"]
    head += ["STR", "selection s", "training s"]
    rows = [
        [named[g.name], g.method, g.pir.verdict if g.pir else "", f"{len(g.selection.indices):,}", f"{g.sdf:.3f}"]
        + [_number(g.pir and g.pir.value), _interval(g.pir), _over_control(g)]
        + [_number(g.str_ratio), f"{g.selection_seconds:.1f}", _number(g.train_seconds, 1)]
        for g in groups
    ]
    if any(group.wins for group in groups):
        head += ["PIR (wins rate)", "its interval"]
        rows = [
            [*row, _number(g.wins and g.wins.value), _interval(g.wins)] for row, g in zip(rows, groups, strict=True)
        ]
    if max(len(group.runs) for group in groups) > 1:
        head.insert(3, "seeds")
        for row, group in zip(rows, groups, strict=True):
            row.insert(3, str(len(group.runs)))
    return Section("Runs", list(_remarks(comparison)), Table(head, rows, 3), ("ratios", "curves"))


def _over_control(group: Group) -> str:
    pir = group.over_control
    if pir is None or not np.isfinite(pir.value):
        return ""
    return f"{pir.value:.3f}" + (f" ({_interval(pir)})" if _interval(pir) else "")


def _remarks(comparison: Comparison) -> Iterator[str]:
    """What has to be known beside the numbers."""
    reference = comparison.baseline
    if reference is None:
        yield "No run of `full` among these: PIR and STR need a baseline."
    for kind in ("pir", "wins"):
        found = {group.name: getattr(group, kind) for group in comparison.groups if getattr(group, kind)}
        for how, names in _by_text({name: pir.interval for name, pir in found.items()}).items():
            yield f"Interval of {names} ({next(iter(found.values())).kind}): {how}."
    for group in comparison.groups:
        if warning := cost_warning(group.str_ratio):
            yield f"{group.name}: {warning[0].lower()}{warning[1:]}"
        if group.judge is not None:
            yield (
                f"{group.name}: answers compared by {group.judge}." if group.wins else f"{group.name}: {group.judge}."
            )
        for run in group.runs:
            for name, why in run.failed.items():
                yield f"{run.name}: the benchmark {name!r} failed: {why}"
        if cached := group.selection.passes.get("cached_rows"):
            spared = f"{group.selection.cached_seconds:.1f} of the {group.selection.seconds:.1f} selection seconds"
            yield f"{group.name}: {cached:,} scores came from the cache; it spared {spared} this time."
        for pir in filter(None, (group.pir, group.wins)):
            if pir.left_out:
                named = "; ".join(f"{name}: {why}" for name, why in pir.left_out.items())
                yield f"{group.name}: left out of the PIR ({pir.kind}): {named}."
        if reference is not None and group is not reference and (differing := _differences(group, reference)):
            yield f"{group.name}: differs from the baseline in more than the rows: {', '.join(differing)}."


def _by_text(said: dict[str, str]) -> dict[str, str]:
    """Names by what is said of them, so that nothing is said twice."""
    found: dict[str, list[str]] = {}
    for name, text in said.items():
        found.setdefault(text, []).append(name)
    return {text: ", ".join(names) for text, names in found.items()}


def _differences(group: Group, other: Group) -> list[str]:
    """Options and data that both name and that differ, so that PIR measures more than the selection."""
    mine, its = group.runs[0], other.runs[0]
    names = {**its.training, **mine.training} if its.recipe and mine.recipe else {}
    found = [f"`{name}`" for name in names if mine.training.get(name) != its.training.get(name)]
    if mine.selection.facts.get("dataset") != its.selection.facts.get("dataset"):
        found.append("the candidate rows")
    both = {**its.versions, **mine.versions} if its.versions and mine.versions else {}
    return found + [f"{name} (version)" for name in both if mine.versions.get(name) != its.versions.get(name)]


def _settings(comparison: Comparison) -> Section:
    groups, reference = comparison.groups, comparison.baseline
    runs = [run for group in groups for run in group.runs]
    directions = {name: setting.higher_is_better for run in runs for name, setting in run.settings.items()}
    if not directions:
        return Section("Held-out rows and benchmarks")
    before = reference.runs[0].untrained if reference else {}
    head = ["setting", *(["before training"] if before else []), *_named(comparison).values()]
    rows = [
        [f"{name} ({'higher' if higher else 'lower'} is better)"]
        + ([_number(before.get(name), 4)] if before else [])
        + [_score(group, name) for group in groups]
        for name, higher in directions.items()
    ]
    note = "In brackets: score / baseline, inverted where lower is better; PIR is the mean of these ratios."
    return Section("Held-out rows and benchmarks", [note] if reference else [], Table(head, rows))


def _score(group: Group, name: str) -> str:
    score = group.score(name)
    if score is None:
        return ""
    ratio = group.pir.settings.get(name) if group.pir else None
    text = _number(score, 4) or "none"
    return text if ratio is None else f"{text} ({ratio:.3f})"


def _efficiency(comparison: Comparison) -> Section:
    found = comparison.efficiencies()
    own = {group.name for group in comparison.groups}
    rows = [
        [f"{item.point.name}{' (this comparison)' if item.point.name in own else ''}", f"{item.point.sdf:.3f}"]
        + [_number(item.point.pir), _number(item.distance), str(item.rank or "")]
        for item in found
    ]
    text = (
        "Distance to the line through Instruction-Mining and InstructionGPT-4 in the plane of SDF and PIR "
        "(arXiv 2406.14115, section 6.1). The published PIRs are wins rates of other models on other data; those of "
        "this comparison are estimated from benchmark ratios where no judge compared answers. Read it as a map, not "
        "as a ranking."
    )
    table = Table(["method", "SDF", "PIR (wins scale)", "distance", "rank"], rows)
    return Section("Efficiency", [text], table, ("plane",)) if found else Section("Efficiency")


def _overlaps(comparison: Comparison) -> Section:
    rows = [
        [one.name, other.name, f"{shared:.3f}", "" if correlation is None else f"{correlation:+.3f}"]
        for one, other, shared, correlation in comparison.overlaps()
    ]
    head = ["run", "and", "rows both kept / rows one kept", "rank correlation of scores"]
    note = "Two random halves of a dataset share 1/3 of their rows, two random twentieths 1/39."
    title = "Do the methods choose alike?"
    return Section(title, [note], Table(head, rows, 2)) if rows else Section(title)


def _tallies(comparison: Comparison) -> Section:
    title = f"Rows kept by `{comparison.column}`"
    if not comparison.tallies:
        return Section(title)
    named = _named(comparison)
    totals = {name: max(1, sum(tally.values())) for name, tally in comparison.tallies.items()}
    head = [str(comparison.column), *(named.get(name, name) for name in totals)]
    rows = [
        [value, *(f"{tally[value]:,} ({tally[value] / totals[n]:.0%})" for n, tally in comparison.tallies.items())]
        for value in comparison.tallies["candidates"]
    ]
    return Section(title, ["In brackets: share of the run's rows."], Table(head, rows), ("tallies",))


def _examples(comparison: Comparison) -> Iterator[Section]:
    for group in comparison.scored:
        found = comparison.examples.get(group.name, [])
        cells = [[_number(v) if isinstance(v, float) else shortened(v, 600) for v in row.values()] for row in found]
        table = Table(list(found[0]), cells, None, longest=44) if found else None
        scored = int(np.isfinite(group.selection.scores).sum())
        said = [f"{scored:,} of {group.selection.candidates:,} rows have a score; higher is better."]
        yield Section(f"Scores of {group.name}", said, table, (f"scores-{group.name}",))


def _accounting(comparison: Comparison) -> Section:
    """What became of every candidate."""
    rows = []
    for group in comparison.groups:
        selection, aside = group.selection, []
        for kind in ("unscorable", "dropped", "truncated"):
            aside += [[group.name, f"{kind}: {why}", f"{len(r):,}"] for why, r in getattr(selection, kind).items()]
        aside += [[group.name, *line.split(": ", 1)] for line in selection.figure_lines()]
        rows += [[group.name, "candidates", f"{selection.candidates:,}"], *aside]
        rows += [[group.name, "kept", f"{len(selection.indices):,}"]]
        for run in group.runs:
            rows += [
                [run.name, f"held out, without a score: {why}", f"{len(r):,}"] for why, r in run.unscorable.items()
            ]
        if group.tokens is not None:
            whole = comparison.baseline.tokens if comparison.baseline else None
            share = f" ({group.tokens / whole:.1%} of the baseline's)" if whole else ""
            rows.append([group.name, "tokens of the rows kept", f"{group.tokens:,.0f}{share}"])
        if selection.passes:
            rows.append([group.name, "rows and tokens through models", _listed(selection.passes)])
        judge = selection.facts.get("judge")
        if judge and any(judge["cost"].values()):
            cost = {name: number for name, number in judge["cost"].items() if number}
            rows.append([group.name, f"asked of the judge {judge['name']}", _listed(cost)])
        if device := selection.peak_memory:
            told = ", ".join(f"{name} {size / 2**30:.2f} GiB" for name, size in device.items())
            rows.append([group.name, "peak memory up to the selection", told])
    return Section("What became of the rows", table=Table(["run", "what", "how much"], rows, 2))


def _listed(numbers: dict[str, float]) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {number:,.6g}" for name, number in numbers.items())


def _reproduction(comparison: Comparison) -> Section:
    """Everything to make the runs again."""
    rows = []
    for run in (run for group in comparison.groups for run in group.runs):
        facts = run.selection.facts
        rows.append(
            [run.name, str(facts.get("model", "")), str(facts.get("seed", "")), str(facts.get("dataset", ""))]
            + [json.dumps(plain(run.choice), ensure_ascii=False)]
        )
    versions = next((run.versions for group in comparison.groups for run in group.runs if run.versions), {})
    text = ["`hf-dataselect train --config recipe.yaml` with the `recipe.yaml` of a run's folder repeats the run."]
    if versions:
        text.append("Versions: " + ", ".join(f"{name} {number}" for name, number in versions.items() if number) + ".")
    return Section(
        "To make it again", text, Table(["run", "model", "seed", "dataset (hash)", "chosen by"], rows, None)
    )


def _number(value: float | None, digits: int = 3) -> str:
    return "" if value is None or not np.isfinite(value) else f"{value:.{digits}f}"


def shortened(text: Any, length: int | None) -> str:
    """The text on one line, of at most `length` characters."""
    text = " ".join(str(text).split())
    return text if length is None or len(text) <= length else text[: length - 1].rstrip() + "…"
