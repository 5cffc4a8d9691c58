"""Remarks without which the numbers of a report can be misread: one line for each, with the runs that it is about."""

from collections.abc import Iterator

from ..comparison.comparison import Comparison
from ..comparison.pir import PIR, cost_warning
from .section import all_of, merged
from .training import trained_differently


def remarks(comparison: Comparison) -> list[str]:
    """All of them; equal ones are one line."""
    reference, groups = comparison.baseline, [group.name for group in comparison.groups]
    said = [] if reference else ["No run of `full` among these: PIR and STR need a baseline."]
    baseline = reference and reference.name
    for compared in ("pir", "wins", "over_control"):
        intervals: dict[tuple[str, str], list[str]] = {}
        for group in comparison.groups:
            if pir := getattr(group, compared):
                intervals.setdefault((pir.interval, _kind(pir, compared)), []).append(group.name)
        for (how, of), names in intervals.items():
            said.append(f"Interval of {all_of(names, groups, baseline)} ({of}): {how}.")
    said += merged(_of_runs(comparison), [run.name for group in comparison.groups for run in group.runs])
    return said + merged([*_of_groups(comparison), *trained_differently(comparison)], groups, baseline)


def _of_runs(comparison: Comparison) -> Iterator[tuple[str, str]]:
    for run in (run for group in comparison.groups for run in group.runs):
        for name, error in run.failed.items():
            yield run.name, f"the benchmark {name!r} failed: {error}"
        if run.policy.get("selections"):
            served = run.policy["rows"]["served"]
            part = f"{served:,} rows ({served / run.selection.candidates:.1%} of the candidates)"
            yield run.name, f"SDF, rows kept and control are those of the first selection: it trained on {part}."


def _of_groups(comparison: Comparison) -> Iterator[tuple[str, str]]:
    for group in comparison.groups:
        if warning := cost_warning(group.str_ratio):
            yield group.name, f"{warning[0].lower()}{warning[1:]}"
        if group.judge is not None:
            yield group.name, f"{'answers compared by ' if group.wins else ''}{group.judge}."
        if group.pir and group.pir.low == group.pir.high == 1:
            yield group.name, "scored as the baseline to the last digit: did training change anything (learning rate)?"
        for name, shared in (group.selection.facts.get("also_in") or {}).items():
            kept = f"{shared['rows']:,} candidates are also in `{name}`, {shared['kept']:,} of them were kept"
            yield group.name, f"{kept}."
        for compared in ("pir", "wins", "over_control"):
            if (pir := getattr(group, compared)) and pir.left_out:
                reasons = "; ".join(f"{name}: {reason}" for name, reason in pir.left_out.items())
                yield group.name, f"excluded from the PIR ({_kind(pir, compared)}): {reasons}."


def _kind(pir: PIR, compared: str) -> str:
    return f"{pir.kind} over the control" if compared == "over_control" else pir.kind
