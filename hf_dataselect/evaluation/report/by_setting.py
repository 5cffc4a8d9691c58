"""Scores and verdicts of each setting."""

from ..comparison.comparison import Comparison
from ..comparison.evaluated_runs import Group
from .section import Section, Table, named, number


def scores_by_setting(comparison: Comparison) -> Section:
    """The score of each group in each setting."""
    groups, reference = comparison.groups, comparison.baseline
    runs = [run for group in groups for run in group.runs]
    directions = {name: setting.higher_is_better for run in runs for name, setting in run.settings.items()}
    if not directions:
        return Section("Held-out rows and benchmarks")
    before = reference.runs[0].untrained if reference else {}
    head = ["setting", *(["before training"] if before else []), *named(comparison).values()]
    rows = [
        [f"{name} ({'higher' if higher else 'lower'} is better)"]
        + ([number(before.get(name), 4)] if before else [])
        + [_score(group, name) for group in groups]
        for name, higher in directions.items()
    ]
    note = (
        "In brackets: score / baseline, inverted where lower is better; PIR is the mean of those that are part of it."
    )
    return Section("Held-out rows and benchmarks", [note] if reference else [], Table(head, rows))


def _score(group: Group, name: str) -> str:
    score = group.score(name)
    if score is None:
        return ""
    ratio = group.pir.settings.get(name) if group.pir else None
    return (number(score, 4) or "NaN") + ("" if ratio is None else f" ({ratio:.3f})")


def verdicts_by_setting(comparison: Comparison) -> Section:
    """The ratio of each setting with its own interval and verdict."""
    names, rows = named(comparison), []
    for group in comparison.groups:
        for setting, ratio in group.pir.settings.items() if group.pir else ():
            ends = group.pir.intervals.get(setting)
            cells = [number(ratio), "" if ends is None else f"{ends[0]:.3f} to {ends[1]:.3f}"]
            part = group.pir.left_out.get(setting, "yes") if group.pir.intervals else "yes"
            rows.append([names[group.name], setting, group.pir.verdicts[setting], part, *cells])
    text = (
        "Each verdict is by the interval of its own ratio, without a correction for their number: of 20 settings in "
        "which nothing differs, one is called better or worse."
    )
    table = Table(["run", "setting", "verdict", "part of the PIR", "score / baseline", "its 95 % interval"], rows, 4)
    return Section("Verdicts by setting", [text], table) if rows else Section("Verdicts by setting")
