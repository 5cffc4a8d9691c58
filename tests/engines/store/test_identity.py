"""Content hashes: of values, of models, and how often a selection hashes its model."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from peft import LoraConfig, PeftModel
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from hf_dataselect.data.records import Records
from hf_dataselect.engines.runtime.account import Account
from hf_dataselect.engines.runtime.runtime import Runtime
from hf_dataselect.engines.runtime.token_rows import TokenRows
from hf_dataselect.engines.store import identity
from hf_dataselect.engines.store.identity import (
    digest,
    identities_remembered,
    identity_of,
    model_identity,
    note_identity,
)
from hf_dataselect.engines.tuning import warm_up
from hf_dataselect.pipeline import select
from hf_dataselect.registry import load_selector
from tests.engines.store.test_kept_results import one_ulp, tiny, with_lora
from tests.rows import alpaca
from tests.tiny import context_of, tiny_model, tiny_tokenizer


def test_a_digest_does_not_depend_on_the_order_of_keys_or_sets():
    one, other = {0, 8}, {8, 0}
    assert list(one) != list(other), "the test needs two orders of one set"
    assert digest({"a": 1, "b": one}) == digest({"b": other, "a": 1})
    assert len({digest(value) for value in (1, "1", [1], {"1": 1}, None, {0, 9})}) == 6


def changed(model, change):
    with torch.no_grad():
        change(model)
    return model_identity(model)


def test_a_copy_that_was_saved_and_loaded_is_the_same_model(tmp_path):
    model = tiny()
    model.save_pretrained(tmp_path / "model")
    assert model_identity(AutoModelForCausalLM.from_pretrained(tmp_path / "model")) == model_identity(model)
    adapted = with_lora()
    adapted.save_pretrained(tmp_path / "adapter")
    assert model_identity(PeftModel.from_pretrained(tiny(), tmp_path / "adapter")) == model_identity(adapted)


def test_what_changes_no_number_changes_no_identity():
    model = tiny()
    identity = model_identity(model)
    model.train().requires_grad_(False)
    model.config.use_cache = False
    model.config._name_or_path = "elsewhere"
    model.gradient_checkpointing_enable()
    model.lm_head.weight.data = model.lm_head.weight.data.clone().t().contiguous().t()  # other strides, same matrix
    model.double().float()
    model(input_ids=torch.tensor([[3, 4, 5]])).logits.sum()
    assert model_identity(model) == identity


@pytest.mark.parametrize("name, place", [("lm_head.weight", (-1, -1)), ("model.norm.weight", (7,))])
def test_one_weight_changed_by_the_least_possible_amount_changes_the_identity(name, place):
    assert changed(tiny(), lambda model: one_ulp(model, name, place)) != model_identity(tiny())


@pytest.mark.parametrize("hidden", [32, 1024])
@pytest.mark.parametrize("pair", [(1, 2), (5, 30)])
def test_two_rows_of_a_matrix_exchanged_change_the_identity(hidden, pair):
    def exchange(model):
        weight = model.lm_head.weight
        weight[list(pair)] = weight[list(pair[::-1])].clone()

    model = tiny(layers=1, hidden=hidden)
    identity = model_identity(model)
    assert changed(model, exchange) != identity


def test_the_identity_of_half_precision_and_of_odd_shapes_can_be_told(tmp_path):
    model = tiny()
    for name, tensor in {"none": torch.zeros(0, 5), "flat": torch.zeros(0), "scalar": torch.tensor(3.0)}.items():
        model.register_buffer(name, tensor)
    model.register_buffer("flags", torch.tensor([[True], [False]]))
    identities = {model_identity(model), model_identity(model.bfloat16())}
    model.flags[1] = True
    assert len(identities | {model_identity(model), model_identity(model.half())}) == 4


@pytest.mark.parametrize(
    "option, value", [("rope_parameters", {"rope_type": "default", "rope_theta": 500.0}), ("rms_norm_eps", 1e-3)]
)
def test_a_changed_configuration_changes_the_identity(option, value):
    assert changed(tiny(), lambda model: setattr(model.config, option, value)) != model_identity(tiny())


def test_adapters_count_with_their_weights_settings_and_activity():
    model = with_lora()
    seen = [model_identity(tiny()), model_identity(model), model_identity(with_lora(seed=1))]
    seen += [model_identity(with_lora(lora_alpha=9)), model_identity(with_lora(use_rslora=True))]
    model.add_adapter("other", LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM"))
    seen.append(model_identity(model))
    model.set_adapter("other")
    seen.append(model_identity(model))
    assert len(set(seen)) == len(seen)
    model.set_adapter("default")
    model.delete_adapter("other")
    assert model_identity(model) == seen[1]


@pytest.fixture
def hashed(monkeypatch):
    """Models whose weights were hashed."""
    models = []
    monkeypatch.setattr(
        "hf_dataselect.engines.store.identity.model_identity",
        lambda model: models.append(model) or model_identity(model),
    )
    return models


@pytest.mark.parametrize(
    "change",
    [
        lambda model: one_ulp(model),
        lambda model: model.half(),
        lambda model: setattr(model.lm_head.weight, "data", model.lm_head.weight * 2),
        lambda model: setattr(model.lm_head, "weight", torch.nn.Parameter(model.lm_head.weight * 2)),
        lambda model: setattr(model.config, "rms_norm_eps", 1e-3),
        lambda model: model.register_buffer("more", torch.ones(1)),
        lambda model: model.load_state_dict(tiny(seed=1).state_dict()),
        lambda model: torch.optim.AdamW(model.parameters(), fused=True).step(),
        lambda model: torch.optim.SGD(model.parameters(), lr=0.1).step(),
    ],
)
def test_a_remembered_identity_is_never_that_of_other_weights(change, hashed):
    model = tiny()
    with identities_remembered():
        before = identity_of(model)
        assert identity_of(model) == before == model_identity(model) and len(hashed) == 1
        for parameter in model.parameters():
            parameter.grad = torch.ones_like(parameter)
        assert identity_of(model) == before and len(hashed) == 1, "gradients are no weights"
        with torch.no_grad():
            change(model)
        after = identity_of(model)
        assert after == model_identity(model) != before and len(hashed) == 2
        assert identity_of(tiny()) == before and identity_of(model) == after and len(hashed) == 3


def test_an_identity_is_remembered_inside_only_and_an_exception_ends_it(hashed):
    model = tiny()
    assert identity_of(model) == note_identity(model, identity_of(model)) and len(hashed) == 2
    with pytest.raises(RuntimeError), identities_remembered():
        assert note_identity(model, "noted") == identity_of(model) == "noted"
        with identities_remembered():
            assert identity_of(model) == "noted"
        assert identity_of(model) == "noted" and len(hashed) == 2
        raise RuntimeError
    assert identity_of(model) == model_identity(model) and len(hashed) == 3
    with identities_remembered():
        assert identity_of(model) == model_identity(model) and len(hashed) == 4


def test_telling_the_identity_of_a_quantized_model_changes_nothing(tmp_path):
    tiny(hidden=128).save_pretrained(tmp_path)
    options = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4")
    model = AutoModelForCausalLM.from_pretrained(tmp_path, quantization_config=options, device_map="cpu").eval()
    ids = torch.arange(3, 40)[None]
    with torch.no_grad():
        logits = model(input_ids=ids).logits  # some CPUs repack the weights now
        identity = model_identity(model)
        torch.testing.assert_close(model(input_ids=ids).logits, logits, rtol=0, atol=0)
    assert model_identity(model) == identity


# --- hashes of a selection ---


@pytest.fixture
def counts(monkeypatch):
    """Hashes of whole models, and of only what a warm-up tuned."""
    counts, of_weights = {"model": 0, "tuned": 0}, warm_up.weights_identity

    def counting(kind, function):
        def counted(given):
            counts[kind] += 1
            return function(given)

        return counted

    monkeypatch.setattr(identity, "model_identity", counting("model", model_identity))
    monkeypatch.setattr(warm_up, "weights_identity", counting("tuned", of_weights))
    return counts


TUNED = {"warmup_learning_rate": 1e-2, "warmup_batch_size": 2, "warmup_gradient_accumulation": 1}
IFD = TUNED | {"warmup_clusters": 2, "warmup_rows_per_cluster": 2}
LESS = TUNED | {"warmup_epochs": 2, "warmup_fraction": 0.5, "projection_dim": 64, "lora_r": 2}


@pytest.mark.parametrize(
    "method, options, model, tuned",
    [
        ("perplexity", {}, 2, 0),
        ("nuggets", {"tasks": 3, "threshold": None}, 2, 0),
        ("ifd", IFD, 2, 1),  # the tuned model's identity is that of the base model and of the adapter
        ("ifd", IFD | {"warmup": "full"}, 2, 1),  # ... and of all weights: as much as a third hash of the model
        ("less", LESS, 2, 3),  # the adapter after training, and as it was at the end of each of two epochs
    ],
)
def test_a_selection_hashes_its_model_before_and_after_only(method, options, model, tuned, counts, tmp_path):
    tokenizer = tiny_tokenizer()
    given = {"max_length": 128, "target": Records(alpaca(3, 9)), "cache_dir": tmp_path}
    ctx = context_of(tokenizer, tiny_model(tokenizer, hidden=32), **given)
    found = select(alpaca(12), load_selector(method, options), 4, ctx)
    assert counts == {"model": model, "tuned": tuned}
    assert found.facts["model_identity"] == model_identity(ctx.model) and len(found.indices) == 4


def test_weights_that_changed_between_two_selections_are_another_model(tmp_path, counts):
    tokenizer = tiny_tokenizer()
    ctx = context_of(tokenizer, tiny_model(tokenizer, hidden=32), max_length=128, cache_dir=tmp_path, dtype="float32")
    found = []
    for change in (None, lambda weight: weight.mul_(1.5), lambda weight: weight.data.mul_(1.5)):
        if change is not None:
            with torch.no_grad():
                change(ctx.model.lm_head.weight)
        ctx = replace(ctx, runtime=replace(ctx.runtime, account=Account()))
        found.append(select(alpaca(6), load_selector("perplexity", {}), 3, ctx))
    assert len({selection.facts["model_identity"] for selection in found}) == 3 and counts["model"] == 6
    assert [selection.passes["forward_rows"] for selection in found] == [6, 6, 6]
    again = select(alpaca(6), load_selector("perplexity", {}), 3, ctx)
    assert again.passes["cached_rows"] == 6 and np.array_equal(again.scores, found[2].scores)


@pytest.mark.parametrize("method", ["lora", "full"])
def test_in_a_warm_up_every_epoch_is_another_model_and_afterwards_it_is_the_first_again(method, tmp_path):
    tokenizer, tuning = tiny_tokenizer(), {"learning_rate": 1e-2, "batch_size": 2, "gradient_accumulation": 1}
    model = tiny_model(tokenizer, hidden=32)
    rows = TokenRows.from_lists([[5, 6, 7, 8, 9 + i] for i in range(4)], [[(1, 5)]] * 4)
    settings = warm_up.WarmupSettings(method=method, epochs=2, **tuning)
    found = []
    for _ in range(2):  # tuned, then from the cache
        with identities_remembered():
            base, seen = identity_of(model), []
            with pytest.raises(RuntimeError):  # noqa: PT012, SIM117
                with warm_up.warmed_up_by_epoch(model, tokenizer, rows, settings, Runtime(cache_dir=tmp_path)) as lent:
                    tuned, epochs = lent
                    for epoch in (*epochs, epochs[0]):
                        epoch.load()
                        seen.append((identity_of(tuned), model_identity(tuned)))
                    raise RuntimeError
            assert identity_of(model) == model_identity(model) == base
        first, second, again = seen
        assert first == again and len({base, first[0], second[0]}) == 3 and first[1] != second[1]
        found.append(seen)
    assert found[0] == found[1], "another run reads the numbers of the same epochs"
