"""Batched per-example gradients against one backward pass a row, and against the numbers of LESS's own code."""

import dataclasses
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig, OPTConfig

from hf_dataselect.engines.forward.sentence_encoder import text_keys
from hf_dataselect.engines.gradients import collect as engine
from hf_dataselect.engines.gradients import per_example
from hf_dataselect.engines.gradients.adam import AdamFeature, AdamState
from hf_dataselect.engines.gradients.layers import linear_layers, lora_layers
from hf_dataselect.engines.gradients.lora import joined
from hf_dataselect.engines.gradients.projection import Projection
from hf_dataselect.engines.runtime.account import Account
from hf_dataselect.engines.runtime.model_state import evaluating
from hf_dataselect.engines.runtime.part import Part
from hf_dataselect.engines.runtime.runtime import Runtime
from hf_dataselect.engines.runtime.stored_vectors import stored_vectors
from hf_dataselect.engines.runtime.token_rows import TokenRows
from hf_dataselect.engines.store.identity import model_identity
from hf_dataselect.engines.store.vector_store import VectorStore
from hf_dataselect.engines.subset.target_similarity import Target
from hf_dataselect.errors import SelectionError
from tests.engines.runtime.test_cached_map import Clock
from tests.engines.store.test_vector_store import vectors_of
from tests.processes import succeed
from tests.shared_data import golden, golden_path, smollm2_path
from tests.tiny import tiny_gpt2, tiny_model, tiny_tokenizer, with_lora


EXACT = {"dtype": "float32", "project": Projection("none", dtype="float32"), "batch_tokens": 120}
RUNTIME = {field.name for field in dataclasses.fields(Runtime)}


def gradients(model, rows, layers=None, compute=engine.gradients, **options):
    """The engine's, under a runtime with those of the options that are its own."""
    runtime = Runtime(**{name: options.pop(name) for name in RUNTIME & options.keys()})
    return compute(model, rows, runtime, layers=layers, **options)


def booked(*given, **options):
    """What is found, and what was booked."""
    account = Account()
    return gradients(*given, account=account, **options), account


def cached(*given, **options):
    """Rows that are cached."""
    return booked(*given, **options)[1].passes["cached_rows"]


def plain(**options):
    return tiny_model(tiny_tokenizer(), hidden=32, **options)


def adapted(model=None, seed=0, **options):
    return with_lora(plain() if model is None else model, 0.1, seed, **options)


def tied():
    model = plain()
    model.config.tie_word_embeddings = True
    model.lm_head.weight = model.model.embed_tokens.weight
    return model


def quantized(folder):
    tiny_model(tiny_tokenizer(), hidden=64).save_pretrained(folder / "model")
    options = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4")
    return AutoModelForCausalLM.from_pretrained(
        folder / "model", quantization_config=options, dtype=torch.float32, device_map="cpu"
    )


def loaded_adapter(folder):
    """As a user gets it from a folder: nothing of it trainable."""
    adapted(r=3).save_pretrained(folder / "adapter")
    return PeftModel.from_pretrained(plain(), folder / "adapter")


