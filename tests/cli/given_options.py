"""Options as a user gives them, and what a command makes of them."""

import dataclasses
from pathlib import Path

import yaml


class Stop(Exception):
    """The option has reached what it is for."""


def own(kind: type, *bases: type) -> set[str]:
    """Fields of a dataclass that none of its bases has."""
    return {item.name for item in dataclasses.fields(kind)} - {
        i.name for base in bases for i in dataclasses.fields(base)
    }


def as_arguments(options: dict) -> list[str]:
    return [
        part
        for name, value in options.items()
        for part in (f"--{name}", *(value if isinstance(value, list) else [value]))
    ]


def rewrite(recipe: Path, keeps) -> None:
    """A recipe with only those of its options that a command has."""
    options = yaml.safe_load(recipe.read_text())
    recipe.write_text(yaml.safe_dump({name: value for name, value in options.items() if keeps(name)}))


#: What writes cards and pushes: tested in tests/runs/test_publish.py and tests/evaluation/report/test_model_card.py.
PUSHES = {"hub_subset_id", "hub_report_id", "update_cards"}
