import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState
from accelerate.utils import GradientAccumulationPlugin
from torch import nn
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from hf_dataselect.engines.runtime.model_state import (
    cast,
    evaluating,
    preserved,
    preserved_accelerate_state,
    preserved_random_state,
    scoring_dtype,
    unprepared,
)
from tests.tiny import tiny_model, tiny_tokenizer


def tiny():
    return tiny_model(tiny_tokenizer(), hidden=32)


def draws():
    return random.random(), float(np.random.rand()), float(torch.rand(()))


def seed_all(seed):
    random.seed(seed), np.random.seed(seed), torch.manual_seed(seed)


def hooks(model):
    names = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks")
    return [[list(getattr(module, name)) for name in names] for module in model.modules()]


def described(model):
    """All that `preserved` promises, in comparable form."""
    return (
        [(name, module.training) for name, module in model.named_modules()],
        [getattr(module, "gradient_checkpointing", None) for module in model.modules()],
        [getattr(module, "_gradient_checkpointing_func", None) for module in model.modules()],
        [vars(module).get("forward") for module in model.modules()],
        hooks(model),
        [(name, parameter.requires_grad) for name, parameter in model.named_parameters()],
        [None if parameter.grad is None else parameter.grad.data_ptr() for parameter in model.parameters()],
        dict(vars(model.config)),
        dict(vars(model.generation_config)),
        sorted(name for module in model.modules() for name in vars(module)),
    )


def disturb(model):
    """What a careless selector may do."""
    model.eval()
    model.model.layers[0].train()
    model.gradient_checkpointing_enable()
    model.enable_input_require_grads()
    model.config.use_cache = not model.config.use_cache
    model.config.bos_token_id = model.generation_config.eos_token_id = 77
    model.generation_config.new = 1
    model._is_accelerate_prepared = True
    model.requires_grad_(False)
    model.lm_head.weight.requires_grad_(True)
    model.lm_head.weight.grad = torch.ones_like(model.lm_head.weight)
    model.model.norm.register_forward_hook(lambda *_: None)
    model.lm_head.register_full_backward_hook(lambda *_: None)
    model.forward = lambda *_, **__: None
    model.model.embed_tokens._forward_hooks.clear()
    seed_all(99)
    draws()


def used_model(checkpointing):
    model = tiny().train()
    model.model.layers[1].eval()
    model.model.norm.weight.requires_grad_(False)
    model.lm_head.weight.grad = torch.zeros_like(model.lm_head.weight)
    model.model.embed_tokens.register_forward_hook(lambda *_: None)
    if checkpointing:
        model.gradient_checkpointing_enable()
    return model


@pytest.mark.parametrize("fails", [False, True], ids=["", "after an exception"])
@pytest.mark.parametrize("checkpointing", [False, True], ids=["", "gradient checkpointing"])
def test_modes_flags_hooks_gradients_and_random_state_come_back(checkpointing, fails):
    model = used_model(checkpointing)
    before = described(model)
    seed_all(1)
    expected = draws()
    seed_all(1)
    try:
        with preserved(model):
            disturb(model)
            assert described(model) != before
            if fails:
                raise RuntimeError("in the middle")
    except RuntimeError:
        assert fails
    assert described(model) == before
    assert draws() == expected


def test_a_patched_forward_is_taken_off_and_the_user_s_own_is_kept():
    model = tiny()
    with preserved(model):
        model.forward = lambda *_: None
    assert "forward" not in vars(model)
    own = model.forward = lambda *_: None
    with preserved(model):
        model.forward = lambda *_: 1
    assert model.forward is own


def test_hooks_given_before_can_still_be_removed_afterwards():
    model, calls = tiny(), []
    handle = model.lm_head.register_forward_hook(lambda *_: calls.append(1))
    with preserved(model):
        model.lm_head._forward_hooks.clear()
    model.lm_head(torch.zeros(1, 32))
    handle.remove()
    model.lm_head(torch.zeros(1, 32))
    assert calls == [1]


def test_hidden_states_are_still_given_afterwards():
    model, ids = tiny_model(tiny_tokenizer()), torch.tensor([[5, 6, 7]])
    with preserved(model), torch.no_grad():
        inside = model(ids, output_hidden_states=True).hidden_states
    with torch.no_grad():
        outside = model(ids, output_hidden_states=True).hidden_states
    assert len(outside) == len(inside) == 3 and torch.equal(outside[-1], inside[-1])


