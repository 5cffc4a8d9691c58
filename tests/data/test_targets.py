"""Targets of several tasks: names, weights, layouts, and what is refused before anything loads."""

import json
from contextlib import nullcontext

import numpy as np
import pytest
from datasets import Dataset

from hf_dataselect.data.records import Records
from hf_dataselect.data.targets import load_target, target_names, tasks_of
from hf_dataselect.features.target_rows import columns
from hf_dataselect.plan import SelectionPlan
from hf_dataselect.registry import load_selector
from hf_dataselect.service import select_dataset
from hf_dataselect.training.config import DataSelectingConfig
from tests.rows import alpaca, layout
from tests.tiny import tiny_model, tiny_tokenizer


def loaded(target):
    return load_target(target, Records(alpaca(4)))


def test_old_forms_are_what_they_were(tmp_path):
    alpaca(3).to_json(tmp_path / "target.jsonl")
    for target in (alpaca(3), str(tmp_path / "target.jsonl")):
        found = loaded(target)
        assert len(found) == 3 and found.layout == "alpaca" and "task" not in found.dataset.column_names
        held = columns(found, "max")
        assert held.tasks is None and held.weights is None and held.shares is None and len(held.names) == 3
    assert loaded(None) is None and loaded("") is None and target_names("a.jsonl") == ["a.jsonl"] and not tasks_of("a")


def test_tasks_have_names_weights_and_subtasks(tmp_path):
    alpaca(3).to_json(tmp_path / "code.jsonl")
    maths = alpaca(4, 5).add_column("subtask", ["a", "b", "a", "b"])
    target = {"math": {"dataset": maths, "weight": 2}, "code": str(tmp_path / "code.jsonl")}
    found = loaded(target)
    assert [record.answer for record in found][:4] == list(maths["output"])
    for given, record in zip([*Records(maths), *Records(alpaca(3))], found, strict=True):
        assert (record.messages, record.answer_turns) == (given.messages, given.answer_turns)
    by_subtask, by_row = columns(found, "max"), columns(found, "optimal_transport")
    assert by_subtask.names == ["math/a", "math/b", "code"] and by_subtask.tasks == ["math", "math", "code"]
    assert by_subtask.groups.tolist() == [0, 1, 0, 1, 2, 2, 2] and by_subtask.weights.tolist() == [1, 1, 0.5]
    assert by_subtask.shares.tolist() == [0.5, 0.5, 0.5]
    np.testing.assert_allclose(by_row.shares, [1 / 4] * 4 + [0.5 / 3] * 3)
    similarity = np.array([[0.2, 0.1, 0.6], [-0.2, -0.4, -0.2]])
    np.testing.assert_allclose(by_subtask.weighted(similarity), [[0.2, 0.1, 0.3], [-0.2, -0.4, -0.4]])
    assert loaded(json.dumps({"code": str(tmp_path / "code.jsonl")})).dataset["task"] == ["code"] * 3
    assert target_names(target) == [str(tmp_path / "code.jsonl")]
    other = loaded({**target, "math": {"dataset": maths, "weight": 3}})
    assert other.content_hash() != found.content_hash(), "a resumed run tells that weights changed"


def test_tasks_of_layouts_that_train_alike_are_joined_and_others_refused():
    found = loaded(
        {"a": alpaca(3), "b": layout("chat prompt-completion", 2), "c": alpaca(2, 5).remove_columns("input")}
    )
    assert found.layout == "prompt-completion" and len(found) == 7
    plain = [record.answer for record in Records(alpaca(3))]
    assert [record.answer for record in found][:3] == plain and found[0].messages == Records(alpaca(3))[0].messages
    with pytest.raises(
        ValueError, match=r"train differently, a \(alpaca\), b \(messages\), as messages and prompt-completion"
    ):
        loaded({"a": alpaca(3), "b": layout("messages", 2)})


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ({}, "names no task"),
        ({"math": "./none.jsonl"}, "none.jsonl"),
        ({"math": {"weight": 2}}, "`selection_target.math={'weight': 2}` has no `dataset`"),
        ({"math": {"dataset": "a.jsonl", "weight": 0}}, r"`selection_target.math`: `weight=0(.0)?` must be positive"),
        ({"math": {"dataset": "a.jsonl", "weight": -1}}, "must be positive and finite"),
        ({"math": {"dataset": "a.jsonl", "weight": float("nan")}}, "must be positive and finite"),
        ({"math": {"dataset": "a.jsonl", "weight": "much"}}, "`selection_target.math`: weight='much' must be float"),
        ({"math": {"dataset": "a.jsonl", "wieght": 2}}, "no option 'wieght'; did you mean 'weight'"),
        ({"math": ""}, "must be a hub name, folder or file"),
        ({"math": 3}, "must be a hub name, folder or file"),
        ({"": "a.jsonl"}, "must be the name of a task"),
        ({"a/b": "x.jsonl", "a": "y.jsonl"}, "the task 'a/b' has a `/`, which parts a task from its subtask"),
        ('{"math": ', "is not JSON"),
        ({"math": alpaca(2).select([])}, "`selection_target.math` has no rows"),
        (
            {"math": Dataset.from_list([{"q": "?"}]), "code": alpaca(2)},
            r"`selection_target.math` has the columns \['q'\]",
        ),
    ],
)
def test_wrong_tasks_are_refused_before_weights_load(target, said):
    with pytest.raises(ValueError, match=said):
        select_dataset(alpaca(8), "rds", "./no-model", target=target, cache_dir=None)


