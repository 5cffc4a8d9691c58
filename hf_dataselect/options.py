"""Options from recipes and the command line: typed values, nearest right names, optional packages."""

import dataclasses
import difflib
import importlib
import importlib.util
import json
import types
import typing
from collections.abc import Iterable
from pathlib import Path
from typing import Any


def nearest(name: str, names: Iterable[str]) -> str:
    """The end of an error: the nearest right name if there is one, and all names."""
    names = list(names)
    close = difflib.get_close_matches(name, names, 1)
    return (f"; did you mean {close[0]!r}?" if close else ".") + (f" Known: {', '.join(names)}." if names else "")


def require_extras(name: str, extras: dict[str, str]) -> None:
    """Refuse, with an `ImportError` that names the extra, what needs a package that is not installed."""
    for module, extra in extras.items():
        if importlib.util.find_spec(module) is None:
            raise ImportError(f"`{name}` needs the package `{module}`: `pip install hf_dataselect[{extra}]`.")


def _mapping(kwargs: dict[str, Any] | str | None, option: str) -> dict[str, Any]:
    if isinstance(kwargs, str):
        try:
            kwargs = json.loads(kwargs)
        except json.JSONDecodeError as error:
            raise ValueError(f"`{option}={kwargs!r}` is not JSON: {error}.") from error
    if kwargs is not None and not isinstance(kwargs, dict):
        raise ValueError(f"`{option}` must be a mapping of option to value, got {kwargs!r}.")
    return kwargs or {}


def typed_options(
    kind: type, kwargs: dict[str, Any] | str | None, option: str, owner: str = "there is", hint: str = ""
) -> Any:
    """
    An instance of a dataclass from a mapping or JSON; text such as `"5e-5"` becomes what the field is declared to be.

    Args:
        kind (`type`):
            The dataclass.
        kwargs (`dict` or `str`, *optional*):
            Values of its fields.
        option (`str`):
            What errors call the mapping.
        owner, hint (`str`, *optional*):
            Beginning and end of the error about an unknown field.

    Raises:
        `ValueError`: unknown field (with the nearest right name), a value of the wrong type, or one that is refused.
    """
    hints = typing.get_type_hints(kind)
    declared = dataclasses.fields(kind) if dataclasses.is_dataclass(kind) else ()
    fields = {field.name: hints[field.name] for field in declared if field.init}
    options = {}
    for name, value in _mapping(kwargs, option).items():
        if name not in fields:
            raise ValueError(f"`{option}`: {owner} no option {name!r}{nearest(name, fields)} {hint}".rstrip())
        options[name] = _typed(value, fields[name], f"`{option}`: {name}")
    return kind(**options)


def _typed(value: Any, hint: Any, what: str) -> Any:
    """`value` as the annotation `hint` wants it, or `ValueError`."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if origin is typing.Literal:
        if value not in arguments:
            raise ValueError(f"{what}={value!r} must be one of {', '.join(map(repr, arguments))}.")
        return value
    if origin is typing.Union or origin is types.UnionType:
        if value is None and type(None) in arguments:
            return None
        for kind in sorted((a for a in arguments if a is not type(None)), key=lambda a: a is str):
            try:
                return _typed(value, kind, what)
            except ValueError:
                continue
    elif origin in (list, tuple) or hint in (list, tuple):
        if isinstance(value, (list, tuple)):
            inner = arguments[0] if arguments else Any
            return (origin or hint)(_typed(item, inner, what) for item in value)
    elif origin is dict or hint is dict:
        if isinstance(value, dict):
            return value
    elif hint is bool:
        lowered = {"true": True, "yes": True, "false": False, "no": False}
        if isinstance(value, bool) or str(value).lower() in lowered:
            return value if isinstance(value, bool) else lowered[str(value).lower()]
    elif hint in (int, float) and not isinstance(value, bool):
        try:
            if hint is float or float(value) == int(float(value)):
                return hint(float(value)) if hint is float else int(float(value))
        except (TypeError, ValueError, OverflowError):
            pass
    elif hint is Path and isinstance(value, str):
        return Path(value)
    elif isinstance(hint, type) and isinstance(value, hint):
        return value
    name = getattr(hint, "__name__", str(hint))
    raise ValueError(f"{what}={value!r} must be {name}.")
