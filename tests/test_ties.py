"""Ties at the cut, columns of a method, and budgets that a method decides."""

import json

import numpy as np
import pytest
from datasets import Dataset

from hf_dataselect.budget import Budget, Groups
from hf_dataselect.context import Context
from hf_dataselect.data.records import Records
from hf_dataselect.diversity import Diversity
from hf_dataselect.pipeline import select
from hf_dataselect.plan import SelectionPlan
from hf_dataselect.registry import load_selector
from hf_dataselect.runs.folder import read_selection, write_selection
from hf_dataselect.selectors.column import Column
from hf_dataselect.selectors.ifd import IFD
from hf_dataselect.selectors.length import Length
from tests.rows import alpaca
from tests.test_budget import context


def test_a_tie_at_the_cut_is_drawn_by_the_seed_and_reported():
    rows = Dataset.from_dict({"text": list("abcdefgh"), "score": [3.0, 1, 1, 2, 1, 1, 1, 0]})
    drawn = {seed: select(rows, Column(), 4, Context(None, seed=seed)) for seed in range(6)}
    for seed, found in drawn.items():
        assert found.indices[:2].tolist() == [0, 3] and set(found.indices[2:].tolist()) <= {1, 2, 4, 5, 6}
        assert found.facts["figures"]["rows tied at the cut"] == {"tied": 5, "kept": 2}
        assert "rows tied at the cut: tied 5, kept 2" in found.summary()
        again = select(rows, Column(), 5, Context(None, seed=seed))
        assert again.indices[:4].tolist() == found.indices.tolist(), "a larger budget keeps what a smaller one keeps"
    assert len({tuple(found.indices) for found in drawn.values()}) > 2
    assert len({tuple(sorted(found.indices)) for found in drawn.values()} - {(0, 1, 2, 3)}) > 1
    for budget in (2, 1.0):
        assert "rows tied at the cut" not in select(rows, Column(), budget, Context(None)).facts["figures"]


def test_ties_of_each_group_are_counted_together():
    rows = Dataset.from_dict({"text": list("abcdef"), "score": [1.0] * 6, "source": list("aaabbb")})
    found = select(rows, Column(), Budget.parse(2, "source"), Context(None))
    assert found.facts["figures"]["rows tied at the cut"] == {"tied": 6, "kept": 2}


def test_columns_of_a_method_are_kept_with_the_run(tmp_path):
    ctx = context()
    found = select(alpaca(12), IFD(warmup="none", drop_above_one=False), 4, ctx)
    ratio = found.columns["conditional_loss"] / found.columns["unconditional_loss"]
    np.testing.assert_allclose(found.scores, ratio, rtol=1e-6)
    write_selection(tmp_path, found)
    again = read_selection(tmp_path)
    assert again.columns.keys() == found.columns.keys() and again.budget == 4
    for name, values in found.columns.items():
        np.testing.assert_array_equal(again.columns[name], values)
    names = Dataset.from_parquet(str(tmp_path / "scores.parquet")).column_names
    assert names == ["row", "score", "conditional_loss", "unconditional_loss", "kept", "reason"]
    assert "columns" not in json.loads((tmp_path / "selection.json").read_text())


def test_a_budget_in_force_may_get_groups():
    assert Budget.parse(Budget.parse(0.5), "source").groups == Groups("source")


@pytest.mark.parametrize(
    "budget", [{"budget": "200 tokens"}, {"budget": "score > 1"}, {"budget": 4, "budget_by": "g"}]
)
@pytest.mark.parametrize("name", ["mods", "instructiongpt4", "superfiltering", "nuggets", "facility_location"])
def test_what_chooses_other_rows_for_each_number_takes_a_number_only(name, budget):
    options = {"superfiltering": {"diversity": True}, "nuggets": {"stop": "sealed"}}
    diversity = Diversity("facility_location") if name == "facility_location" else None
    selector = Length() if diversity else load_selector(name, options.get(name))
    with pytest.raises(ValueError, match="chooses other rows for each number of rows: give a fraction"):
        SelectionPlan(Records(alpaca(8)), selector, diversity=diversity, **budget)
    SelectionPlan(Records(alpaca(8)), selector, budget=4, diversity=diversity)
