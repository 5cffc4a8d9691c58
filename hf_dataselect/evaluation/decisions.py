"""
Which method for which question ([`decision`], [`decision_table`]): what was measured with this package, and facts that
others publish, each with its source. All of it stands in `decisions.json`.
"""

import json
from functools import cache
from importlib.resources import files
from typing import Any

from .report.section import Section, Table, number


#: How much of a source was read.
READ = {"files": "its files of results", "readme": "its readme", "page": "its page", "abstract": "its abstract only"}
#: Methods that a cell of the short table names.
SHOWN = 2


@cache
def decisions() -> dict[str, Any]:
    """Content of the file: `questions`, `published` and `measured`."""
    return json.loads((files(__package__) / "decisions.json").read_text(encoding="utf-8"))


def decision(question: str) -> list[Section]:
    """
    All that is known of a question.

    Args:
        question (`str`):
            A name among `decisions()["questions"]`.
    """
    entry, rows = decisions()["questions"][question], measured(question)
    advice = [f"By what is published, try: {entry['try']}.", f"Expect: {entry['expect']}."]
    advice.append("Train on as many random rows beside it: on your data, only that tells.")
    parts = [Section(entry["asks"], advice)]
    known = dict.fromkeys(row["scenario"] for row in rows) or entry["scenarios"]
    scenarios = " and ".join(f"`hf-dataselect scenario {name}`" for name in known)
    if rows:
        head = "scenario, equal, method, budget, seeds, rows, over random, 95 % interval, verdict, over everything"
        cells = [
            [row["scenario"], row["equal"], row["method"], str(row["budget"]), str(row["seeds"]), str(row["rows"])]
            + [*_pir(row["over_random"]), row["over_random"]["verdict"], *_pir(row["over_everything"])]
            + [number(row["str"], 2)]
            for row in rows
        ]
        models = ", ".join(sorted({row["model"] for row in rows}))
        text = [f"PIR (benchmark ratio, above 1 is better), {models}; by {scenarios}."]
        if any(row["seeds"] == 1 for row in rows):
            text.append("With one seed, an interval is about these runs alone: other seeds may differ.")
        table = Table([*head.split(", "), "95 % interval", "STR"], cells, 3)
        parts.append(Section("Measured with this package", text, table))
    else:
        text = f"Nothing yet: {scenarios}." if scenarios else "Nothing yet."
        parts.append(Section("Measured with this package", [text]))
    facts = [row for row in decisions()["published"] if row["question"] == question]
    cells = [[row[name] for name in ("method", "gain", "against", "data", "cost")] + [_source(row)] for row in facts]
    head = ["method", "gain", "against", "data", "cost", "source, date, what of it was read"]
    text = ["Points are of the study's own mean score. Facts of the sources, not checked by us, unless they say so."]
    return [
        *parts,
        Section("Published", text, Table(head, cells, None)) if facts else Section("Published", ["Nothing."]),
    ]


def measured(question: str, given: list[dict[str, Any]] | None = None) -> list[dict[str, Any]]:
    """What was measured on it (by these rows, or the file's), highest PIR over the control first."""
    rows = decisions()["measured"] if given is None else given
    rows = [row for row in rows if row["question"] == question]
    return sorted(rows, key=lambda row: (row["scenario"], row["equal"], -row["over_random"]["value"]))


def decision_table(given: list[dict[str, Any]] | None = None) -> str:
    """
    Markdown table, a row for each question.

    Args:
        given (`list[dict]`, *optional*):
            What was measured, in place of what the file holds.
    """
    lines = [
        "| `--for` | question | published: try | expect | better than random here | better than everything here |",
        "|---|---|---|---|---|---|",
    ]
    for name, entry in decisions()["questions"].items():
        rows = measured(name, given)
        cells = [f"`{name}`", entry["asks"], entry["try"], entry["expect"], _best(rows, "over_random")]
        lines.append(f"| {' | '.join([*cells, _best(rows, 'over_everything')])} |")
    return "\n".join(lines)


def _best(rows: list[dict[str, Any]], against: str) -> str:
    """The methods whose interval lies above 1, the highest value first."""
    if not rows:
        return "not measured"
    better = [row for row in rows if row[against] and row[against]["verdict"] == "better"]
    better.sort(key=lambda row: -row[against]["value"])
    shown = []
    for row in better[:SHOWN]:
        pir, seeds = row[against], "1 seed" if row["seeds"] == 1 else f"{row['seeds']} seeds"
        of = f"{row['scenario']}, equal {row['equal']}, STR {number(row['str'], 2)}, {seeds}"
        shown.append(f"`{row['method']}` {row['budget']}: {pir['value']:.3f} ({_interval(pir)}; {of})")
    if len(better) > SHOWN:
        shown.append(f"{len(better) - SHOWN} more")
    return "; ".join(shown) or f"none of {len(rows)}"


def _pir(pir: dict[str, Any] | None) -> list[str]:
    return ["", ""] if pir is None else [number(pir["value"]), _interval(pir)]


def _interval(pir: dict[str, Any]) -> str:
    return "" if pir["low"] is None else f"{number(pir['low'])} to {number(pir['high']) or 'over 1,000'}"


def _source(row: dict[str, Any]) -> str:
    return f"arXiv {row['source']}, {row['date']}, {READ[row['read']]}"