def test_without_a_model_the_random_state_alone_comes_back():
    seed_all(3)
    expected = draws()
    seed_all(3)
    with preserved(None):
        draws()
    assert draws() == expected
    seed_all(3)
    with pytest.raises(RuntimeError), preserved_random_state():
        seed_all(4)
        raise RuntimeError
    assert draws() == expected


def test_evaluating_turns_dropout_off_and_gives_each_module_its_mode_back():
    model = nn.Sequential(nn.Dropout(0.5), nn.Sequential(nn.Dropout(0.5), nn.Linear(4, 4)))
    model[1].eval()
    before = [module.training for module in model.modules()]
    with evaluating(model) as lent:
        assert lent is model and not any(module.training for module in model.modules())
        torch.testing.assert_close(model(torch.ones(2, 4))[0], model(torch.ones(2, 4))[1])
    assert [module.training for module in model.modules()] == before
    with pytest.raises(RuntimeError), evaluating(model):
        raise RuntimeError
    assert [module.training for module in model.modules()] == before


def four_bit(folder):
    tiny_model(tiny_tokenizer(), hidden=128).save_pretrained(folder)
    options = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4")
    return AutoModelForCausalLM.from_pretrained(folder, quantization_config=options, device_map="cpu")


def test_evaluating_does_not_let_a_cpu_repack_four_bit_weights(tmp_path):
    model = four_bit(tmp_path)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with torch.no_grad(), evaluating(model):
        model(input_ids=torch.arange(3, 40)[None])
    after = model.state_dict()
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())


@pytest.mark.parametrize("fails", [False, True], ids=["", "after an exception"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64, torch.float32])
def test_cast_weights_come_back_bit_for_bit_in_their_own_memory(dtype, fails):
    model = tiny()
    model.tie = model.lm_head.weight  # one tensor under two names
    model.model.norm.to(torch.float16)
    before = {name: (p, p.data_ptr(), p.dtype, p.detach().clone()) for name, p in model.named_parameters()}
    buffers = {name: (buffer.data_ptr(), buffer.dtype) for name, buffer in model.named_buffers()}
    try:
        with cast(model, dtype) as lent:
            assert lent is model and {p.dtype for p in model.parameters()} == {dtype}
            assert model.tie is model.lm_head.weight
            if fails:
                raise RuntimeError("in the middle")
    except RuntimeError:
        assert fails
    assert {name: (buffer.data_ptr(), buffer.dtype) for name, buffer in model.named_buffers()} == buffers
    for name, parameter in model.named_parameters():
        same, place, own, value = before[name]
        assert parameter is same and parameter.data_ptr() == place and parameter.dtype == own
        assert torch.equal(parameter, value)


def accumulator(parameter):
    """The node of autograd that adds up a parameter's gradient."""
    return parameter.view_as(parameter).grad_fn.next_functions[0][0]


def test_hooks_on_the_sums_of_gradients_are_called_after_a_cast():
    model, calls = tiny(), []
    model.lm_head.weight = model.model.embed_tokens.weight  # tied
    nodes = [accumulator(parameter) for parameter in model.parameters()]
    for node in nodes:
        node.register_hook(lambda *_: calls.append(1))
    with cast(model, torch.bfloat16):
        assert model.lm_head.weight is model.model.embed_tokens.weight
        model.requires_grad_(False)
    assert all(parameter.requires_grad for parameter in model.parameters())
    model(input_ids=torch.tensor([[3, 4, 5]])).logits.sum().backward()
    assert [accumulator(parameter) for parameter in model.parameters()] == nodes and len(calls) == len(nodes)


