"""Models whose weights `device_map` leaves on disk: the same identity and scores; what would train them is refused."""

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaForCausalLM

from hf_dataselect.compat.accelerate import is_offloaded
from hf_dataselect.data.records import Records
from hf_dataselect.engines.forward.generation import generate_ids
from hf_dataselect.engines.runtime.runtime import Runtime
from hf_dataselect.engines.store import identity
from hf_dataselect.engines.store.identity import identities_remembered, identity_of, model_identity
from hf_dataselect.errors import SelectionError
from hf_dataselect.pipeline import select
from hf_dataselect.registry import load_selector
from hf_dataselect.service import select_dataset
from tests.rows import alpaca
from tests.tiny import context_of, tiny_model, tiny_tokenizer


PARTS = ["model.embed_tokens", "model.layers.0", "model.layers.1", "model.norm", "model.rotary_emb", "lm_head"]
#: All on disk, or a layer and the head.
MAPS = {"whole": {"": "disk"}, "part": dict.fromkeys(PARTS, "cpu") | {"model.layers.1": "disk", "lm_head": "disk"}}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """The same model in memory and offloaded."""
    folder, tokenizer = tmp_path_factory.mktemp("offloaded"), tiny_tokenizer()
    tiny_model(tokenizer).save_pretrained(folder / "model")

    def load(**options):
        return AutoModelForCausalLM.from_pretrained(folder / "model", **options).eval()

    offloaded = {
        name: load(device_map=places, offload_folder=str(folder / name), offload_buffers=name == "whole")
        for name, places in MAPS.items()
    }
    assert all(map(is_offloaded, offloaded.values()))
    return {"memory": load()} | offloaded


def test_an_offloaded_model_has_the_identity_of_the_same_weights_in_memory(models):
    assert len({model_identity(model) for model in models.values()}) == 1
    assert all(p.is_meta for p in models["whole"].parameters()), "read one module at a time, and freed again"


def test_another_weight_on_the_disk_is_another_identity(tmp_path):
    tokenizer, found = tiny_tokenizer(), []
    model = tiny_model(tokenizer)
    for name, scale in (("one", 1), ("two", 1.5)):
        with torch.no_grad():
            model.lm_head.weight.mul_(scale)
        model.save_pretrained(tmp_path / name)
        options = {"device_map": MAPS["whole"], "offload_folder": str(tmp_path / f"{name} offloaded")}
        found.append(model_identity(AutoModelForCausalLM.from_pretrained(tmp_path / name, **options)))
    assert found[1] == model_identity(model) != found[0]


def test_it_is_hashed_once_however_often_it_runs(models, monkeypatch):
    hashed = []
    monkeypatch.setattr(identity, "model_identity", lambda model: hashed.append(model) or model_identity(model))
    for name in MAPS:
        with identities_remembered(), torch.no_grad():
            before = identity_of(models[name])
            models[name](input_ids=torch.tensor([[5, 6, 7]]))
            assert identity_of(models[name]) == before
    assert hashed == [models[name] for name in MAPS]


def test_weights_without_data_are_refused_by_name():
    config = tiny_model(tiny_tokenizer()).config
    with torch.device("meta"):
        model = LlamaForCausalLM(config)
    with pytest.raises(SelectionError, match="'lm_head.weight' is on the device `meta`"):
        model_identity(model)


@pytest.mark.parametrize(
    "name, dtype, methods",
    [
        ("whole", "bfloat16", {"perplexity": {}, "rds": {}}),
        ("part", "float32", {"nuggets": {"tasks": 2, "threshold": None}}),
    ],
)
def test_scores_are_those_of_the_model_in_memory(name, dtype, methods, models):
    tokenizer, rows, target = tiny_tokenizer(), alpaca(6), Records(alpaca(3, seed=9))
    for method, options in methods.items():
        found = []
        for place in ("memory", name):
            ctx = context_of(tokenizer, models[place], dtype=dtype, max_length=128, target=target)
            found.append(select(rows, load_selector(method, options), 4, ctx).scores)
        assert np.isfinite(found[0]).all(), method
        np.testing.assert_array_equal(*found, err_msg=method)


def test_a_model_by_name_is_offloaded_as_asked_for(models, tmp_path):
    tokenizer, rows = tiny_tokenizer(), alpaca(6)
    for part in (models["memory"], tokenizer):
        part.save_pretrained(tmp_path / "model")
    given = {"device_map": MAPS["whole"], "offload_folder": str(tmp_path / "offloaded")}
    found = [
        select_dataset(rows, "perplexity", str(tmp_path / "model"), model_kwargs=options, cache_dir=None)[1]
        for options in ({"dtype": "float32"}, {"dtype": "float32"} | given)
    ]
    np.testing.assert_array_equal(found[0].scores, found[1].scores)
    assert found[0].facts["model_identity"] == found[1].facts["model_identity"]
    assert (tmp_path / "offloaded").exists()


def test_it_generates_as_in_memory(models):
    prompts, tokenizer = [[5, 6, 7], [9, 10, 11, 12]], tiny_tokenizer()
    found = [generate_ids(model, tokenizer, prompts, Runtime(), max_new_tokens=4) for model in models.values()]
    assert found[0] == found[1] == found[2] and all(map(len, found[0]))


def test_what_would_fine_tune_it_is_refused_before_any_pass(models):
    ctx = context_of(tiny_tokenizer(), models["part"], max_length=128, target=Records(alpaca(3, seed=9)))
    with pytest.raises(SelectionError, match="its `device_map` offloads weights"):
        select(alpaca(10), load_selector("ifd"), 4, ctx)
    assert not any(ctx.account.passes.values())
