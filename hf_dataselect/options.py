"""
Options: declared ranges, typed values from recipes and the command line, nearest right names, optional packages.

A dataclass declares the range of a field where it declares its type, and checks all of them when it is made:

```python
@dataclass
class Options:
    threshold: Annotated[float, Interval(0, 5)] = 4.5
    epochs: PositiveInt = 3

    def __post_init__(self):
        check_declared(self, "selection_kwargs")
```
"""

import dataclasses
import difflib
import importlib
import importlib.util
import inspect
import json
import math
import numbers
import textwrap
import types
import typing
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from .errors import Checks


@dataclass(frozen=True)
class Interval:
    """
    Range of a numeric option, given as an annotation of its type. NaN is in none.

    Args:
        low, high (`float`, *optional*):
            Bounds; unbounded by default.
        closed (`str`, *optional*, defaults to `"both"`):
            Which bounds belong to it: `"both"`, `"left"`, `"right"` or `"neither"`.
    """

    low: float = -math.inf
    high: float = math.inf
    closed: Literal["both", "left", "right", "neither"] = "both"

    def __contains__(self, value: Any) -> bool:
        if isinstance(value, bool) or not isinstance(value, numbers.Real):
            return False
        number = float(value)
        above = self.low <= number if self.closed in ("both", "left") else self.low < number
        return above and (number <= self.high if self.closed in ("both", "right") else number < self.high)

    def __str__(self) -> str:
        left, right = self.closed in ("both", "left"), self.closed in ("both", "right")
        if self.high < math.inf:
            return f"in {'[' if left else '('}{self.low:g}, {self.high:g}{']' if right else ')'}"
        if self.low == -math.inf:
            return "a number"
        if self.low == 0 and not left:
            return "positive and finite"
        return f"{'at least' if left else 'above'} {self.low:g}" + ("" if right else " and finite")


class _Choices(tuple):
    """Choices of an option. A truth value, which equals 0 or 1, is none of the numbers."""

    def __contains__(self, value: Any) -> bool:
        return any(value == choice and isinstance(value, bool) == isinstance(choice, bool) for choice in self)


@dataclass(frozen=True)
class _AnyOf:
    """Ranges and choices of an option, of which one is enough."""

    parts: tuple

    def __contains__(self, value: Any) -> bool:
        return any(value in part for part in self.parts)

    def __str__(self) -> str:
        said = (" or ".join(map(repr, part)) if isinstance(part, tuple) else str(part) for part in self.parts)
        return " or ".join(said)


PositiveInt = Annotated[int, Interval(1)]
NonNegativeInt = Annotated[int, Interval(0)]
PositiveFloat = Annotated[float, Interval(0, closed="neither")]
NonNegativeFloat = Annotated[float, Interval(0, closed="left")]
#: Part of something that is not empty.
Fraction = Annotated[float, Interval(0, 1, closed="right")]
Cosine = Annotated[float, Interval(-1, 1)]
#: Any float but NaN.
Number = Annotated[float, Interval()]


def declared(kind: type) -> dict[str, Interval | tuple | _AnyOf]:
    """Fields of a dataclass that declare a range, with their [`Interval`], or choices (`Literal`), with these."""
    hints = typing.get_type_hints(kind, include_extras=True)
    ranges = {field.name: _declared(hints[field.name]) for field in dataclasses.fields(kind)}
    return {name: allowed for name, allowed in ranges.items() if allowed is not None}


def _declared(hint: Any) -> Interval | tuple | _AnyOf | None:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return _Choices(arguments)
    if origin is Annotated:
        return next((item for item in arguments if isinstance(item, Interval)), None)
    if origin is typing.Union or origin is types.UnionType:
        given = [argument for argument in arguments if argument is not type(None)]
        parts = tuple(_declared(argument) for argument in given)
        return None if None in parts else parts[0] if len(parts) == 1 else _AnyOf(parts)
    return None


def check_declared(options: Any, option: str | None = None) -> None:
    """
    Check the values of a dataclass against the ranges and choices that its fields declare. `None` is for the type to
    allow.

    Args:
        options (`Any`):
            The dataclass.
        option (`str`, *optional*):
            What errors call the mapping that the values come from.

    Raises:
        `ValueError`: a value out of range; the message names the option, the value and the range.
    """
    checks = Checks()
    for name, allowed in declared(type(options)).items():
        value = getattr(options, name)
        if value is None or value in allowed:
            continue
        what = f"`{option}`: {name}={value!r}" if option else f"`{name}={value!r}`"
        choices = f"one of {', '.join(map(repr, allowed))}" if isinstance(allowed, tuple) else allowed
        checks.errors.append(ValueError(f"{what} must be {choices}."))
    checks.finish()


