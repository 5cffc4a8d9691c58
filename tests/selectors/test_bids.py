"""BIDS on given influences, as its paper's rule is re-stated, and from rows to rows."""

import numpy as np
import pytest
from datasets import Dataset

from hf_dataselect.data.records import Records
from hf_dataselect.engines.subset.matchers import underserved
from hf_dataselect.engines.subset.target_similarity import highest
from hf_dataselect.pipeline import select
from hf_dataselect.selectors.bids import BIDS, normalised
from hf_dataselect.selectors.less import LESS
from tests.rows import alpaca
from tests.selectors.test_less import SMALL, context, subtask_rows
from tests.shared_data import golden, golden_arrays


def plainly(influence: np.ndarray, k: int) -> list[int]:
    """The rule, one maximum over all rows and examples a step; ties to the earlier row."""
    values = (influence - np.nanmean(influence, 0)) / np.nanstd(influence, 0)
    chosen = []
    for _ in range(k):
        gain = np.nan_to_num(values - (values[chosen].mean(0) if chosen else 0), nan=-np.inf).max(1)
        gain[chosen] = -np.inf
        chosen.append(int(gain.argmax()))
    return chosen


@pytest.mark.parametrize("number", [0, 1])
def test_agrees_with_the_rule_of_the_paper(number):
    case, arrays = golden("bids")["cases"][number], golden_arrays("restated_arrays")
    values, deviation = normalised(arrays[case["matrix"]])
    np.testing.assert_allclose(deviation, arrays[case["matrix"]].std(0), rtol=1e-6)
    k, ties = case["k"], np.arange(len(values))
    found = underserved(values, k, highest(values), ties)
    assert found.tolist() == case["picks_ddof_0"] == plainly(arrays[case["matrix"]].astype(float), k)
    tasks = arrays[case["matrix"]].reshape(len(values), case["tasks"], case["shots"]).mean(2).argmax(1)
    assert np.bincount(tasks[found], minlength=case["tasks"]).tolist() == case["rows_owned_by_task"]["bids"]
    assert underserved(values, len(values), highest(values), ties)[:k].tolist() == found.tolist()


def test_rows_and_examples_that_say_nothing_are_left_out():
    influence = np.random.default_rng(0).normal(size=(30, 3)).astype(np.float32)
    influence[4] = np.nan
    constant = np.column_stack([influence, np.where(np.isnan(influence[:, 0]), np.nan, 0.25)])
    values, deviation = normalised(constant)
    assert np.nanmax(np.abs(values[:, 3])) == 0 and deviation[3] == 1 and np.isnan(values[4]).all()
    found = underserved(values, 99, highest(values), np.arange(30)).tolist()
    assert sorted(found) == sorted({*range(30)} - {4}) and found[:9] == plainly(influence.astype(float), 9)
    assert normalised(influence[:1])[0].tolist() == [[0, 0, 0]]
    heavy = underserved(values, 6, highest(values), np.arange(30), weights=np.array([9.0, 1, 1, 1]))
    assert values[heavy, 0].mean() > values[found[:6], 0].mean() + 0.1
    copies = np.repeat(influence[:2], 2, 0)
    assert underserved(copies, 4, highest(copies), np.arange(4)[::-1]).tolist()[0] in (1, 3)


def test_more_weight_counts_more_where_every_gain_is_negative():
    values = np.array([[10, 10], [1, 0], [0, 1], [0.9, 0], [0, 0.9]], np.float32)
    found = underserved(values, 3, highest(values), np.arange(5), np.array([1, 0.25]))
    assert found.tolist() == [0, 1, 3]


def test_from_rows_to_rows_it_is_the_rule_over_influences_of_less():
    rows, target = alpaca(16).to_list(), subtask_rows()
    rows[5]["output"] = ""
    rows = Dataset.from_list(rows)
    influence = LESS(**SMALL, rule="round_robin_free").featurize(Records(rows), context(target))["similarity"]
    found = select(rows, BIDS(**SMALL), 5, context(target))
    assert found.indices.tolist() == plainly(influence.astype(float), 5) and found.unscorable == {"no answer": [5]}
    np.testing.assert_allclose(found.scores, highest(normalised(influence)[0]), atol=1e-3)
    greedy = select(rows, BIDS(**SMALL, rule="doubly_greedy"), 5, context(target))
    assert greedy.indices.tolist() == np.argsort(-np.nan_to_num(found.scores, nan=-9), kind="stable")[:5].tolist()
    assert len(select(rows, BIDS(**SMALL), 3, context(target.select([0]))).indices) == 3
