"""Budgets: parsed with errors that help, kept to in rows and tokens, of all rows and of each group; ties are drawn."""

import json

import numpy as np
import pytest
from datasets import Dataset

from hf_dataselect.budget import Budget, Groups, shares
from hf_dataselect.cli.main import main
from hf_dataselect.context import Context
from hf_dataselect.data.records import Records
from hf_dataselect.pipeline import select
from hf_dataselect.plan import SelectionPlan
from hf_dataselect.selectors.alpagasus import AlpaGasus
from hf_dataselect.selectors.column import Column
from hf_dataselect.selectors.full import Full
from hf_dataselect.selectors.ifd import IFD
from hf_dataselect.selectors.length import Length
from hf_dataselect.selectors.nuggets import Nuggets
from tests.rows import alpaca
from tests.tiny import context_of, tiny_model, tiny_tokenizer
from tests.tiny_training import tiny_trainer, write_recipe


@pytest.mark.parametrize(
    ("given", "means"),
    [
        (0.05, 0.05),
        ("0.05", 0.05),
        (1.0, 1.0),
        ("1.0", 1.0),
        (2, 2),
        ("500", 500),
        (500.0, 500),
        ("5e2", 500),
        (np.int64(7), 7),
        ("2M tokens", "2000000 tokens"),
        ("1.5k tokens", "1500 tokens"),
        (" 2,000,000 Tokens ", "2000000 tokens"),
        ("score >= 4.5", "score >= 4.5"),
        ("score<-1", "score < -1"),
        ("score > 0.12345678", "score > 0.12345678"),
    ],
)
def test_what_a_budget_may_be(given, means):
    budget = Budget.parse(given)
    assert budget.plain == means and type(budget.plain) is type(means)
    assert Budget.parse(budget.plain) == budget == Budget.parse(budget)


WRONG = [0, 0.0, -3, "-0.5", 1, "1", 1.5, "many", float("nan"), float("inf"), None, True, [3]]
WRONG += [
    "0 tokens",
    "many tokens",
    "1..2 tokens",
    "1,5M tokens",
    "score >= x",
    "score >= nan",
    "score == 4",
    "rating >= 4",
]


@pytest.mark.parametrize("given", WRONG)
def test_what_is_no_budget_is_refused_with_what_to_write(given):
    with pytest.raises(ValueError) as refused:
        Budget.parse(given)
    assert f"`selection_budget={given!r}`" in str(refused.value) and "write" in str(refused.value)


def test_rows_of_a_budget():
    def rows(value, n):
        return Budget.parse(value).rows(n)

    assert rows(0.05, 1000) == 50 and rows(0.29, 100) == 29
    assert rows(0.001, 10) == 1 and rows(1.0, 7) == 7 and rows(7, 7) == 7
    assert rows("9 tokens", 7) is None and rows("score > 1", 7) is None
    with pytest.raises(ValueError, match="more rows than the 7"):
        rows(8, 7)


def context(**changes) -> Context:
    tokenizer = tiny_tokenizer()
    return context_of(tokenizer, tiny_model(tokenizer), dtype="float32", max_length=128, **changes)


def with_groups(n: int = 24) -> Dataset:
    """Rows of the groups a (half of them), b (a third) and c (a sixth), each in turn."""
    names = [{0: "a", 1: "b", 2: "a", 3: "b", 4: "a", 5: "c"}[row % 6] for row in range(n)]
    return alpaca(n).add_column("source", names)


# Tokens and thresholds -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tokens", [110, 300, 10**6])
def test_tokens_are_taken_best_first_until_the_next_row_would_exceed(tokens):
    ctx, rows = context(), Records(alpaca(24))
    order = select(rows, Length(), 1.0, context()).indices
    lengths = np.asarray(ctx.encode(rows, ctx.text_format(end_of_turn=True)).tokens.lengths)[order]
    found = select(rows, Length(), f"{tokens} tokens", context())
    k = len(found.indices)
    assert found.indices.tolist() == order[:k].tolist() and found.budget == f"{tokens} tokens"
    assert lengths[:k].sum() <= tokens and (k == 24 or lengths[: k + 1].sum() > tokens)


