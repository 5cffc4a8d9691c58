"""The table of what runs where, `docs/capabilities.md`."""

from pathlib import Path

from hf_dataselect.registry import method_names
from tests.capabilities.modes import MODES
from tests.capabilities.probes import OTHER, REORDERED, WORKS


DOCS = Path(__file__).parents[2] / "docs"
PAGE, DATA = DOCS / "capabilities.md", DOCS / "capabilities.json"


def page(found: dict[str, dict[str, str]]) -> str:
    """The page of outcomes by mode and method."""
    said = sorted({text for cells in found.values() for text in cells.values() if not text.startswith(WORKS)})
    number = {text: place for place, text in enumerate(said, 1)}

    def cell(text: str) -> str:
        return text if text.startswith(WORKS) else f"{text.partition(':')[0]} [{number[text]}](#what-was-said)"

    lines = [
        "# What runs where",
        "",
        "Each method selects from 36 rows in each mode, with a model of two layers on a CPU (gloo where there are two",
        "processes), as `DataSelectingTrainer.select` does. `python -m tests.capabilities` writes this page; no line",
        "is written by hand.",
        "",
        "- **works**: it keeps the rows that one process keeps with the plain model (not compared for 4-bit, MoE and",
        "  images, where the model is another one). **works, other rows** or **other order**: it keeps others, or the",
        "  same in another order, as a step of its warm-up is made of other rows, see",
        "  [scaling out](scaling.md#several-gpus-and-nodes).",
        "- **refused**: with the message of that number, and nothing is selected. **fails**: with an error that is no",
        "  refusal of this package, which is a fault. **not run**: what it needs is not there.",
        "",
    ]
    lines += [f"- *{mode.title}*: {mode.about}" for mode in MODES.values()]
    lines += ["", f"| method | {' | '.join(mode.title for mode in MODES.values())} |", f"|---|{'---|' * len(MODES)}"]
    for name in method_names():
        lines.append(f"| `{name}` | {' | '.join(cell(found[key][name]) for key in MODES)} |")
    lines += ["", "## What was said", ""]
    lines += [f"{place}. {text}" for text, place in number.items()]
    return "\n".join(lines) + "\n"


def with_rows(lines: dict[str, dict], alone: dict[str, dict]) -> dict[str, str]:
    """Outcomes of a mode by method; those that keep other rows than one process, or in another order, say so."""

    def said(line: dict, rows: list[int]) -> str:
        if line["said"] != WORKS or line["rows"] == rows:
            return line["said"]
        return REORDERED if sorted(line["rows"]) == sorted(rows) else OTHER

    return {name: said(line, alone[name]["rows"]) for name, line in lines.items()}