def nearest(name: str, names: Iterable[str]) -> str:
    """The end of an error: the nearest right name, if any, and all names."""
    names = list(names)
    close = difflib.get_close_matches(name, names, 1)
    return (f"; did you mean {close[0]!r}?" if close else ".") + (f" Known: {', '.join(names)}." if names else "")


def misspelt(options: Iterable[str], known: Iterable[str]) -> str:
    """The error about options (`--NAME`, `--NAME=VALUE`) that there are none of, each with the nearest right name."""
    options, known, said = list(options), list(known), []
    for option in (item.removeprefix("--").partition("=")[0] for item in options if item.startswith("--")):
        near = difflib.get_close_matches(option.replace("-", "_"), known, 1)
        said.append(f"`{option}`" + (f" (did you mean `{near[0]}`?)" if near else ""))
    return f"Unknown options: {', '.join(said or options)}"


def require_extras(name: str, extras: dict[str, str]) -> None:
    """Refuse, with an `ImportError` that names the extra, what needs a package that is not installed."""
    for module, extra in extras.items():
        if importlib.util.find_spec(module) is None:
            raise ImportError(f"`{name}` needs the package `{module}`: `pip install hf_dataselect[{extra}]`.")


def imported_class(path: str, base: type[Any] | tuple[type[Any], ...], said: str) -> type[Any]:
    """The subclass of `base`, or of one of several, at `package.module:Class`; errors begin with `said`, its name."""
    module_name, _, class_name = path.partition(":")
    try:
        kind = getattr(importlib.import_module(module_name), class_name)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"{said} can't be imported: {error}.") from error
    if not (isinstance(kind, type) and issubclass(kind, base)):
        bases = base if isinstance(base, tuple) else (base,)
        raise ValueError(f"{said} is not a {' or '.join(f'`{one.__name__}`' for one in bases)}.")
    return kind


def class_of_module(name: str, base: type[Any]) -> type[Any]:
    """The subclass of `base` that a module defines."""
    module = importlib.import_module(name)
    kinds = (kind for _, kind in inspect.getmembers(module, inspect.isclass) if kind.__module__ == module.__name__)
    return next(kind for kind in kinds if issubclass(kind, base))


def mapping_of(kwargs: dict[str, Any] | str | None, option: str) -> dict[str, Any]:
    """Options as a mapping, also of JSON; a `ValueError` calls them `option`."""
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
    options, checks = {}, Checks()
    for name, value in mapping_of(kwargs, option).items():
        if name in fields:
            options[name] = checks(_typed, value, fields[name], f"`{option}`: {name}")
        else:
            said = f"`{option}`: {owner} no option {name!r}{nearest(name, fields)} {hint}"
            checks.errors.append(ValueError(said.rstrip()))
    checks.finish()
    return kind(**options)


def _typed(value: Any, hint: Any, what: str) -> Any:
    """`value` as the annotation `hint` wants it, or `ValueError`."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if origin is typing.Literal:
        value = next((argument for argument in arguments if str(argument) == value), value)
        if value not in _Choices(arguments):
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
    raise ValueError(f"{what}={value!r} must be {_readable(hint)}.")


def _readable(hint: Any) -> str:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return ", ".join(map(repr, arguments))
    if origin is typing.Union or origin is types.UnionType:
        return " or ".join(map(_readable, arguments))
    return {"NoneType": "null", "dict": "a mapping"}.get((origin or hint).__name__, (origin or hint).__name__)


def documented(kind: type) -> type:
    """Class decorator: a dataclass whose docstring lists its own fields with their `help`, their one documentation."""
    lines = [inspect.cleandoc(kind.__doc__ or ""), "", "Parameters:"]
    for item in dataclasses.fields(kind):
        if item.name in vars(kind).get("__annotations__", {}) and "help" in item.metadata:
            hint = inspect.formatannotation(item.type).replace("typing.", "")
            default = None if item.default is dataclasses.MISSING else item.default
            said = "" if default is None else f", defaults to `{default!r}`"
            lines.append(f"    {item.name} (`{hint}`, *optional*{said}):")
            lines.append(textwrap.indent(textwrap.fill(item.metadata["help"], 111, break_on_hyphens=False), " " * 8))
    kind.__doc__ = "\n".join(lines)
    return kind
