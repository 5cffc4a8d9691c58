"""
Content of the report on a [`Comparison`], section by section.

Each PIR is shown with its kind, its settings and its interval; if the interval contains 1, the report states that the
difference is not significant.
"""

import json
from collections.abc import Iterator

import numpy as np

from ...runs.files import plain
from ..comparison.comparison import Comparison
from ..comparison.efficiency import infeasible_pairs
from ..comparison.evaluated_runs import Group
from ..comparison.published import published
from .by_setting import gains_and_harms, scores_by_setting, verdicts_by_setting
from .header import header
from .overlap import overlap_matrices
from .remarks import remarks
from .section import Section, Table, named, number, shortened
from .verdict import headline, interval_text
from .while_training import guarded, policy_lines, while_training


def sections(comparison: Comparison) -> list[Section]:
    """The sections in order; empty ones are omitted."""
    parts = [
        header(comparison),
        Section("Verdict", [headline(comparison)]),
        _runs(comparison),
        guarded(comparison),
        *gains_and_harms(comparison),
        scores_by_setting(comparison),
        *verdicts_by_setting(comparison),
        *_efficiency(comparison),
        *overlap_matrices(comparison),
        _tallies(comparison),
        *while_training(comparison),
        *_examples(comparison),
        _accounting(comparison),
        _reproduction(comparison),
    ]
    return [part for part in parts if not part.empty]


def _runs(comparison: Comparison) -> Section:
    groups, names = comparison.groups, named(comparison)
    columns = {
        "run": lambda g: names[g.name],
        "method": lambda g: g.method + (f", {g.policy}" if g.policy else ""),
        "verdict": lambda g: g.pir.verdict if g.pir else "",
        "seeds": lambda g: str(len(g.runs)),
        "rows kept": lambda g: f"{len(g.selection.indices):,}",
        "SDF": lambda g: f"{g.sdf:.3f}",
        "PIR (benchmark ratio)": lambda g: number(g.pir and g.pir.value),
        "95 % interval": lambda g: interval_text(g.pir),
        "over control": _over_control,
        "STR": lambda g: number(g.str_ratio),
        "selection s": lambda g: f"{g.selection_seconds:.1f}",
        "updates": lambda g: "" if g.trained("updates") is None else f"{g.trained('updates'):,.0f}",
        "training s": lambda g: number(g.train_seconds, 1),
        "PIR (wins rate)": lambda g: number(g.wins and g.wins.value),
        "its interval": lambda g: interval_text(g.wins),
    }
    told = [group.method.rpartition(":")[2] in group.name and not group.policy for group in groups]
    if all(told):  # by its name
        del columns["method"]
    if max(len(group.runs) for group in groups) == 1:
        del columns["seeds"]
    if all(group.trained("updates") is None for group in groups):
        del columns["updates"]
    if not any(group.wins for group in groups):
        del columns["PIR (wins rate)"], columns["its interval"]
    cells = [[cell(group) for cell in columns.values()] for group in groups]
    table = Table([*columns], cells, [*columns].index("verdict") + 1)
    return Section("Runs", [], table, ("ratios", "over control", "curves"), remarks(comparison))


def _over_control(group: Group) -> str:
    pir = group.over_control
    if pir is None or not np.isfinite(pir.value):
        return ""
    return f"{pir.value:.3f} ({interval_text(pir)}): {pir.verdict}" if interval_text(pir) else f"{pir.value:.3f}"


def _efficiency(comparison: Comparison) -> Iterator[Section]:
    efficiencies, unranked = comparison.efficiencies(), comparison.unranked()
    known = {method.point for method in published()}
    own = {group.name: group.wins for group in comparison.groups if group.wins}
    intervals = {item.point: interval_text(own[item.point.name]) for item in efficiencies if item.point not in known}
    rows = [
        [f"{item.point.name}{'' if item.point in known else ' (this comparison)'}", f"{item.point.sdf:.3f}"]
        + [number(item.point.pir), intervals.get(item.point, ""), number(item.distance), str(item.rank or "")]
        for item in efficiencies
    ]
    estimated = " and ".join(method.method for method in published() if method.estimated)
    text = (
        "Distance to the line through Instruction-Mining and InstructionGPT-4 in the plane of SDF and PIR "
        "(arXiv 2406.14115, section 6.1). PIRs are wins rates; the published ones are of other models on other data, "
        f"those of {estimated} are estimates of that paper. Read it as a map, not as a ranking."
    )
    if efficiencies:
        table = Table(["method", "SDF", "PIR (wins scale)", "95 % interval", "distance", "rank"], rows)
        pairs = infeasible_pairs(item.point for item in efficiencies)
        said = "; ".join(f"{k.name} and {j.name}" for k, j in pairs if not {k, j} <= known)
        apart = [f"Not comparable by distance, as one lies in the infeasible area of the other: {said}."]
        yield Section("Efficiency", [text], table, ("plane",), apart if said else [])
    lines = [
        f"{item.point.name} (SDF {item.point.sdf:.3f}): {'; '.join(filter(None, (item.reason, item.estimated)))}."
        for item in unranked
    ]
    yield Section("Efficiency: runs without a rank", lines, pictures=() if efficiencies else ("plane",))