def opt():
    shape = {"vocab_size": 96, "hidden_size": 32, "word_embed_proj_dim": 32, "ffn_dim": 48}
    shape |= {"num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 128, "dropout": 0.4}
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(OPTConfig(**shape))


def softcapped():
    """Logits that are scaled and capped behind the head."""
    from transformers import Gemma2Config

    torch.manual_seed(0)
    config = Gemma2Config(
        vocab_size=96, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, head_dim=8,
        num_key_value_heads=2, final_logit_softcapping=2.0, attn_logit_softcapping=5.0, initializer_range=0.2,
    )  # fmt: skip
    return AutoModelForCausalLM.from_config(config)


def some_rows(n=11, seed=0, vocabulary=96):
    """Rows of 3 to 40 tokens with one or two answers each, the first of them from the very first token on."""
    draw = np.random.default_rng(seed)
    ids = [draw.integers(3, vocabulary, int(draw.integers(3, 40))).tolist() for _ in range(n)]
    spans = [[(0, 2)]] + [[(int(len(row) * 0.3), int(len(row) * 0.5)), (len(row) - 1, len(row))] for row in ids[1:]]
    return TokenRows.from_lists(ids, spans)


def mean_loss(model, ids, spans):
    """Mean loss of the counted tokens of one row, by the model's own logits."""
    ids = torch.from_numpy(ids.astype(np.int64))
    counted = [place for first, end in spans for place in range(max(first, 1), min(end, len(ids)))]
    logits = model(input_ids=ids[None], use_cache=False).logits[0].float()
    return torch.nn.functional.cross_entropy(logits[[place - 1 for place in counted]], ids[counted])


def naive(model, rows, layers):
    """The twin: one backward pass a row; losses and whole gradients, in the order of the layers."""
    model.requires_grad_(False)
    weights = [layer.weight.requires_grad_(True) for layer in layers.values()]
    losses, found = [], []
    for ids, spans in rows.take(range(len(rows))):
        with evaluating(model):
            loss = mean_loss(model, ids, spans)
        derivatives = torch.autograd.grad(loss, weights, allow_unused=True)
        flat = [torch.zeros_like(w) if d is None else d for w, d in zip(weights, derivatives, strict=True)]
        losses.append(loss.item())
        found.append(torch.cat([d.flatten().float() for d in flat]))
    return np.array(losses), torch.stack(found).numpy()


def whole(found):
    return found.vectors[:] * found.norm[:, None]


def assert_near(found, expected, tolerance=2e-5):
    """Equal up to a part of each row's length."""
    scale = np.linalg.norm(expected, axis=1, keepdims=True)
    assert (scale > 0).all()
    np.testing.assert_allclose(found / scale, expected / scale, atol=tolerance)


MODELS = {
    "rank 1": lambda folder: adapted(r=1),
    "rank 16, with dropout": lambda folder: adapted(r=16, lora_dropout=0.3),
    "rank 64, attention only": lambda folder: adapted(r=64, target_modules=["q_proj", "k_proj", "v_proj", "o_proj"]),
    "rslora, upper layer only": lambda folder: adapted(
        use_rslora=True, target_modules=["v_proj", "down_proj"], layers_to_transform=[1]
    ),
    "on the head too": lambda folder: adapted(target_modules=["q_proj", "lm_head"]),
    "tied embeddings": lambda folder: adapted(tied()),
    "tied embeddings, on the head too": lambda folder: adapted(tied(), target_modules=["up_proj", "lm_head"]),
    "a user's, loaded": loaded_adapter,
    "4-bit": lambda folder: adapted(quantized(folder)),
    "GPT-2": lambda folder: adapted(tiny_gpt2(), target_modules=["c_attn", "c_proj"], fan_in_fan_out=True),
    "Gemma 2": lambda folder: adapted(softcapped()),
    "OPT, whose layers drop out by themselves": lambda folder: adapted(opt(), target_modules=["q_proj", "fc1"]),
}


@pytest.mark.parametrize("checkpointing", [False, True], ids=["", "checkpointing"])
@pytest.mark.parametrize("build", MODELS.values(), ids=MODELS)
def test_equals_one_backward_pass_a_row(build, checkpointing, tmp_path):
    model, rows = build(tmp_path), some_rows()
    layers = lora_layers(model)
    found, account = booked(model.train(), rows, gradient_checkpointing=checkpointing, **EXACT)
    losses, expected = naive(model, rows, layers)
    np.testing.assert_allclose(found.loss, losses, rtol=1e-5)
    assert_near(whole(found), expected)
    assert found.fits.all() and account.passes["backward_tokens"] == rows.lengths.sum()


PLAIN_LAYERS = {
    "one kind": (plain, ["down_proj"]),
    "the head among them": (plain, ["layers.1.mlp.up_proj", "lm_head"]),
    "one that two layers of the model share": (lambda: shared(), ["down_proj", "k_proj"]),
    "Gemma 2": (softcapped, ["o_proj"]),
}


def shared():
    model = plain()
    model.model.layers[1].mlp = model.model.layers[0].mlp
    return model


@pytest.mark.parametrize("checkpointing", [False, True], ids=["", "checkpointing"])
@pytest.mark.parametrize(("build", "endings"), PLAIN_LAYERS.values(), ids=PLAIN_LAYERS)
def test_plain_linear_layers_of_a_full_fine_tune(build, endings, checkpointing):
    model, rows = build().train(), some_rows()
    layers = linear_layers(model, endings)
    found = gradients(model, rows, layers, gradient_checkpointing=checkpointing, **EXACT)
    assert_near(whole(found), naive(model, rows, layers)[1])


def test_the_way_batches_and_layers_are_cut_changes_nothing(monkeypatch):
    model, rows = adapted(), some_rows()
    expected = whole(gradients(model, rows, **{**EXACT, "batch_tokens": 1}))
    assert_near(whole(gradients(model, rows, **{**EXACT, "batch_tokens": 10_000})), expected)
    monkeypatch.setattr(per_example, "SLICE", 300)
    monkeypatch.setattr(per_example, "LOGIT_BYTES", {"cpu": 1})
    assert_near(whole(gradients(model, rows, **{**EXACT, "batch_tokens": 10_000})), expected)


@pytest.mark.parametrize("kind", ["sketch", "rademacher"])
@pytest.mark.parametrize("adam", [False, True])
def test_projected_layer_by_layer_equals_projected_whole(kind, adam):
    model, rows, project = adapted(), some_rows(), Projection(kind, 100, seed=3, dtype="float32")
    adam = AdamFeature(some_state(model)) if adam else None
    found = gradients(model, rows, adam=adam, **{**EXACT, "project": project})
    exact = torch.from_numpy(whole(gradients(model, rows, adam=adam, **EXACT))).float()
    sizes = [layer.weight.numel() for layer in lora_layers(model).values()]
    projector, expected = project.of(sizes), torch.zeros(len(rows), 100)
    for piece, part in enumerate(exact.split(sizes, 1)):
        projector.add(piece, part, expected)
    assert_near(whole(found), expected.numpy())
    np.testing.assert_allclose(np.linalg.norm(found.vectors, axis=1), 1, rtol=1e-5)


def some_state(model, seed=0):
    draw = torch.Generator().manual_seed(seed)
    shapes = {f"{name}.weight": layer.weight.shape for name, layer in lora_layers(model).items()}
    first = {name: torch.randn(shape, generator=draw) * 1e-2 for name, shape in shapes.items()}
    return AdamState(first, {name: torch.rand(shape, generator=draw) * 1e-3 for name, shape in shapes.items()})


@pytest.mark.parametrize("momentum", [True, False])
def test_adam_features_by_the_formula(momentum):
    model, rows = adapted(), some_rows()
    state = some_state(model)
    plain_gradients = whole(gradients(model, rows, **EXACT)).astype(np.float64)
    moments = (state.exp_avg.values(), state.exp_avg_sq.values())
    m, v = (torch.cat([part.flatten() for part in parts]).double().numpy() for parts in moments)
    expected = (0.9 * m * momentum + 0.1 * plain_gradients) / np.sqrt(0.999 * v + 0.001 * plain_gradients**2 + 1e-8)
    found = gradients(model, rows, adam=AdamFeature(state, momentum), **EXACT)
    assert_near(whole(found), expected, 1e-4)


def tuned_optimizer(model, kind, steps=3, **options):
    optimizer = kind([p for p in model.parameters() if p.requires_grad], lr=1e-3, **options)
    for ids, spans in some_rows(steps, seed=4).take(range(steps)):
        mean_loss(model, ids, spans).backward()
        optimizer.step()
        optimizer.zero_grad()
    return optimizer


def test_state_of_an_optimizer_by_name():
    model = adapted()
    optimizer = tuned_optimizer(model, torch.optim.AdamW, betas=(0.8, 0.99), eps=1e-6)
    state = AdamState.of(optimizer, model)
    assert (state.beta1, state.beta2, state.eps) == (0.8, 0.99, 1e-6)
    for name, layer in lora_layers(model).items():
        assert torch.equal(state.exp_avg[f"{name}.weight"], optimizer.state[layer.weight]["exp_avg"])
        assert torch.equal(state.exp_avg_sq[f"{name}.weight"], optimizer.state[layer.weight]["exp_avg_sq"])


def test_state_of_an_8_bit_optimizer():
    from bitsandbytes.optim import AdamW8bit

    models = [adapted(r=64) for _ in range(2)]
    exact = AdamState.of(tuned_optimizer(models[0], torch.optim.AdamW), models[0])
    optimizer = tuned_optimizer(models[1], AdamW8bit, min_8bit_size=4096)
    assert {state["state1"].dtype for state in optimizer.state.values()} == {torch.uint8, torch.float32}
    found = AdamState.of(optimizer, models[1])
    for name, first in exact.exp_avg.items():
        assert found.exp_avg[name].shape == first.shape
        assert float((found.exp_avg[name] - first).norm() / first.norm()) < 0.05
        second = exact.exp_avg_sq[name]
        assert float((found.exp_avg_sq[name] - second).norm() / second.norm()) < 0.05
    gradients(models[1], some_rows(), adam=AdamFeature(found), **EXACT)


def test_optimizers_without_moments_are_refused():
    model = adapted()
    with pytest.raises(ValueError, match="SGD holds no first and second moments"):
        AdamState.of(tuned_optimizer(model, torch.optim.SGD, momentum=0.9), model)
    with pytest.raises(ValueError, match="holds no first and second moments"):
        AdamState.of(torch.optim.AdamW(model.parameters()), model)
    with pytest.raises(ValueError, match="no state of 28 parameters, such as 'base_model"):
        gradients(model, some_rows(), adam=AdamFeature(AdamState({}, {})), **EXACT)


def test_layers_that_cannot_be_taken_are_refused(tmp_path):
    with pytest.raises(ValueError, match="no LoRA layers"):
        lora_layers(plain())
    with pytest.raises(ValueError, match="LoRA variant.*use_dora=False"):
        lora_layers(adapted(use_dora=True))
    with pytest.raises(ValueError, match="no linear layer 'gate'"):
        linear_layers(plain(), ["up_proj", "gate"])
    with pytest.raises(ValueError, match="weight of `lm_head` is shared"):
        linear_layers(tied(), ["lm_head"])
    with pytest.raises(ValueError, match="quantized and has no gradient"):
        linear_layers(quantized(tmp_path), ["up_proj"])


def test_a_dimension_of_one_beside_rows_and_tokens_is_no_routing():
    class Single(torch.nn.Module):
        def __init__(self, heads):
            super().__init__()
            torch.manual_seed(0)
            self.only, self.heads = torch.nn.Linear(32, 32, bias=False), heads

        def forward(self, hidden):
            return hidden + (self.only(hidden[:, None])[:, 0] if self.heads else self.only(hidden))

    found = []
    for heads in (False, True):
        model = plain()
        model.model.layers[0].mlp = Single(heads)
        found.append(gradients(model, some_rows(), linear_layers(model, ["only"]), **EXACT).vectors)
    np.testing.assert_allclose(found[1], found[0], atol=1e-6)
    assert np.isfinite(found[0]).any()


def test_a_layer_that_does_not_see_every_token_is_refused():
    class Routed(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.expert = torch.nn.Linear(32, 32, bias=False)

        def forward(self, hidden):
            return hidden + self.expert(hidden[:, :2]).sum(1, keepdim=True)

    model = plain()
    model.model.layers[0].mlp = Routed()
    with pytest.raises(ValueError, match="does not see every token"):
        gradients(model, some_rows(), linear_layers(model, ["expert"]), **EXACT)


def test_rows_without_a_counted_token_or_a_finite_loss_are_nan_and_harm_no_other():
    ids = [[5, 6, 7, 8], [9, 10, 11], [5, 60, 8, 9], [12, 13, 14, 15]]
    rows = TokenRows.from_lists(ids, [[(2, 4)], [], [(1, 4)], [(0, 1)]])
    model = adapted()
    with torch.no_grad():
        model.get_base_model().model.embed_tokens.weight[60] = torch.nan
    found = gradients(model, rows, **EXACT)
    alone = gradients(model, TokenRows.from_lists(ids[:1], [[(2, 4)]]), **EXACT)
    np.testing.assert_allclose(found.vectors[0], alone.vectors[0], atol=1e-6)
    assert np.isnan(found.vectors[1:]).all() and np.isnan(found.norm[1:]).all() and np.isnan(found.loss[1:]).all()
    assert found.fits.all()


def test_a_model_without_finite_logits_gives_no_gradient_and_no_riddle():
    model = adapted()
    with torch.no_grad():
        model.get_base_model().lm_head.weight[9] = float("inf")
    found = gradients(model, some_rows(), **EXACT)
    assert np.isnan(found.norm).all() and np.isnan(found.vectors).all() and found.fits.all()


def test_factors_that_multiply_into_a_parameter_are_no_layers():
    options = {"target_modules": ["q_proj"], "target_parameters": ["down_proj.weight"], "task_type": "CAUSAL_LM"}
    layers = lora_layers(get_peft_model(plain(), LoraConfig(r=4, **options)))
    assert len(layers) == 4 and all(".q_proj." in name for name in layers)


def test_factors_are_joined_unless_a_layer_does_more_than_apply_them():
    def count(model):
        places = {layer: place for place, layer in enumerate(lora_layers(model).values())}
        return len(list(joined(model, places)))

    model = adapted(lora_dropout=0.3)
    assert count(model) == 14
    next(iter(lora_layers(model).values())).register_forward_hook(lambda *_: None)
    assert count(model) == 13
    assert count(adapted(lora_bias=True, init_lora_weights=False)) == 0
    model.add_adapter("second", model.peft_config["default"])
    model.base_model.set_adapter(["default", "second"])
    assert count(model) == 0


def test_a_gradient_of_zero_is_nan():
    model = adapted()
    with torch.no_grad():
        for layer in lora_layers(model).values():
            layer.weight.zero_()
    found = gradients(model, some_rows(), **EXACT)
    assert np.isnan(found.norm).all() and np.isfinite(found.loss).all()


def test_rows_that_do_not_fit_in_memory_are_nan_and_the_others_halve_their_batches():
    model, rows = adapted(), some_rows()
    expected = whole(gradients(model, rows, **EXACT))

    def refuse(module, args):
        if args[0].numel() > 30:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")

    model.get_base_model().model.embed_tokens.register_forward_pre_hook(refuse)
    read = np.array([spans.max() - 1 for _, spans in rows.take(range(len(rows)))])  # nothing from the last label on
    found, fits = gradients(model, rows, **EXACT), read <= 30
    assert found.fits.tolist() == fits.tolist() and 0 < fits.sum() < len(fits)
    assert_near(whole(found)[fits], expected[fits])
    assert np.isnan(found.vectors[~fits]).all()


@pytest.mark.parametrize("fail", [False, True])
def test_the_model_is_left_as_it_was(fail, monkeypatch):
    model = adapted(lora_dropout=0.2).train()
    inner = model.get_base_model()
    inner.model.layers[0].eval()
    inner.gradient_checkpointing_enable()
    for parameter in list(model.parameters())[::3]:
        parameter.grad = torch.ones_like(parameter)

    def described():
        flags = ("training", "gradient_checkpointing", "_gradient_checkpointing_func")
        return (
            model_identity(model),
            [[vars(module).get(flag) for flag in flags] for module in model.modules()],
            [(p.requires_grad, None if p.grad is None else float(p.grad.sum())) for p in model.parameters()],
            [len(module._forward_hooks) for module in model.modules()],
            torch.get_rng_state().tolist(),
        )

    before = described()
    options = {**EXACT, "gradient_checkpointing": True}
    if fail:
        monkeypatch.setattr(per_example._Collector, "add", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            gradients(model, some_rows(), **options)
    else:
        gradients(model, some_rows(), **options)
        gradients(model, some_rows(), **{**options, "dtype": "bfloat16"})
    assert described() == before


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_is_near(dtype):
    model, rows = adapted(), some_rows()
    exact, half = (gradients(model, rows, **{**EXACT, "dtype": name}) for name in ("float32", dtype))
    assert ((exact.vectors * half.vectors).sum(1) > 0.98).all()
    np.testing.assert_allclose(exact.norm, half.norm, rtol=0.1)


def test_small_gradients_survive_float16(monkeypatch):
    model, rows = adapted(), some_rows()
    layers = {name: layer for name, layer in lora_layers(model).items() if "lora_A" in name}
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.mul_(1e-6 if "lora_B" in name else 1)
    exact = gradients(model, rows, layers, **EXACT)
    assert exact.norm.max() < 1e-4

    def agreement():
        half = gradients(model, rows, layers, **{**EXACT, "dtype": "float16"})
        return np.nan_to_num((exact.vectors * half.vectors).sum(1))

    scaled = agreement()
    monkeypatch.setattr(per_example, "FLOAT16_SCALE", 1.0)
    assert (scaled > 0.97).all() and agreement().min() < 0.9


# The store -----------------------------------------------------------------------------------------------------------


STORED = {"dtype": "float32", "project": Projection(dim=64), "batch_tokens": 60}


def test_what_is_stored_is_read_back_and_not_computed_again(tmp_path):
    model, rows = adapted(), some_rows()
    held = gradients(model, rows, **STORED)
    first, computed = booked(model, rows, cache_dir=tmp_path, **STORED)
    again, read = booked(model, rows, cache_dir=tmp_path, **STORED)
    assert first.vectors.shape == held.vectors.shape == (11, 64) and first.vectors.dtype == np.float16
    for found in (first, again):
        assert np.array_equal(found.vectors[:], held.vectors) and np.array_equal(found.norm, held.norm)
    assert computed.passes["cached_rows"] == read.passes["backward_tokens"] == computed.cached_seconds == 0
    assert read.passes["cached_rows"] == 11 and read.cached_seconds > 0
    some = rows.take([7, 2])
    ids = [[5, 6, 7, 8], *(ids.tolist() for ids, _ in some), [9, 10, 11]]
    spans = [[(1, 3)], *(spans.tolist() for _, spans in some), [(1, 2)]]
    mixed, account = booked(model, TokenRows.from_lists(ids, spans), cache_dir=tmp_path, **STORED)
    assert account.passes["cached_rows"] == 2 and np.array_equal(mixed.vectors[1:3], held.vectors[[7, 2]])


@pytest.mark.parametrize("kept", [True, False])
def test_equal_rows_are_computed_once_and_cost_what_they_did(kept, tmp_path, monkeypatch):
    clock, unit_rows, batches = Clock(), engine._unit_rows, []

    def slow(differentiate, batch, *options):
        batches.append(len(batch))
        clock.now += len(batch)
        return unit_rows(differentiate, batch, *options)

    monkeypatch.setattr(engine, "time", clock)
    monkeypatch.setattr(engine, "_unit_rows", slow)
    model, rows = adapted(), some_rows()
    apart = gradients(model, rows, **STORED)
    places = np.array([3, 7, 3, 0, 7, 3])
    batches.clear()
    for cached, seconds in ((3, 0), (6 if kept else 3, 3 if kept else 0)):
        found, account = booked(
            model, TokenRows(rows.dataset.select(places)), cache_dir=tmp_path if kept else None, **STORED
        )
        np.testing.assert_allclose(found.vectors[:].astype(float), apart.vectors[places].astype(float), atol=1e-3)
        np.testing.assert_allclose(found.norm, apart.norm[places], rtol=1e-5)
        assert (account.passes["cached_rows"], account.cached_seconds) == (cached, pytest.approx(seconds))
        assert found.fits.all()
    assert sum(batches) == (3 if kept else 6)


def test_other_weights_layers_features_or_projections_are_computed_anew(tmp_path):
    rows = some_rows()

    def known(model=None, **options):
        return cached(model or adapted(), rows, cache_dir=tmp_path, **{**STORED, **options})

    assert known() == 0 and known() == 11
    state = some_state(adapted())
    changed = AdamState({**state.exp_avg, min(state.exp_avg): torch.ones(())}, state.exp_avg_sq)
    assert known(adapted(seed=1)) == 0
    assert known(layers=dict(list(lora_layers(adapted()).items())[:4])) == 0
    assert known(project=Projection(dim=64, seed=1)) == known(project=Projection("rademacher", 64)) == 0
    assert known(adam=AdamFeature(state)) == known(adam=AdamFeature(state, momentum=False)) == 0
    assert AdamFeature(state).identity != AdamFeature(changed).identity
    assert known(adam=AdamFeature(state)) == 11


def test_a_killed_run_goes_on_where_it_was(tmp_path, monkeypatch):
    model, rows = adapted(), some_rows()
    whole_run = gradients(model, rows, **STORED)
    append, calls = VectorStore.append, []

    def killed(store, *batch, **facts):
        if len(calls) == 2:
            raise KeyboardInterrupt
        calls.append(len(batch[0]))
        append(store, *batch, **facts)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(VectorStore, "append", killed)
        gradients(model, rows, cache_dir=tmp_path, **STORED)
    (part,) = tmp_path.glob("*/*.rows")
    part.write_bytes(part.read_bytes() + b"torn" * 9)
    done, account = booked(model, rows, cache_dir=tmp_path, **STORED)
    assert account.passes["cached_rows"] == sum(calls) > 0
    # The rows that were left are batched anew, which rounds the last of 16 bits in another way.
    np.testing.assert_allclose(done.vectors[:], whole_run.vectors, rtol=2e-3, atol=2e-4)
    damaged = bytearray(part.read_bytes())
    damaged[40] ^= 1
    part.write_bytes(damaged)
    assert cached(model, rows, cache_dir=tmp_path, **STORED) == 10


def test_a_disk_without_room_is_an_error_that_keeps_what_is_there(tmp_path, monkeypatch):
    model, rows = adapted(), some_rows()
    with monkeypatch.context() as patched:
        patched.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=1000))
        with pytest.raises(ValueError, match="selection_cache_dir.*smaller `projection_dim`"):
            gradients(model, rows, cache_dir=tmp_path, **STORED)
    with monkeypatch.context() as patched:
        full = OSError(28, "No space left on device")
        name = "hf_dataselect.engines.store.row_store.open"  # the built-in one, for this module
        patched.setattr(name, lambda *_, **__: (_ for _ in ()).throw(full), raising=False)
        with pytest.raises(SelectionError, match="make room"):
            gradients(model, rows, cache_dir=tmp_path, **STORED)


def vectors_on_rank(folder: Path) -> None:
    accelerator = Accelerator(cpu=True)
    for cache, name in ((None, "held"), (folder / "kept", "kept")):
        for again in (False, True):
            found, account = booked(adapted(), some_rows(), cache_dir=cache, accelerator=accelerator, **STORED)
            assert accelerator.num_processes == 2 and found.fits.all()
            assert bool(account.passes["backward_tokens"]) is not (again and cache is not None)
        assert bool(account.cached_seconds) is (cache is not None)
        if not accelerator.is_main_process:
            np.save(folder / f"{name}.npy", found.vectors[:])
    sizes = []
    for part in (Part(2, 2), Part(1, 2), None):
        given = {"cache_dir": folder / "parts", "accelerator": accelerator, "part": part}
        found, account = booked(adapted(), some_rows(), **given, **STORED)
        sizes.append(account.passes["backward_rows"])
        assert found.fits.sum() == (sizes[-1] if part else 11)
    assert sizes[0] + sizes[1] == 11 and min(sizes[:2]) == 5 and sizes[2] == 0
    keys, other = text_keys([str(i) for i in range(11)]), folder / "kept-vectors"
    for cache, cached_rows in ((None, 0), (None, 0), (other, 0), (other, 11)):
        runtime = Runtime(accelerator, cache)
        store = runtime.vector_store({}, 3)
        found = stored_vectors(store, keys, lambda places: vectors_of(keys[places]), runtime, chunk=4)
        np.testing.assert_array_equal(found.vectors[:], vectors_of(keys))
        assert runtime.account.passes["cached_rows"] == cached_rows and found.usable.all()
    accelerator.end_training()


def test_two_ranks_give_the_store_of_one(tmp_path):
    succeed(vectors_on_rank, tmp_path, folder=tmp_path)
    model, rows = adapted(), some_rows()
    alone = gradients(model, rows, **STORED).vectors
    for name in ("held.npy", "kept.npy"):
        assert np.array_equal(np.load(tmp_path / name), alone)
    assert len(list(tmp_path.glob("kept/*/*.rows"))) == 2, "both ranks wrote"
    again, account = booked(model, rows, cache_dir=tmp_path / "kept", **STORED)
    assert account.passes["cached_rows"] == 11 and np.array_equal(again.vectors[:], alone)


@pytest.mark.parametrize("kept", [True, False])
def test_what_is_wanted_of_vectors_is_made_of_some_at_a_time(kept, tmp_path, monkeypatch):
    monkeypatch.setattr("hf_dataselect.engines.store.vector_store.READ", 3 * STORED["project"].dim)
    model, rows = adapted(), some_rows()
    vectors, seen = gradients(model, rows, **STORED).vectors, []
    target = Target(vectors[:5], np.array([0, 1, 0, 1, 1]), "mean")

    def reduce(some):
        seen.append(len(some))
        return target.similarity(some)

    given = {"cache_dir": tmp_path if kept else None, "reduce": reduce, "compute": engine.reduced_gradients}
    given |= {"keep": [9, 0, 4]}
    for _ in range(2):
        found = gradients(model, rows, **{**STORED, **given})
        np.testing.assert_allclose(found.reduced, target.similarity(vectors), atol=1e-6)
        assert np.array_equal(found.kept, vectors[[9, 0, 4]])
    assert found.reduced.shape == (11, 2) and max(seen) <= (3 if kept else 8)


# What LESS's own code gives ------------------------------------------------------------------------------------------


class Reference:
    """A run of the authors' code: its model at each checkpoint, its rows and its numbers."""

    def __init__(self, name):
        content = golden("less")
        self.run = next(run for run in content["runs"] if run["model"] == name)
        lora, folder = content["lora"], golden_path("tiny_model") if name == "tiny" else smollm2_path()
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        options = {"r": lora["r"], "lora_alpha": lora["alpha"], "target_modules": lora["target_modules"]}
        self.model = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **options)).eval()
        self.tensors = {k: v.float() for k, v in load_file(golden_path(self.run["tensors"])).items()}
        self.train, self.val = (
            TokenRows.from_lists(
                [row["input_ids"] for row in self.run[part]],
                [[(row["first_scored"], len(row["input_ids"]))] for row in self.run[part]],
            )
            for part in ("train", "val")
        )

    def load(self, checkpoint):
        parts = {"weight": {}, "exp_avg": {}, "exp_avg_sq": {}}
        for name, tensor in self.tensors.items():
            place, _, rest = name.partition("/")
            if place == str(checkpoint) and rest.split("/")[0] in parts:
                part, _, parameter = rest.partition("/")
                parts[part][parameter] = tensor
        with torch.no_grad():
            for name, parameter in self.model.named_parameters():
                if name in parts["weight"]:
                    parameter.copy_(parts["weight"][name])
        return AdamState(parts["exp_avg"], parts["exp_avg_sq"])

    def features(self, momentum=True):
        """Whole features of both sides, at each checkpoint."""
        for number in range(len(self.run["checkpoint_weights"])):
            feature = AdamFeature(self.load(number), momentum)
            train = gradients(self.model, self.train, adam=feature, **EXACT)
            yield [torch.from_numpy(found.vectors) for found in (train, gradients(self.model, self.val, **EXACT))]

    def influence(self, features, project):
        """Score of each candidate by the paper's formula."""
        sizes = [layer.weight.numel() for layer in lora_layers(self.model).values()]
        projector, total = project.of(sizes), 0
        for weight, sides in zip(self.run["checkpoint_weights"], features, strict=True):
            small = []
            for side in sides:
                small.append(torch.zeros(len(side), projector.width))
                for piece, part in enumerate(side.split(sizes, 1)):
                    projector.add(piece, part, small[-1])
            train, val = (torch.nn.functional.normalize(side).numpy() for side in small)
            total = total + weight * train @ val.T
        return total.reshape(len(total), 3, 3).mean(2).max(1)


