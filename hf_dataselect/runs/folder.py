"""
A run is a folder, readable without this package:

| file | holds |
|---|---|
| `recipe.yaml` | the resolved configuration; `hf-dataselect train --config recipe.yaml` repeats the run |
| `versions.json` | the run's id; versions of Python and the packages that decide numbers |
| `selection.json` | what was chosen, best first; rows excluded, by reason; cost; model, data, template |
| `scores.parquet` | `row`, `score` (NaN = unscorable), the method's own columns, `kept`, `reason` of every candidate |
| `compared.json` | of a run of a comparison, or an audit: the settings that decide its result; if it is finished |
| `audit.md`, `audit.json`, `subsets.jsonl` | of an audit: what it found; the losses of each training |
| `wins.json` | outcome of each question, where a judge compared the run's answers with the baseline's |
| `eval.json` | every evaluation's settings (score, direction, examples), training seconds, what was `trained`, PIR |
| `policy.json` | of a policy: rows dropped and how often, shares and losses by source over time, seconds a step |
| `guard.json` | of guarded domains: losses of their rows before training and now, verdicts, changes over time |
| `answers/NAME.jsonl` | of an instruction test set, for win rates: `run`, `id`, `question`, `answer` (null = none) |
| `generated/NAME.jsonl` | the same of a benchmark that is scored by metrics |
| `grades/NAME.jsonl` | of MT-Bench: each turn's question, answer, the judge's reply and the grade read from it |
| `checkpoint-N/train_seconds.json` | training seconds up to there, and what the checkpoint's files were when written |

All of them are of one run: each holds its id (`run`; a comment in `recipe.yaml`, the schema's metadata in
`scores.parquet`), and a checksum, or is named with its hash in a file that has one. Readers refuse, by name, a file
that is damaged or of another run. Runs of versions that wrote no ids are read, with one warning. Secrets are never
written. Selecting the same rows again keeps them; another run in the folder removes them before
it writes its own; one at a time may write.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from ..engines.store.files import write_atomic, written_atomic
from ..errors import DamagedFile, printable
from ..selection import RESERVED, Selection
from .files import (
    EVALUATION,
    HEADER,
    RECIPE,
    REMEDY,
    RUN,
    SCORES,
    SELECTION,
    SETTINGS,
    VERSIONS,
    answers_of,
    check_run,
    ensure_run,
    hash_of,
    hash_of_text,
    plain,
    read,
    run_id,
    text_of,
    write,
)
from .secrets import without_secrets


#: Why a run is refused whose model is not one that all its ranks trained.
DIVERGED = (
    "the ranks of this run trained different models, or may have (hf_dataselect 0.1.0 could stop averaging gradients "
    "at an evaluation). Delete the folder and train it again."
)


def write_recipe(folder: Path, recipe: dict[str, Any]) -> None:
    """Write `recipe.yaml`, without secrets."""
    text, run = recipe_text(recipe), ensure_run(folder)
    header = f"# hf_dataselect: run {run}, checksum {hash_of(text.encode())} of the lines below\n" if run else ""
    write_atomic(folder / RECIPE, header + text)


def read_recipe(folder: Path) -> dict[str, Any]:
    """
    The options of a run as it was; empty if they are unknown.

    Raises:
        [`DamagedFile`]: the file is damaged or edited, or of another run.
    """
    path = folder / RECIPE
    if not path.is_file():
        return {}
    remedy = "Restore it, or delete it: the run is then read without its options. Edit a copy."
    try:
        text = text_of(path)
        header = HEADER.match(text)
        if header and header[2] != hash_of(text[header.end() :].encode()):
            raise ValueError("its checksum is that of another content")
        recipe = yaml.safe_load(text) or {}
        if not isinstance(recipe, dict):
            raise ValueError(f"it holds a {type(recipe).__name__}, not options")
    except (ValueError, yaml.YAMLError, RecursionError) as error:
        raise DamagedFile(path, error, remedy) from error
    check_run(folder, RECIPE, header and header[1])
    return recipe


class _Dumper(yaml.SafeDumper):
    """Quotes texts with characters that steer a terminal: in quotes, their escapes mean them."""

    def represent_text(self, text: str) -> yaml.ScalarNode:
        return self.represent_scalar("tag:yaml.org,2002:str", text, style=None if printable(text) == text else '"')


_Dumper.add_representer(str, _Dumper.represent_text)


def recipe_text(recipe: dict[str, Any]) -> str:
    """A recipe as YAML, without secrets."""
    options = without_secrets(plain(recipe))
    return printable(yaml.dump(options, Dumper=_Dumper, sort_keys=False, allow_unicode=True))


def write_selection(folder: Path, selection: Selection) -> None:
    """Write `selection.json` and `scores.parquet`."""
    names = [name for name in selection.__dataclass_fields__ if name not in ("scores", "columns")]
    fields = {name: getattr(selection, name) for name in names}
    described = {"candidates": selection.candidates, "kept": len(selection.indices), "sdf": selection.sdf} | fields
    table = score_table(selection).replace_schema_metadata({f"hf_dataselect.{RUN}": ensure_run(folder) or ""})
    with written_atomic(folder / SCORES) as temporary:
        pq.write_table(table, temporary)
        described[SCORES] = hash_of(temporary.read_bytes())
    write(folder, SELECTION, without_secrets(described))


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
        `ValueError`: the folder holds none, or one that is damaged ([`DamagedFile`]).
    """
    try:
        described, data = read(folder, SELECTION), (folder / SCORES).read_bytes()
    except OSError as error:
        raise ValueError(f"{folder} holds no readable selection (selection.json, scores.parquet): {error}") from error
    if SCORES in described and described[SCORES] != hash_of(data):
        raise DamagedFile(folder / SCORES, "it is not the one that selection.json was written with", REMEDY)
    try:
        table = pq.read_table(pa.BufferReader(data))
        scores = table["score"].to_numpy()
        own = {name: table[name].to_numpy() for name in table.column_names if name not in RESERVED}
    except (pa.ArrowException, OSError, KeyError, ValueError, TypeError) as error:
        raise DamagedFile(folder / SCORES, error, REMEDY) from error
    try:
        known = Selection.__dataclass_fields__.keys() - {"scores", "columns"}
        fields = {name: value for name, value in described.items() if name in known}
        fields["indices"] = _row_numbers(fields["indices"], len(scores))
        if described.get("candidates", len(scores)) != len(scores):
            raise ValueError(f"it is of {described['candidates']} rows, scores.parquet of {len(scores)}")
        return Selection(scores=scores, columns=own, **fields)
    except (KeyError, TypeError, ValueError) as error:
        raise DamagedFile(folder / SELECTION, f"no readable selection: {error!r}", REMEDY) from error


