"""TSDS: the authors' probabilities and draw, and what becomes of rows that can't be reached or used."""

import dataclasses

import numpy as np
import pytest
from datasets import Dataset
from transformers import BertModel

from hf_dataselect.data.records import Records
from hf_dataselect.data.targets import load_target
from hf_dataselect.engines.forward.hidden_states import hidden_state
from hf_dataselect.engines.subset import transport
from hf_dataselect.engines.subset.transport import densities, nearest_rows, transport_probabilities
from hf_dataselect.errors import SelectionError
from hf_dataselect.pipeline import select
from hf_dataselect.plan import SelectionPlan
from hf_dataselect.registry import load_selector
from hf_dataselect.selectors.tsds import TSDS
from tests.rows import alpaca
from tests.selectors.test_mods import bert, bert_tokenizer
from tests.shared_data import golden, golden_arrays
from tests.tiny import context_of, tiny_model, tiny_tokenizer


def context(target, **options):
    tokenizer = tiny_tokenizer()
    options = {"max_length": 128, "dtype": "float32", **options}
    return context_of(tokenizer, tiny_model(tokenizer), target=Records(target, name="selection_target"), **options)


@pytest.mark.parametrize("case", [0, 1], ids=["density", "no density"])
@pytest.mark.parametrize("block", [1000, 2**24])
def test_probabilities_and_draw_are_the_authors(case, block, monkeypatch):
    monkeypatch.setattr(transport, "READ", block)
    arrays, case = golden_arrays("tsds_vectors"), golden("tsds")["cases"][case]
    candidates, n = arrays["candidates"], len(arrays["candidates"])
    rows, distances = nearest_rows(candidates, np.ones(n, bool), arrays["queries"], case["max_K"], np.arange(n))
    reached, place = np.unique(rows, return_inverse=True)
    density = densities(candidates[reached], case["sigma"], case["kde_K"])[place.reshape(rows.shape)]
    found = transport_probabilities(rows, distances, density, case["alpha"], case["C"], n)
    expected = np.zeros(n)
    expected[case["support"]] = case["probability"]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-7)
    drawn = np.random.RandomState(case["numpy_seed"]).multinomial(case["sample_size"], found)
    assert np.repeat(np.arange(n), drawn).tolist() == case["sample"]


@pytest.mark.parametrize("tile", [20, 1024])
def test_neighbours_and_densities_are_those_of_a_full_matrix(tile, monkeypatch):
    monkeypatch.setattr(transport, "TILE", tile)
    draw = np.random.default_rng(0)
    vectors, queries = draw.normal(size=(90, 4)).astype(np.float32), draw.normal(size=(5, 4))
    vectors[70] = vectors[3]
    usable = np.arange(90) % 7 != 0
    vectors[~usable] = np.nan
    distances = np.linalg.norm(queries[:, None] - vectors[None].astype(np.float64), axis=2)
    rows, found = nearest_rows(vectors, usable, queries, 20, np.arange(90))
    order = np.argsort(np.where(usable, distances, np.inf), axis=1, kind="stable")[:, :20]
    assert rows.tolist() == order.tolist()
    np.testing.assert_allclose(found, np.take_along_axis(distances, order, 1))
    vectors = vectors[usable].astype(np.float64)
    squared = ((vectors[:, None] - vectors[None]) ** 2).sum(2)
    kernel = np.sort(np.maximum(1 - squared / 1.5**2, 0), axis=1)[:, ::-1]
    for count in (3, 11, 77):  # all, a part and none of the rows are in a larger crowd
        np.testing.assert_allclose(densities(vectors, 1.5, count), kernel[:, :count].sum(1), rtol=1e-4)
    assert (densities(vectors, 0, 3) == 1).all()


def test_the_method_is_the_transport_of_its_vectors_and_draws_by_it():
    rows, target = alpaca(60), alpaca(3, seed=9)
    method = TSDS(alpha=0.1, scale=1.0)
    found = select(rows, method, 1.0, context(target))
    ctx = context(target)
    vectors = [
        hidden_state(ctx.model, ctx.encode(Records(part)).tokens, ctx.runtime, "position") for part in (rows, target)
    ]
    rows_, target_ = (part / np.linalg.norm(part, axis=1, keepdims=True) for part in vectors)
    distances = np.linalg.norm(target_[:, None] - rows_[None], axis=2)
    near = np.argsort(distances, 1)[:, :6]  # a tenth
    close = np.linalg.norm(rows_[np.unique(near)][:, None] - rows_[np.unique(near)][None], axis=2)
    kernel = np.sort(np.maximum(1 - close**2 / 0.75**2, 0), 1)[:, ::-1][:, :6].sum(1)
    density = kernel[np.searchsorted(np.unique(near), near)]
    given = near, np.take_along_axis(distances, near, 1), density
    expected = transport_probabilities(*given, 0.1, 1.0, 60)
    np.testing.assert_allclose(found.scores, expected, atol=1e-5)
    assert set(found.indices.tolist()) == set(np.flatnonzero(expected).tolist()), "all that is reached"
    ((why, lost),) = found.dropped.items()
    assert "probability of 0" in why and len(lost) == 60 - len(found.indices)
    assert found.facts["figures"]["rows that the target reaches"] == f"{len(found.indices)} of 60"
    usable = np.where(found.scores > 0, found.scores, np.nan)
    top = TSDS(draw=False).select(usable, None, None, 4, ctx)
    assert (np.diff(found.scores[top]) <= 0).all() and found.scores[top[0]] == found.scores.max()
    drawn = [method.select(usable, None, None, 1, context_of(None, seed=seed))[0] for seed in range(400)]
    shares = np.bincount(drawn, minlength=60) / 400
    np.testing.assert_allclose(shares, expected, atol=0.1)