def test_the_tokens_are_those_that_are_trained_on(tmp_path):
    trainer = tiny_trainer(tmp_path, "length", selection_budget="200 tokens")
    trainer.prepare_subset()
    trained = sum(map(len, trainer.train_dataset["input_ids"]))
    assert 150 < trained <= 200


def test_tokenized_rows_have_tokens_too():
    rows = Dataset.from_dict({"input_ids": [[5] * (i + 1) for i in range(9)], "score": [9.0 - i for i in range(9)]})
    found = select(rows, Column(), "10 tokens", Context(None))
    assert found.indices.tolist() == [0, 1, 2, 3]


def test_too_few_tokens_for_any_row_are_told():
    with pytest.raises(ValueError, match="the best row has more tokens than the budget, 2 tokens"):
        select(alpaca(6), Length(), "2 tokens", context())


@pytest.mark.parametrize("relation", [">=", ">", "<=", "<"])
def test_a_threshold_keeps_what_passes_and_names_the_others(relation):
    rows = alpaca(24)
    ratings = np.array(rows["rating"][:])
    passes = {">=": ratings >= 4, ">": ratings > 4, "<=": ratings <= 4, "<": ratings < 4}[relation]
    found = select(rows, Column("rating"), f"score {relation} 4", Context(None))
    assert set(found.indices.tolist()) == set(np.flatnonzero(passes).tolist())
    assert found.dropped == {f"not score {relation} 4, the budget": np.flatnonzero(~passes).tolist()}


def test_a_threshold_of_the_method_comes_before_the_budget():
    rows = alpaca(24)
    ratings = np.array(rows["rating"][:])
    everything = select(rows, Column("rating", threshold=6), 1.0, Context(None))
    assert len(everything.indices) == (ratings >= 6).sum()
    assert len(select(rows, Column("rating", threshold=6), 3, Context(None)).indices) == 3


def test_without_a_budget_each_method_keeps_by_its_papers_rule():
    assert (IFD().default_budget, Full().default_budget) == (0.05, 1.0)
    assert AlpaGasus().default_budget == Nuggets().default_budget == 1.0
    assert AlpaGasus(threshold=None).default_budget == Nuggets(threshold=None).default_budget == 0.05
    records = Records(alpaca(24))
    assert SelectionPlan(records, AlpaGasus()).budget.plain == 1.0
    assert SelectionPlan(records, AlpaGasus(), 0.1).budget.plain == 0.1
    ratings = np.array(alpaca(24)["rating"][:])
    assert len(select(alpaca(24), Column("rating"), None, Context(None)).indices) == 1  # 5 % of 24
    assert len(ratings) == len(select(alpaca(24), Full(), None, Context(None)).indices)


# Groups --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("by", "kept"),
    [
        ("source", {"a": 6, "b": 4, "c": 2}),
        ({"column": "source", "how": "equal"}, {"a": 4, "b": 4, "c": 4}),
        ({"column": "source", "how": {"a": 1, "c": 1}}, {"a": 8, "b": 0, "c": 4}),  # c has four rows only
        ('{"column": "source", "how": {"b": 3, "c": "1"}}', None),
    ],
)
@pytest.mark.parametrize("budget", [0.5, 12])
def test_rows_of_each_group(by, kept, budget):
    rows = with_groups(24)
    if kept is None:
        with pytest.raises(ValueError, match="'c'='1' must be at least 0"):
            Budget.parse(budget, by)
        return
    found = select(rows, Length(), Budget.parse(budget, by), context())
    assert found.facts["figures"]["rows kept by source"] == kept
    assert (np.diff(found.scores[found.indices]) <= 0).all() and str(budget) in found.budget
    sources = np.array(rows["source"][:])
    for name, number in kept.items():
        mine = np.flatnonzero(sources == name)
        assert sorted(found.scores[found.indices[sources[found.indices] == name]]) == sorted(
            np.sort(found.scores[mine])[len(mine) - number :]
        )


