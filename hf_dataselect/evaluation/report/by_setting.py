"""Scores, gains and harms, and verdicts of each setting."""

from collections.abc import Iterator

import numpy as np

from ..comparison.comparison import Comparison
from ..comparison.evaluated_runs import Group
from ..comparison.pir import SAME
from .section import Section, Table, named, number


#: What follows a ratio whose interval excludes 1.
_SIGNS = {"better": " +", "worse": " -"}
#: The factor whose colour is the strongest.
_STRONGEST = 1.5


def gains_and_harms(comparison: Comparison) -> Iterator[Section]:
    """The ratio of each run in each setting, to the baseline and to as many random rows."""
    names = named(comparison)
    for compared, against in (("pir", "the baseline"), ("over_control", "as many random rows")):
        pirs = {group.name: getattr(group, compared) for group in comparison.groups}
        pirs = {name: pir for name, pir in pirs.items() if pir and pir.settings}
        settings = list(dict.fromkeys(setting for pir in pirs.values() for setting in pir.settings))
        rows, shades, counts = [], [], dict.fromkeys(("better", "worse", SAME, "unknown"), 0)
        for name, pir in pirs.items():
            cells, colours, verdicts = [names[name]], [0.0], pir.verdicts
            for setting in settings:
                ratio = pir.settings.get(setting)
                verdict = verdicts.get(setting)
                cells.append("" if ratio is None else f"{ratio:.3f}{_SIGNS.get(verdict, '')}")
                strong = np.log(ratio) / np.log(_STRONGEST) if verdict in _SIGNS and ratio else 0.0
                colours.append(float(np.clip(strong, -1, 1)))
                if verdict is not None:
                    counts[verdict] += 1
            rows.append(cells)
            shades.append(colours)
        judged = sum(counts.values()) - counts["unknown"]
        text = (
            f"Score / score of {against}, inverted where lower is better. Of {judged} ratios with an interval, "
            f"{counts['better']} are gains (+) and {counts['worse']} harms (-) whose interval excludes 1; where "
            "nothing differs, one of 20 does."
        )
        table = Table(["run", *settings], rows, shades=shades)
        title = f"Gains and harms by setting, against {against}"
        yield Section(title, [text], table) if rows else Section(title)


def scores_by_setting(comparison: Comparison) -> Section:
    """The score of each group in each setting."""
    runs = [run for group in comparison.groups for run in group.runs]
    directions = {name: setting.higher_is_better for run in runs for name, setting in run.settings.items()}
    if not directions:
        return Section("Held-out rows and benchmarks")
    names, reference = named(comparison), comparison.baseline
    before = reference.runs[0].untrained if reference else {}
    head = ["run", *(f"{name} ({'higher' if up else 'lower'} is better)" for name, up in directions.items())]
    rows = [["before training", *(number(before.get(name), 4) for name in directions)]] if before else []
    rows += [
        [names[group.name], *(number(group.score(name), 4) or _missing(group, name) for name in directions)]
        for group in comparison.groups
    ]
    return Section("Held-out rows and benchmarks", table=Table(head, rows), folded=True)


def _missing(group: Group, name: str) -> str:
    return "" if group.score(name) is None else "NaN"


def verdicts_by_setting(comparison: Comparison) -> Iterator[Section]:
    """The ratio of each setting with its own interval and verdict, to the baseline and to as many random rows."""
    names = named(comparison)
    text = (
        "Each verdict is by the interval of its own ratio, without a correction for their number: of 20 settings in "
        "which nothing differs, one is called better or worse. PIR is the mean of those that are part of it."
    )
    for compared, title, against in (
        ("pir", "Verdicts by setting", "baseline"),
        ("over_control", "Verdicts by setting, over the control", "control"),
    ):
        rows = []
        for group in comparison.groups:
            pir = getattr(group, compared)
            for setting, ratio in pir.settings.items() if pir else ():
                ends = pir.intervals.get(setting)
                part = pir.left_out.get(setting, "yes") if pir.intervals else "yes"
                interval = "" if ends is None else f"{ends[0]:.3f} to {ends[1]:.3f}"
                rows.append([names[group.name], setting, pir.verdicts[setting], part, number(ratio), interval])
        head = ["run", "setting", "verdict", "part of the PIR", f"score / {against}", "its 95 % interval"]
        yield Section(title, [text], Table(head, rows, 4), folded=True) if rows else Section(title)
