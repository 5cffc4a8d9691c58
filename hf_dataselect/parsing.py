"""Options of a command, from a YAML file and the command line; everything that is wrong is told at once."""

import argparse
import dataclasses
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from trl import TrlParser

from .compat.trl import check_parser
from .errors import Checks
from .nested import Nested, read_value, take_nested, with_nested
from .options import misspelt
from .recipe_files import beside_recipes, recipe_file


check_parser(TrlParser)


def parse_options(kinds: Sequence[type], argv: Sequence[str], prog: str, checks: Checks) -> list[Any]:
    """
    Parse `--config`, a YAML file in UTF-8 or the name of a recipe, and options that override it, as
    [`~trl.TrlParser`] does. Mappings may be in YAML, and `--NAME.KEY VALUE` changes one of their values.
    `--help-all` shows all options, and ends the process.

    Args:
        kinds (`Sequence[type]`):
            Dataclasses, of which each field is an option.
        argv (`Sequence[str]`):
            The command line.
        prog (`str`):
            The command.
        checks ([`Checks`]):
            Collects every unknown option, value of the wrong type, and value that a dataclass refuses.

    Returns:
        `list`: an instance of each dataclass, `None` of one that was refused.

    Raises:
        `ValueError`: a file that can't be read.
    """
    parser = TrlParser(kinds, prog=prog, exit_on_error=False, allow_abbrev=False)
    if "--help-all" in argv:
        parser.print_help()
        raise SystemExit(0)
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    first.add_argument("--config")
    try:
        config, rest = first.parse_known_args(list(argv))
    except argparse.ArgumentError as error:
        raise ValueError("`--config` needs a file.") from error
    unknown = parser.set_defaults_with_config(**_read_config(config.config))
    rest, nested = checks(take_nested, rest) or (rest, [])
    options, more = _parse(parser, rest, checks)
    fields = {name: _holds_mappings(kind, name) for kind in kinds for name in _defaults(kind)}
    if unknown := [*unknown, *more, *(f"--{path[0]}" for path, _ in nested if path[0] not in fields)]:
        said = misspelt(unknown, fields)
        checks.errors.append(ValueError(f"{said}. `{prog} --help` lists the options, `--help-all` TRL's, too."))
    for name, holds_mappings in fields.items():
        if holds_mappings:
            setattr(options, name, checks(_mapping, name, getattr(options, name), nested))
    for path, _ in nested:
        if not fields.get(path[0], True):
            checks.errors.append(ValueError(f"`{'.'.join(path)}`: `{path[0]}` is no mapping, it has one value."))
    return [checks(kind, **{field: getattr(options, field) for field in _defaults(kind)}) for kind in kinds]


def _holds_mappings(kind: type, name: str) -> bool:
    """Whether a field is a mapping or a list of these, by its annotation: the parser changes `type` of the field."""
    owners = (vars(owner).get("__annotations__", {}) for owner in kind.__mro__)
    annotation = str(next(annotations[name] for annotations in owners if name in annotations))
    return re.search(r"\bdict\b", annotation) is not None


def _mapping(name: str, value: Any, nested: list[Nested]) -> Any:
    """A mapping or list that was given as a text, and values of it that were given one by one."""
    if isinstance(value, str) and value.lstrip()[:1] in ("{", "["):
        try:
            value = read_value(value)
        except ValueError as error:
            raise ValueError(f"`{name}={value}` {error}") from error
    for path, given in nested:
        if path[0] == name:
            try:
                value = with_nested(value, path[1:], given)
            except ValueError as error:
                raise ValueError(f"`{'.'.join(path)}`: {error}") from error
    return value


def _read_config(path: str | None) -> dict[str, Any]:
    """The options of a YAML file; its mapping `env` sets environment variables."""
    if path is None:
        return {}
    file = recipe_file(path)
    config = read_yaml(file, f"`--config {path}`")
    env = config.pop("env", {}) if isinstance(config, dict) else None
    if not isinstance(env, dict):
        raise ValueError(f"`--config {path}` must be a mapping of options in YAML, and `env` in it one of variables.")
    os.environ.update({name: str(value) for name, value in env.items()})
    return {name: beside_recipes(value) for name, value in config.items()}


def read_yaml(path: Path, name: str) -> Any:
    """
    Content of a YAML file in UTF-8, with or without a byte order mark.

    Raises:
        `ValueError`: it can't be read; the message calls it by `name`.
    """
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ValueError(f"{name} can't be read: {error}") from error


def _parse(parser: TrlParser, argv: list[str], checks: Checks) -> tuple[argparse.Namespace, list[str]]:
    """Parsed options and what is left over; an option of a wrong value counts as not given."""
    defaults = {name: value for kind in parser.dataclass_types for name, value in _defaults(kind).items()}
    for _ in range(len(defaults)):
        try:
            return parser.parse_known_args(argv)
        except argparse.ArgumentError as error:
            names = (error.argument_name or "").split("/")
            option = names[0].removeprefix("--")
            checks.errors.append(ValueError(f"`{option}`: {error.message}" if option else error.message))
            if option not in defaults:
                break
            argv = _without(argv, names)
            parser.set_defaults(**{option: defaults[option]})
    checks.finish()
    raise AssertionError("an option was refused without an error")


def _without(argv: list[str], names: list[str]) -> list[str]:
    """The command line without an option and its values."""
    kept, given = [], False
    for item in argv:
        if item.startswith("--"):
            given = item.partition("=")[0] in names
        if not given:
            kept.append(item)
    return kept


def _defaults(kind: type) -> dict[str, Any]:
    return {
        item.name: item.default if item.default_factory is dataclasses.MISSING else item.default_factory()
        for item in dataclasses.fields(kind)
        if item.init
    }
