"""Feasibility: penalties and ranks as published, and the cards of this package against the paper's Table 3."""

import dataclasses

import pytest

from hf_dataselect.cards import method_table
from hf_dataselect.evaluation.feasibility import Facts, Feasibility, rank_by_feasibility
from hf_dataselect.evaluation.published import published
from hf_dataselect.registry import method_names, selector_class
from tests.shared_data import golden


#: Where a card says something else than Table 3, by method and fact, and why.
EXPLAINED: dict[tuple[str, str], str] = {}


@pytest.fixture(params=["v1", "v2"])
def version(request) -> tuple[list[dict], list[str], dict[str, Facts]]:
    found = golden("tedd")["versions"][request.param]
    facts = {method.method: method.facts for method in published(request.param)}
    return found["feasibility"], found["feasibility_order"], facts


def test_penalties_ranks_and_order_are_the_published_ones(version):
    found, order, facts = version
    ranks = rank_by_feasibility(facts)
    assert list(ranks) == order
    for row in found:
        mine = facts[row["method"]]
        assert mine.simplicity_penalty == row["simplicity_penalty"], row["method"]
        assert mine.flexibility_penalty == row["flexibility_penalty"], row["method"]
        assert ranks[row["method"]] == Feasibility(row["simplicity"], row["flexibility"], row["feasibility"])


def test_equal_methods_share_a_rank_and_go_from_z_to_a():
    simple = Facts(0, False, 2, True, True, True, True)
    hard = dataclasses.replace(simple, model_free=False)
    ranks = rank_by_feasibility({"a": simple, "c": hard, "b": simple})
    assert list(ranks.items()) == [("b", (1, 1, 1)), ("a", (1, 1, 1)), ("c", (1, 2, 2))]
    assert rank_by_feasibility({}) == {}


@pytest.mark.parametrize(
    "change, simplicity, flexibility",
    [
        ({}, 2, 0),
        ({"trained_llms": 3}, 8, 0),
        ({"trained_llms": 3, "small_llm": True}, 6.5, 0),
        ({"trained_llms": 100}, 202, 0),
        ({"trained_llms": 101, "steps": 9, "code": False}, 200, 0),
        ({"code": False}, 3, 0),
        ({"model_free": False}, 2, 3),
        ({"dataset_free": False}, 2, 2),
        ({"chatgpt_free": False}, 2, 1),
    ],
)
def test_penalties_by_hand(change, simplicity, flexibility):
    facts = dataclasses.replace(Facts(0, False, 2, True, True, True, True), **change)
    assert (facts.simplicity_penalty, facts.flexibility_penalty) == (simplicity, flexibility)


def test_cards_agree_with_table_3():
    table, differing, compared = {method.paper: method.facts for method in published()}, set(), 0
    for name in method_names():
        card = selector_class(name).card
        if card.paper in table:
            compared += 1
            mine, other = Facts.of(card), table[card.paper]
            differing |= {(name, fact) for fact in vars(mine) if getattr(mine, fact) != getattr(other, fact)}
    assert compared >= 2 and differing == EXPLAINED.keys()


def test_the_ranks_stand_in_the_table_of_methods():
    cards = {name: selector_class(name).card for name in method_names()}
    ranks = rank_by_feasibility({name: Facts.of(card) for name, card in cards.items() if card.paper})
    lines = {line.split("`")[1]: line for line in method_table().splitlines() if "`" in line}
    for name, card in cards.items():
        rank = ranks.get(name)
        shown = f"{rank.feasibility} ({rank.simplicity}, {rank.flexibility})" if card.paper else ""
        assert lines[name].split("|")[-2].strip() == shown
