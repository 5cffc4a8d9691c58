"""Versions that the private names were seen on, and the error where a library has moved one."""

import inspect
from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any


#: The version of each library that this package was last tested with; the lower bounds are in `pyproject.toml`.
SEEN = {
    "accelerate": "1.15.0",
    "bitsandbytes": "0.50.2",
    "datasets": "5.2.0",
    "lm_eval": "0.4.13",
    "peft": "0.21.2",
    "torch": "2.13.0",
    "transformers": "5.23.0",
    "trl": "1.16.0",
}


def moved(package: str, name: str) -> ImportError:
    """The error to raise where the installed version of `package` does not have `name`."""
    try:
        installed = version(package)
    except PackageNotFoundError:
        installed = "(not installed)"
    return ImportError(
        f"{package} {installed} does not have `{name}`, which hf_dataselect uses. Install {package} {SEEN[package]}, "
        "the version it was tested with, or a newer hf_dataselect."
    )


def imported(package: str, module: str, name: str) -> Any:
    """
    `name` of a private or undocumented module of `package`.

    Raises:
        `ImportError`: the installed version does not have it.
    """
    try:
        return getattr(import_module(module), name)
    except (ModuleNotFoundError, AttributeError) as error:
        raise moved(package, f"{module}.{name}") from error


def attribute(package: str, owner: Any, name: str) -> Any:
    """
    A private attribute of an object of `package`.

    Raises:
        `ImportError`: the installed version does not have it.
    """
    try:
        return getattr(owner, name)
    except AttributeError as error:
        kind = owner if isinstance(owner, type) else type(owner)
        raise moved(package, f"{kind.__name__}.{name}") from error


def check_hook(package: str, kind: type, name: str, parameters: Sequence[str]) -> None:
    """
    Refuse a version in which a method that this package overrides is gone or does not begin with these parameters.

    Raises:
        `ImportError`: it is not as expected.
    """
    found = list(inspect.signature(attribute(package, kind, name)).parameters)[1:]
    if found[: len(parameters)] != list(parameters):
        raise moved(package, f"{kind.__name__}.{name}({', '.join(parameters)})")
