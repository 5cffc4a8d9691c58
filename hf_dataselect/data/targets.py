"""Target-task examples: of one task, or of several with names and weights."""

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from datasets import Dataset, concatenate_datasets

from ..errors import Checks, SelectionError
from ..options import PositiveFloat, check_declared, typed_options
from .load import load_rows
from .records import TEMPLATE_COLUMNS, TURN_COLUMNS, Records


logger = logging.getLogger(__name__)

#: Columns of the examples of several tasks: the name of the task, its weight, and the subtask.
TASK, WEIGHT, SUBTASK = "task", "task_weight", "subtask"


@dataclass
class Task:
    """
    Examples of one task.

    Args:
        dataset (`str` or [`~datasets.Dataset`]):
            Hub name, folder or file; or the rows.
        weight (`float`, *optional*, defaults to `1.0`):
            How much the task counts beside others.
        config (`str`, *optional*):
            Configuration of a dataset on the Hub.
        split (`str`, *optional*, defaults to `"train"`):
            Its split.
    """

    dataset: Any
    weight: PositiveFloat = 1.0
    config: str | None = None
    split: str = "train"

    def __post_init__(self):
        check_declared(self)
        if not isinstance(self.dataset, Dataset) and not (isinstance(self.dataset, str) and self.dataset):
            raise ValueError(f"`dataset={self.dataset!r}` must be a hub name, folder or file.")


def tasks_of(target: Any) -> dict[str, Task]:
    """
    The tasks that `selection_target` names; none if it is a dataset, or its name.

    Raises:
        `ValueError`: no name, a value that is neither a dataset nor its options, or a weight that is not positive; all
            of them at once.
    """
    if isinstance(target, str) and target.lstrip().startswith("{"):
        try:
            target = json.loads(target)
        except json.JSONDecodeError as error:
            raise ValueError(f"`selection_target={target}` is not JSON: {error}.") from error
    if not isinstance(target, Mapping):
        return {}
    if not target:
        raise ValueError("`selection_target={}` names no task: give a dataset, or tasks, {math: FILE, code: FILE}.")
    checks, tasks = Checks(), {}
    for name, given in target.items():
        option = f"selection_target.{name}"
        if not isinstance(name, str) or not name.strip():
            checks.errors.append(ValueError(f"`selection_target`: {name!r} must be the name of a task."))
        elif "/" in name:
            said = f"`selection_target`: the task {name!r} has a `/`, which parts a task from its subtask: rename it."
            checks.errors.append(ValueError(said))
        elif isinstance(given, Mapping) and "dataset" not in given:
            checks.errors.append(ValueError(f"`{option}={dict(given)!r}` has no `dataset`: hub name, folder or file."))
        else:
            kwargs = dict(given) if isinstance(given, Mapping) else {"dataset": given}
            tasks[name] = checks(_task, kwargs, option)
    checks.finish()
    return tasks


def _task(kwargs: dict[str, Any], option: str) -> Task:
    try:
        return typed_options(Task, kwargs, option, "a task has")
    except ValueError as error:
        if option in str(error):
            raise
        raise ValueError(f"`{option}`: {error}") from error


def target_names(target: Any) -> list[str]:
    """Hub names, folders and files of the target."""
    tasks = tasks_of(target)
    given = [task.dataset for task in tasks.values()] if tasks else [target]
    return [name for name in given if isinstance(name, str) and name]


def check_target_text(target: Records) -> None:
    """Refuse, with a [`SelectionError`], target rows that are token ids."""
    if target.layout == "tokens":
        raise SelectionError("`selection_target` holds token ids: give its rows untokenized.")


def load_target(target: Any, records: Records) -> Records | None:
    """
    Target-task examples, read as the candidates are; by their formatting function, too, where the target has the
    columns of the candidates.

    Args:
        target ([`~datasets.Dataset`], `str` or `dict`):
            Rows, or their hub name, folder or file; or those of several tasks by name, each with a weight if given as
            `{dataset: ..., weight: ...}`. The examples of several tasks have the columns `task`, `task_weight` and
            `subtask`.
        records ([`Records`]):
            Candidates.

    Raises:
        `ValueError`: what [`tasks_of`] and [`load_rows`] refuse, a task without rows, or tasks of different layouts.
    """
    if target is None or target == "":
        return None
    tasks = tasks_of(target)
    if not tasks:
        return read_alike(load_rows(target) if isinstance(target, str) else target, records, "selection_target")
    checks = Checks()
    examples = {name: checks(_examples, name, task, records) for name, task in tasks.items()}
    checks.finish()
    return _joined(examples, tasks)


def _examples(name: str, task: Task, records: Records) -> Records:
    rows = load_rows(task.dataset, task.config, task.split) if isinstance(task.dataset, str) else task.dataset
    return read_alike(rows, records, f"selection_target.{name}")


def read_alike(rows: Dataset, records: Records, name: str) -> Records:
    """Other rows, read as the candidates are; by their formatting function, too, where they have their columns."""
    formatting_func = records.formatting_func
    if formatting_func is not None and not set(records.dataset.column_names) <= set(rows.column_names):
        logger.warning(
            "`%s` has other columns than `%s`: it is read without `formatting_func`, so its texts may be formatted "
            "differently from those they are compared with.",
            name,
            records.name,
        )
        formatting_func = None
    return Records(rows, records.text_field, formatting_func, name=name)


def _joined(examples: dict[str, Records], tasks: dict[str, Task]) -> Records:
    """The examples of all tasks, as they would be trained on, with the columns of their tasks."""
    parts = {name: Records(part.for_training(), part.trained_field, name=part.name) for name, part in examples.items()}
    if len(layouts := {part.layout for part in parts.values()}) > 1:
        given = ", ".join(f"{name} ({part.layout})" for name, part in examples.items())
        raise ValueError(
            f"`selection_target`: the tasks have layouts that train differently, {given}, as "
            f"{' and '.join(sorted(layouts))}: give all of them in one, such as `prompt` and `completion`."
        )
    rows, first = [], next(iter(parts.values()))
    read = {*TURN_COLUMNS, *TEMPLATE_COLUMNS, "image", "images", "input_ids", "labels", first.text_field}
    for (name, task), part in zip(tasks.items(), parts.values(), strict=True):
        own = examples[name].dataset
        subtasks = [f"{name}/{value}" for value in own[SUBTASK]] if SUBTASK in own.column_names else [name] * len(own)
        kept = part.dataset.select_columns([column for column in part.dataset.column_names if column in read])
        for column, values in {
            TASK: [name] * len(own),
            WEIGHT: [float(task.weight)] * len(own),
            SUBTASK: subtasks,
        }.items():
            kept = kept.add_column(column, values)
        rows.append(kept)
    try:
        return Records(concatenate_datasets(rows), first.text_field, name="selection_target")
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"`selection_target`: columns of the tasks have different types ({error}): give all of them alike."
        ) from error
