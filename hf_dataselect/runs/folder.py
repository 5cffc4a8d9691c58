"""
A run is a folder, readable without this package:

| file | holds |
|---|---|
| `recipe.yaml` | the resolved configuration; `hf-dataselect train --config recipe.yaml` repeats the run |
| `versions.json` | of Python and the packages that decide numbers |
| `selection.json` | what was chosen, best first; rows excluded, by reason; cost; model, data, template |
| `scores.parquet` | `row`, `score` (NaN = unscorable), the method's own columns, `kept`, `reason` of every candidate |
| `compared.json` | of a run of a comparison: the settings that decide its result, and whether it is finished |
| `wins.json` | outcome of each question, where a judge compared the run's answers with the baseline's |
| `eval.json` | every evaluation's settings (score, direction, examples), training seconds, what was `trained`, PIR |
| `answers/NAME.jsonl` | of an instruction test set, for win rates: `id`, `question`, `answer` (null = none) |
| `generated/NAME.jsonl` | the same of a benchmark that is scored by metrics |
| `grades/NAME.jsonl` | of MT-Bench: each turn's question, answer, the judge's reply and the grade read from it |
"""

import json
import platform
from enum import Enum
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from .. import __version__
from ..engines.store.files import write_atomic
from ..selection import RESERVED, Selection


PACKAGES = ("torch", "transformers", "trl", "peft", "accelerate", "datasets", "bitsandbytes")
#: Of a run of a comparison: the settings that decide its result, and whether it came to its end.
SETTINGS = "compared.json"
#: Why a run is refused whose model is not one that all its ranks trained.
DIVERGED = (
    "the ranks of this run trained different models, or may have (hf_dataselect 0.1.0 could stop averaging gradients "
    "at an evaluation). Delete the folder and train it again."
)


def write_recipe(folder: Path, recipe: dict[str, Any]) -> None:
    """Write `recipe.yaml` and `versions.json`."""
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / "recipe.yaml", yaml.safe_dump(plain(recipe), sort_keys=False, allow_unicode=True))
    write_versions(folder)


def write_versions(folder: Path) -> None:
    """Write `versions.json`."""
    versions = {"python": platform.python_version(), "hf_dataselect": __version__}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = None
    write_atomic(folder / "versions.json", json.dumps(versions, indent=1))


def write_selection(folder: Path, selection: Selection) -> None:
    """Write `selection.json` and `scores.parquet`."""
    folder.mkdir(parents=True, exist_ok=True)
    names = [name for name in selection.__dataclass_fields__ if name not in ("scores", "columns")]
    fields = {name: getattr(selection, name) for name in names}
    described = {"candidates": selection.candidates, "kept": len(selection.indices), "sdf": selection.sdf} | fields
    pq.write_table(score_table(selection), folder / "scores.parquet")
    write_atomic(folder / "selection.json", _json(described))


def score_table(selection: Selection) -> pa.Table:
    """
    One line a candidate: `row`, `score`, the method's own columns, `kept`, and the `reason` why it was excluded or
    truncated, if there is one.
    """
    n = selection.candidates
    kept = np.zeros(n, bool)
    kept[selection.indices] = True
    reasons, reason = [""], np.zeros(n, np.int32)
    for kind in ("truncated", "dropped", "unscorable"):
        for why, rows in getattr(selection, kind).items():
            reason[rows] = len(reasons)
            reasons.append(f"{kind}: {why}")
    named = pa.DictionaryArray.from_arrays(reason, pa.array(reasons))
    scores = {"row": np.arange(n), "score": selection.scores} | selection.columns
    return pa.table(scores | {"kept": kept, "reason": named})


def read_selection(folder: Path) -> Selection:
    """
    The selection of a run.

    Raises:
        `ValueError`: the folder holds none, or a broken one.
    """
    try:
        described = json.loads((folder / "selection.json").read_text(encoding="utf-8"))
        table = pq.read_table(folder / "scores.parquet")
        own = {name: table[name].to_numpy() for name in table.column_names if name not in RESERVED}
        known = Selection.__dataclass_fields__.keys() - {"scores", "columns"}
        fields = {name: value for name, value in described.items() if name in known}
        fields["indices"] = np.array(fields["indices"], np.int64)
        return Selection(scores=table["score"].to_numpy(), columns=own, **fields)
    except (OSError, KeyError, TypeError, json.JSONDecodeError, pa.ArrowInvalid) as error:
        raise ValueError(f"{folder} holds no readable selection (selection.json, scores.parquet): {error}") from error


def write_evaluation(folder: Path, evaluation: dict[str, Any]) -> None:
    """Write `eval.json`."""
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / "eval.json", _json(evaluation))


def read_evaluation(folder: Path | str, option: str = "baseline_dir") -> dict[str, Any]:
    """
    The evaluation of a run.

    Raises:
        `ValueError`: the folder holds none, or the ranks of the run may have trained different models; `option` names
            where the folder came from.
    """
    try:
        evaluation = json.loads((Path(folder) / "eval.json").read_text(encoding="utf-8"))
        if not evaluation.get("ranks_agree", True) or may_have_diverged(Path(folder), evaluation.get("steps", 0)):
            raise ValueError(f"`{option}={str(folder)!r}`: {DIVERGED}")
        return evaluation
    except (OSError, json.JSONDecodeError) as error:
        raise ValueError(
            f"`{option}={str(folder)!r}` is not the folder of a finished, evaluated run ({error}): run it first, with "
            "an `eval_dataset`."
        ) from error


def read_settings(folder: Path) -> dict[str, Any]:
    """The settings of a run of a comparison; none of another run."""
    path = folder / SETTINGS
    return json.loads(path.read_text(encoding="utf-8"))["settings"] if path.is_file() else {}


def may_have_diverged(folder: Path, step: int) -> bool:
    """
    Whether the ranks of a run may hold different weights at a step: version 0.1.0 could stop averaging gradients over
    several ranks at the first evaluation.
    """
    files = {name: folder / f"{name}.json" for name in ("versions", "selection", "eval")}
    if not all(path.is_file() for path in files.values()):
        return False
    if json.loads(files["versions"].read_text(encoding="utf-8")).get("hf_dataselect") != "0.1.0":
        return False  # before the other files are read, which can be large
    selection, evaluation = (json.loads(files[name].read_text(encoding="utf-8")) for name in ("selection", "eval"))
    several = selection.get("facts", {}).get("processes", 1) > 1
    return several and any(entry["step"] < step for entry in evaluation.get("history", []))


def _json(described: dict[str, Any]) -> str:
    """One line an entry: long lists stay readable."""
    lines = (f" {json.dumps(key)}: {json.dumps(value, ensure_ascii=False)}" for key, value in plain(described).items())
    return "{\n" + ",\n".join(lines) + "\n}\n"


def plain(value: Any) -> Any:
    """What JSON and YAML can hold: NumPy's numbers become Python's, NaN becomes null, paths and others text."""
    if isinstance(value, Enum):
        return plain(value.value)
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, (list, tuple, set)):
        return [plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)
