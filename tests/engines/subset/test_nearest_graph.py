"""Facility location over nearest rows: the exact one where all rows are neighbours, and what the index finds."""

import importlib.util

import numpy as np
import pytest
from scipy.sparse import csr_array

from hf_dataselect.data.records import Records
from hf_dataselect.diversity import Diversity, load_diversity
from hf_dataselect.engines.subset import nearest_graph as graphs
from hf_dataselect.engines.subset.choose import cosine, facility_location
from hf_dataselect.engines.subset.nearest_graph import nearest_graph, represented
from hf_dataselect.pipeline import select
from hf_dataselect.registry import load_selector
from tests.engines.subset.test_choose import unit_vectors
from tests.rows import alpaca
from tests.tiny import context_of, tiny_model, tiny_tokenizer


QDIT = {"quality": "column", "quality_kwargs": {"name": "rating"}, "encoder": "model", "neighbours": 5}
installed = importlib.util.find_spec("faiss") is not None
with_index = pytest.mark.skipif(not installed, reason="faiss is not installed (extra `faiss`)")


@pytest.mark.parametrize("weight", [0.0, 3.0])
def test_rows_of_a_full_graph_are_those_of_the_exact_way(weight):
    vectors, worth = unit_vectors(90), weight * np.random.default_rng(1).random(90)
    picked, gains = represented(csr_array(cosine(vectors, vectors).astype(np.float32)), 30, worth)
    exact, expected = facility_location(vectors, 30, cosine, worth=worth)
    assert picked.tolist() == exact.tolist()
    np.testing.assert_allclose(gains, expected, rtol=1e-4, atol=1e-5)


def test_rows_serve_their_column_only_and_run_out():
    near = np.array(
        [[1, 0.5, 0], [0, 1, 0], [0, 0, 1]], np.float32
    )  # the second represents the first, not the reverse
    picked, gains = represented(csr_array(near), 9)
    assert picked.tolist() == [1, 2, 0] and gains.tolist() == [1.5, 1, 0.5]


@with_index
@pytest.mark.parametrize("all_pairs", [50_000, 0], ids=["all pairs", "cells"])
def test_neighbours_are_the_nearest_and_the_row_itself(all_pairs, monkeypatch):
    monkeypatch.setattr(graphs, "ALL_PAIRS", all_pairs)
    monkeypatch.setattr("hf_dataselect.engines.store.vector_store.READ", 1000)
    vectors = 3 * unit_vectors(400)
    vectors[50:60] = vectors[50]  # more copies than neighbours
    graph, unit = nearest_graph(vectors.astype(np.float32), 6).toarray(), vectors / 3
    near = np.maximum(unit @ unit.T, 0)
    np.testing.assert_allclose(graph, np.where(graph > 0, near, 0), atol=1e-6)
    np.testing.assert_allclose(graph.diagonal(), 1, atol=1e-6)
    found = graph.sum(1) / np.sort(near, axis=1)[:, -6:].sum(1)  # of equally near rows any may be named
    assert found.min() > 1 - 1e-5 if all_pairs else found.mean() > 0.9
    assert ((graph > 0).sum(1) <= 6).all()
    if all_pairs:
        assert nearest_graph(vectors[:3], 6).shape == (3, 3)


@with_index
def test_methods_take_the_rows_of_the_graph():
    ctx = context_of(tokenizer := tiny_tokenizer(), tiny_model(tokenizer), max_length=128, dtype="float32")
    rows = Records(alpaca(30))
    select(rows, load_selector("qdit", QDIT), 6, ctx)
    assert ctx.account.figures["rows that may represent one"] == "its 5 nearest, by an index"
    every, exact = (select(rows, load_selector("qdit", QDIT | {"neighbours": n}), 6, ctx) for n in (30, None))
    assert every.indices.tolist() == exact.indices.tolist()
    wide, narrow = (Diversity("facility_location", pool=0.5, encoder="model", neighbours=n) for n in (30, None))
    chosen = [
        one.choose(lambda wanted: ctx.best(np.arange(30.0), wanted), rows, 5, ctx).tolist() for one in (wide, narrow)
    ]
    assert chosen[0] == chosen[1]


@pytest.mark.skipif(installed, reason="faiss is installed")
def test_the_package_that_is_missing_is_named():
    with pytest.raises(ImportError, match=r"hf_dataselect\[faiss\]"):
        load_selector("qdit", QDIT)
    with pytest.raises(ImportError, match=r"neighbours needs the package `faiss`"):
        load_diversity({"kind": "facility_location", "encoder": "model", "neighbours": 9})


def test_neighbours_of_the_filter_are_refused():
    with pytest.raises(ValueError, match="neighbours is for `kind: facility_location`"):
        load_diversity({"encoder": "model", "neighbours": 9})
