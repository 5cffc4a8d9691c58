"""The files of a run folder: each has the run's id and a checksum, and is of the run in its folder."""

import functools
import hashlib
import json
import logging
import platform
import re
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
#: What a policy did while the model trained.
POLICY = "policy.json"
#: What training did to domains that are guarded.
GUARD = "guard.json"
#: Rows kept, as `hf-dataselect select` writes them; they may be trained on, so no run removes them.
SELECTED = "selected.parquet"
#: Of a run of a comparison: the settings that decide its result, and whether it came to its end.
SETTINGS = "compared.json"
#: A judge's verdicts on the run's answers and the baseline's.
WINS = "wins.json"
#: Folders of a model's answers.
ANSWERS = ("answers", "generated", "grades")
#: Entry of a file's content with the id of its run.
RUN = "run"
#: Entry of `versions.json` with the id that a run of an earlier version is being given.
BECOMES = "becomes"
REMEDY = "Restore it, or run again in another folder."
HEADER = re.compile(r"# hf_dataselect: run (\w+), checksum (\w+) of the lines below\n")


def run_id(folder: Path) -> str | None:
    """
    The id of the run in a folder, where `versions.json` is missing that of the first other file; `None` if it holds
    none, or one of a version that wrote no ids.
    """
    if (folder / VERSIONS).is_file():
        return _versions(folder).get(RUN)
    if (folder / RECIPE).is_file() and (header := HEADER.match(text_of(folder / RECIPE, "replace"))):
        return header[1]
    files = (folder / name for name in (SETTINGS, WINS, EVALUATION, SELECTION))
    return next((read_json(path, REMEDY, unchecked=True).get(RUN) for path in files if path.is_file()), None)


def _becoming(folder: Path) -> str | None:
    """The id that a run of an earlier version is being given."""
    return _versions(folder).get(BECOMES) if (folder / VERSIONS).is_file() else None


def _versions(folder: Path) -> dict[str, Any]:
    return read_json(folder / VERSIONS, REMEDY, unchecked=True)


def text_of(path: Path, errors: str = "strict") -> str:
    """Content of a text, with the line ends that it was written with: git may have changed them."""
    return path.read_bytes().replace(b"\r\n", b"\n").decode(errors=errors)


def write(folder: Path, name: str, content: dict[str, Any]) -> None:
    """Write a JSON file of a run: with its id, which is drawn for a folder without a run, and a checksum."""
    run = ensure_run(folder)
    write_json(folder / name, ({RUN: run} if run else {}) | plain(content))


def ensure_run(folder: Path) -> str | None:
    """Id that files of the run in a folder get, drawn where it holds none; `None` for one of an earlier version."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / VERSIONS).is_file():
        write_versions(folder, run_id(folder) or uuid.uuid4().hex)
    return _becoming(folder) or run_id(folder)


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
    if of != run and not (run is None and of == _becoming(folder)):
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


def installed_versions() -> dict[str, str | None]:
    """Versions of the packages that decide what a run computes; `None` for one that is not installed."""
    versions: dict[str, str | None] = {}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = None
    return versions


def write_versions(folder: Path, run: str | None = None) -> None:
    """Write `versions.json`, with the id given or that of the run in the folder."""
    versions: dict[str, Any] = {RUN: run or run_id(folder), "python": platform.python_version()}
    versions["hf_dataselect"] = __version__
    write_json(folder / VERSIONS, versions | installed_versions())


def read_versions(folder: Path) -> dict[str, Any]:
    """Versions of the packages that a run used; empty if they are unknown."""
    versions = read(folder, VERSIONS) if (folder / VERSIONS).is_file() else {}
    versions.pop(BECOMES, None)
    return versions


def answers_of(folder: Path, run: str | None) -> list[Path]:
    """Files of the model's answers that are of this run; of one without an id, those that look like its."""
    said = []
    for path in sorted(path for kind in ANSWERS for path in folder.glob(f"{kind}/*.jsonl")):
        with open(path, "rb") as file:
            try:
                line = json.loads(file.readline())
                of = line.get(RUN)
            except (ValueError, AttributeError):
                continue
        if of == run and (run or {"id", "question", "answer"} <= line.keys()):
            said.append(path)
    return said


def answer_files(folder: Path, kind: str) -> list[Path]:
    """
    Files of the model's answers, of one of the kinds in [`ANSWERS`]; of a folder without an evaluation, all.

    Raises:
        [`DamagedFile`]: one is not as it was when `eval.json` was written.
    """
    evaluation = read(folder, EVALUATION) if (folder / EVALUATION).is_file() else {}
    if "files" not in evaluation:
        return sorted((folder / kind).glob("*.jsonl"))
    paths = {folder / name: hash for name, hash in evaluation["files"].items() if name.startswith(f"{kind}/")}
    for path, hash in paths.items():
        if not path.is_file() or hash_of_text(path) != hash:
            raise DamagedFile(path, "it is not the one that eval.json was written with", "Evaluate the run again.")
    return list(paths)


def hash_of_text(path: Path) -> str:
    """Hash of a text, whatever its line ends."""
    return hash_of(text_of(path, "replace").encode())


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
