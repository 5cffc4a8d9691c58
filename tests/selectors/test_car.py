"""CaR: quality, clusters, and the best of both, restated with scikit-learn; what it refuses."""

import numpy as np
import pytest
from datasets import Dataset
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA

from hf_dataselect.data.records import Records
from hf_dataselect.features.row_vectors import RowVectors
from hf_dataselect.pipeline import select
from hf_dataselect.plan import SelectionPlan
from hf_dataselect.registry import load_selector
from hf_dataselect.selectors.car import CaR
from tests.rows import alpaca
from tests.tiny import context_of, tiny_model, tiny_tokenizer


RATED = {"quality": "column", "quality_kwargs": {"name": "rating"}, "encoder": "model"}


def context(**options):
    tokenizer = tiny_tokenizer()
    return context_of(tokenizer, tiny_model(tokenizer), **{"max_length": 128, "dtype": "float32", **options})


def chosen(vectors: np.ndarray, quality: np.ndarray, k: int, clusters: int, variance: float = 0.95) -> set[int]:
    """Top rows and the best of each cluster, with as many top rows as make `k`; vectors best first."""
    reduced = PCA(variance, svd_solver="full").fit_transform(vectors) if variance < 1 else vectors
    labels = KMeans(clusters, random_state=42, n_init=1).fit_predict(reduced)
    best = {max(np.flatnonzero(labels == label), key=lambda row: quality[row]) for label in set(labels)}
    for top in range(len(vectors) + 1):
        union = best | set(range(top))
        if len(union) >= min(k, len(vectors)):
            return set(sorted(best)[:k]) if len(best) > k else union
    raise AssertionError


@pytest.mark.parametrize(("k", "clusters", "variance"), [(12, None, 0.95), (3, 9, 0.95), (9, 5, 1.0), (60, None, 0.5)])
def test_the_method_is_the_union_of_the_best_and_the_best_of_clusters(k, clusters, variance):
    rows = alpaca(60).map(lambda row, i: {"rating": (i * 37 % 60) + 0.5}, with_indices=True)
    ctx = context()
    found = select(rows, CaR(**RATED, clusters=clusters, variance=variance), 1.0 if k == 60 else k, ctx)
    ratings = np.array(rows["rating"])
    order = np.argsort(-ratings)
    vectors = RowVectors(Records(rows), context(), "model")(order)
    expected = chosen(vectors, ratings[order], k, clusters or int(np.sqrt(30)), variance)
    assert set(found.indices.tolist()) == set(order[list(expected)].tolist()) and len(found.indices) == k
    assert found.facts["figures"]["clusters"] == (clusters or 5) and found.scores.tolist() == ratings.tolist()


def test_more_rows_hold_fewer_and_a_budget_may_be_a_number_of_tokens():
    rows = alpaca(40)
    runs = [select(rows, CaR(**RATED), k, context()).indices.tolist() for k in (2, 4, 11)]
    assert runs[2][:4] == runs[1] and runs[1][:2] == runs[0]
    assert 0 < len(select(rows, CaR(**RATED), "100 tokens", context()).indices) < 11


def test_copies_more_than_the_pool_and_rows_that_cannot_be_used():
    rows = alpaca(5).to_list()
    rows = Dataset.from_list([*rows, rows[0], rows[0], {**rows[1], "rating": float("nan")}])
    found = select(rows, CaR(**RATED, clusters=99), 1.0, context())
    assert sorted(found.indices.tolist()) == [0, 1, 2, 3, 4, 5, 6] and found.facts["figures"]["clusters"] == 5
    assert found.unscorable == {"no number in `rating`": [7]}
    same = select(rows.select([0] * 6), CaR(**RATED), 2, context())
    assert len(set(same.indices.tolist())) == 2 and same.facts["figures"]["clusters"] == 1


@pytest.mark.parametrize(
    ("kwargs", "said"),
    [
        ({"quality_kwargs": {"name": "rate"}}, "no column 'rate'"),
        ({"encoder": "no/such"}, "encoder='no/such'"),
        ({"clusters": 0}, "clusters=0"),
        ({"quality": "full", "quality_kwargs": {}}, "quality='full' gives no scores of its own"),
    ],
)
def test_what_is_missing_is_refused_before_anything_loads(kwargs, said):
    with pytest.raises(ValueError, match=said):
        selector = load_selector("car", {**RATED, **kwargs})
        SelectionPlan(Records(alpaca(4)), selector, 1.0).check(tiny_model(tiny_tokenizer()))
