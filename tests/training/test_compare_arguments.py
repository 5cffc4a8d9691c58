"""Budgets of single methods in a comparison, and the controls that belong to it."""

import pytest

from hf_dataselect.training.compare_arguments import CompareArguments


def runs(**options) -> list[str]:
    return [name for name, _ in CompareArguments(**options).runs()]


def test_each_method_at_its_own_budget_and_the_control_at_each_amount():
    given = {"alpagasus": ["own", 0.1], "dsir": 200, "selectit": "own"}
    found = runs(methods=["alpagasus", "dsir", "selectit", "length"], budgets=["0.05"], method_budgets=given)
    assert found == [
        "full-seed42",
        *(f"random-{budget}-seed42" for budget in ("0.1", "200", "0.2", "0.05")),
        *(f"alpagasus-{budget}-seed42" for budget in ("1.0", "0.1")),
        "dsir-200-seed42",
        "selectit-0.2-seed42",
        "length-0.05-seed42",
    ]


def test_without_them_every_method_and_the_control_have_all_budgets():
    found = runs(methods=["length"], budgets=["0.05", "0.1"])
    assert found == ["full-seed42", *(f"{name}-{b}-seed42" for name in ("random", "length") for b in ("0.05", "0.1"))]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"lenght": 0.1}, "did you mean 'length'"),
        ({"full": 0.1}, "`full` keeps every row"),
        ({"length": []}, "length has none"),
        ({"length": "most"}, "most"),
        ("{length: 1", "is not JSON"),
        ([1], "must map methods to budgets"),
    ],
)
def test_wrong_budgets_are_refused(given, said):
    with pytest.raises(ValueError, match=said):
        CompareArguments(methods=["length"], method_budgets=given)


def test_bm25_is_a_control_where_a_method_selects_for_a_target():
    for methods, added in ((["length"], False), (["rds"], True), (["bm25", "less"], True)):
        arguments = CompareArguments(methods=methods)
        arguments.add_target_control()
        assert ("bm25" in arguments.methods) == added and len(set(arguments.methods)) == len(arguments.methods)