def test_all_errors_are_told_at_once_and_secret_names_refused(tmp_path):
    wrong = {"a": {"dataset": "x.jsonl", "weight": 0}, "b": {"weight": 1}}
    with pytest.raises(ValueError) as error:
        DataSelectingConfig(str(tmp_path), use_cpu=True, selection_target=wrong)
    assert "selection_target.a" in str(error.value) and "selection_target.b" in str(error.value)
    with pytest.raises(ValueError, match="'token' is what options with secrets are called"):
        DataSelectingConfig(str(tmp_path), use_cpu=True, selection_target={"token": "x.jsonl", "math": "y.jsonl"})
    named = {"math": {"dataset": "y.jsonl", "weight": 2}}
    kept = DataSelectingConfig(str(tmp_path), use_cpu=True, selection_target=named)
    assert kept.given["selection_target"] == named


def test_weights_that_a_method_would_not_heed_are_refused_and_equal_ones_taken():
    target = {"a": alpaca(2), "b": {"dataset": alpaca(2, 5), "weight": 3}}
    with pytest.raises(ValueError, match="weights of tasks have no effect on `dsir`"):
        select_dataset(alpaca(8), "dsir", target=target, cache_dir=None)
    with pytest.raises(ValueError, match="weights of tasks have no effect on `nuggets`"):
        select_dataset(alpaca(8), "nuggets", "./no-model", target=target, cache_dir=None)
    target["b"]["weight"] = 1
    assert len(select_dataset(alpaca(8), "dsir", target=target, budget=3, cache_dir=None)[0]) == 3


@pytest.mark.parametrize(
    ("method", "kwargs", "said"),
    [
        ("blend", {"members": {"bm25": 1, "length": 1}}, None),
        ("cascade", {"method": "length", "prefilter": "bm25"}, None),
        ("qdit", {"quality": "bm25"}, None),
        ("car", {"quality": "blend", "quality_kwargs": {"members": {"bm25": 1, "length": 1}}}, None),
        ("qdit", {"quality": "length"}, None),
        ("blend", {"members": {"bm25": 1, "dsir": 1}}, "no effect on `dsir`"),
        ("blend", {"members": {"length": 1, "nuggets": 1}}, "no effect on `nuggets`"),
        ("cascade", {"method": "nuggets"}, "no effect on `nuggets`"),
        ("qdit", {"quality": "dsir"}, "no effect on `dsir`"),
        ("car", {"quality": "nuggets"}, "no effect on `nuggets`"),
    ],
)
def test_methods_made_of_others_ask_those_that_read_the_target(method, kwargs, said):
    target = load_target({"a": alpaca(2), "b": {"dataset": alpaca(2, 5), "weight": 3}}, Records(alpaca(4)))
    own = {"encoder": "model"} if method in ("qdit", "car") else {}
    plan = SelectionPlan(Records(alpaca(8)), load_selector(method, kwargs | own), 2, target=target)
    with nullcontext() if said is None else pytest.raises(ValueError, match=said):
        plan.check(tiny_model(tiny_tokenizer()))


def test_a_quality_refuses_a_target_too_small_for_it_before_weights_load():
    with pytest.raises(ValueError, match="`gist` needs 2 rows in `selection_target`"):
        kwargs = {"quality": "gist", "encoder": "model"}
        select_dataset(alpaca(8), "qdit", "./no-model", target=alpaca(1), method_kwargs=kwargs, cache_dir=None)


def test_weights_share_turns_and_the_report_says_who_is_served():
    rows = alpaca(40)
    rows = rows.add_column("source", ["left" if row < 10 else "right" for row in range(40)])
    target = {"a": rows.select(range(8)), "b": {"dataset": rows.select(range(20, 28)), "weight": 3}}
    _, found = select_dataset(
        rows, "bm25", target=target, budget=8, method_kwargs={"rule": "round_robin"}, cache_dir=None
    )
    figures = found.facts["figures"]
    assert {"a", "b", "none"} == set(figures["rows kept of right that serve"])
    served = [figures[name] for name in figures if name.startswith("rows kept of ")]
    assert sum(part["b"] for part in served) > sum(part["a"] for part in served)
    assert figures["left unserved"] == "none" and isinstance(figures["rows kept that serve several tasks"], list)
    assert "rows kept of right that serve: a " in found.summary()
    _, equal = select_dataset(
        rows, "bm25", target={**target, "b": rows.select(range(20, 28))}, budget=8, cache_dir=None
    )
    _, heavy = select_dataset(rows, "bm25", target=target, budget=8, cache_dir=None)
    assert not np.array_equal(equal.scores, heavy.scores)
