"""
What a module declares, read from its source: options of dataclasses and cards of methods, for `--help` and
`hf-dataselect methods`. Importing the modules would take seconds, as they import torch, transformers and TRL.
"""

import ast
import pkgutil
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from .card import Card


@dataclass(frozen=True)
class Option:
    """An option of a dataclass: its name, type and default as they are written, and its help."""

    name: str
    kind: str
    default: str
    help: str


@cache
def _tree(module: str) -> ast.Module:
    path = Path(__file__).parent.joinpath(*module.split(".")).with_suffix(".py")
    return ast.parse(path.read_text(encoding="utf-8"))


def options_of(module: str, name: str) -> list[Option]:
    """
    The options that a dataclass of this package declares itself, each as `NAME: TYPE = field(...)` with its `help`.

    Args:
        module, name (`str`):
            Module (`training.config`) and class.
    """
    body = next(node.body for node in _tree(module).body if isinstance(node, ast.ClassDef) and node.name == name)
    found = []
    for node in body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.value, ast.Call) and isinstance(node.target, ast.Name):
            given = {item.arg: item.value for item in node.value.keywords}
            said = _constant(given["metadata"], module)["help"]
            found.append(Option(node.target.id, ast.unparse(node.annotation), _default(given), said))
    return found


def _default(given: dict[str | None, ast.expr]) -> str:
    """The default as it is written; empty where there is none, or where it is made by a function of the package."""
    factory = given.get("default_factory")
    if isinstance(factory, ast.Lambda):
        return ast.unparse(factory.body)
    default = "" if "default" not in given else ast.unparse(given["default"])
    return "" if default == "None" else default


def _constant(node: ast.expr, module: str) -> Any:
    """The value of an expression of constants, by name those of this module or of one that it imports from."""
    names = {item.id for item in ast.walk(node) if isinstance(item, ast.Name)}
    values = {name: _named(name, module) for name in names}
    return eval(compile(ast.Expression(node), module, "eval"), {"__builtins__": {}}, values)


def _named(name: str, module: str) -> Any:
    for node in _tree(module).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == name:
            return _constant(node.value, module)
        if isinstance(node, ast.ImportFrom) and node.level and name in [item.name for item in node.names]:
            room = module.split(".")[: -node.level]
            return _named(name, ".".join([*room, node.module or ""]))
    raise LookupError(f"{module} has no constant {name}")


def method_names() -> list[str]:
    """Names of the selectors of this package: the files in `hf_dataselect/selectors/`."""
    return sorted(module.name for module in pkgutil.iter_modules([str(Path(__file__).parent / "selectors")]))


def policy_names() -> list[str]:
    """Names of the policies of this package: the files in `hf_dataselect/policies/`."""
    return sorted(module.name for module in pkgutil.iter_modules([str(Path(__file__).parent / "policies")]))


def card_of(method: str, room: str = "selectors") -> Card:
    """The card of a selector (or of a policy) of this package, all of whose arguments are constants."""
    module = f"{room}.{method}"
    given = next(
        node.value
        for node in ast.walk(_tree(module))
        if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == "card" and isinstance(node.value, ast.Call)
    )
    return Card(**{str(item.arg): _constant(item.value, module) for item in given.keywords})