def _row_numbers(rows: Any, candidates: int) -> np.ndarray:
    numbers = np.array(rows, np.int64 if len(rows) == 0 else None)
    if numbers.dtype.kind != "i" or numbers.ndim != 1 or not ((numbers >= 0) & (numbers < candidates)).all():
        raise ValueError(f"its `indices` are not row numbers below {candidates}")
    return numbers


def write_evaluation(folder: Path, evaluation: dict[str, Any]) -> None:
    """Write `eval.json`, with the hashes of what the run's model said."""
    said = {f"{path.parent.name}/{path.name}": hash_of_text(path) for path in answers_of(folder, run_id(folder))}
    write(folder, EVALUATION, evaluation | {"files": said})


def read_evaluation(folder: Path | str, option: str = "baseline_dir") -> dict[str, Any]:
    """
    The evaluation of a run.

    Raises:
        `ValueError`: the folder holds none, or the ranks of the run may have trained different models; `option` names
            where the folder came from. Or it is damaged ([`DamagedFile`]).
    """
    try:
        evaluation = read(Path(folder), EVALUATION)
    except OSError as error:
        raise ValueError(
            f"`{option}={str(folder)!r}` is not the folder of a finished, evaluated run ({error}): run it first, with "
            "an `eval_dataset`."
        ) from error
    if not evaluation.get("ranks_agree", True) or may_have_diverged(Path(folder), evaluation.get("steps", 0)):
        raise ValueError(f"`{option}={str(folder)!r}`: {DIVERGED}")
    return evaluation


def write_settings(folder: Path, settings: dict[str, Any], finished: bool) -> None:
    """Write `compared.json`: the settings of a run of a comparison, and whether it is finished."""
    write(folder, SETTINGS, {"finished": finished, "settings": settings})


def read_settings(folder: Path) -> tuple[dict[str, Any], bool]:
    """The settings of a run of a comparison, none of another run; and whether it is finished."""
    if not (folder / SETTINGS).is_file():
        return {}, False
    written = read(folder, SETTINGS)
    if not isinstance(written.get("settings"), dict) or not isinstance(written.get("finished"), bool):
        raise DamagedFile(folder / SETTINGS, "it holds no settings", REMEDY)
    return written["settings"], written["finished"]


def may_have_diverged(folder: Path, step: int) -> bool:
    """
    Whether the ranks of a run may hold different weights at a step: version 0.1.0 could stop averaging gradients over
    several ranks at the first evaluation.
    """
    if not all((folder / name).is_file() for name in (VERSIONS, SELECTION, EVALUATION)):
        return False
    if read(folder, VERSIONS).get("hf_dataselect") != "0.1.0":
        return False  # before the other files are read, which can be large
    selection, evaluation = read(folder, SELECTION), read(folder, EVALUATION)
    several = selection.get("facts", {}).get("processes", 1) > 1
    return several and any(entry["step"] < step for entry in evaluation.get("history", []))
