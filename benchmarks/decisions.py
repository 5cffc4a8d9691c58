"""
The decision table: what the results of the scenarios say on each question, put into the package and README.md.

    python benchmarks/decisions.py results      # reads results/*.json, as benchmarks/results.py writes them
"""

import argparse
import json
import re
from pathlib import Path
from typing import Any

from hf_dataselect.engines.store.files import write_atomic
from hf_dataselect.evaluation.decisions import decision_table, decisions


ROOT = Path(__file__).resolve().parents[1]


def decided(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What was measured on each question, for `decisions.json`."""
    question_of = {name: key for key, found in decisions()["questions"].items() for name in found["scenarios"]}
    rows = []
    for result in results:
        name = result["scenario"].removesuffix(f"-pool{result['pool_seed']}")
        for group in result["groups"] if name in question_of else ():
            if group["over_control"] is None or group["method"] in ("full", "random"):
                continue
            row = {"question": question_of[name], "scenario": result["scenario"], "equal": result["equal"]}
            row |= {name: group[name] for name in ("method", "budget")}
            row |= {"seeds": len(group["seeds"]), "rows": result["groups"][0]["kept"], "model": result["model"]}
            for key, against in (("over_random", "over_control"), ("over_everything", "over_baseline")):
                pir = group[against]
                row[key] = {name: _rounded(pir[name]) for name in ("value", "low", "high", "verdict")} if pir else None
            rows.append(row | {"str": _rounded(group["str"])})
    return rows


def _rounded(value: Any) -> Any:
    return round(value, 6) if isinstance(value, float) else value


def write(rows: list[dict[str, Any]], root: Path) -> None:
    """Put them into the package, and the table into README.md."""
    content = decisions() | {"measured": rows}
    parts = []
    for key, value in content.items():
        items = [json.dumps(item, ensure_ascii=False) for item in (value if isinstance(value, list) else ())]
        if isinstance(value, dict):
            items = [f"{json.dumps(name)}: {json.dumps(item, ensure_ascii=False)}" for name, item in value.items()]
        opening, closing = "{}" if isinstance(value, dict) else "[]"
        body = ",\n  ".join(items)
        shown = json.dumps(value, ensure_ascii=False) if isinstance(value, str) else f"{opening}\n  {body}\n {closing}"
        parts.append(f" {json.dumps(key)}: {shown}")
    write_atomic(root / "hf_dataselect" / "evaluation" / "decisions.json", "{\n" + ",\n".join(parts) + "\n}\n")
    readme = (root / "README.md").read_text(encoding="utf-8")
    table = re.compile(r"(?m)^\| `--for` .*\n(\|.*\n)+")
    write_atomic(root / "README.md", table.sub(lambda _: decision_table(rows) + "\n", readme))


def main(argv=None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, help="folder of the JSON files")
    found = sorted(parser.parse_args(argv).results.glob("*.json"))
    write(decided([json.loads(path.read_text(encoding="utf-8")) for path in found]), ROOT)


if __name__ == "__main__":
    main()
