import copy
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from peft import LoraConfig, PrefixTuningConfig, PromptTuningConfig, get_peft_model
from transformers import (
    AutoModelForCausalLM,
    BitsAndBytesConfig,
    CohereConfig,
    Gemma2Config,
    GPT2Config,
    GraniteConfig,
    LlamaForCausalLM,
    MistralConfig,
    MixtralConfig,
    Qwen2Config,
    Qwen2MoeConfig,
)

from hf_dataselect.engines.forward import likelihood as engine
from hf_dataselect.engines.forward.likelihood import likelihood
from hf_dataselect.engines.runtime import runtime as batching
from hf_dataselect.engines.runtime.model_state import evaluating
from hf_dataselect.engines.runtime.runtime import Runtime
from hf_dataselect.engines.runtime.token_rows import TokenRows
from hf_dataselect.engines.store.identity import model_identity
from tests.tiny import tiny_model, tiny_tokenizer


VOCABULARY = 96
SHAPE = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "initializer_range": 0.2,
    "tie_word_embeddings": False,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}


def from_config(config, attention="sdpa"):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return AutoModelForCausalLM.from_config(config, attn_implementation=attention, dtype=torch.float32).eval()


def llama():
    return tiny_model(tiny_tokenizer(), hidden=32)


def adapted(config, model=None):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model = get_peft_model(model or llama(), config)
        for name, parameter in model.named_parameters():
            if "lora_" in name or "prompt" in name:
                torch.nn.init.normal_(parameter, std=0.2)
    return model.eval()


