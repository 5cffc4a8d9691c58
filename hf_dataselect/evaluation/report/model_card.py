"""The model card of a run: PIR, control, interval and verdict, as text and as metadata that the Hub shows."""

import math
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard

from ...engines.store.files import write_atomic
from ...errors import DamagedFile, printable
from ...runs.files import EVALUATION
from ...runs.folder import read_evaluation
from ..comparison.comparison import Comparison
from ..comparison.evaluated_runs import UNSCORED, Group, Run, read_run
from ..comparison.pir import PIR
from .verdict import compared_with


CARD = "README.md"
HEADING = "## What selecting changed"


def extend_card(folder: Path, section: str) -> None:
    """
    Add to the model card of a run what was measured of it, if it was evaluated, and a section.

    Args:
        folder (`Path`):
            Run folder, with the card in it.
        section (`str`):
            Markdown.
    """
    card = ModelCard.load(folder / CARD)
    card.text = f"{card.text.rstrip()}\n\n{section}"
    write_atomic(folder / CARD, str(card))
    if (folder / EVALUATION).is_file():
        kept = read_evaluation(folder, "output_dir")
        if "train_seconds" in kept:
            pir = kept.get("pir") and PIR(**{name: _number(value) for name, value in kept["pir"].items()})
            run = read_run(folder, [])
            _write(Group(run.name, [run], pir=pir, str_ratio=kept.get("str")), run)


def update_cards(comparison: Comparison) -> list[Path]:
    """Write PIR against baseline and control to the model cards of the runs that have one; gives their paths."""
    runs = [(group, run) for group in comparison.groups for run in group.runs if (run.folder / CARD).is_file()]
    for group, run in runs:
        _write(group, run)
    return [run.folder / CARD for _, run in runs]


def _number(value: Any) -> Any:
    return math.nan if value is None else value


def _write(group: Group, run: Run) -> None:
    path = run.folder / CARD
    try:
        card = ModelCard.load(path)
    except ValueError as error:
        raise DamagedFile(path, error, "Delete it: `create_model_card` makes it anew.") from error
    before, _, after = card.text.partition(HEADING)
    after = after.partition("\n## ")
    card.text = f"{before.rstrip()}\n\n{_section(group)}\n{after[1]}{after[2]}"
    card.data.model_name = printable(card.data.get("model_name") or path.parent.resolve().name)
    card.data.eval_results = _results(group, run)
    write_atomic(path, str(card))


def _section(group: Group) -> str:
    lines = [HEADING, ""]
    if group.is_full:
        lines.append("Trained on all rows: the baseline (BM) that models trained on selected rows are compared with.")
    elif group.pir is None:
        lines.append("Not measured: there is no run of `full` to compare with.")
    else:
        lines.append(f"- The model {compared_with(group.pir, 'the model trained on all rows')}.")
        lines.append(f"- The interval: {group.pir.interval}.")
        lines += [f"- Left out: {name}, {why}." for name, why in group.pir.left_out.items()]
    if group.over_control is not None:
        lines.append(f"- It {compared_with(group.over_control, 'the control, trained on as many random rows')}.")
    elif group.method not in UNSCORED:
        lines += ["", "Not compared with a control of as many random rows: their number may be the cause."]
    return printable("\n".join([*lines, ""]))


def _results(group: Group, run: Run) -> list[EvalResult]:
    """What the Hub reads as `model-index`."""
    name = run.recipe.get("eval_dataset_name") or run.recipe.get("dataset_name")
    local = name is None or Path(name).exists() or name.startswith((".", "/", "~")) or name.count("/") > 1
    rows = {"dataset_type": "custom", "dataset_name": "held-out rows"}
    if not local:
        rows = {"dataset_type": name, "dataset_name": name}
    split = run.recipe.get("dataset_test_split")

    def result(kind: str, value: float | None, name: str, **args: Any) -> list[EvalResult]:
        if value is None or not math.isfinite(value):
            return []
        return [
            EvalResult(
                task_type="text-generation",
                dataset_split=split,
                metric_type=kind,
                metric_name=name,
                metric_value=float(value),
                metric_args=args or None,
                **rows,
            )
        ]

    def ratio(kind: str, pir: PIR | None, other: str) -> list[EvalResult]:
        if pir is None:
            return []
        ends = {name: float(end) for name, end in (("low", pir.low), ("high", pir.high)) if math.isfinite(end)}
        details = {"verdict": pir.verdict, **ends, "interval": pir.interval, "runs": len(group.runs)}
        return result(kind, pir.value, f"PIR ({pir.kind}) against {other}", **details)

    results = ratio("pir", group.pir, "the model trained on all rows")
    results += ratio("pir_control", group.over_control, "the control, trained on as many random rows")
    results += result("sdf", group.sdf, "SDF: rows kept / candidate rows")
    results += result("str", group.str_ratio, "STR: selection seconds / training seconds of the baseline")
    for setting, measured in run.settings.items():
        higher = "higher" if measured.higher_is_better else "lower"
        results += result(setting, measured.score, f"{setting} ({higher} is better)")
    return results
