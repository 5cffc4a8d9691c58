"""A run begins in its folder, where an earlier one may be, or goes on there."""

import json
import logging
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..engines.store.checked import read_json, write_json
from ..errors import DamagedFile
from ..selection import Selection
from .files import (
    BECOMES,
    EVALUATION,
    GUARD,
    POLICY,
    RECIPE,
    RUN,
    SCORES,
    SELECTION,
    SETTINGS,
    VERSIONS,
    WINS,
    answers_of,
    ensure_run,
    plain,
    run_id,
    write_versions,
)
from .folder import (
    read_recipe,
    read_selection,
    read_settings,
    write_recipe,
    write_selection,
    write_settings,
)
from .secrets import without_secrets


logger = logging.getLogger(__name__)

_RESULTS = (EVALUATION, POLICY, GUARD, WINS, SETTINGS, SELECTION, SCORES, RECIPE, VERSIONS)
#: Facts of a selection that tell it from another.
_FACTS = ("model", "dataset", "target", "layout", "chat_template", "max_length", "truncation", "dtype", "seed")
_FACTS += ("diversity",)


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
    if any((folder / name).is_file() for name in (VERSIONS, SELECTION, EVALUATION)):
        _remove_earlier(folder)
    write_versions(folder, uuid.uuid4().hex)
    if settings is not None:
        write_settings(folder, settings, finished=False)
    write_recipe(folder, recipe)


def enter_selection(
    folder: Path, recipe: dict[str, Any], selection: Selection, settings: dict[str, Any] | None = None
) -> None:
    """
    Write a selection to a folder: another run begins there, unless the one that it holds has the same selection, of
    which nothing is removed.

    Args:
        folder, recipe, settings:
            As of [`begin_run`].
        selection ([`Selection`]):
            The selection.
    """
    if not _holds(folder, selection, settings):
        begin_run(folder, recipe, settings)
        write_selection(folder, selection)
    elif not (folder / EVALUATION).is_file() and not any(folder.glob("checkpoint-*")):
        write_recipe(folder, recipe)  # else it says what the run was trained with


def begin_training(
    folder: Path,
    recipe: dict[str, Any],
    selection: Selection,
    settings: dict[str, Any] | None,
    free: tuple[str, ...],
) -> None:
    """
    Begin a training from its first step. The same one as before stays the same run, whose checkpoints may be resumed;
    what evaluated the earlier model is removed.

    Args:
        folder, recipe, selection, settings:
            As of [`enter_selection`].
        free (`tuple[str, ...]`):
            Prefixes of the options that the same training may have others of.
    """
    if not _holds(folder, selection, settings) or run_id(folder) is None or not _trains(folder, recipe, free):
        begin_run(folder, recipe, settings)
        write_selection(folder, selection)
        return
    names = (EVALUATION, POLICY, GUARD, WINS, *(() if settings else (SETTINGS,)))
    _remove([*(folder / name for name in names), *answers_of(folder, run_id(folder))], folder, "is trained anew")
    write_recipe(folder, recipe)
    if settings is not None:
        write_settings(folder, settings, finished=False)


def _holds(folder: Path, selection: Selection, settings: dict[str, Any] | None) -> bool:
    try:
        known = settings is None or read_settings(folder)[0] == settings
        return known and _told(read_selection(folder)) == _told(selection)
    except (OSError, ValueError):  # none, or a damaged one
        return False


def _told(selection: Selection) -> Any:
    facts = {name: selection.facts.get(name) for name in _FACTS}
    judge = (selection.facts.get("judge") or {}).get("name")
    own = [selection.method, selection.options, selection.budget, selection.candidates, selection.indices]
    return without_secrets(plain([*own, facts, judge]))


def _trains(folder: Path, recipe: dict[str, Any], free: tuple[str, ...]) -> bool:
    try:
        both = read_recipe(folder), without_secrets(plain(recipe))
    except (OSError, ValueError):
        return False
    then, now = ({name: one[name] for name in one if not name.startswith(free)} for one in both)
    return then == now


def _remove_earlier(folder: Path) -> None:
    try:
        method = repr(json.loads((folder / SELECTION).read_text(encoding="utf-8"))["method"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        method = "an unknown method"
    try:
        said = answers_of(folder, run_id(folder))
    except DamagedFile:
        said = []
    _remove([*(folder / name for name in _RESULTS), *said], folder, f"held a run of {method}")
    for torn in [torn for name in _RESULTS for torn in folder.glob(f".{name}.*")]:  # by a kill
        torn.unlink()


def _remove(paths: Sequence[Path], folder: Path, why: str) -> None:
    if removed := [path for path in paths if path.is_file()]:
        logger.warning(
            "%s %s: its results are removed (%s). Checkpoints and models stay until they are replaced.",
            folder,
            why,
            ", ".join(str(path.relative_to(folder)) for path in removed),
        )
    for path in removed:
        path.unlink()


def go_on(folder: Path, recipe: dict[str, Any], selection: Selection) -> None:
    """Write what a run that is resumed in its folder is trained with; one without an id gets one."""
    run = run_id(folder)
    if run is None:
        # Files with and without it are of the run until versions.json, written last, says that all have it.
        run = ensure_run(folder)
        if run is None:
            run = uuid.uuid4().hex
            write_json(folder / VERSIONS, read_json(folder / VERSIONS, unchecked=True) | {BECOMES: run})
        for name in (EVALUATION, WINS, SETTINGS):
            if (folder / name).is_file():
                write_json(folder / name, {RUN: run} | read_json(folder / name, unchecked=True))
    write_recipe(folder, recipe)
    write_selection(folder, selection)
    write_versions(folder, run)
