"""An audit as sentences and a table."""

from collections.abc import Callable
from typing import Any

from ..report.section import Section, Table, number
from .estimate import Estimate
from .findings import CONTROLS, Audit, Finding


#: Spread of losses between subsets below which training hardly tells them apart, as part of what training does.
HARDLY = 0.02


def sections(audit: Audit, about: dict[str, Any]) -> list[Section]:
    """
    The audit as sections of a report.

    Args:
        audit ([`Audit`]):
            The audit.
        about (`dict`):
            `model`; `pool`, its number of rows; `excluded`, how many of them by reason; `left_out`, methods that were
            not audited, and why; `full_seconds_measured`, whether the seconds of training on the whole pool were
            measured, not extrapolated.
    """
    excluded = "; ".join(f"{rows} excluded, {reason}" for reason, rows in about["excluded"].items())
    seeds = f"{audit.seeds} seeds" if audit.seeds > 1 else "1 seed"
    text = [
        f"Model: {about['model']}. Pool: {about['pool']} rows{f' ({excluded})' if excluded else ''}.",
        f"Trained on {audit.subsets} random subsets of {audit.subset_rows} rows, and on the top rows of each selector "
        f"({seeds}); evaluated on {audit.rows} held-out rows. Mean held-out loss: {audit.untrained:.4f} "
        f"untrained, {audit.trained:.4f} after training on a random subset (standard deviation between subsets "
        f"{audit.spread:.4f}).",
        _named(audit, "Scores predict what training on rows does", lambda finding: finding.prediction.lds),
        _named(audit, "Top rows lower the held-out loss more than random ones", lambda finding: finding.gain),
        f"Of {len(audit.findings)} intervals of a column, about {0.05 * len(audit.findings):.1f} miss the truth by "
        "chance: confirm what you choose with `compare`, on other held-out rows.",
    ]
    if audit.spread < HARDLY * abs(audit.untrained - audit.trained):
        text.append(
            "The subsets' losses differ by less than 2 % of what training does: nothing can predict them well. Take "
            "fewer `subset_rows`, or train longer."
        )
    if audit.lost_rows or audit.lost_subsets:
        text.append(
            f"Left out: {audit.lost_rows} held-out rows and {audit.lost_subsets} subsets without a finite loss."
        )
    notes = [note for finding in audit.findings for note in _notes(finding, audit)]
    notes += [f"`{name}` is left out: {reason}" for name, reason in about["left_out"].items()]
    return [
        Section("Audit", text, _table(audit, about["full_seconds_measured"])),
        *([Section("Notes", notes)] if notes else []),
    ]


def _named(audit: Audit, claim: str, of: Callable[[Finding], Estimate]) -> str:
    names = {
        verdict: [f"`{finding.name}`" for finding in audit.findings if of(finding).verdict == verdict]
        for verdict in ("above 0", "below 0")
    }
    said = f"{claim}, beyond chance: {', '.join(names['above 0']) or 'none'}."
    return said + (f" The contrary: {', '.join(names['below 0'])}." if names["below 0"] else "")


def _table(audit: Audit, known_cost: bool) -> Table:
    head = ["selector", "LDS", "rank correlation, mean loss", "gain over random, nats", "unscored rows", "seconds"]
    head.append("STR" if known_cost else "STR, extrapolated")
    rows = []
    for finding in audit.findings:
        estimates = finding.prediction.lds, finding.prediction.mean_loss, finding.gain
        cells = [_cell(one, digits) for one, digits in zip(estimates, (2, 2, 4), strict=True)]
        name = f"{finding.name} (control)" if finding.name in CONTROLS else finding.name
        rows.append([name, *cells, str(finding.unscored), f"{finding.seconds:.1f}", number(finding.str_ratio)])
    return Table(head, rows)


def _cell(one: Estimate, digits: int) -> str:
    interval = f" [{one.low:.{digits}f}, {one.high:.{digits}f}]" if one.verdict != "unknown" else ""
    return number(one.value, digits) + interval


def _notes(finding: Finding, audit: Audit) -> list[str]:
    said = []
    if finding.prediction.lds.verdict == "unknown":
        few = finding.prediction.subsets < audit.subsets
        why = f"{finding.prediction.subsets} subsets have a row with a score" if few else "all subsets score alike"
        said.append(f"`{finding.name}` has no LDS: {why}.")
    elif finding.unscored:
        said.append(
            f"`{finding.name}`: {finding.unscored} rows have no score and count as the mean of their subset; "
            f"{audit.subsets - finding.prediction.subsets} subsets have none with a score."
        )
    if finding.kept != audit.subset_rows:
        said.append(f"`{finding.name}`: {finding.kept} top rows are trained on, not {audit.subset_rows}.")
    return said
