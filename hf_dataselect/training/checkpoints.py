"""Checkpoints that are whole: a kill while one is written, or a damaged disk, leaves others."""

import fnmatch
import hashlib
import json
import logging
import re
import zipfile
from pathlib import Path
from typing import Any

from safetensors import safe_open

from ..engines.store.checked import read_json, write_json
from ..errors import DamagedFile, SelectionError
from ..runs.files import RUN


logger = logging.getLogger(__name__)

#: Where `trainer_state.json` of a checkpoint keeps what training did up to there, and its run.
KEY = "hf_dataselect"
#: Its entry with the name of a file that a callback writes beside it, without which it can't be resumed.
BESIDE = "beside"
#: In each checkpoint: training seconds so far, and its files as they were written.
RECORD = "train_seconds.json"
_STATE = "trainer_state.json"
#: Files that [`~transformers.Trainer`] resumes from, and those that it makes anew where they are missing.
_NEEDED = ("model*.safetensors*", "adapter_model*", "pytorch_model*", _STATE)
_RENEWED = ("optimizer.*", "scheduler.pt", "scaler.pt", "rng_state*.pth")
#: Files that torch writes, in an archive with a checksum of each part, or a pickle of before.
_ARCHIVES = (".pt", ".pth", ".bin")
_PICKLE = b"\x80"
_BLOCK, _BLOCKS = 2**20, 64
_REMEDY = f"Resume from another checkpoint; or delete its {RECORD}, and it is resumed from as it is."


def record(checkpoint: Path, seconds: float | None) -> None:
    """Write training seconds, which may be unknown, and what tells later that a checkpoint is whole."""
    written = {path.name: [path.stat().st_size, _hash(path)] for path in _files(checkpoint) if _is_complete(path)}
    write_json(checkpoint / RECORD, {"seconds": seconds, "written": written})


def _files(checkpoint: Path) -> list[Path]:
    """The files that Trainer resumes from; callbacks may write, and change, others."""
    return [path for path in sorted(checkpoint.iterdir()) if path.is_file() and _is_any(path.name, _NEEDED + _RENEWED)]