def _tallies(comparison: Comparison) -> Section:
    title = f"Rows kept by `{comparison.column}`"
    if not comparison.tallies:
        return Section(title)
    names = named(comparison)
    totals = {name: max(1, sum(tally.values())) for name, tally in comparison.tallies.items()}
    values = list(comparison.tallies["candidates"])
    rows = [
        [names.get(name, name), *(f"{tally[value]:,} ({tally[value] / totals[name]:.0%})" for value in values)]
        for name, tally in comparison.tallies.items()
    ]
    text = "In brackets: share of the run's rows."
    return Section(title, [text], Table(["run", *values], rows), ("tallies",))


def _examples(comparison: Comparison) -> Iterator[Section]:
    for group in comparison.scored:
        rows = comparison.examples.get(group.name, [])
        cells = [[number(v) if isinstance(v, float) else shortened(v, 600) for v in row.values()] for row in rows]
        table = Table(list(rows[0]), cells, None, longest=44) if rows else None
        scored = int(np.isfinite(group.selection.scores).sum())
        text = [f"{scored:,} of {group.selection.candidates:,} rows have a score; higher is better."]
        yield Section(f"Scores of {group.name}", text, table, (f"scores-{group.name}",), folded=True)


def _accounting(comparison: Comparison) -> Section:
    """Every candidate by outcome, and what selection cost."""
    rows = []
    for group in comparison.groups:
        selection = group.selection
        lines = [("candidates", f"{selection.candidates:,}")]
        for kind in ("unscorable", "dropped", "truncated"):
            lines += [(f"{kind}: {reason}", f"{len(r):,}") for reason, r in getattr(selection, kind).items()]
        lines += [line.split(": ", 1) for line in selection.figure_lines()]
        lines.append(("kept", f"{len(selection.indices):,}"))
        rows += [[group.name, *line] for line in lines]
        for run in group.runs:
            rows += [
                [run.name, f"held out, unscorable: {reason}", f"{len(r):,}"] for reason, r in run.unscorable.items()
            ]
            rows += [[run.name, *line] for line in (policy_lines(run.policy) if run.policy else [])]
        lines = []
        if group.tokens is not None:
            whole = comparison.baseline.tokens if comparison.baseline else None
            share = f" ({group.tokens / whole:.1%} of the baseline's)" if whole else ""
            lines.append(("tokens of the rows kept", f"{group.tokens:,.0f}{share}"))
        if (trained := group.trained("tokens")) is not None:
            lines.append(("tokens trained", f"{trained:,.0f}"))
        if cached := selection.passes.get("cached_rows"):
            saved = f"{selection.cached_seconds:.1f} of the {selection.seconds:.1f} selection seconds"
            lines.append(("scores read from the cache", f"{cached:,}, which saved {saved}"))
        if selection.passes:
            lines.append(("rows and tokens through models", _listed(selection.passes)))
        judge = selection.facts.get("judge")
        if judge and any(judge["cost"].values()):
            cost = {name: number for name, number in judge["cost"].items() if number}
            lines.append((f"calls of the judge {judge['name']}", _listed(cost)))
        memory = selection.peak_memory
        sizes = [
            f"{name} {memory[name] / 2**30:.2f} GiB, of it {memory[f'{name}_before'] / 2**30:.2f} GiB held before"
            for name in ("process", "gpu")
            if f"{name}_before" in memory
        ]
        if sizes:
            lines.append(("peak memory of the selection", "; ".join(sizes)))
        rows += [[group.name, *line] for line in lines]
    return Section("Row accounting", table=Table(["run", "what", "how much"], rows, 3), folded=True)


def _listed(numbers: dict[str, float]) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {number:,.6g}" for name, number in numbers.items())


def _reproduction(comparison: Comparison) -> Section:
    runs = [run for group in comparison.groups for run in group.runs]
    rows = [
        [run.name, *(str(run.selection.facts.get(fact, "")) for fact in ("model", "seed", "dataset"))]
        + [json.dumps(plain(run.choice), ensure_ascii=False)]
        for run in runs
    ]
    text = ["`hf-dataselect train --config recipe.yaml` with the `recipe.yaml` of a run's folder repeats the run."]
    if versions := next((run.versions for run in runs if run.versions), {}):
        text.append("Versions: " + ", ".join(f"{name} {number}" for name, number in versions.items() if number) + ".")
    table = Table(["run", "model", "seed", "dataset (hash)", "options"], rows, None)
    return Section("Reproduction", text, table, folded=True)
