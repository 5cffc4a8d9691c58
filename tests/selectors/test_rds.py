"""RDS+ agrees with its authors' code, and does what it says."""

from typing import get_args

import numpy as np
import pytest
from datasets import Dataset
from transformers import AutoModelForCausalLM

from hf_dataselect.data.records import Records
from hf_dataselect.engines.forward.hidden_states import hidden_state
from hf_dataselect.engines.runtime.runtime import Runtime
from hf_dataselect.engines.runtime.token_rows import TokenRows
from hf_dataselect.engines.subset.matchers import round_robin
from hf_dataselect.errors import SelectionError
from hf_dataselect.pipeline import select
from hf_dataselect.selectors.rds import RDS
from tests.rows import alpaca
from tests.shared_data import golden, golden_path, smollm2_path
from tests.tiny import context_of, tiny_model, tiny_tokenizer


@pytest.mark.parametrize("name", ["tiny", "smollm2"])
def test_agrees_with_the_authors_code(name):
    run = next(run for run in golden("rds")["runs"] if run["model"] == name)
    model = AutoModelForCausalLM.from_pretrained(golden_path("tiny_model") if name == "tiny" else smollm2_path())
    ids = [row["input_ids"] for row in run["train"] + run["queries"]]
    found = hidden_state(model, TokenRows.from_lists(ids, [[]] * len(ids)), Runtime(dtype="float32"), pool="position")
    found /= np.linalg.norm(found, axis=1, keepdims=True)
    cosine = found[:16] @ found[16:].T
    np.testing.assert_allclose(cosine, run["cosine"], atol=1e-5)
    for expected in run["round_robin"]:
        assert round_robin(cosine, expected["size"]).tolist() == expected["train_positions"]


def context(target, **options):
    tokenizer = tiny_tokenizer()
    options = {"max_length": 128, "dtype": "float32", **options}
    return context_of(tokenizer, tiny_model(tokenizer), target=Records(target, name="selection_target"), **options)


def test_a_target_of_candidates_finds_them():
    rows = alpaca(24)
    for rule in get_args(RDS.__annotations__["rule"]):
        found = select(rows, RDS(rule), 3, context(rows.select([7, 3, 20])))
        assert sorted(found.indices.tolist()) == [3, 7, 20]
        np.testing.assert_allclose(found.scores[[3, 7, 20]], 1, atol=1e-5)
        if rule.startswith("round_robin"):
            assert found.indices.tolist() == [7, 3, 20], "target rows choose in their order"
    everything = select(rows, RDS(), 24, context(rows))
    np.testing.assert_allclose(everything.scores, 1, atol=1e-5)


def test_padding_side_and_batches_change_nothing():
    rows, target = alpaca(24), alpaca(3, seed=4)
    found = []
    for side, tokens in (("left", 10_000), ("right", 40)):
        ctx = context(target, batch_tokens=tokens)
        ctx.tokenizer.padding_side = side
        found.append(select(rows, RDS(), 5, ctx))
    np.testing.assert_allclose(found[0].scores, found[1].scores, atol=1e-5)
    assert found[0].indices.tolist() == found[1].indices.tolist()


def test_rows_that_cannot_be_used_are_named(caplog):
    rows = alpaca(8).to_list()
    rows[2]["output"] = ""
    rows[4]["instruction"] = "red " * 400
    target = [{**row, "subtask": str(i)} for i, row in enumerate(alpaca(4, seed=4))]
    target[1]["output"] = ""
    found = select(Dataset.from_list(rows), RDS(), 8, context(Dataset.from_list(target)))
    assert sorted(found.indices.tolist()) == [0, 1, 3, 5, 6, 7] and np.isnan(found.scores[[2, 4]]).all()
    assert found.unscorable == {"no answer": [2], "the prompt fills the window": [4]}
    assert "1 of 4 rows are not used (no answer): 1" in caplog.text
    with pytest.raises(SelectionError, match="none of its 1 rows can be used: no answer"):
        select(alpaca(4), RDS(), 2, context(Dataset.from_list(target[1:2])))


def test_a_target_of_one_row_longer_than_the_window_counts_as_far_as_it_goes():
    found = []
    for words in (400, 500, 3):
        target = Dataset.from_list([{"instruction": "Say blue.", "input": "", "output": "blue " * words}])
        found.append(select(alpaca(10), RDS(), 3, context(target)).scores)
    np.testing.assert_array_equal(found[0], found[1])
    assert np.isfinite(found).all() and not np.array_equal(found[0], found[2])


def test_candidates_that_are_target_rows_too_cost_once(tmp_path):
    rows = alpaca(8)
    ctx = context(rows, cache_dir=tmp_path)
    found = select(Dataset.from_list(rows.to_list() * 3), RDS(), 3, ctx)
    assert found.passes == {"embedded_rows": 8, "cached_rows": 24} and found.cached_seconds == 0


def test_another_budget_embeds_nothing_again_and_another_target_only_itself(tmp_path):
    rows, options = alpaca(24), {"cache_dir": tmp_path}
    first, second = (context(alpaca(3, seed=4), **options) for _ in range(2))
    scores = select(rows, RDS(), 3, first).scores
    assert first.account.passes == {"embedded_rows": 27, "cached_rows": 0}
    np.testing.assert_array_equal(select(rows, RDS("max"), 8, second).scores, scores)
    assert second.account.passes == {"embedded_rows": 0, "cached_rows": 27} and second.account.cached_seconds > 0
    np.testing.assert_array_equal(select(rows, RDS(), 3, context(alpaca(3, seed=4))).scores, scores)
    third = context(alpaca(5, seed=8), **options)
    select(rows, RDS(), 3, third)
    assert third.account.passes == {"embedded_rows": 5, "cached_rows": 24}
