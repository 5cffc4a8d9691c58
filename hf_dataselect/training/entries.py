"""Selectors by name or mapping ([`Entry`]), and how folders are called after them."""

import json
import re
from typing import Any, NamedTuple

from ..options import nearest
from ..registry import load_selector
from ..selector import Selector


class Entry(NamedTuple):
    """A selector of an audit, or one that `auto` tries."""

    name: str
    method: str
    kwargs: dict[str, Any]

    def load(self) -> Selector:
        """The selector itself."""
        return load_selector(self.method, self.kwargs)


def entries_of(methods: list[Any]) -> list[Entry]:
    """
    Selectors by their names or mappings.

    Raises:
        `ValueError`: unknown method, option or key, a name that no folder can have, or one that two share.
    """
    entries: list[Entry] = []
    for item in methods:
        for one in item.split(",") if isinstance(item, str) and not item.lstrip().startswith("{") else [item]:
            entry = _entry(one)
            if any(entry.name == other.name for other in entries):
                raise ValueError(f"`methods`: two of them are called {entry.name!r}: give one a `name`.")
            entries.append(entry)
    return entries


def _entry(item: Any) -> Entry:
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


def as_name(budget: float | int | str) -> str:
    """A budget as part of a folder's name: without spaces and signs."""
    return re.sub(r"[^\w.]+", "-", str(budget))


def file_name(method: str) -> str:
    """A method's name in a folder's name: the class of `package.module:Class`."""
    return method.rpartition(":")[2]
