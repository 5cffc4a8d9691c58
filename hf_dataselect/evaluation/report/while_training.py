"""
What happened while models trained, for the report: what policies dropped, shares and losses of sources over time, and
what became of the domains that were guarded.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from ..comparison.comparison import Comparison
from .section import Section, Table, number


#: Lines of a table over time.
_TIMES = 10


def policy_lines(policy: dict[str, Any]) -> list[tuple[str, str]]:
    """What a policy dropped and how often, or how often the method chose again, and the cost: names and texts."""
    if selections := policy["selections"]:
        seconds, overlap = sum(one["seconds"] for one in selections), np.mean([one["overlap"] for one in selections])
        text = f"{len(selections)} times in {seconds:.1f} s; on average {overlap:.0%} of the rows as before"
        return [("selected again while it trained", text)]
    if policy["policy"] == "selection_schedule":
        return [("selected again while it trained", "0 times: the training ended before")]
    rows, options = policy["rows"], policy["options"].items()
    dropped = f"{rows['times_dropped']:,} of {rows['times']:,} times; {rows['dropped']:,} rows at least once"
    return [
        (f"options of the policy {policy['policy']}", ", ".join(f"{name}={value!r}" for name, value in options)),
        (f"dropped by the policy {policy['policy']}", f"{dropped}, {rows['always_dropped']:,} whenever served"),
        ("rows that the policy served", f"{rows['served']:,}"),
        (
            "seconds of the policy",
            f"{policy['prepare_seconds']:.1f} before training, {policy['seconds_a_step']:.3g} a step",
        ),
    ]


def while_training(comparison: Comparison) -> Iterator[Section]:
    """Of each run with a policy, shares and losses of sources over time."""
    for run in (run for group in comparison.groups for run in group.runs if run.policy):
        history = run.policy["history"]
        if not history or len(history[0]["share"]) < 2:
            continue
        names = [*history[0]["share"]]
        places = np.unique(np.linspace(0, len(history) - 1, min(_TIMES, len(history))).round().astype(int))
        cells = []
        for place in places:
            entry = history[place]
            shown = [f"{entry['share'][name]:.1%} ({number(entry['loss'][name])})" for name in names]
            cells.append([f"{entry['from_step']:,}", f"{entry['dropped'] / max(1, entry['rows']):.0%}", *shown])
        text = ["Share of each source in the weighted tokens, and, in brackets, its mean loss before weights."]
        table = Table(["from step", "rows dropped", *names], cells)
        yield Section(f"While {run.name} trained", text, table, folded=True)


def guarded(comparison: Comparison) -> Section:
    """What each run did to the domains that it guards, at its end and on the way."""
    rows, allowed = [], {}
    for run in (run for group in comparison.groups for run in group.runs if run.guard):
        allowed[f"{run.guard['harm']:.1%}"] = None
        for name, one in run.guard["domains"].items():
            before = [loss for loss in one["losses_before"] if loss is not None]
            changes = [entry["domains"][name]["change"] for entry in run.guard["history"]]
            cells = [run.name, name, one["verdict"], f"{len(before):,}", number(np.mean(before), 4)]
            cells += [number(one["loss"], 4), _percent(one["change"]), _percent(one["low"]), _percent(one["high"])]
            rows.append([*cells, ", ".join(map(_percent, changes)), str(one["lost"] or "")])
    if not rows:
        return Section("Domains that were guarded")
    text = (
        "Change: mean loss of held-out rows after training / before - 1. HARMED: its lower one-sided 95 % bound is "
        f"above {' or '.join(allowed)} (`guard_harm`); HELPED: its upper one is below 0. The bounds cover the rows, "
        "not other trainings. Lost: rows that had a loss before, and have none now."
    )
    head = ["run", "domain", "verdict", "rows", "loss before", "loss", "change", "lower", "upper"]
    return Section("Domains that were guarded", [text], Table([*head, "at each evaluation", "lost"], rows, 3))


def _percent(change: float | None) -> str:
    return "" if change is None else f"{change:+.1%}"
