"""Models that `device_map` keeps in main memory and on disk: the numbers of one that is loaded as a whole."""

import numpy as np
import pytest
from transformers import AutoModelForCausalLM

from hf_dataselect import select_dataset
from hf_dataselect.engines.forward.hidden_states import hidden_state
from hf_dataselect.engines.forward.likelihood import likelihood
from hf_dataselect.engines.gradients.collect import gradients
from hf_dataselect.engines.runtime.runtime import Runtime
from hf_dataselect.engines.store.identity import model_identity
from hf_dataselect.errors import SelectionError
from tests.rows import alpaca
from tests.sharded import rows
from tests.tiny import tiny_model, tiny_tokenizer


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    tiny_model(tiny_tokenizer()).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("on_disk", [["model.layers.1"], ["model.embed_tokens", "model.layers.0", "lm_head"]], ids=str)
def test_an_offloaded_model_gives_the_numbers_of_a_whole_one(folder, tmp_path, on_disk):
    parts = ("model.embed_tokens", "model.rotary_emb", "model.layers.0", "model.layers.1", "model.norm", "lm_head")
    places = {part: "disk" if part in on_disk else "cpu" for part in parts}
    offloaded = AutoModelForCausalLM.from_pretrained(folder, device_map=places, offload_folder=tmp_path)
    whole = AutoModelForCausalLM.from_pretrained(folder)
    assert sum(parameter.is_meta for parameter in offloaded.parameters()) >= 9
    assert model_identity(offloaded) == model_identity(whole)
    runtime, found = Runtime(batch_tokens=100, dtype="auto"), []
    for model in (offloaded, whole):
        layers = {"model.layers.1.mlp.down_proj": model.model.layers[1].mlp.down_proj}
        runtime = Runtime(batch_tokens=100, dtype="auto" if model is offloaded else "float32")
        vectors = gradients(model, rows().select(np.arange(3)), runtime, layers).vectors
        found.append([*likelihood(model, rows(), runtime), hidden_state(model, rows(), runtime, "mean"), vectors])
    for mine, its in zip(*found, strict=True):
        assert np.array_equal(mine, its, equal_nan=True)
    with pytest.raises(
        SelectionError, match="`selection_dtype='bfloat16'`: the model is offloaded, and computes in float32"
    ):
        likelihood(offloaded, rows(), Runtime(dtype="bfloat16"))
    assert all(parameter.device.type in ("cpu", "meta") for parameter in offloaded.parameters())


def test_rows_are_selected_by_an_offloaded_model(folder, tmp_path):
    places = {"model": "cpu", "lm_head": "disk"}
    offloaded = AutoModelForCausalLM.from_pretrained(folder, device_map=places, offload_folder=tmp_path)
    options = {"budget": 5, "cache_dir": tmp_path / "cache"}
    found = [
        select_dataset(alpaca(12), "perplexity", model, tiny_tokenizer(), dtype=dtype, **options)[1]
        for model, dtype in ((offloaded, "auto"), (AutoModelForCausalLM.from_pretrained(folder), "float32"))
    ]
    assert np.array_equal(found[0].scores, found[1].scores) and found[0].passes["forward_rows"] == 12
    assert found[1].passes["cached_rows"] == 12, "they have one identity, and the same dtype"
