"""The files of a run folder: each has the run's id and a checksum, and is of the run in its folder."""

import functools
import hashlib
import json
import logging
import platform
import uuid
from enum import Enum
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from .. import __version__
from ..engines.store.checked import read_json, write_json
from ..errors import DamagedFile


logger = logging.getLogger(__name__)

PACKAGES = ("torch", "transformers", "trl", "peft", "accelerate", "datasets", "bitsandbytes")
RECIPE, VERSIONS, SELECTION, SCORES = "recipe.yaml", "versions.json", "selection.json", "scores.parquet"
EVALUATION = "eval.json"
#: Of a run of a comparison: the settings that decide its result, and whether it came to its end.
SETTINGS = "compared.json"
#: A judge's verdicts on the run's answers and the baseline's.
WINS = "wins.json"
#: Folders of what a model said.
SAID = ("answers", "generated", "grades")
#: Entry of a file's content with the id of its run.
RUN = "run"
REMEDY = "Restore it, or run again in another folder."


def run_id(folder: Path) -> str | None:
    """The id of the run in a folder; `None` if it holds none, or one of a version that wrote no ids."""
    path = folder / VERSIONS
    return read_json(path, REMEDY, unchecked=True).get(RUN) if path.is_file() else None


def write(folder: Path, name: str, content: dict[str, Any]) -> None:
    """Write a JSON file of a run: with its id, which is drawn for a folder without a run, and a checksum."""
    run = run_to_write(folder)
    write_json(folder / name, ({RUN: run} if run else {}) | plain(content))


def run_to_write(folder: Path) -> str | None:
    """The id of the run in a folder, drawn where it holds none; `None` for one of a version that wrote no ids."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / VERSIONS).is_file():
        write_versions(folder, uuid.uuid4().hex)
    return run_id(folder)


def read(folder: Path, name: str) -> dict[str, Any]:
    """
    Content of a JSON file of a run.

    Raises:
        [`DamagedFile`]: it is damaged, or not of the run in this folder.
        `OSError`: it can't be read.
    """
    content = read_json(folder / name, REMEDY, unchecked=run_id(folder) is None)
    check_run(folder, name, content.pop(RUN, None))
    return content


def check_run(folder: Path, name: str, of: Any) -> None:
    """Raise [`DamagedFile`] if a file is not of the run in a folder; warn once of a run without an id."""
    run = run_id(folder)
    if of != run:
        said = ("none" if one is None else repr(one) for one in (of, run))
        raise DamagedFile(
            folder / name,
            "it is of another run than the files beside it: its id is {}, that in versions.json {}".format(*said),
            "Files of two runs were mixed: run it again in another folder.",
        )
    if run is None:
        _warn_of_earlier(folder)


@functools.lru_cache
def _warn_of_earlier(folder: Path) -> None:
    logger.warning("%s was written by an earlier version, without checksums: it is read unchecked.", folder)


def write_versions(folder: Path, run: str | None = None) -> None:
    """Write `versions.json`, with the id given or that of the run in the folder."""
    versions: dict[str, Any] = {RUN: run or run_id(folder), "python": platform.python_version()}
    versions["hf_dataselect"] = __version__
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = None
    write_json(folder / VERSIONS, versions)


def read_versions(folder: Path) -> dict[str, Any]:
    """Versions of the packages that a run used; empty if they are unknown."""
    return read(folder, VERSIONS) if (folder / VERSIONS).is_file() else {}


def said_by(folder: Path, run: str | None) -> list[Path]:
    """Files of the model's answers that are of this run."""
    found = []
    for path in sorted(path for kind in SAID for path in folder.glob(f"{kind}/*.jsonl")):
        with open(path, "rb") as file:
            try:
                of = json.loads(file.readline()).get(RUN)
            except (ValueError, AttributeError):
                continue
        if of == run:
            found.append(path)
    return found


def said_files(folder: Path, kind: str) -> list[Path]:
    """
    Files of what the run's model said, of one of the kinds in [`SAID`]; of a folder without an evaluation, all.

    Raises:
        [`DamagedFile`]: one is not as it was when `eval.json` was written.
    """
    evaluation = read(folder, EVALUATION) if (folder / EVALUATION).is_file() else {}
    if "files" not in evaluation:
        return sorted((folder / kind).glob("*.jsonl"))
    paths = {folder / name: hash for name, hash in evaluation["files"].items() if name.startswith(f"{kind}/")}
    for path, hash in paths.items():
        if not path.is_file() or hash_of(path.read_bytes()) != hash:
            raise DamagedFile(path, "it is not the one that eval.json was written with", "Evaluate the run again.")
    return list(paths)


def hash_of(data: bytes) -> str:
    """Hash of a file's content."""
    return hashlib.blake2b(data, digest_size=16).hexdigest()


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
