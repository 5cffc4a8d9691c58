import random
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors import SafetensorError
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from hf_dataselect.engines.forward.likelihood import likelihood
from hf_dataselect.engines.runtime.runtime import Runtime
from hf_dataselect.engines.runtime.token_rows import TokenRows
from hf_dataselect.engines.store import tensors
from hf_dataselect.engines.store.identity import model_identity
from hf_dataselect.engines.tuning import warm_up as warmup
from hf_dataselect.engines.tuning.warm_up import WarmupSettings, warmed_up
from tests.processes import start_ranks
from tests.rows import layout
from tests.tiny import tiny_model, tiny_tokenizer


#: Declares a BOS token that the model's configuration does not know: `Trainer` writes it into the configuration.
TOKENIZER = tiny_tokenizer(bos=True)
TEXTS = [TOKENIZER(row["prompt"] + row["completion"])["input_ids"] for row in layout("prompt-completion", 16)]
ROWS = TokenRows.from_lists(TEXTS, [[(len(ids) // 2, len(ids))] for ids in TEXTS])
SETTINGS = WarmupSettings(learning_rate=1e-2, batch_size=4, gradient_accumulation=1, lora_r=4)
FULL = WarmupSettings(method="full", learning_rate=3e-3, batch_size=4, gradient_accumulation=1)


def plain():
    return tiny_model(tiny_tokenizer(), hidden=32)


def user_adapter():
    """A `PeftModel` with two adapters under names of the user's, on some layers only, trained a little."""
    torch.manual_seed(0)
    options = {"target_modules": ["q_proj", "down_proj"], "task_type": "CAUSAL_LM"}
    model = get_peft_model(plain(), LoraConfig(r=2, **options), adapter_name="other")
    model.add_adapter("mine", LoraConfig(r=3, lora_alpha=5, **options))
    model.set_adapter("mine")
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.05)
    return model


def loaded_adapter(folder):
    """As a user gets it from a folder: not trainable."""
    user_adapter().save_pretrained(folder / "adapter", selected_adapters=["mine"])
    return PeftModel.from_pretrained(plain(), folder / "adapter" / "mine")


def quantized(folder):
    tiny_model(tiny_tokenizer(), hidden=64).save_pretrained(folder / "model")
    options = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4")
    return AutoModelForCausalLM.from_pretrained(
        folder / "model", quantization_config=options, dtype=torch.float32, device_map="cpu"
    )


def quantized_adapter(folder):
    """TRL casts its weights for training."""
    return get_peft_model(quantized(folder), LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM"))


KINDS = {
    "lora": (lambda folder: plain(), SETTINGS),
    "full": (lambda folder: plain(), FULL),
    "the user's adapter": (lambda folder: user_adapter(), SETTINGS),
    "the user's adapter, loaded": (loaded_adapter, SETTINGS),
    "4-bit": (quantized, SETTINGS),
    "the user's adapter, 4-bit": (quantized_adapter, SETTINGS),
}


def strange(model):
    """Modes, flags and hooks as a user may have left them."""
    model.train()
    inner = model.get_base_model() if hasattr(model, "peft_config") else model
    inner.model.layers[1].eval()
    inner.model.norm.weight.requires_grad_(False)
    inner.gradient_checkpointing_enable()
    inner.enable_input_require_grads()
    inner.lm_head.register_forward_hook(lambda *_: None)
    inner.config.use_cache = False
    return model


def described(model):
    """All that has to be as before, besides the weights, in comparable form."""
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks")
    ignored = {"model_tags", "compute_type_is_set"}  # the tags of a model card; what bitsandbytes notes at first use
    return {
        "parameter names": [name for name, _ in model.named_parameters()],
        "module names and types": [(name, type(module)) for name, module in model.named_modules()],
        "requires_grad": [parameter.requires_grad for parameter in model.parameters()],
        "grad": [parameter.grad for parameter in model.parameters()],
        "modes": [module.training for module in model.modules()],
        "gradient checkpointing": [getattr(module, "gradient_checkpointing", None) for module in model.modules()],
        "hooks": [[list(getattr(module, name)) for name in hooks] for module in model.modules()],
        "forward": [vars(module).get("forward") for module in model.modules()],
        "attributes": [sorted(set(vars(module)) - ignored) for module in model.modules()],
        "config": str(model.config.to_dict()),
        "generation config": str(model.generation_config),
        "adapters": {name: str(config) for name, config in getattr(model, "peft_config", {}).items()},
        "active adapter": str(getattr(model, "active_adapter", None)) if hasattr(model, "peft_config") else None,
    }


def weights(model):
    return {name: value.detach().clone() for name, value in model.state_dict().items() if torch.is_tensor(value)}


def loss(model):
    """Mean loss of the tokens that the warm-up is on."""
    found = likelihood(model, ROWS, Runtime(dtype="float32"))
    return found.loss.sum() / found.tokens.sum()


def draws():
    return random.random(), float(np.random.rand()), float(torch.rand(()))


def seed_all(seed):
    random.seed(seed), np.random.seed(seed), torch.manual_seed(seed)


@pytest.fixture(scope="module", params=KINDS.items(), ids=KINDS)
def borrowed(request, tmp_path_factory):
    """What a model was like before it was lent out, tuned, and after it came back."""
    build, settings = request.param[1]
    folder = tmp_path_factory.mktemp("warmup")
    model = strange(build(folder))
    seed_all(5)
    expected = draws()
    seed_all(5)
    before, own, own_loss, identity = described(model), weights(model), loss(model), model_identity(model)
    with warmed_up(model, TOKENIZER, ROWS, settings, Runtime(cache_dir=folder)) as tuned:
        tuned_loss = loss(tuned)
    drawn = draws()
    return SimpleNamespace(
        kind=request.param[0],
        model=model,
        tuned=tuned,
        before=before,
        after=described(model),
        weights=(own, weights(model)),
        losses=(own_loss, tuned_loss, loss(model)),
        identities=(identity, model_identity(model)),
        draws=(expected, drawn),
    )


def test_weights_come_back_bit_for_bit(borrowed):
    before, after = borrowed.weights
    assert list(before) == list(after)
    assert all(
        torch.equal(tensor, after[name]) and tensor.dtype == after[name].dtype for name, tensor in before.items()
    )
    assert borrowed.identities[0] == borrowed.identities[1]


def test_names_modes_flags_hooks_settings_and_adapters_come_back(borrowed):
    for what, value in borrowed.before.items():
        assert borrowed.after[what] == value, what


def test_the_random_state_comes_back(borrowed):
    assert borrowed.draws[0] == borrowed.draws[1]


def test_the_tuned_model_knows_its_rows_better_and_the_returned_one_as_before(borrowed):
    before, tuned, after = borrowed.losses
    assert tuned < before - 0.02
    assert after == pytest.approx(before, rel=1e-9)


def test_the_tuned_adapter_starts_as_the_user_s_active_one_and_no_other_is_made(monkeypatch):
    monkeypatch.setattr(warmup, "_train", lambda *_: None)
    model = user_adapter()
    own = loss(model)
    with warmed_up(model, TOKENIZER, ROWS, SETTINGS, Runtime()) as tuned:
        assert tuned.active_adapter == "mine" and set(tuned.peft_config) == {"other", "mine"}
        assert loss(tuned) == pytest.approx(own, rel=1e-9)
        assert own != pytest.approx(loss(plain()), rel=1e-5)


def pretend_to_train(monkeypatch):
    """In place of training, a change of all trainable parameters that depends on the settings; a list of the calls."""
    calls = []

    def train(tuned, tokenizer, rows, settings, accelerator):
        calls.append(settings)
        with torch.no_grad():
            for parameter in tuned.parameters():
                if parameter.requires_grad:
                    parameter.add_(torch.rand_like(parameter) * 0.1)

    monkeypatch.setattr(warmup, "_train", train)
    return calls


@pytest.mark.parametrize("name", ["lora", "full", "the user's adapter"])
@pytest.mark.parametrize("where", ["inside", "while training"])
def test_all_comes_back_after_an_exception(name, where, tmp_path, monkeypatch):
    build, settings = KINDS[name]
    model = strange(build(tmp_path))
    seed_all(5)
    before, own, expected = described(model), weights(model), draws()
    seed_all(5)
    calls = pretend_to_train(monkeypatch)
    if where == "while training":
        pretended = warmup._train

        def train(*arguments):
            pretended(*arguments)
            raise RuntimeError("in the middle")

        monkeypatch.setattr(warmup, "_train", train)
    with (
        pytest.raises(RuntimeError, match="in the middle"),
        warmed_up(model, TOKENIZER, ROWS, settings, Runtime()) as tuned,
    ):
        assert model_identity(tuned) != model_identity(build(tmp_path))
        raise RuntimeError("in the middle")
    assert len(calls) == 1
    after = weights(model)
    assert list(own) == list(after) and all(torch.equal(tensor, after[name]) for name, tensor in own.items())
    for what, value in described(model).items():
        assert value == before[what], what
    assert draws() == expected


@pytest.mark.parametrize("kind", ["lora", "full", "the user's adapter"])
def test_a_second_entry_loads_the_tuned_weights_instead_of_training_again(kind, tmp_path, monkeypatch):
    build, settings = KINDS[kind]
    trainings, train = [], warmup._train
    monkeypatch.setattr(warmup, "_train", lambda *arguments: (trainings.append(1), train(*arguments)))
    found = []
    for seed in (1, 2):
        model = build(tmp_path)
        seed_all(seed)
        with warmed_up(model, TOKENIZER, ROWS, settings, Runtime(cache_dir=tmp_path / "cache")) as tuned:
            found.append(weights(tuned))
    assert trainings == [1]
    assert list(found[0]) == list(found[1])
    assert all(torch.equal(tensor, found[1][name]) for name, tensor in found[0].items())


def test_what_this_run_tuned_is_no_earlier_run_s(tmp_path, monkeypatch):
    calls = pretend_to_train(monkeypatch)
    first, later = Runtime(cache_dir=tmp_path), Runtime(cache_dir=tmp_path)
    for runtime in (first, first, later):
        with warmed_up(plain(), TOKENIZER, ROWS, SETTINGS, runtime):
            pass
    assert len(calls) == 1 and first.account.passes == {"warmup_rows": len(ROWS)}
    assert first.account.cached_seconds == 0 < later.account.cached_seconds and not later.account.passes


def test_a_key_holds_versions_of_libraries_and_not_of_this_release(tmp_path, monkeypatch):
    calls = pretend_to_train(monkeypatch)

    def trainings():
        with warmed_up(plain(), TOKENIZER, ROWS, SETTINGS, Runtime(cache_dir=tmp_path)):
            pass
        return len(calls)

    assert trainings() == 1
    monkeypatch.setattr("hf_dataselect.__version__", "9.9")
    monkeypatch.setattr(warmup, "__doc__", "Edited.")
    assert trainings() == 1
    for library in ("torch", "transformers", "trl", "peft"):
        monkeypatch.setattr(warmup, "version", lambda name, library=library: "9" if name == library else "1")
        trainings()
    monkeypatch.setattr(warmup, "VERSION", 10**6)
    assert trainings() == 6


def test_gradient_checkpointing_is_the_runtime_s_and_changes_no_key(tmp_path, monkeypatch):
    seen = []

    class Trainer:
        def __init__(self, model, args, **kwargs):
            seen.append(args.gradient_checkpointing)
            raise KeyboardInterrupt

    monkeypatch.setattr("trl.SFTTrainer", Trainer)
    for checkpointing in (True, False):
        lent = warmed_up(plain(), TOKENIZER, ROWS, SETTINGS, Runtime(gradient_checkpointing=checkpointing))
        with pytest.raises(KeyboardInterrupt), lent:
            pass
    monkeypatch.undo()
    calls = pretend_to_train(monkeypatch)
    for checkpointing in (True, False):
        runtime = Runtime(cache_dir=tmp_path, gradient_checkpointing=checkpointing)
        with warmed_up(plain(), TOKENIZER, ROWS, SETTINGS, runtime):
            pass
    assert seen == [True, False] and len(calls) == 1


def test_training_twice_gives_the_same_model(monkeypatch):
    found = []
    for seed in (1, 2):
        seed_all(seed)
        with warmed_up(plain(), TOKENIZER, ROWS, SETTINGS, Runtime()) as tuned:
            found.append(weights(tuned))
    assert all(torch.equal(tensor, found[1][name]) for name, tensor in found[0].items())


def test_other_rows_settings_or_weights_are_trained_anew(tmp_path, monkeypatch):
    calls = pretend_to_train(monkeypatch)

    def enter(model=None, rows=ROWS, settings=SETTINGS):
        with warmed_up(model or plain(), TOKENIZER, rows, settings, Runtime(cache_dir=tmp_path)):
            pass
        return len(calls)

    assert enter() == enter() == 1
    assert enter(rows=TokenRows(ROWS.dataset.select(range(15)))) == 2
    assert enter(rows=TokenRows.from_lists(TEXTS, [[(1, len(ids))] for ids in TEXTS])) == 3, "other tokens count"
    assert enter(settings=WarmupSettings(**{**vars(SETTINGS), "seed": 7})) == 4
    assert enter(settings=WarmupSettings(**{**vars(SETTINGS), "lora_r": 2})) == 5
    assert enter(model=tiny_model(tiny_tokenizer(), seed=1, hidden=32)) == 6
    assert enter(model=user_adapter()) == 7
    assert enter() == 7, "the first is still there"


def test_the_kept_weights_are_the_tuned_ones_and_small_for_an_adapter(tmp_path, monkeypatch):
    pretend_to_train(monkeypatch)
    with warmed_up(plain(), TOKENIZER, ROWS, SETTINGS, Runtime(cache_dir=tmp_path)):
        pass
    (path,) = (tmp_path / "warmup").iterdir()
    kept = load_file(path)
    assert kept and all("lora_" in name for name in kept)


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), SafetensorError("No space left")], ids=type)
def test_weights_that_cannot_be_kept_are_a_warning(error, tmp_path, monkeypatch, caplog):
    calls = pretend_to_train(monkeypatch)

    def full(state, path, metadata):
        path.write_bytes(b"a part")
        raise error

    monkeypatch.setattr(tensors, "save_file", full)
    with warmed_up(plain(), TOKENIZER, ROWS, SETTINGS, Runtime(cache_dir=tmp_path)):
        assert len(calls) == 1
    assert "No space left" in caplog.text and "can't be saved" in caplog.text
    assert not any((tmp_path / "warmup").iterdir())


@pytest.mark.parametrize("place", ["weights", "header", "end"])
def test_damaged_weights_are_named_and_tuned_again(place, tmp_path, monkeypatch, caplog):
    calls = pretend_to_train(monkeypatch)
    found = []

    def enter():
        seed_all(3)
        with warmed_up(plain(), TOKENIZER, ROWS, SETTINGS, Runtime(cache_dir=tmp_path)) as tuned:
            found.append(weights(tuned))

    enter()
    (path,) = (tmp_path / "warmup").iterdir()
    content = bytearray(path.read_bytes())
    if place == "weights":  # 200 exponents: still finite numbers
        for byte in range(len(content) - 1, len(content) - 801, -4):
            content[byte] ^= 3
    content[20] ^= 16 * (place == "header")
    path.write_bytes(content[: -5 if place == "end" else None])
    for _ in range(2):
        enter()
    assert len(calls) == 2 and caplog.text.count(f"{path} is damaged") == 1, "it is replaced"
    assert all(torch.equal(one[name], found[0][name]) for one in found for name in one)


def tune_slowly(folder):
    """A run that tunes once it may go on."""

    def train(tuned, *_):
        (folder / "began").touch()
        while not (folder / "go on").exists():
            time.sleep(0.005)
        with torch.no_grad():
            for parameter in tuned.parameters():
                parameter.add_(parameter.requires_grad * 0.1)

    warmup._train = train
    with warmed_up(plain(), TOKENIZER, ROWS, SETTINGS, Runtime(cache_dir=folder)):
        pass


def test_of_two_processes_one_tunes_and_the_other_reads_its_weights(tmp_path, monkeypatch, caplog):
    calls = pretend_to_train(monkeypatch)
    with start_ranks(tune_slowly, tmp_path, ranks=1, folder=tmp_path) as other:
        while not (tmp_path / "began").exists() and other.running(within=0.005):
            pass
        caplog.handler.addFilter(lambda record: (tmp_path / "go on").touch() is None)  # once this run says it waits
        runtime = Runtime(cache_dir=tmp_path)
        with warmed_up(plain(), TOKENIZER, ROWS, SETTINGS, runtime) as tuned:
            found = weights(tuned)
        caplog.handler.filters.clear()
        (ended,) = other.wait()
    assert ended.exitcode == 0, ended.log
    assert not calls and runtime.account.cached_seconds > 0 and not runtime.account.passes
    assert f"process {other.processes[0].pid}" in caplog.text and "is fine-tuning the same warm-up" in caplog.text
    assert all((found[name] == 0.1).all() for name in found if "lora_B" in name)


def test_weights_that_there_is_no_room_for_do_not_fill_the_disk(tmp_path, monkeypatch, caplog):
    pretend_to_train(monkeypatch)
    model = plain()
    needed = sum(parameter.nbytes for parameter in model.parameters())
    for free, kept in ((needed - 1, 0), (needed, 1)):
        monkeypatch.setattr("shutil.disk_usage", lambda _, free=free: SimpleNamespace(free=free))
        with warmed_up(model, TOKENIZER, ROWS, FULL, Runtime(cache_dir=tmp_path)):
            pass
        assert len(list((tmp_path / "warmup").iterdir())) == kept
    assert caplog.text.count("can't be saved (they take 0.0 GB, and 0.0 GB are left)") == 1


def test_a_folder_that_cannot_be_written_is_refused_before_training(tmp_path, monkeypatch):
    calls = pretend_to_train(monkeypatch)
    (tmp_path / "file").write_text("")
    lent = warmed_up(plain(), TOKENIZER, ROWS, SETTINGS, Runtime(cache_dir=tmp_path / "file"))
    with pytest.raises(ValueError, match="selection_cache_dir"), lent:
        pass
    assert not calls


def test_only_what_is_wrong_with_the_layers_is_blamed_on_them():
    for change, message in (({"lora_targets": ("c_attn",)}, "lora_targets"), ({"lora_dropout": 1.5}, "^dropout")):
        lent = warmed_up(plain(), TOKENIZER, ROWS, WarmupSettings(**{**vars(SETTINGS), **change}), Runtime())
        with pytest.raises(ValueError, match=message), lent:
            pass


def test_a_quantized_model_is_not_tuned_in_full(tmp_path, monkeypatch):
    calls = pretend_to_train(monkeypatch)
    lent = warmed_up(quantized(tmp_path), TOKENIZER, ROWS, FULL, Runtime())
    with pytest.raises(ValueError, match="quantized model can't be tuned in full.*'lora'"), lent:
        pass
    assert not calls


def test_only_counted_tokens_are_learned_and_rows_of_none_are_left_out():
    rows = TokenRows.from_lists(
        [[3, 4, 5, 6], [7, 8], [9, 10], [11, 12, 13]], [[(0, 2), (3, 4)], [], [(0, 1)], [(1, 9)]]
    )
    found = warmup.labelled(rows).to_dict()
    assert found["input_ids"] == [[3, 4, 5, 6], [11, 12, 13]]
    assert found["labels"] == [[-100, 4, -100, 6], [-100, 12, 13]]


def test_rows_of_which_nothing_counts_are_refused():
    lent = warmed_up(plain(), TOKENIZER, TokenRows.from_lists([[3, 4]], [[]]), SETTINGS, Runtime())
    with pytest.raises(ValueError, match="No row to warm up on has an answer"), lent:
        pass


def test_the_tokenizer_is_left_as_it_was():
    tokenizer = tiny_tokenizer(bos=True, pad=False)
    before = str(tokenizer.init_kwargs), tokenizer.pad_token, tokenizer.padding_side, tokenizer.chat_template
    with warmed_up(plain(), tokenizer, ROWS, SETTINGS, Runtime()):
        pass
    assert (str(tokenizer.init_kwargs), tokenizer.pad_token, tokenizer.padding_side, tokenizer.chat_template) == before