@pytest.mark.long
@pytest.mark.parametrize("name", ["tiny", "smollm2"])
def test_agrees_with_the_authors_code(name):
    reference = Reference(name)
    assert [f"{layer}.weight" for layer in lora_layers(reference.model)] == [n for n, _ in reference.run["parameters"]]
    influence = 0
    for number, expected in enumerate(reference.run["checkpoints"]):
        adam = AdamFeature(reference.load(number))
        updates = gradients(reference.model, reference.train, adam=adam, **EXACT)
        # The real model's rows are differentiated without the optimizer at one checkpoint only.
        again = name == "smollm2" and number > 0
        plain = None if again else gradients(reference.model, reference.train, **EXACT)
        val = gradients(reference.model, reference.val, **EXACT)
        for found, part in ((val, "val"),) if again else ((plain, "train"), (val, "val")):
            np.testing.assert_allclose(found.loss, expected[f"loss_{part}"], atol=1e-4)
            np.testing.assert_allclose(found.norm, expected[f"gradient_norm_{part}"], rtol=5e-5)
        np.testing.assert_allclose(updates.norm, expected["adam_feature_norm_train"], rtol=5e-5)
        for found, kind in ((updates, "adam"),) if again else ((plain, "plain"), (updates, "adam")):
            cosines = found.vectors @ val.vectors.T
            np.testing.assert_allclose(cosines, expected[f"{kind}_cosines"], atol=2e-5)
            norms = found.norm[:, None] * val.norm
            np.testing.assert_allclose(cosines, np.array(expected[f"{kind}_inner_products"]) / norms, atol=2e-5)
        if f"{number}/gradient_train" in reference.tensors:
            for found, part in ((plain, "gradient_train"), (val, "gradient_val"), (updates, "adam_feature_train")):
                assert_near(whole(found), reference.tensors[f"{number}/{part}"].numpy(), 1e-5)
        cosines = (updates.vectors @ val.vectors.T).reshape(-1, 3, 3)
        np.testing.assert_allclose(cosines.mean(2).max(1), expected["influence"], atol=2e-5)
        influence = influence + reference.run["checkpoint_weights"][number] * cosines
    influence = influence.mean(2).max(1)
    np.testing.assert_allclose(influence, reference.run["influence"], atol=2e-5)
    assert np.argsort(-influence).tolist() == reference.run["order"]


@pytest.mark.parametrize("kind", ["sketch", "rademacher"])
def test_projected_scores_err_as_little_as_their_width_promises(kind):
    reference, errors = Reference("tiny"), []
    features = list(reference.features())
    exact = reference.influence(features, Projection("none"))
    np.testing.assert_allclose(exact, reference.run["influence"], atol=2e-5)
    for dim in (512, 2048):
        found = np.stack([reference.influence(features, Projection(kind, dim, seed)) for seed in range(20)])
        # A cosine errs by about 1 / root(dim), a mean of three by that over root(3).
        errors.append(float(np.sqrt(np.square(found - exact).mean()) * dim**0.5))
    assert min(errors) > 0.3 and max(errors) < 0.9, errors