def prepared(model):
    AcceleratorState._reset_state()
    return Accelerator(cpu=True, mixed_precision="bf16").prepare_model(model, evaluation_mode=True)


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("patched", [False, True], ids=["", "patched by the user"])
def test_a_prepared_model_is_lent_without_autocast_and_comes_back_prepared(patched, times):
    model, ids, calls = tiny(), torch.tensor([[3, 4, 5]]), []
    if patched:
        own = model.forward

        def counted(*given, **options):
            calls.append(1)
            return own(*given, **options)

        model.forward = counted
    with torch.no_grad(), preserved_accelerate_state():
        expected = model(input_ids=ids).logits
        for _ in range(times):  # as after a second training, with the mark on DDP
            vars(prepared(model)).pop("_is_accelerate_prepared")
        model._is_accelerate_prepared = True
        before = dict(vars(model))
        coarse = model(input_ids=ids).logits
        with unprepared(model):
            assert torch.equal(model(input_ids=ids).logits, expected)
            assert vars(model).keys().isdisjoint({"_is_accelerate_prepared", "_original_forward"})
            assert ("forward" in vars(model)) == patched
        with cast(model, torch.float32):
            assert torch.equal(model(input_ids=ids).logits, expected)
        with pytest.raises(RuntimeError), unprepared(model):
            raise RuntimeError
        assert vars(model) == before and not torch.equal(coarse, expected)
        assert torch.equal(model(input_ids=ids).logits, coarse)
    assert len(calls) == (5 if patched else 0)


def test_a_forward_that_the_user_patched_and_kept_under_accelerates_name_stays():
    model, ids = tiny(), torch.tensor([[3, 4, 5]])
    layer = model.model.layers[0].mlp
    layer._original_forward = layer.forward
    layer.forward = lambda hidden: 3 * layer._original_forward(hidden)
    with torch.no_grad():
        expected = model(input_ids=ids).logits
        with unprepared(model), cast(model, torch.float32):
            assert torch.equal(model(input_ids=ids).logits, expected)
        assert torch.equal(model(input_ids=ids).logits, expected)


def test_modules_that_list_their_weights_besides_are_cast_too():
    layer, given = nn.LSTM(4, 4), torch.ones(2, 4)
    with torch.no_grad():
        expected = layer(given)[0]
        with cast(layer, torch.float64):
            assert layer(given.double())[0].dtype == torch.float64
        assert torch.equal(layer(given)[0], expected)
    assert layer._flat_weights[0] is layer.weight_ih_l0


def test_another_accelerator_leaves_the_shared_state_as_it_was():
    with preserved_accelerate_state():
        AcceleratorState._reset_state()
        GradientState._reset_state()
        plugin = GradientAccumulationPlugin(num_steps=2, sync_each_batch=True)
        own = Accelerator(cpu=True, mixed_precision="bf16", gradient_accumulation_plugin=plugin)
        before = dict(AcceleratorState._shared_state), dict(GradientState._shared_state)
        with pytest.raises(RuntimeError), preserved(None):
            AcceleratorState._reset_state()
            Accelerator(cpu=True, gradient_accumulation_steps=4)
            assert own.mixed_precision == "no"
            raise RuntimeError
        assert (dict(AcceleratorState._shared_state), dict(GradientState._shared_state)) == before
        assert own.mixed_precision == "bf16" and own.gradient_state.plugin_kwargs["sync_each_batch"]


def test_cast_to_the_dtype_at_hand_copies_nothing_and_whole_numbers_stay():
    model = tiny()
    model.flags = nn.Parameter(torch.zeros(3, dtype=torch.uint8), requires_grad=False)
    places = [parameter.data_ptr() for parameter in model.parameters()]
    with cast(model, torch.float32):
        assert [parameter.data_ptr() for parameter in model.parameters()] == places
    with cast(model, torch.bfloat16):
        assert model.flags.dtype == torch.uint8


def test_the_dtype_to_score_in_is_the_one_asked_for_or_the_fast_one(monkeypatch):
    model = tiny()
    for fast, expected in ((True, torch.bfloat16), (False, torch.float32)):
        monkeypatch.setattr(
            "hf_dataselect.engines.runtime.model_state.has_fast_bfloat16", lambda device, fast=fast: fast
        )
        assert scoring_dtype(model) == expected
        assert scoring_dtype(model, "float16") == torch.float16
        assert scoring_dtype(model, "float32") == torch.float32
    monkeypatch.setattr("hf_dataselect.engines.runtime.model_state.has_fast_bfloat16", lambda device: True)
    assert scoring_dtype(tiny().half()) == torch.float16
    assert scoring_dtype(tiny().bfloat16(), "float32") == torch.float32
    quantized = SimpleNamespace(dtype=torch.float16, is_quantized=True)
    assert scoring_dtype(quantized, "float32") == scoring_dtype(quantized) == torch.float16