def test_tasks_have_mass_by_their_weights():
    rows = alpaca(40)
    tasks = {"few": {"dataset": rows.select([3]), "weight": 3}, "many": rows.select([7, 8])}
    ctx = dataclasses.replace(context(rows), target=load_target(tasks, Records(rows)))
    features = TSDS().featurize(Records(rows), ctx)
    np.testing.assert_allclose(features["shares"], [3 / 4, 1 / 8, 1 / 8])
    given = (features[name] for name in ("rows", "distances", "density"))
    expected = transport_probabilities(*given, 0.6, 5.0, 40, features["shares"])
    np.testing.assert_allclose(TSDS().score(features, ctx), expected, rtol=1e-6)
    assert "shares" not in TSDS().featurize(Records(rows), context(rows.select([3, 7])))


def test_what_of_several_tasks_or_subtasks_is_left_unserved_is_told():
    rows = alpaca(60)
    tasks = {"few": {"dataset": rows.select([3]), "weight": 1e6}, "many": rows.select([7, 8])}
    ctx = dataclasses.replace(context(rows), target=load_target(tasks, Records(rows)))
    features = TSDS().featurize(Records(rows), ctx)
    nearest = features["rows"][:, 0].tolist()
    assert nearest == [3, 7, 8], "a row is nearest to itself"
    for chosen, said in (([3], "1 of 2: many"), ([8, 3], "none"), ([20, 7], "1 of 2: few")):
        TSDS().describe(np.array(chosen), None, Records(rows), features, ctx)
        assert ctx.account.figures["left unserved"] == said
    found = select(rows, TSDS(draw=False), 2, ctx)
    missing = [name for name, own in (("few", {3}), ("many", {7, 8})) if not own & {*found.indices.tolist()}]
    assert missing and found.facts["figures"]["left unserved"] == f"{len(missing)} of 2: {', '.join(missing)}"
    grouped = rows.select([3, 7, 8]).add_column("subtask", ["x", "y", "y"])
    assert "left unserved" in select(rows, TSDS(), 2, context(grouped)).facts["figures"]
    assert "left unserved" not in select(rows, TSDS(), 2, context(rows.select([3, 7]))).facts["figures"]


def test_copies_share_what_one_row_gets():
    vectors = np.array([[0, 0], [0, 0], [0, 0], [3, 0], [0, 3]], np.float32)
    density = densities(vectors, 0.75, 5)
    assert density.tolist() == [3, 3, 3, 1, 1]
    found = transport_probabilities(np.arange(5)[None], np.ones((1, 5)), density[None], 1e-9, 1.0, 6)
    np.testing.assert_allclose(found, [1 / 6, 1 / 6, 1 / 6, 1 / 2, 0, 0], atol=1e-12)


def test_rows_that_cannot_be_used_are_named(caplog):
    rows = alpaca(8).to_list()
    rows[2]["output"] = ""
    target = alpaca(2, seed=4).to_list()
    target[1]["output"] = ""
    found = select(Dataset.from_list(rows), TSDS(), 1.0, context(Dataset.from_list(target)))
    assert np.flatnonzero(np.isnan(found.scores)).tolist() == [2] and found.unscorable == {"no answer": [2]}
    assert "1 of 2 rows are not used (no answer): 1" in caplog.text and found.scores[0] is not None
    np.testing.assert_allclose(np.nansum(found.scores), 1, rtol=1e-5)
    with pytest.raises(SelectionError, match="none of its 1 rows can be used"):
        select(alpaca(4), TSDS(), 2, context(Dataset.from_list(target[1:])))
    single = select(alpaca(1), TSDS(), 1.0, context(alpaca(2, seed=4)))
    assert single.indices.tolist() == [0] and single.scores.tolist() == [1]


def test_a_sentence_encoder_serves_too(tmp_path):
    tokenizer = bert_tokenizer()
    for part in (bert(BertModel, tokenizer), tokenizer):
        part.save_pretrained(tmp_path)
    rows = alpaca(30)
    selector = load_selector("tsds", {"encoder": str(tmp_path)})
    assert selector.needs() == {"text", "target"} and selector.forecast(30, 2, 3) == {"embedded_rows": 32}
    found = select(rows, selector, 3, context(rows.select([7, 3])))
    assert (found.scores[[3, 7]] > 0).all() and (found.scores == 0).sum() >= 24 and found.passes["embedded_rows"] == 32


@pytest.mark.parametrize(
    ("kwargs", "said"),
    [({"alpha": 1.0}, "alpha=1.0"), ({"encoder": "no/such"}, "encoder='no/such'"), ({}, "`selection_target`")],
)
def test_what_is_missing_is_refused_before_anything_loads(kwargs, said):
    with pytest.raises(ValueError, match=said):
        target = Records(alpaca(2), name="selection_target") if kwargs else None
        plan = SelectionPlan(Records(alpaca(4)), load_selector("tsds", kwargs), 1.0, target=target)
        plan.check(tiny_model(tiny_tokenizer()))
