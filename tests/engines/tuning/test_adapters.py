"""Whose weights the warm-up borrows: adapters of every kind, and models that not every layer of can get one."""

import peft
import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, MambaConfig, TrainerCallback

from hf_dataselect.engines.forward.likelihood import likelihood
from hf_dataselect.engines.runtime.runtime import Runtime
from hf_dataselect.engines.runtime.token_rows import TokenRows
from hf_dataselect.engines.tuning.temporary_weights import check_tunable
from hf_dataselect.engines.tuning.warm_up import WarmupSettings, warmed_up
from tests.rows import layout
from tests.tiny import tiny_model, tiny_tokenizer


TOKENIZER = tiny_tokenizer()
TEXTS = [TOKENIZER(row["prompt"] + row["completion"])["input_ids"] for row in layout("prompt-completion", 8)]
ROWS = TokenRows.from_lists(TEXTS, [[(len(ids) // 2, len(ids))] for ids in TEXTS])
SETTINGS = WarmupSettings(learning_rate=1e-2, batch_size=4, gradient_accumulation=1, lora_r=4)
LAYERS = {"target_modules": ["q_proj", "v_proj"], "task_type": "CAUSAL_LM"}
PROMPT = {"num_virtual_tokens": 4, "task_type": "CAUSAL_LM"}
KINDS = {
    "PiSSA": ("LoraConfig", {"init_lora_weights": "pissa", **LAYERS}),
    "OLoRA": ("LoraConfig", {"init_lora_weights": "olora", **LAYERS}),
    "DoRA": ("LoraConfig", {"use_dora": True, "use_rslora": True, **LAYERS}),
    "LoRA, a head and biases": ("LoraConfig", {"modules_to_save": ["lm_head"], "bias": "all", **LAYERS}),
    "LoRA on parameters": ("LoraConfig", {**LAYERS, "target_modules": [], "target_parameters": ["down_proj.weight"]}),
    "AdaLoRA": ("AdaLoraConfig", {"total_step": 20, **LAYERS}),
    "IA3": ("IA3Config", {"feedforward_modules": ["v_proj"], **LAYERS}),
    "VeRA": ("VeraConfig", {"r": 4, **LAYERS}),
    "LoHa": ("LoHaConfig", {"r": 4, **LAYERS}),
    "prompt tuning": ("PromptTuningConfig", PROMPT),
    "prefix tuning": ("PrefixTuningConfig", PROMPT),
    "Shadow": ("ShadowConfig", {"task_type": "CAUSAL_LM"}),
}


def plain():
    return tiny_model(TOKENIZER, hidden=32)


def tensors(model):
    return {name: tensor.detach().clone() for name, tensor in (*model.named_parameters(), *model.named_buffers())}


def loss(model):
    found = likelihood(model, ROWS, Runtime(dtype="float32"))
    return found.loss.sum() / found.tokens.sum()


def tuned_and_restored(model):
    """Loss before, while tuned and afterwards; all tensors are as before, bit for bit."""
    before, own = tensors(model), loss(model)
    trainable = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    with warmed_up(model, TOKENIZER, ROWS, SETTINGS, Runtime()) as tuned:
        during = loss(tuned)
    after = tensors(model)
    assert list(after) == list(before)
    assert [name for name in before if not torch.equal(before[name], after[name])] == []
    assert [name for name, parameter in model.named_parameters() if parameter.requires_grad] == trainable
    return own, during, loss(model)


@pytest.mark.parametrize("kind", KINDS)
def test_an_adapter_of_any_kind_is_tuned_and_comes_back_with_its_base(kind):
    name, options = KINDS[kind]
    if not hasattr(peft, name):
        pytest.skip(f"this PEFT has no {name}")
    torch.manual_seed(0)
    model = get_peft_model(plain(), getattr(peft, name)(**options))
    own, during, again = tuned_and_restored(model)
    assert during < own - 1e-4 and again == own


def test_what_else_the_user_trains_comes_back_too():
    model = get_peft_model(plain(), LoraConfig(r=4, **LAYERS))
    model.get_base_model().model.norm.weight.requires_grad_(True)
    own, during, again = tuned_and_restored(model)
    assert during < own and again == own


def test_an_adapter_that_transformers_added_is_tuned_itself():
    torch.manual_seed(0)
    model = plain()
    model.add_adapter(LoraConfig(r=4, init_lora_weights=False, **LAYERS))
    names = [name for name, _ in model.named_modules()]
    own, during, again = tuned_and_restored(model)
    assert during < own and again == own and [name for name, _ in model.named_modules()] == names


def test_an_adapter_without_trainable_weights_is_refused():
    model = get_peft_model(plain(), peft.PromptTuningConfig(**PROMPT)).requires_grad_(False)
    with pytest.raises(ValueError, match=r"`warmup: lora`.*PROMPT_TUNING.*`is_trainable=True`"):
        check_tunable(model, SETTINGS)


def mamba():
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "state_size": 4, "initializer_range": 0.2}
    ids = {"vocab_size": len(TOKENIZER), "pad_token_id": 0, "eos_token_id": 2, "bos_token_id": None}
    return AutoModelForCausalLM.from_config(MambaConfig(**sizes, **ids))


def test_all_linear_leaves_out_what_peft_refuses():
    model = mamba()
    before, types = tensors(model), [type(module) for module in model.modules()]
    with warmed_up(model, TOKENIZER, ROWS, SETTINGS, Runtime()) as tuned:
        adapted = {name.split(".lora_A")[0].split(".")[-1] for name, _ in tuned.named_parameters() if "lora_A" in name}
        during = loss(tuned)
    assert adapted == {"in_proj", "x_proj", "dt_proj"} and during < loss(model)
    assert all(torch.equal(tensor, before[name]) for name, tensor in tensors(model).items())
    assert [type(module) for module in model.modules()] == types


@pytest.mark.parametrize("targets", [("in_proj", "out_proj"), ("in_proj", "norm"), ("is_gone",)])
def test_layers_that_take_no_adapter_are_refused_and_peft_s_half_of_the_work_is_undone(targets):
    model = mamba()
    modules, attributes = [*model.named_modules()], set(vars(model))
    settings = WarmupSettings(**{**vars(SETTINGS), "lora_targets": targets})
    with pytest.raises(ValueError, match=r"`lora_targets=\[.*\]` do not fit .*all-linear.*`warmup`, `full`"):
        check_tunable(model, settings)
    assert [*model.named_modules()] == modules and set(vars(model)) == attributes
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_the_warm_up_shows_no_training_run_of_its_own(monkeypatch, capsys):
    shown = []

    class Table(TrainerCallback):
        def on_train_begin(self, *args, **kwargs):
            shown.append("begin")

        def on_log(self, *args, **kwargs):
            shown.append("log")

    from transformers import DefaultFlowCallback

    monkeypatch.setattr("transformers.trainer.DEFAULT_PROGRESS_CALLBACK", Table)
    monkeypatch.setattr("transformers.trainer.DEFAULT_CALLBACKS", [DefaultFlowCallback, Table])
    model = plain()
    with warmed_up(model, TOKENIZER, ROWS, SETTINGS, Runtime()) as tuned:
        assert loss(tuned) < loss(plain()) - 0.01
    assert not shown and "train_loss" not in capsys.readouterr().out


def test_a_warm_up_whose_weights_are_not_finite_is_named_and_not_kept(tmp_path):
    model = plain()
    with torch.no_grad():
        model.lm_head.weight[9] = float("inf")
    lent = warmed_up(model, TOKENIZER, ROWS, SETTINGS, Runtime(cache_dir=tmp_path))
    with pytest.raises(ValueError, match="weights are not finite after the warm-up"), lent:
        pass
    assert not any((tmp_path / "warmup").iterdir())
