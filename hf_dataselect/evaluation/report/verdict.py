"""The verdict on a [`Comparison`] in words; a number without an interval gets none."""

import re

import numpy as np

from ..comparison.comparison import Comparison
from ..comparison.evaluated_runs import UNSCORED
from ..comparison.pir import PIR, SAME


def headline(comparison: Comparison) -> str:
    """The verdict in one sentence."""
    if comparison.baseline is None:
        return "It is unknown whether selection helped: no run of `full` to compare with."
    rated = [group for group in comparison.groups if group.pir and np.isfinite(group.pir.value)]
    rated = [group for group in rated if group.method not in UNSCORED] or rated
    if not rated:
        return "It is unknown whether selection helped: no run has a PIR."
    best = max(rated, key=lambda group: group.pir.value)
    text = f"{best.name}, on {best.sdf:.1%} of the rows, {_against(best.pir, 'training on everything')}"
    if best.pir.intervals and best.pir.left_out:
        text += f", without {', '.join(best.pir.left_out)}"
    if best.wins is not None:
        text += f"; its answers compared with the baseline's by the judge: {best.wins.verdict} ({_stated(best.wins)})"
    if best.over_control is not None:
        text += f"; it {_against(best.over_control, 'as many random rows')}"
    elif best.method not in UNSCORED:
        text += "; without a control of as many random rows, the number of rows may be the cause, not their choice"
    if "variance between runs is not included" in best.pir.interval:
        text += "; with one run a side, other seeds may differ"
    if len(rated) > 1:
        text += f". It has the highest PIR of {len(rated)}, which biases it upwards"
    return f"{text}."


def _against(pir: PIR, other: str) -> str:
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