def lora():
    return adapted(LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM"))


def prompt_tuning():
    return adapted(PromptTuningConfig(num_virtual_tokens=3, task_type="CAUSAL_LM"))


def prefix_tuning():
    return adapted(PrefixTuningConfig(num_virtual_tokens=3, task_type="CAUSAL_LM"))


def tripled():
    """A model of no known kind: its forward does something after the head that no configuration tells of."""

    class Tripled(LlamaForCausalLM):
        def forward(self, *args, **kwargs):
            output = super().forward(*args, **kwargs)
            output.logits = output.logits * 3
            return output

    model = llama()
    model.__class__ = Tripled
    return model


def gemma2():
    options = {"head_dim": 8, "final_logit_softcapping": 2.0, "attn_logit_softcapping": 5.0, "sliding_window": 8}
    return from_config(Gemma2Config(**SHAPE, **options), attention="eager")


def moe(config_class, **options):
    return from_config(config_class(**SHAPE, **options))


MODELS = {
    "llama": llama,
    "tied embeddings": lambda: from_config(MistralConfig(**{**SHAPE, "tie_word_embeddings": True})),
    "lora": lora,
    "prompt tuning": prompt_tuning,
    "prefix tuning": prefix_tuning,
    "unknown forward": tripled,
    "gemma2, soft-capped": gemma2,
    "cohere, scaled": lambda: from_config(CohereConfig(**SHAPE, logit_scale=0.25)),
    "granite, scaled": lambda: from_config(GraniteConfig(**SHAPE, logits_scaling=4.0)),
    "gpt2": lambda: from_config(
        GPT2Config(vocab_size=VOCABULARY, n_positions=128, n_embd=32, n_layer=2, n_head=4, initializer_range=0.2)
    ),
    "mistral, sliding window": lambda: from_config(MistralConfig(**SHAPE, sliding_window=8)),
    "qwen2, sliding window": lambda: from_config(
        Qwen2Config(**SHAPE, use_sliding_window=True, sliding_window=8, max_window_layers=0)
    ),
    "mixtral": lambda: moe(MixtralConfig, num_local_experts=4, num_experts_per_tok=2),
    "qwen2-moe": lambda: moe(
        Qwen2MoeConfig,
        num_experts=4,
        num_experts_per_tok=2,
        moe_intermediate_size=16,
        shared_expert_intermediate_size=16,
    ),
}


def some_rows(vocabulary=VOCABULARY, n=14, seed=0, longest=40):
    """Token rows of 0 to `longest` tokens with no, one, two spans; at the start, to the end, over all, empty ones."""
    draw = np.random.default_rng(seed)
    ids, spans = [], []
    for row in range(n):
        size = int(draw.integers(8, longest + 1))
        a, b, c, d = sorted(draw.choice(size + 1, 4, replace=False).tolist())
        ids.append(draw.integers(0, vocabulary, size).tolist())
        spans.append([[(a, b), (c, d)], [(0, b)], [(c, size)], [(0, size)], [(b, b), (c, d)], []][row % 6])
    ids += [[5], [7, 8], []]
    spans += [[(0, 1)], [(0, 2)], []]
    return TokenRows.from_lists(ids, spans)


def all_logits(model, ids):
    """Logits at each of the ids, `(length, vocabulary)`; those of learned prompt tokens are left out."""
    with torch.no_grad():
        return model(input_ids=torch.as_tensor(ids, dtype=torch.int64)[None]).logits[0, -len(ids) :]


def naive(model, rows):
    """The twin: row by row, all logits, softmax in float64. `(n, 3)`: loss, tokens, hits."""
    result = np.zeros((len(rows), 3))
    for row, (ids, spans) in enumerate(rows.take(range(len(rows)))):
        if len(ids) == 0:
            continue
        logits = all_logits(model, ids.tolist())
        losses = -torch.log_softmax(logits.double(), -1)
        for start, end in spans.tolist():
            for place in range(max(start, 1), end):
                result[row, 0] += float(losses[place - 1, ids[place]])
                result[row, 1] += 1
                result[row, 2] += int(losses[place - 1].argmin()) == ids[place]
    return result


def scored(model, rows, **options):
    options = {"batch_tokens": 100, "dtype": "float32", **options}
    mean_logit = options.pop("mean_logit", False)
    return np.column_stack(likelihood(model, rows, Runtime(**options), mean_logit=mean_logit))


def count_forwards(model):
    """A list that grows by the number of rows of each forward pass of `model`."""
    seen = []
    model.model.embed_tokens.register_forward_pre_hook(lambda module, args: seen.append(len(args[0])))
    return seen


@pytest.fixture(scope="module")
def model():
    return llama()


@pytest.mark.parametrize("build", MODELS.values(), ids=MODELS)
def test_equals_the_naive_twin(build):
    model, rows = build(), some_rows()
    expected, found = naive(model, rows), scored(model, rows)
    np.testing.assert_array_equal(found[:, 1:], expected[:, 1:])
    np.testing.assert_allclose(found[:, 0], expected[:, 0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["llama", "gemma2, soft-capped", "prompt tuning"])
def test_hits_are_the_tokens_that_the_model_ranks_first(name):
    model, ids = MODELS[name](), [5, 6, 7]
    for step in range(12):
        best = int(all_logits(model, ids)[-1].argmax())
        ids.append(best if step % 3 else (best + 1) % VOCABULARY)
    assert scored(model, TokenRows.from_lists([ids], [[(3, 15)]]))[0, 1:].tolist() == [12, 8]


def way(model):
    inner = model.get_base_model() if hasattr(model, "peft_config") else model
    with torch.no_grad():
        return engine.logits_at(model, inner, torch.device("cpu"), np.zeros(0))[0].__name__


@pytest.mark.parametrize("name", ["llama", "lora", "gemma2, soft-capped", "cohere, scaled", "granite, scaled", "gpt2"])
def test_known_models_take_the_fast_way(name):
    model = MODELS[name]()
    assert way(model) == "fast"


@pytest.mark.parametrize("name", ["prompt tuning", "unknown forward"])
def test_models_that_the_fast_way_would_get_wrong_go_through_their_own_forward(name):
    model = MODELS[name]()
    assert way(model) == "plain"


def rows_of_one_start(length=12, n=24):
    """Most rows begin alike; some begin otherwise, end early, count a token of the start or the one behind it."""
    draw = np.random.default_rng(3)
    start, ids, spans = list(range(3, 3 + length)), [], []
    for _ in range(n):
        size = length + int(draw.integers(4, 20))
        ids.append(start + draw.integers(0, VOCABULARY, size - length).tolist())
        spans.append([(length + 2, size)])
    spans[1], spans[2] = [(length, length + 3)], [(length - 3, length - 1), (length + 2, length + 3)]
    ids[3][2], ids[4], spans[4], spans[5] = 95, ids[4][:5], [(2, 5)], []
    return TokenRows.from_lists(ids, spans)


@pytest.mark.parametrize("build", MODELS.values(), ids=MODELS)
def test_a_start_that_rows_share_changes_no_number(build):
    model, rows = build(), rows_of_one_start()
    assert engine.common_prefix(rows, np.arange(24)).tolist() == list(range(3, 15))
    expected, found = naive(model, rows), scored(model, rows)
    np.testing.assert_array_equal(found[:, 1:], expected[:, 1:])
    np.testing.assert_allclose(found[:, 0], expected[:, 0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["llama", "lora", "gpt2", "mistral, sliding window", "mixtral"])
def test_a_start_that_rows_share_is_computed_once(name):
    model, rows, seen = MODELS[name](), rows_of_one_start(), []
    inner = model.get_base_model() if hasattr(model, "peft_config") else model
    inner.get_input_embeddings().register_forward_hook(lambda module, args, out: seen.append(args[0].numel()))
    likelihood(model, rows, Runtime(batch_tokens=1, dtype="float32"))  # one row a batch: no padding
    proofs = 12 + (12 + 8) + 8
    rest = sum(rows.lengths) - rows.lengths[5] - 12 * 19  # row 5 counts nothing, rows 1 to 4 do not share
    assert sum(seen) == proofs + rest


def test_in_bfloat16_on_a_cpu_a_batch_has_one_of_a_few_shapes_and_no_more_positions_than_the_model(model):
    seen, limit = [], model.config.max_position_embeddings
    model.get_input_embeddings().register_forward_hook(lambda module, args, out: seen.append(args[0].shape[1]))
    model.get_output_embeddings().register_forward_hook(lambda module, args, out: seen.append(args[0].shape[0]))
    rows = TokenRows.from_lists([[3] * size for size in (9, 18, 29, limit)], [[(2, 7)]] * 4)
    likelihood(model, rows, Runtime(batch_tokens=1, dtype="bfloat16"))
    widths = [size for size in seen if size > 1][-8::2]
    assert sorted(widths) == sorted([16, 24, 32, limit]) and seen[-7::2] == [32] * 4


def test_rows_that_share_little_or_that_count_from_the_first_token_have_no_start():
    counted = TokenRows.from_lists([list(range(3, 40))] * 9, [[(0, 37)]] * 9)
    assert len(engine.common_prefix(counted, np.arange(9))) == 0
    assert len(engine.common_prefix(some_rows(), np.arange(14))) == 0
    assert len(engine.common_prefix(TokenRows.from_lists([list(range(20))], [[(15, 20)]]), np.arange(1))) == 0


@pytest.mark.parametrize("batch_tokens", [1, 41, 300, 10**9])
@pytest.mark.parametrize("name", ["llama", "gpt2", "mistral, sliding window", "mixtral", "prompt tuning"])
def test_the_batch_size_does_not_matter(name, batch_tokens):
    model, rows = MODELS[name](), some_rows()
    one, other = scored(model, rows, batch_tokens=60), scored(model, rows, batch_tokens=batch_tokens)
    np.testing.assert_array_equal(one[:, 1:], other[:, 1:])
    np.testing.assert_allclose(one[:, 0], other[:, 0], rtol=1e-5, atol=1e-5)


def test_neither_the_neighbours_nor_the_order_of_a_row_matter(model):
    rows = some_rows(n=12)
    taken = rows.take(range(len(rows)))
    order = np.random.default_rng(0).permutation(len(rows))
    shuffled = TokenRows.from_lists([taken[i][0].tolist() for i in order], [taken[i][1].tolist() for i in order])
    np.testing.assert_allclose(scored(model, shuffled), scored(model, rows)[order], rtol=1e-5, atol=1e-5)


def test_tokens_behind_the_counted_ones_do_not_matter(model):
    ids = list(range(3, 23))
    rows = TokenRows.from_lists([ids, ids + [1] * 30, ids + [9] * 7], [[(4, 20)]] * 3)
    found = scored(model, rows)
    np.testing.assert_allclose(found, found[[0, 0, 0]], rtol=1e-6)


def test_the_pad_token_makes_no_difference(model):
    rows = some_rows()
    expected = scored(model, rows)
    other = copy.deepcopy(model)
    other.config.pad_token_id = None
    np.testing.assert_allclose(scored(other, rows), expected, rtol=1e-6)


def test_a_span_is_the_sum_of_its_parts(model):
    ids = list(range(3, 43))
    parts = [[(0, 9)], [(9, 10)], [(10, 40)], [(0, 40)], [(0, 9), (9, 10), (10, 40)]]
    found = scored(model, TokenRows.from_lists([ids] * 5, parts))
    np.testing.assert_allclose(found[:3].sum(0), found[3], rtol=1e-6)
    np.testing.assert_allclose(found[4], found[3], rtol=1e-9)


def test_the_token_at_position_zero_is_never_counted(model):
    found = scored(model, TokenRows.from_lists([[5, 6, 7], [5], [5, 6, 7]], [[(0, 3)], [(0, 1)], [(1, 3)]]))
    assert found[:, 1].tolist() == [2, 0, 2]
    np.testing.assert_allclose(found[0], found[2], rtol=1e-6)


def test_a_span_beyond_the_row_ends_with_the_row(model):
    found = scored(model, TokenRows.from_lists([[5, 6, 7]] * 2, [[(1, 99)], [(1, 3)]]))
    np.testing.assert_allclose(found[0], found[1], rtol=1e-6)


def test_rows_without_counted_tokens_cost_no_forward_and_have_no_mean():
    model = llama()
    found = likelihood(model, TokenRows.from_lists([[3, 4], [5], []], [[], [(0, 1)], []]), Runtime(dtype="float32"))
    assert found.tokens.tolist() == [0, 0, 0] and found.loss.tolist() == [0, 0, 0]
    assert np.isnan(found.mean_loss).all()
    seen = count_forwards(model)
    likelihood(model, TokenRows.from_lists([[3, 4]] * 5, [[]] * 5), Runtime(dtype="float32"))
    assert seen in ([], [1, 1]), "only the probe row may be computed"


def test_mean_loss_is_loss_by_tokens(model):
    found = likelihood(model, some_rows(), Runtime(dtype="float32"))
    counted = found.tokens > 0
    np.testing.assert_array_equal(found.mean_loss[counted], found.loss[counted] / found.tokens[counted])


@pytest.mark.parametrize("name", ["llama", "prompt tuning"])
def test_the_slices_of_the_head_do_not_matter(name, monkeypatch):
    model, rows = MODELS[name](), some_rows()
    expected = scored(model, rows, batch_tokens=10**6)
    monkeypatch.setattr(engine, "LOGIT_BYTES", {"cpu": 1})  # the least slice: 16 positions
    found = scored(model, rows, batch_tokens=10**6)
    np.testing.assert_array_equal(found[:, 1:], expected[:, 1:])
    np.testing.assert_allclose(found[:, 0], expected[:, 0], rtol=1e-6)


@pytest.mark.parametrize("name", ["llama", "lora", "gemma2, soft-capped"])
def test_bfloat16_is_close(name):
    model, rows = MODELS[name](), some_rows()
    exact, found = scored(model, rows), scored(model, rows, dtype="bfloat16")
    counted = exact[:, 1] > 0
    error = np.abs(found - exact)[counted, 0] / exact[counted, 1]
    assert 0 < error.max() < 0.2, "nats a token"
    np.testing.assert_array_equal(found[:, 1], exact[:, 1])


def test_nan_logits_give_nan_for_their_rows_only_and_no_error():
    model = llama()
    with torch.no_grad():
        model.model.embed_tokens.weight[77] = torch.nan
    rows = TokenRows.from_lists([[3, 4, 5, 6], [3, 77, 5, 6], [3, 4]], [[(1, 4)], [(1, 4)], [(1, 2)]])
    found = scored(model, rows)
    assert np.isnan(found[:, 0]).tolist() == [False, True, False]
    assert found[:, 1].tolist() == [3, 3, 1] and not np.isnan(found[:, 2]).any()
    with torch.no_grad():
        model.lm_head.weight[:] = torch.nan
    assert np.isnan(scored(model, rows)[:, 0]).all()


def out_of_memory_above(model, tokens):
    layer = model.get_base_model().model.layers[0] if hasattr(model, "peft_config") else model.model.layers[0]

    def refuse(module, args, kwargs):
        hidden = args[0] if args else kwargs["hidden_states"]
        if hidden.shape[0] * hidden.shape[1] > tokens:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")

    return layer.register_forward_pre_hook(refuse, with_kwargs=True)


@pytest.mark.parametrize("name", ["llama", "lora"])
def test_running_out_of_memory_changes_no_number_and_a_row_that_never_fits_is_nan(name, monkeypatch):
    monkeypatch.setattr(batching, "gc", SimpleNamespace(collect=lambda: None))  # slow, and of no matter here
    model, rows = MODELS[name](), some_rows(n=8)
    expected = scored(model, rows)
    handle = out_of_memory_above(model, 80)
    np.testing.assert_allclose(scored(model, rows, batch_tokens=10**6), expected, rtol=1e-5, atol=1e-5)
    handle.remove()
    out_of_memory_above(model, 20)
    found = scored(model, rows, batch_tokens=10**6)
    # Rows that count nothing cost no forward and so always fit.
    fits = (rows.lengths <= 20) | (expected[:, 1] == 0)
    assert 0 < fits.sum() < len(fits)
    assert np.isnan(found[~fits]).all()
    np.testing.assert_allclose(found[fits], expected[fits], rtol=1e-5, atol=1e-5)


def modes(model):
    return [(name, module.training) for name, module in model.named_modules()]


def strange_modes(model):
    """Training mode for some modules, eval for others, gradient checkpointing on: as a user may have it."""
    model.train()
    next(module for name, module in model.named_modules() if name.endswith("layers.1")).eval()
    return model


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", ["llama", "lora", "prompt tuning", "tied embeddings"])
def test_model_modes_and_weights_are_bit_for_bit_as_before_also_after_an_exception(name, dtype):
    model, rows = strange_modes(MODELS[name]()), some_rows()
    weights = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    places = {key: parameter.data_ptr() for key, parameter in model.named_parameters()}
    before = model_identity(model), modes(model), [p.requires_grad for p in model.parameters()]

    def check():
        assert (model_identity(model), modes(model), [p.requires_grad for p in model.parameters()]) == before
        assert all(torch.equal(tensor, weights[key]) for key, tensor in model.state_dict().items())
        assert {key: parameter.data_ptr() for key, parameter in model.named_parameters()} == places
        assert all(parameter.grad is None for parameter in model.parameters())

    scored(model, rows, dtype=dtype)
    check()
    layer = next(module for name, module in model.named_modules() if name.endswith("layers.1"))

    def fail(*_):
        raise RuntimeError("not today")

    handle = layer.register_forward_pre_hook(fail)
    with pytest.raises(RuntimeError, match="not today"):
        scored(model, rows, dtype=dtype)
    handle.remove()
    check()


def test_dropout_and_gradient_checkpointing_are_off_while_scoring():
    config = GPT2Config(
        vocab_size=VOCABULARY, n_positions=128, n_embd=32, n_layer=2, n_head=4, resid_pdrop=0.5, embd_pdrop=0.5
    )
    model, rows = from_config(config), some_rows()
    expected = scored(model, rows)
    model.train()
    model.gradient_checkpointing_enable()
    np.testing.assert_allclose(scored(model, rows), expected, rtol=1e-6)
    assert model.is_gradient_checkpointing and model.training


def test_no_gradients_are_prepared():
    model, enabled = llama(), []
    model.lm_head.register_forward_pre_hook(lambda *_: enabled.append(torch.is_grad_enabled()))
    scored(model, some_rows())
    assert enabled and not any(enabled)


@pytest.mark.parametrize("bits", [4, 8])
def test_quantized_models_are_scored_and_left_as_they_are(bits, tmp_path):
    plain = tiny_model(tiny_tokenizer(), hidden=64)
    plain.save_pretrained(tmp_path)
    options = BitsAndBytesConfig(load_in_4bit=bits == 4, load_in_8bit=bits == 8, bnb_4bit_quant_type="nf4")
    quantized = AutoModelForCausalLM.from_pretrained(
        tmp_path, quantization_config=options, dtype=torch.float32, device_map="cpu"
    )
    rows, identity = some_rows(n=6), model_identity(quantized)
    found = scored(quantized, rows, dtype="auto")
    assert model_identity(quantized) == identity != model_identity(plain)
    # Named or not, a quantized model keeps its dtype.
    np.testing.assert_allclose(scored(quantized, rows, dtype="bfloat16"), found, rtol=1e-6)
    with evaluating(quantized):
        expected = naive(quantized, rows)
    np.testing.assert_array_equal(found[:, 1], expected[:, 1])
    # The 8-bit product rounds activations, by a different scale a batch.
    np.testing.assert_allclose(found[:, 0], expected[:, 0], rtol=1e-5 if bits == 4 else 2e-2, atol=1e-5)


def masked_vocabulary():
    """Logits of some tokens are -inf, which only the model's own forward knows."""

    class Masked(LlamaForCausalLM):
        def forward(self, *args, **kwargs):
            output = super().forward(*args, **kwargs)
            output.logits[..., 50:] = -torch.inf
            return output

    model = llama()
    model.__class__ = Masked
    return model


def activated():
    """An adapter that acts only after certain tokens, which its own forward looks for."""
    return adapted(LoraConfig(r=4, target_modules=["q_proj"], alora_invocation_tokens=[7, 8], task_type="CAUSAL_LM"))


@pytest.mark.parametrize("build", [masked_vocabulary, activated])
def test_what_only_the_whole_forward_knows_is_in_the_losses(build):
    model, ids = build(), [[5, 6, 7, 8, 9, 10, 11, 12], [13, 14, 15, 16, 17, 18, 7, 8, 19, 20]]
    found = likelihood(model, TokenRows.from_lists(ids, [[(2, len(row))] for row in ids]), Runtime(dtype="float32"))
    for row, loss in zip(ids, found.loss, strict=True):
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([row])).logits[0, 1:-1]
        expected = torch.nn.functional.cross_entropy(logits, torch.tensor(row[2:]), reduction="sum")
        assert loss == pytest.approx(float(expected), rel=1e-5)


def test_logits_are_the_same_up_to_rounding_with_infinite_ones_at_the_same_places():
    own = torch.tensor([[1.0, -torch.inf, 3.0]])
    assert engine.same_logits(own, own + 1e-5) and not engine.same_logits(own, own + 1e-2)
    assert engine.same_logits(own.bfloat16(), own + 1e-2)
    assert not engine.same_logits(own, torch.tensor([[1.0, 2.0, 3.0]]))
    assert not engine.same_logits(torch.full((1, 3), torch.nan), torch.full((1, 3), torch.nan))
