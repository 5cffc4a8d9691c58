"""Held-out rows that guard domains (`guard_dataset`): one set for each, by the name of its domain."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from datasets import Dataset, IterableDataset

from ..errors import Checks
from ..options import typed_options
from .load import load_rows
from .records import Records
from .targets import read_alike


@dataclass
class GuardSet:
    """
    Held-out rows of one domain.

    Args:
        dataset (`str` or [`~datasets.Dataset`]):
            Hub name, folder or file; or the rows.
        config (`str`, *optional*):
            Configuration of a dataset on the Hub.
        split (`str`, *optional*, defaults to `"test"`):
            Its split, or a slice of it; a single file is the split `test`, too.
    """

    dataset: Any
    config: str | None = None
    split: str = "test"


def guard_sets(given: Any) -> dict[str, GuardSet]:
    """
    The sets that `guard_dataset` names, not read yet.

    Raises:
        `ValueError`: no mapping of domains to rows, or a wrong option of one; all of them at once.
    """
    if isinstance(given, str) and given.lstrip().startswith("{"):
        try:
            given = json.loads(given)
        except json.JSONDecodeError as error:
            raise ValueError(f"`guard_dataset={given}` is not JSON: {error}.") from error
    if given is None:
        return {}
    if not isinstance(given, Mapping) or not given:
        raise ValueError(
            f"`guard_dataset={given!r}` must name held-out rows by domain: {{math: FILE, code: {{dataset: FILE}}}}."
        )
    checks, sets = Checks(), {}
    for name, rows in given.items():
        option = f"guard_dataset.{name}"
        options = dict(rows) if isinstance(rows, Mapping) else {"dataset": rows}
        if not str(name).strip():
            checks.errors.append(ValueError(f"`guard_dataset`: {name!r} must be the name of a domain."))
        elif not isinstance(options.get("dataset"), (Dataset, IterableDataset)) and not (
            isinstance(options.get("dataset"), str) and options["dataset"]
        ):
            checks.errors.append(ValueError(f"`{option}={rows!r}` must be, or have as `dataset`, hub name or file."))
        else:
            sets[str(name)] = checks(typed_options, GuardSet, options, option, "a domain has")
    checks.finish()
    return sets


def load_guard(given: Any, records: Records, least: int) -> dict[str, Records]:
    """
    The rows that guard each domain, read as the candidates are.

    Args:
        given (`dict`, *optional*):
            What [`guard_sets`] takes.
        records ([`Records`]):
            Candidates.
        least (`int`):
            Rows of a set.

    Raises:
        `ValueError`: rows that can't be loaded, are tokenized or too few; all of them at once.
        `TypeError`: rows that are streamed.
    """
    checks, sets = Checks(), guard_sets(given)
    loaded = {name: checks(_read, item, records, f"guard_dataset.{name}", least) for name, item in sets.items()}
    checks.finish()
    return loaded


def _read(item: GuardSet, records: Records, name: str, least: int) -> Records:
    rows = item.dataset
    if isinstance(rows, str):
        rows = load_rows(rows, item.config, item.split, "test", [records.text_field])
    guard = read_alike(rows, records, name)
    if guard.layout == "tokens":
        raise ValueError(f"`{name}` is already tokenized: give the texts.")
    if len(guard) < least:
        raise ValueError(f"`{name}` has {len(guard)} rows, too few to tell harm from chance: give at least {least}.")
    return guard