def test_tokens_of_each_group():
    rows, ctx = with_groups(24), context()
    found = select(rows, Length(), Budget.parse("300 tokens", {"column": "source", "how": "equal"}), context())
    lengths = np.asarray(ctx.encode(Records(rows), ctx.text_format(end_of_turn=True)).tokens.lengths)
    sources = np.array(rows["source"][:])[found.indices]
    spent = {name: lengths[found.indices[sources == name]].sum() for name in "abc"}
    assert all(50 < tokens <= 100 for tokens in spent.values())


@pytest.mark.parametrize(
    ("by", "says"),
    [
        ("sauce", "no column 'sauce'; did you mean 'source'"),
        ({"columns": "source"}, "no option 'columns'; did you mean 'column'"),
        ({"how": "equal"}, "name the `column`"),
        ({"column": "source", "how": "fair"}, "how='fair'"),
        ({"column": "source", "how": {"d": 1}}, "has no group 'd'"),
        ({"column": "source", "how": {"a": -1}}, "'a'=-1 must be at least 0"),
        ({"column": "source", "how": {"a": 0}}, "no group a weight"),
        (7, "must be a mapping"),
    ],
)
def test_groups_that_make_no_sense_are_refused(by, says):
    with pytest.raises(ValueError, match=f"selection_budget_by.*{says}"):
        select(with_groups(12), Length(), Budget.parse(0.5, by), context())


def test_a_threshold_has_no_groups_and_the_baseline_no_budget():
    with pytest.raises(ValueError, match="remove `selection_budget_by`"):
        Budget.parse("score >= 1", "source")
    with pytest.raises(ValueError, match="`selection_budget_by=source` has no effect"):
        SelectionPlan(Records(with_groups(6)), Full(), budget_by="source")
    assert Groups.parse(None) is None


@pytest.mark.parametrize("seed", range(4))
def test_shares_are_whole_fair_and_within_the_room(seed):
    draw = np.random.default_rng(seed)
    for _ in range(50):
        n = int(draw.integers(1, 6))
        weights, room, total = draw.choice([0.0, 1.0, 2.5], n), draw.integers(0, 20, n), int(draw.integers(0, 60))
        given = shares(total, weights, room)
        assert (given >= 0).all() and (given <= room).all() and (given[weights == 0] == 0).all()
        assert given.sum() == min(total, room[weights > 0].sum())
        open_ = (given < room) & (weights > 0)  # among those with room left, as many as their weights say
        per = (given / np.where(weights, weights, 1))[open_]
        assert len(per) < 2 or np.ptp(per) <= n + 1


def test_one_line_of_a_recipe_is_enough_and_a_resumed_run_knows_it(tmp_path):
    with_groups(24).to_json(tmp_path / "rows.jsonl")
    options = {"selection_budget_by": {"column": "source", "how": "equal"}, "selection_budget": 6}
    recipe = write_recipe(tmp_path, save_strategy="steps", save_steps=1, **options)
    with_groups(24).to_json(tmp_path / "rows.jsonl")
    main(["train", "--config", str(recipe)])
    run = json.loads((tmp_path / "run" / "selection.json").read_text())
    assert run["budget"] == "6 by source (equal)"
    assert run["facts"]["figures"]["rows kept by source"] == {"a": 2, "b": 2, "c": 2}
    main(["train", "--config", str(recipe), "--resume_from_checkpoint", "true"])
    with pytest.raises(SystemExit):
        main(["train", "--config", str(recipe), "--resume_from_checkpoint", "true", "--selection_budget_by", "source"])
