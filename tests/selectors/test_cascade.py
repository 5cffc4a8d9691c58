"""A cascade scores only what its prefilter leaves, and accounts for both methods."""

import numpy as np
import pytest
from datasets import Dataset

from hf_dataselect.data.records import Records
from hf_dataselect.pipeline import select
from hf_dataselect.plan import SelectionPlan
from hf_dataselect.registry import load_selector
from hf_dataselect.selectors.blend import Blend
from hf_dataselect.selectors.cascade import Cascade
from hf_dataselect.selectors.length import Length
from hf_dataselect.selectors.perplexity import Perplexity
from hf_dataselect.testing import sample_rows, tiny_context


ROWS = sample_rows()


def test_the_costly_method_sees_what_the_cheap_one_leaves_and_both_are_accounted_for():
    method = Cascade("perplexity", {"keep": "top"}, "length", keep=1 / 3)
    found = select(ROWS, method, 3, tiny_context())
    left = np.sort(select(ROWS, Length(), 8, tiny_context()).indices)
    alone = select(ROWS.select(left), Perplexity("top"), 3, tiny_context())
    assert found.indices.tolist() == left[alone.indices].tolist()
    np.testing.assert_allclose(found.scores[left], alone.scores, rtol=1e-6)
    assert np.isnan(np.delete(found.scores, left)).all() and np.isfinite(found.columns["prefilter"]).all()
    assert found.passes["forward_rows"] == 8 and found.sdf == 3 / 24
    assert len(found.dropped["not left by the prefilter length"]) == 16
    assert found.facts["figures"]["prefilter length"].startswith("left 8 of 24 rows to perplexity in ")


def test_reasons_name_rows_of_the_whole_dataset():
    rows = ROWS.to_list()
    rows[20]["instruction"] = "red " * 400
    rows[20]["output"] = "blue " * 40
    rows[5]["output"] = ""
    found = select(Dataset.from_list(rows), Cascade("perplexity", prefilter="length", keep=0.9), 3, tiny_context())
    assert found.unscorable["the prompt fills the window"] == [20]
    assert 20 not in found.indices and any(5 in reason for reason in found.unscorable.values())


def test_only_the_rows_that_are_left_are_computed_for_the_wants_of_the_costly_method():
    blend = {"members": {"rsr": 1, "rds": 1}}
    found = select(ROWS, Cascade("blend", blend, "perplexity", keep=0.25), 2, tiny_context())
    assert found.passes["forward_rows"] == 24 + 6


@pytest.mark.parametrize(
    ("kwargs", "said"),
    [
        ({"method": "full"}, "method='full' gives no scores of its own"),
        ({"prefilter": "full"}, "prefilter='full' gives no scores of its own"),
        ({"prefilter": "bm52"}, "did you mean 'bm25'"),
        ({"keep": 0}, "keep=0"),
        ({"kwargs": {"warm_up": "none"}}, "no option 'warm_up'"),
    ],
)
def test_wrong_options_are_refused_before_anything_loads(kwargs, said):
    with pytest.raises(ValueError, match=said):
        load_selector("cascade", kwargs)


@pytest.mark.parametrize(("method", "kwargs"), [("length", {}), ("blend", {"members": {"length": 1}})])
def test_a_budget_above_what_the_prefilter_leaves_is_refused(method, kwargs):
    cascade = Cascade(method, kwargs, keep=1 / 3)
    for wrong in (0.5, 9):
        for selector in (cascade, Blend({"cascade": {"kwargs": {"method": "length", "keep": 1 / 3}}})):
            with pytest.raises(ValueError, match="of 24 rows, of which `.*` leaves 8 with"):
                SelectionPlan(Records(ROWS), selector, wrong).check(None)
            with pytest.raises(ValueError, match="raise `keep`"):
                select(ROWS, selector, wrong, tiny_context())
    SelectionPlan(Records(ROWS), cascade, 8).check(None)


def test_it_needs_and_checks_what_its_methods_do():
    assert Cascade("perplexity", prefilter="bm25").needs() == {"text", "target", "model"}
    with pytest.raises(ValueError, match="every prompt here has one"):
        Cascade("grape").check(Records(ROWS.select([0])))
