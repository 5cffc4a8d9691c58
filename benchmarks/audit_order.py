"""
Does an audit order methods as a full comparison does? Rank correlation of both, on other rows of the same sources.

    python benchmarks/audit_order.py runs/audit-target/audit.json results/target-epochs.json

A method counts if both have it: with the same options, or else under its own name (which the table says). The p-value
is of all orders of the methods (exact).
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import permutation_test, spearmanr

from hf_dataselect.evaluation.report.report import to_markdown
from hf_dataselect.evaluation.report.section import Section, Table, number


def matched(findings: list[dict[str, Any]], group: dict[str, Any]) -> tuple[dict[str, Any] | None, bool]:
    """The audit's finding of a group of runs, and whether its options are the same."""
    own = [found for found in findings if found["about"]["method"] == group["method"]]
    for found in own:
        if _plain(found["about"]["options"]) == _plain(group["options"]):
            return found, True
    return next((found for found in own if found["name"] == group["method"]), None), False


def _plain(options: dict[str, Any]) -> dict[str, Any]:
    """Options without the folders that models lie in."""
    return {name: Path(value).name if isinstance(value, str) else value for name, value in options.items()}


def correlation(one: list[float], other: list[float]) -> tuple[float, float]:
    """Spearman's rank correlation and its exact p-value, two-sided."""
    test = permutation_test(
        (one,), lambda x: spearmanr(x, other).statistic, permutation_type="pairings", n_resamples=np.inf
    )
    return float(test.statistic), float(test.pvalue)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("audit", type=Path)
    parser.add_argument("result", type=Path)
    options = parser.parse_args()
    findings = json.loads(options.audit.read_text(encoding="utf-8"))["findings"]
    groups = json.loads(options.result.read_text(encoding="utf-8"))["groups"]
    rows, columns = [], {}
    for group in groups:
        found, same = matched(findings, group)
        if found is None or group["over_control"] is None or group["method"] == "random":
            continue
        lds, gain, pir = found["prediction"]["lds"]["value"], found["gain"]["value"], group["over_control"]["value"]
        columns.setdefault(group["budget"], []).append((lds, gain, pir))
        name = group["method"] if same else f"{group['method']} (other options)"
        rows.append([name, str(group["budget"]), number(lds, 2), number(gain, 4), number(pir)])
    said = []
    for budget, known in columns.items():
        lds, gain, pir = map(list, zip(*known, strict=True))
        for name, values in (("LDS", lds), ("gain", gain)):
            rho, p = correlation(values, pir)
            said.append(f"Budget {budget}, {len(known)} methods: {name} and PIR correlate by {rho:.2f} (p {p:.3f}).")
    head = ["method", "budget", "LDS (audit)", "gain, nats (audit)", "PIR over random (comparison)"]
    print(to_markdown([Section("Audit and comparison", said, Table(head, rows, 1))]))


if __name__ == "__main__":
    main()
