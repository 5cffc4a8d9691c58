"""The verdict on a [`Comparison`] in words; a number without an interval gets none."""

import re

import numpy as np

from ..comparison.comparison import Comparison
from ..comparison.evaluated_runs import UNSCORED, Group
from ..comparison.pir import PIR, SAME


#: Runs that the conclusion lists.
SHOWN = 6


def headline(comparison: Comparison) -> str:
    """The verdict in one sentence."""
    if comparison.baseline is None:
        return "It is unknown whether selection helped: no run of `full` to compare with."
    if not (rated := _rated(comparison)):
        return "It is unknown whether selection helped: no run has a PIR."
    best = rated[0]
    text = f"{best.name}, on {best.sdf:.1%} of the rows, {compared_with(best.pir, 'training on everything')}"
    if best.pir.intervals and best.pir.left_out:
        text += f", without {', '.join(best.pir.left_out)}"
    if best.wins is not None:
        text += f"; its answers compared with the baseline's by the judge: {best.wins.verdict} ({_stated(best.wins)})"
    if best.over_control is not None:
        text += f"; it {compared_with(best.over_control, 'as many random rows')}"
    elif best.method not in UNSCORED:
        text += "; without a control of as many random rows, the number of rows may be the cause, not their choice"
    if "variance between runs is not included" in best.pir.interval:
        text += "; with one run a side, other seeds may differ"
    if len(rated) > 1:
        text += f". It has the highest PIR of {len(rated)}, which biases it upwards"
    return f"{text}."


def conclusion(comparison: Comparison) -> list[str]:
    """What was compared, what came out, and how sure that is: three lines; one if nothing can be compared."""
    rated, baseline = _rated(comparison), comparison.baseline
    if baseline is None or not rated:
        return [headline(comparison)]
    parts = [f"{group.name} on {len(group.selection.indices):,}" for group in comparison.groups[:SHOWN]]
    parts += [f"{len(comparison.groups) - SHOWN} more"] if len(comparison.groups) > SHOWN else []
    runs = sorted({len(group.runs) for group in (baseline, *rated)})
    lines = [
        f"Compared: models trained on rows of {baseline.selection.candidates:,} ({', '.join(parts)}) "
        f"{_how_long(comparison)}, {' or '.join(map(str, runs))} run{'s' * (runs != [1])} each."
    ]
    best, control = rated[0], rated[0].over_control
    against = {"training on everything": best.pir, "as many random rows": control}
    against = {other: pir for other, pir in against.items() if pir is not None}
    text = ", and ".join(compared_with(pir, other).partition(" (")[0] for other, pir in against.items())
    lines.append(f"Came out: {best.name} {text}{'' if control else '; there is no random control'}.")
    if len(rated) > 1:
        better = [group.name for group in rated if group.over_control and group.over_control.verdict == "better"]
        lines[-1] += f" {len(better)} of {len(rated)} selections are better than as many random rows."
    sure = [f"PIR {pir.value:.3f} over {other}, {_sureness(pir)}" for other, pir in against.items()]
    sure += ["the best of several looks better than it is"] if len(rated) > 1 else []
    sure += ["more `seeds` would tell"] if min(len(best.runs), len(baseline.runs)) == 1 else []
    return [*lines, f"How sure: {'; '.join(sure)}."]


def _how_long(comparison: Comparison) -> str:
    """What all runs were trained for as much of, as their recipes say."""
    runs = [run for group in comparison.groups for run in group.runs]
    if equal := next((run.equal for run in runs if run.equal), None):
        return f"for equally many {equal}"
    lengths = {(run.recipe.get("max_steps") or -1, run.recipe.get("num_train_epochs")) for run in runs}
    if len({steps for steps, _ in lengths}) == 1 and max(lengths, key=lambda item: item[0])[0] > 0:
        return "for equally many updates"
    return "for equally many epochs" if len(lengths) == 1 else "each as long as its recipe says"


def _sureness(pir: PIR) -> str:
    ends = interval_text(pir)
    return f"95 % interval {ends}, {_chance(pir.interval)}" if ends else "without an interval"


def _rated(comparison: Comparison) -> list[Group]:
    """Groups with a PIR, those whose method scores if there are any, highest first."""
    rated = [group for group in comparison.groups if group.pir and np.isfinite(group.pir.value)]
    rated = [group for group in rated if group.method not in UNSCORED] or rated
    return sorted(rated, key=lambda group: -group.pir.value)


def compared_with(pir: PIR, other: str) -> str:
    """What a PIR says of a model against another, with the numbers."""
    verdicts = {
        "better": f"is better than {other}",
        "worse": f"is worse than {other}",
        SAME: f"is not significantly different from {other}",
    }
    return f"{verdicts.get(pir.verdict, f'cannot be compared with {other} without an interval')} ({_stated(pir)})"


def _stated(pir: PIR) -> str:
    text = f"PIR {pir.value:.3f}, {pir.kind}" if np.isfinite(pir.value) else f"no PIR, {pir.kind}"
    return text + (f", 95 % interval {interval_text(pir)}, {_chance(pir.interval)}" if interval_text(pir) else "")


def _chance(interval: str) -> str:
    """Whether an interval, by the text on how it was computed, holds the chance between runs."""
    if "variance between runs is not included" in interval:
        return "without the variance between runs"
    if not (runs := re.search(r" and (\d+(?: \+ \d+)?) runs", interval)):
        return "without the variance between runs"
    text = f"with the variance between {runs[1]} runs"
    if "the side with one run is taken to vary as the other" in interval:
        text += ", the side with one taken to vary as the other"
    if "between runs of the baseline is not included" in interval:
        text += ", without that of the baseline's"
    return text


def interval_text(pir: PIR | None) -> str:
    """Both ends of the interval; empty without one."""
    if pir is None or np.isnan(pir.low):
        return ""
    return f"{pir.low:.3f} to " + (f"{pir.high:.3f}" if pir.high < 1000 else "over 1,000")
