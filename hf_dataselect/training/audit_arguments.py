"""The options of an audit: [`AuditArguments`]."""

import json
from dataclasses import dataclass, field
from typing import Annotated, Any, NamedTuple

from ..evaluation.audit.findings import CONTROLS
from ..evaluation.audit.prediction import MIN_SUBSETS
from ..options import Interval, PositiveInt, check_declared, documented, nearest
from ..registry import load_selector
from .compare_arguments import as_name, file_name


class Entry(NamedTuple):
    """A selector of an audit."""

    name: str
    method: str
    kwargs: dict[str, Any]


@documented
@dataclass
class AuditArguments:
    """What is audited."""

    methods: list[str] = field(
        default_factory=list,
        metadata={
            "help": "Selectors to audit: names, also separated by commas, or mappings of `method`, `selection_kwargs` "
            "and `name` (JSON on the command line). Default: all that need no judge and have what they need. The "
            f"controls {', '.join(CONTROLS)} are always added."
        },
    )
    subsets: Annotated[int, Interval(MIN_SUBSETS)] = field(
        default=64,
        metadata={"help": "Random subsets to train on. More cost proportionally more time and narrow the intervals."},
    )
    subset_rows: Annotated[int, Interval(2)] | None = field(
        default=None,
        metadata={
            "help": "Rows of a subset, and of each selector's top rows. Default: 0.025 of the pool, at least 8. More "
            "cost more time per subset."
        },
    )
    top_seeds: PositiveInt = field(
        default=1,
        metadata={
            "help": "Trainings on each selector's top rows, with seeds from `seed` on. More narrow the intervals of "
            "gains where seeds matter."
        },
    )

    def __post_init__(self):
        check_declared(self)
        self.entries: list[Entry] = []
        for item in self.methods:
            for one in item.split(",") if isinstance(item, str) and not item.lstrip().startswith("{") else [item]:
                entry = _entry(one)
                if any(entry.name == other.name for other in self.entries):
                    raise ValueError(f"`methods`: two of them are called {entry.name!r}: give one a `name`.")
                self.entries.append(entry)


def _entry(item: Any) -> Entry:
    """
    A selector by its name or mapping.

    Raises:
        `ValueError`: unknown method, option or key, or a name that no folder can have.
    """
    if isinstance(item, str) and item.lstrip().startswith("{"):
        try:
            item = json.loads(item)
        except json.JSONDecodeError as error:
            raise ValueError(f"`methods`: {item!r} is not JSON: {error}.") from error
    given = {"method": item.strip()} if isinstance(item, str) else item
    keys = ("method", "selection_kwargs", "name")
    if not isinstance(given, dict) or not isinstance(given.get("method"), str):
        raise ValueError(f"`methods`: {item!r} must be a name or a mapping of {', '.join(keys)}.")
    if wrong := [key for key in given if key not in keys]:
        raise ValueError(f"`methods`: {given['method']!r} has no key {wrong[0]!r}{nearest(wrong[0], keys)}")
    kwargs = given.get("selection_kwargs") or {}
    load_selector(given["method"], kwargs)
    parts = [file_name(given["method"]), *(str(value) for value in kwargs.values())]
    name = str(given.get("name") or "-".join(map(as_name, parts)))
    if as_name(name) != name:
        raise ValueError(f"`methods`: the name {name!r} must have letters, digits, dots, `-` and `_` only.")
    return Entry(name, given["method"], kwargs)
