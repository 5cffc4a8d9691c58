"""The table of what runs where is that of the probes, and some of them are made again."""

import json
from dataclasses import replace

import pytest

from hf_dataselect.registry import method_names
from tests.capabilities.modes import MODES, NotHere
from tests.capabilities.page import DATA, PAGE, page, with_rows
from tests.capabilities.probes import FAILS, NOT_RUN, OTHER, REFUSED, REORDERED, WORKS, outcome, prepare


FOUND = json.loads(DATA.read_text("utf-8"))


def test_every_method_is_on_the_page_in_every_mode():
    assert list(FOUND) == list(MODES) and all(list(cells) == method_names() for cells in FOUND.values())
    assert PAGE.read_text("utf-8") == page(FOUND), "run `python -m tests.capabilities`"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("capabilities")
    prepare(folder)
    return folder


@pytest.mark.parametrize("key, name", [("stream", "length"), ("offload", "ifd"), ("moe", "perplexity")])
def test_what_is_on_the_page_is_what_comes_of_it(key, name, folder):
    said, rows = outcome(name, MODES[key], folder)
    assert said == FOUND[key][name] and bool(rows) == said.startswith(WORKS)


def test_only_what_this_package_raises_on_purpose_is_a_refusal(folder):
    def broken(error):
        def select(trainer):
            raise error

        return outcome("length", replace(MODES["one"], select=select), folder)[0]

    assert broken(ValueError("of this file")) == f"{FAILS}: ValueError: of this file"
    assert broken(NotHere("no such thing")) == f"{NOT_RUN}: no such thing"
    assert outcome("length", replace(MODES["one"], package="nowhere"), folder)[0].startswith(NOT_RUN)
    wrong = replace(MODES["one"], rows=lambda name: MODES["one"].rows(name) | {"selection_budget": 1000})
    assert outcome("length", wrong, folder)[0].startswith(f"{REFUSED}: `selection_budget")
    unsharded = replace(MODES["one"], sharded=lambda model: 0)
    assert outcome("perplexity", unsharded, folder)[0] == f"{FAILS}: the model was not sharded"


def test_other_rows_than_those_of_one_process_are_told():
    alone = {name: {"rows": [2, 1], "said": WORKS} for name in "abcd"}
    lines = alone | {"b": {"rows": [1, 2], "said": WORKS}, "c": {"rows": [], "said": "refused: no"}}
    lines |= {"d": {"rows": [2, 3], "said": WORKS}}
    assert with_rows(lines, alone) == {"a": WORKS, "b": REORDERED, "c": "refused: no", "d": OTHER}
