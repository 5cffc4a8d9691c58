"""CRDS: the authors' cosines and picks from given states, and the method beside plain forwards and scikit-learn."""

import numpy as np
import pytest
import torch
from datasets import Dataset
from sklearn.decomposition import PCA

from hf_dataselect.data.records import Records
from hf_dataselect.engines.subset.lazy_vectors import LazyVectors
from hf_dataselect.engines.subset.matchers import for_target, round_robin
from hf_dataselect.engines.subset.target_similarity import unit
from hf_dataselect.engines.subset.whitening import Whitening
from hf_dataselect.errors import SelectionError
from hf_dataselect.features.hidden_states import side_by_side
from hf_dataselect.pipeline import select
from hf_dataselect.plan import SelectionPlan
from hf_dataselect.registry import load_selector
from hf_dataselect.selectors.crds import CRDS
from tests.rows import alpaca
from tests.shared_data import golden, golden_arrays
from tests.tiny import context_of, tiny_model, tiny_tokenizer


def context(target, layers=2, **options):
    tokenizer = tiny_tokenizer()
    options = {"max_length": 128, "dtype": "float32", **options}
    target = Records(target, name="selection_target")
    return context_of(tokenizer, tiny_model(tokenizer, layers=layers), target=target, **options)


def pooled(states: np.ndarray) -> np.ndarray:
    """`(..., tokens, width)` weighted by position, one vector a layer."""
    weights = np.arange(1, states.shape[-2] + 1)[:, None]
    return (states * weights).sum(-2) / weights.sum()


CASES = [(0, None), (1, None), (2, None), (2, 8), (2, 16)]


@pytest.mark.parametrize(("case", "components"), CASES)
def test_cosines_and_picks_are_the_authors(case, components):
    case, arrays = golden("crds")["cases"][case], golden_arrays("crds_states")
    layers, rows = case["layers"], []
    for part, count in (("train", 48), ("val", 8)):
        states = [pooled(arrays[f"{part}_{i}"][layers].astype(np.float64)) for i in range(count)]
        by_layer = [np.stack([row[place] for row in states]) for place in range(len(layers))]
        matrices = arrays[case["matrices"]].astype(np.float64) if len(layers) > 1 else [np.eye(24)]
        rows.append(side_by_side(by_layer, matrices))
    expected = case if components is None else case[f"whitened_{components}"]
    if components is not None:
        whiten = Whitening(rows[0], np.ones(48, bool), components)
        rows = [whiten(part) for part in rows]
    train, wanted = map(unit, rows)
    np.testing.assert_allclose(wanted @ train.T, expected["cosine"], atol=1e-4)
    picks = round_robin((train @ wanted.T).astype(np.float64), case["k"])
    assert picks.tolist() == expected["picks"]


@pytest.mark.parametrize("block", [64, 2**24])
def test_whitening_in_blocks_is_that_of_scikit_learn_and_leaves_out_rounding(block, monkeypatch):
    monkeypatch.setattr("hf_dataselect.engines.store.vector_store.READ", block)
    draw = np.random.default_rng(0)
    vectors = (draw.normal(size=(60, 7)) @ draw.normal(size=(7, 9)) + 100).astype(np.float32)  # rank 7
    usable = np.arange(60) % 5 != 2
    fitted = vectors[usable].astype(np.float64)
    vectors[~usable] = np.nan
    found = Whitening(vectors, usable, 5)
    theirs = PCA(5, whiten=True, svd_solver="full").fit_transform(fitted)
    mine = LazyVectors(vectors, found, 5)[0:60][usable]
    np.testing.assert_allclose(mine @ mine.T, theirs @ theirs.T, atol=2e-3)
    assert Whitening(vectors, usable, 99).components == 7 and Whitening(vectors, usable, 99).explained > 0.999
    np.testing.assert_allclose(Whitening(vectors, usable, None).mean, fitted.mean(0), rtol=1e-7)
    assert Whitening(vectors[:1], usable[:1], 5).components == 0


@torch.no_grad()
def states_of(ctx, rows, layers) -> list[np.ndarray]:
    """Pooled states of each layer asked for, one plain forward a row."""
    found = []
    for ids, _ in ctx.encode(Records(rows)).tokens.take(np.arange(len(rows))):
        given = torch.tensor(ids[None].astype(np.int64))
        hidden = ctx.model(input_ids=given, output_hidden_states=True).hidden_states
        found.append([pooled(hidden[layer][0].double().numpy()) for layer in layers])
    return [np.stack(part) for part in zip(*found, strict=True)]


