"""What others build on: the marks of the public surface, and the files that describe the package."""

import ast
import re
from pathlib import Path

import pytest
import yaml

import hf_dataselect
from hf_dataselect.cli.main import COMMANDS


ROOT = Path(hf_dataselect.__file__).parents[1]


def test_every_public_name_and_command_is_marked_stable_or_experimental():
    table = re.findall(r"^\| `([^`]+)` \| (\w+) \|$", (ROOT / "docs/building-on.md").read_text(encoding="utf-8"), re.M)
    marks = dict(table)
    commands = [f"hf-dataselect {command}" for command in COMMANDS]
    assert list(marks) == [*sorted(hf_dataselect._PUBLIC), *commands] and len(table) == len(marks)
    assert set(marks.values()) == {"stable", "experimental"}
    names = {name for name, mark in marks.items() if mark == "experimental" and name in hf_dataselect._PUBLIC}
    assert names == hf_dataselect._EXPERIMENTAL


@pytest.mark.parametrize("name", hf_dataselect._PUBLIC)
def test_the_docstring_of_an_experimental_name_says_so(name):
    assert ("Experimental" in getattr(hf_dataselect, name).__doc__) == (name in hf_dataselect._EXPERIMENTAL)


def test_type_checkers_see_every_public_name():
    tree = ast.parse(Path(hf_dataselect.__file__).read_text(encoding="utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If))
    seen = {(alias.name, node.module) for node in block.body for alias in node.names}
    assert seen == set(hf_dataselect._PUBLIC.items())


def test_the_citation_is_of_this_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == hf_dataselect.__version__ and citation["license"] == "Apache-2.0"
    assert citation.keys() >= {"cff-version", "message", "title", "authors", "references"}
    assert f"\n## {hf_dataselect.__version__}\n" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
