"""A run begins in its folder, where an earlier one may be, or goes on there."""

import json
import logging
import uuid
from pathlib import Path
from typing import Any

from ..engines.store.checked import read_json, write_json
from ..errors import DamagedFile
from ..selection import Selection
from .files import (
    EVALUATION,
    RECIPE,
    RUN,
    SCORES,
    SELECTION,
    SETTINGS,
    VERSIONS,
    WINS,
    run_id,
    said_by,
    write_versions,
)
from .folder import write_recipe, write_selection, write_settings


logger = logging.getLogger(__name__)

#: Rows kept, as `hf-dataselect select` writes them.
SELECTED = "selected.parquet"
_RESULTS = (EVALUATION, WINS, SETTINGS, SELECTION, SCORES, SELECTED, RECIPE, VERSIONS)


def begin_run(folder: Path, recipe: dict[str, Any], settings: dict[str, Any] | None = None) -> None:
    """
    Begin a run in a folder. The results of an earlier one are removed first, all of them, as training replaces its
    model there; checkpoints and models stay.

    Args:
        folder (`Path`):
            The run folder.
        recipe (`dict`):
            Content of `recipe.yaml`.
        settings (`dict`, *optional*):
            Of a run of a comparison: content of `compared.json`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / VERSIONS).is_file() or (folder / SELECTION).is_file():
        _remove_earlier(folder)
    write_versions(folder, uuid.uuid4().hex)
    if settings is not None:
        write_settings(folder, settings, finished=False)
    write_recipe(folder, recipe)


def _remove_earlier(folder: Path) -> None:
    try:
        method = repr(json.loads((folder / SELECTION).read_text(encoding="utf-8"))["method"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        method = "an unknown method"
    try:
        said = said_by(folder, run_id(folder))
    except DamagedFile:
        said = []
    removed = [path for path in (*(folder / name for name in _RESULTS), *said) if path.is_file()]
    logger.warning(
        "%s held a run of %s: its results are removed (%s). Checkpoints and models stay until they are replaced.",
        folder,
        method,
        ", ".join(str(path.relative_to(folder)) for path in removed),
    )
    for path in (*removed, *(torn for name in _RESULTS for torn in folder.glob(f".{name}.*"))):  # by a kill
        path.unlink()


def go_on(folder: Path, recipe: dict[str, Any], selection: Selection) -> None:
    """Write what a run that is resumed in its folder is trained with; one without an id gets one."""
    run, earlier = run_id(folder), {}
    if run is None:
        run, kept = uuid.uuid4().hex, (EVALUATION, WINS, SETTINGS)
        earlier = {name: read_json(folder / name, unchecked=True) for name in kept if (folder / name).is_file()}
    write_versions(folder, run)
    for name, content in earlier.items():
        write_json(folder / name, {RUN: run} | content)
    write_recipe(folder, recipe)
    write_selection(folder, selection)