@pytest.mark.parametrize(
    ("kwargs", "layers"),
    [
        ({"components": 6}, [4]),
        ({"components": 6, "rule": "knn_kde"}, [4]),
        ({"representation": "centred"}, [4]),
        ({"representation": "concatenated", "layers": 3}, [2, 3, 4]),
        ({"representation": "concatenated", "layers": 2, "which": "spread"}, [2, 4]),
    ],
    ids=["whitened", "whitened, by density", "centred", "last three", "spread"],
)
def test_the_method_is_its_formula(kwargs, layers, tmp_path):
    rows, target = alpaca(20), alpaca(3, seed=9)
    ctx = context(target, layers=4, batch_tokens=200, cache_dir=tmp_path)
    found = select(rows, CRDS(**kwargs), 6, ctx)
    parts = [states_of(ctx, which, layers) for which in (rows, target)]
    if len(layers) > 1:
        each, draws = 64 // len(layers), [np.random.default_rng([42, place]) for place in range(len(layers))]
        signs = [2 * draw.integers(0, 2, (64, each)) - 1 for draw in draws]
        train, wanted = (np.concatenate([p @ s for p, s in zip(part, signs, strict=True)], 1) for part in parts)
    else:
        (train,), (wanted,) = parts
    if kwargs.get("representation") == "centred":
        train, wanted = train - train.mean(0), wanted - train.mean(0)
    if "components" in kwargs:
        pca = PCA(6, whiten=True, svd_solver="full").fit(train)
        train, wanted = pca.transform(train), pca.transform(wanted)
        assert found.facts["figures"]["components"].startswith("6 of 64, ")
    cosines = unit(train) @ unit(wanted).T
    np.testing.assert_allclose(found.scores, cosines.max(1), atol=2e-4)
    rule, given = kwargs.get("rule", "round_robin"), {"vectors": unit(train)}
    assert found.indices.tolist() == for_target(cosines, found.scores, 6, rule, ctx.ties(20), **given).tolist()
    again = select(rows, CRDS(**kwargs), 6, context(target, layers=4, cache_dir=tmp_path))
    assert again.passes == {"embedded_rows": 0, "cached_rows": 23}
    np.testing.assert_array_equal(again.scores, found.scores)


def test_rows_that_cannot_be_used_are_named_and_copies_differ_in_nothing(caplog):
    rows = alpaca(8).to_list()
    rows[2]["output"] = ""
    target = alpaca(2, seed=4).to_list()
    target[1]["output"] = ""
    found = select(Dataset.from_list(rows), CRDS(components=512), 8, context(Dataset.from_list(target)))
    assert len(found.indices) == 7 and found.unscorable == {"no answer": [2]}
    assert "1 of 2 rows are not used (no answer): 1" in caplog.text
    assert found.facts["figures"]["components"].startswith("6 of 64, 100.0%"), "one less than the usable rows"
    default = select(alpaca(12), CRDS(), 8, context(alpaca(2, seed=4)))
    assert default.facts["figures"]["components"].startswith("3 of 64, "), "a quarter of the rows"
    with pytest.raises(SelectionError, match="none of its 1 rows can be used"):
        select(alpaca(4), CRDS(), 2, context(Dataset.from_list(target[1:])))
    same = select(alpaca(8).select([1] * 5), CRDS(), 2, context(alpaca(2, seed=4)))
    assert same.scores.tolist() == [0] * 5 and len(same.indices) == 2


@pytest.mark.parametrize(
    "kwargs", [{"layers": 3}, {"layers": 9, "which": "spread"}], ids=["more than there are", "no divisor"]
)
def test_layers_that_the_model_lacks_are_refused_before_it_loads(kwargs, tmp_path):
    options, said = {"representation": "concatenated", **kwargs}, f"layers={kwargs['layers']} of the model's 2"
    with pytest.raises(ValueError, match=said):
        select(alpaca(4), load_selector("crds", options), 2, context(alpaca(2)))
    tiny_model(tiny_tokenizer(), layers=2).config.save_pretrained(tmp_path)  # no weights
    nested = {"members": {"crds": {"kwargs": options}}}, {"method": "crds", "kwargs": options, "keep": 0.5}
    for name, given in zip(("crds", "blend", "cascade"), (options, *nested), strict=True):
        plan = SelectionPlan(Records(alpaca(4)), load_selector(name, given), 2, target=Records(alpaca(2)))
        with pytest.raises(ValueError, match=said):
            plan.check(str(tmp_path))
