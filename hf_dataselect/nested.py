"""Values of mappings on the command line: `--selection_kwargs.warmup none`, and JSON or YAML for a whole one."""

import copy
import json
from collections.abc import Sequence
from typing import Any

import yaml


#: An option of a mapping: the names that lead to it, and its value.
Nested = tuple[list[str], Any]


def read_value(text: str) -> Any:
    """
    A value in JSON or YAML.

    Raises:
        `ValueError`: it is neither.
    """
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        pass
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"is neither JSON nor YAML: {' '.join(str(error).split())}") from error


def take_nested(argv: Sequence[str]) -> tuple[list[str], list[Nested]]:
    """
    The command line without its options of mappings (`--NAME.KEY VALUE` or `--NAME.KEY=VALUE`), and these.

    Raises:
        `ValueError`: one without a value, or one whose value is neither JSON nor YAML.
    """
    rest, nested, items = [], [], list(argv)
    while items:
        item = items.pop(0)
        option, equals, value = item.partition("=")
        if not option.startswith("--") or "." not in option:
            rest.append(item)
            continue
        if not equals:
            if not items or items[0].startswith("--"):
                raise ValueError(f"`{option}` needs a value.")
            value = items.pop(0)
        try:
            nested.append((option.removeprefix("--").split("."), read_value(value)))
        except ValueError as error:
            raise ValueError(f"`{option}={value}` {error}") from error
    return rest, nested


def with_nested(value: Any, path: Sequence[str], given: Any) -> Any:
    """
    A mapping or list with one of its values changed, a number in the path being a place in a list.

    Raises:
        `ValueError`: the path leads into what is neither, or past the end of a list.
    """
    if not path:
        return given
    name, *below = path
    if value is None:
        value = {}
    value = copy.copy(value)
    if isinstance(value, list) and name.isdecimal() and int(name) < len(value):
        value[int(name)] = with_nested(value[int(name)], below, given)
    elif isinstance(value, dict):
        value[name] = with_nested(value.get(name), below, given)
    else:
        has = f"has the places 0 to {len(value) - 1}" if isinstance(value, list) else f"is {value!r}, no mapping"
        raise ValueError(f"`{name}` can't be set: what it is to be part of {has}.")
    return value