def _is_any(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def _is_complete(path: Path) -> bool:
    """Whether a file is complete as the main process has saved the checkpoint: other ranks may still write theirs."""
    return not re.fullmatch(r"rng_state_[1-9]\d*\.pth", path.name)


def _hash(path: Path) -> str | None:
    """Hash of 64 blocks spread over a file, of all of one up to 64 MiB; training waits for it, so it is never more."""
    if path.suffix in _ARCHIVES and not _is_pickle(path):
        return None
    size, digest = path.stat().st_size, hashlib.blake2b(digest_size=16)
    with open(path, "rb") as file:
        for start in range(0, size, max(_BLOCK, -(-size // _BLOCKS))):
            file.seek(start)
            digest.update(file.read(_BLOCK))
    return digest.hexdigest()


def _is_pickle(path: Path) -> bool:
    with open(path, "rb") as file:
        return file.read(1) == _PICKLE


def read_record(checkpoint: Path) -> dict[str, Any]:
    """
    What [`record`] wrote; `seconds` only, or nothing, of an earlier version.

    Raises:
        [`DamagedFile`]: it is damaged.
    """
    path = checkpoint / RECORD
    if not path.is_file():
        return {}
    try:
        seconds = float(path.read_bytes())
    except ValueError:
        return read_json(path, _REMEDY)
    return {"seconds": seconds}


def seconds_at(checkpoint: Path) -> float | None:
    """Training seconds up to a checkpoint, `None` if it does not say."""
    return read_record(checkpoint).get("seconds")


def step_and_run(checkpoint: Path) -> tuple[int | None, str | None]:
    """
    The step of a checkpoint, and the id of its run; `None` for what it does not say.

    Raises:
        [`DamagedFile`]: its state is damaged.
    """
    path, written = checkpoint / _STATE, read_record(checkpoint)
    if not path.is_file():
        return None, None
    try:
        state = json.loads(path.read_bytes().decode())
        return int(state["global_step"]), _entries(state).get(RUN) or written.get(RUN)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DamagedFile(path, repr(error), "Resume from another checkpoint.") from error


def _entries(state: dict[str, Any]) -> dict[str, Any]:
    return (state.get("stateful_callbacks") or {}).get(KEY, {})


def adopt(checkpoint: Path, run: str) -> None:
    """Enter the run of a checkpoint of an earlier version, which says none."""
    if step_and_run(checkpoint)[1] is None:
        write_json(checkpoint / RECORD, {"seconds": None} | read_record(checkpoint) | {RUN: run})


def why_torn(checkpoint: Path, run: str | None = None) -> str | None:
    """
    Why a checkpoint can't be resumed from, `None` if it can: a file that Trainer needs is missing, is cut off, has
    another content than when it was written, or is damaged by what its format tells.

    Not noticed are: changes within weights of more than 64 MiB that leave size, header and 64 blocks of 1 MiB as they
    were; and a changed pickle, or changed weights, of a checkpoint without a record.

    Args:
        checkpoint (`Path`):
            Its folder.
        run (`str`, *optional*):
            The run that it has to be of; by default it is not checked.
    """
    if not (checkpoint / _STATE).is_file():
        return f"{checkpoint / _STATE} is missing, which is written last"
    try:
        step, of = step_and_run(checkpoint)
        written = read_record(checkpoint)
    except DamagedFile as error:
        return str(error)
    if (named := re.fullmatch(r"checkpoint-(\d+)", checkpoint.name)) and int(named[1]) != step:
        return f"{checkpoint / _STATE} is of step {step}"
    if run is not None and of != run:
        return f"{checkpoint} is of another run than the one in its folder"
    beside = _entries(json.loads((checkpoint / _STATE).read_bytes())).get(BESIDE)
    if beside and not (checkpoint / beside).is_file():
        return f"{checkpoint / beside} is missing"
    renewed = []
    for name, (size, hash) in written.get("written", {}).items():
        path = checkpoint / name
        if not path.is_file() and _is_any(name, _RENEWED):
            renewed.append(name)
        elif not path.is_file() or path.stat().st_size != size or (hash and hash != _hash(path)):
            return f"{path} is not as it was written (restore it; or delete {RECORD} beside it to resume all the same)"
    reason = next(filter(None, map(_why_damaged, _files(checkpoint))), None)
    if renewed and reason is None:
        logger.warning("%s has no %s any more: training goes on with new ones.", checkpoint, ", ".join(renewed))
    return reason


def _why_damaged(path: Path) -> str | None:
    """Why a file of tensors can't be read, by what its own format tells."""
    try:
        if path.suffix in _ARCHIVES and not _is_pickle(path):
            with zipfile.ZipFile(path) as archive:
                broken = archive.testzip()
            return f"{path} is damaged ({broken}): restore it" if broken else None
        if path.suffix == ".safetensors":
            safe_open(path, "pt")
    except Exception as error:  # each format has its own, and zlib's
        return f"{path} is damaged ({error}): restore it"
    return None


def last_whole_checkpoint(folder: Path, run: str | None) -> Path | None:
    """
    The last checkpoint of a run that is whole; those that are not, and are passed over, are named.

    Args:
        folder (`Path`):
            The run folder.
        run (`str`, *optional*):
            Id of the run; `None` for one that has none.

    Raises:
        [`SelectionError`]: there are checkpoints, and none is whole.
    """
    numbered = {int(path.name.split("-")[1]): path for path in folder.glob("checkpoint-*") if _is_checkpoint(path)}
    reasons = []
    for step in sorted(numbered, reverse=True):
        if (reason := why_torn(numbered[step], run)) is None:
            return numbered[step]
        reasons.append(reason)
        logger.warning("%s can't be resumed from: %s.", numbered[step], reason)
    if reasons:
        raise SelectionError(
            f"`resume_from_checkpoint`: no checkpoint in {folder} can be resumed from: {'; '.join(reasons)}. Train "
            "anew, without it."
        )
    return None


def _is_checkpoint(path: Path) -> bool:
    return path.is_dir() and re.fullmatch(r"checkpoint-\d+", path.name) is not None
