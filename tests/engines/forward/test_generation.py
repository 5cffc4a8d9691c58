import copy
import json
import logging
import random
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from transformers import MixtralConfig, MixtralForCausalLM

from hf_dataselect.engines.forward.generation import generate, generate_ids, stop_ids
from hf_dataselect.engines.runtime.runtime import Runtime
from tests.processes import succeed
from tests.tiny import SENTENCES, tiny_model, tiny_tokenizer


PLAIN = Runtime(batch_tokens=200)


@pytest.fixture(scope="module")
def tokenizer():
    return tiny_tokenizer()


@pytest.fixture
def model(tokenizer):
    return tiny_model(tokenizer)


@pytest.fixture(scope="module")
def prompts(tokenizer):
    texts = [sentence[:size] for sentence in SENTENCES for size in (1, 7, 20, 60)]
    random.Random(0).shuffle(texts)
    return [tokenizer(text).input_ids for text in [*texts, texts[3]]]


def one_by_one(model, tokenizer, prompts, max_new_tokens=12, eos_token_id=2):
    """The naive twin: each prompt alone through `model.generate`."""
    texts = []
    for prompt in prompts:
        ids = torch.tensor([prompt])
        out = model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            max_new_tokens=max_new_tokens,
            eos_token_id=eos_token_id,
            pad_token_id=0,
        )
        texts.append(tokenizer.decode(out[0, len(prompt) :], skip_special_tokens=True))
    return texts


def recorded(model, monkeypatch, fail=lambda rows: False):
    """Makes `model.generate` note the ids of each call, and run out of memory where `fail(rows)` says so."""
    calls, original = [], model.generate

    def spy(input_ids, **kwargs):
        calls.append(input_ids.tolist())
        if fail(len(input_ids)):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return original(input_ids=input_ids, **kwargs)

    monkeypatch.setattr(model, "generate", spy)
    return calls


@pytest.mark.parametrize("batch_tokens", [1, 90, 200, 100_000])
def test_batches_give_what_rows_alone_give(model, tokenizer, prompts, batch_tokens):
    texts = generate(model, tokenizer, prompts, Runtime(batch_tokens=batch_tokens), max_new_tokens=12)
    assert texts == one_by_one(model, tokenizer, prompts)
    assert len(set(texts)) > len(texts) // 2


def test_order_of_the_prompts_does_not_matter(model, tokenizer, prompts, monkeypatch):
    calls = recorded(model, monkeypatch)
    expected = dict(
        zip(map(tuple, prompts), generate(model, tokenizer, prompts, PLAIN, max_new_tokens=12), strict=True)
    )
    batches = calls.copy()
    for seed in range(3):
        calls.clear()
        shuffled = random.Random(seed).sample([*prompts, prompts[seed]], len(prompts) + 1)
        assert generate(model, tokenizer, shuffled, PLAIN, max_new_tokens=12) == [
            expected[tuple(prompt)] for prompt in shuffled
        ]
        assert calls == batches  # equal to the bit, not only up to what padding does to rounding


def test_batches_keep_to_the_budget(model, tokenizer, prompts, monkeypatch):
    calls = recorded(model, monkeypatch)
    generate(model, tokenizer, prompts, PLAIN, max_new_tokens=12)
    assert all(len(ids) == 1 or len(ids) * (len(ids[0]) + 12) <= 200 for ids in calls)
    assert sum(map(len, calls)) == len(set(map(tuple, prompts)))
    assert max(map(len, calls)) > 3


def test_answers_stop_at_each_eos(model, tokenizer, prompts, caplog):
    free = generate_ids(model, tokenizer, prompts, PLAIN, max_new_tokens=12)
    named = [free[0][4], free[1][2]]
    model.generation_config.eos_token_id = named
    stops = stop_ids(model, tokenizer)
    assert stops == sorted({*named, tokenizer.eos_token_id})
    ids = generate_ids(model, tokenizer, prompts, PLAIN, max_new_tokens=12)
    for short, long in zip(ids, free, strict=True):
        assert short == long[: len(short)]
        assert not set(short[:-1]) & set(stops)
        assert short[-1] in stops or len(short) == 12
    with caplog.at_level(logging.WARNING):
        texts = generate(model, tokenizer, prompts, PLAIN, max_new_tokens=12)
    cut = sum(row[-1] not in stops for row in ids)
    assert 0 < cut < len(prompts)
    assert f"{cut} of {len(prompts)} answers" in caplog.text
    assert texts[0] == tokenizer.decode(ids[0][:-1], skip_special_tokens=True)


def test_eos_of_the_tokenizer_is_enough(model, prompts):
    free = generate_ids(model, tiny_tokenizer(), prompts[:1], PLAIN, max_new_tokens=12)[0]
    model.generation_config.eos_token_id = None
    tokenizer = tiny_tokenizer()
    tokenizer.eos_token = tokenizer.convert_ids_to_tokens(free[4])
    assert generate_ids(model, tokenizer, prompts[:1], PLAIN, max_new_tokens=12)[0] == free[: free.index(free[4]) + 1]


@pytest.mark.parametrize("pad", [True, False])
@pytest.mark.parametrize("eos", [True, False])
def test_special_tokens_may_be_missing_and_stay_so(model, tokenizer, prompts, pad, eos):
    expected = one_by_one(model, tokenizer, prompts, eos_token_id=tokenizer.eos_token_id)
    bare = tiny_tokenizer(pad=pad, eos=eos)
    bare.padding_side = "right"
    before = copy.deepcopy(bare.special_tokens_map)
    assert generate(model, bare, prompts, PLAIN, max_new_tokens=12) == expected
    assert bare.special_tokens_map == before
    assert bare.padding_side == "right"
    without_eos = tiny_model(tiny_tokenizer(pad=pad, eos=False))
    if not eos:
        assert stop_ids(without_eos, bare) == []
        assert all(len(ids) == 12 for ids in generate_ids(without_eos, bare, prompts, PLAIN, max_new_tokens=12))


def test_settings_of_the_model_are_not_used(model, tokenizer, prompts):
    expected = generate(model, tokenizer, prompts, PLAIN, max_new_tokens=12)
    model.generation_config.update(
        do_sample=True, temperature=3.0, top_k=5, repetition_penalty=4.0, num_beams=3, min_new_tokens=12, max_length=20
    )
    model.generation_config.no_repeat_ngram_size = 1
    model.generation_config.suppress_tokens = list(range(100, 200))
    state = torch.get_rng_state()
    assert generate(model, tokenizer, prompts, PLAIN, max_new_tokens=12) == expected
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("fails", [False, True])
def test_model_is_left_as_it_was(model, tokenizer, prompts, fails, monkeypatch):
    model.train()
    model.model.layers[0].eval()
    model.gradient_checkpointing_enable()
    model.config.use_cache = False
    own, modes = model.generation_config, [module.training for module in model.modules()]
    settings, config = own.to_dict(), model.config.to_dict()
    if fails:
        calls = recorded(model, monkeypatch)
        monkeypatch.setattr(model, "forward", lambda *args, **kwargs: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            generate(model, tokenizer, prompts, PLAIN, max_new_tokens=12)
        assert calls
    else:
        assert generate(model, tokenizer, prompts, PLAIN, max_new_tokens=12) == one_by_one(
            tiny_model(tokenizer), tokenizer, prompts
        )
    assert [module.training for module in model.modules()] == modes
    assert model.generation_config is own
    assert own.to_dict() == settings
    assert model.config.to_dict() == config
    assert model.is_gradient_checkpointing
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())


def test_batches_that_do_not_fit_are_halved(model, tokenizer, prompts, monkeypatch):
    expected = generate(model, tokenizer, prompts, PLAIN, max_new_tokens=12)
    calls = recorded(model, monkeypatch, fail=lambda rows: rows > 2)
    assert generate(model, tokenizer, prompts, Runtime(batch_tokens=100_000), max_new_tokens=12) == expected
    assert max(map(len, calls)) > 2


def test_a_row_that_never_fits_is_named(model, tokenizer, monkeypatch):
    recorded(model, monkeypatch, fail=lambda rows: True)
    with pytest.raises(RuntimeError, match=r"`prompts\[1\]` \(9 tokens and .*does not fit in memory"):
        generate(model, tokenizer, [[5, 6], [7] * 9, [8], [7] * 9], PLAIN, max_new_tokens=12)


def test_wrong_calls_are_refused(model, tokenizer, prompts):
    assert generate(model, tokenizer, [], PLAIN, max_new_tokens=12) == []
    with pytest.raises(ValueError, match=r"`prompts\[1\]` has no tokens"):
        generate(model, tokenizer, [[5], []], PLAIN, max_new_tokens=12)
    with pytest.raises(ValueError, match=r"`prompts\[1\]` has 2040 tokens.*2048 positions"):
        generate(model, tokenizer, [[5], [5] * 2040], PLAIN, max_new_tokens=12)
    with pytest.raises(ValueError, match="`max_new_tokens` must be at least 1, got 0"):
        generate(model, tokenizer, prompts, Runtime(batch_tokens=10), max_new_tokens=0)
    with pytest.raises(ValueError, match="`batch_tokens` must be at least 1, got -3"):
        generate(model, tokenizer, prompts, Runtime(batch_tokens=-3), max_new_tokens=1)


def test_a_mixture_of_experts_generates_as_trl_trains_it(tokenizer, prompts):
    given = tiny_model(tokenizer).config.to_dict()
    sizes = {key: given[key] for key in ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads")}
    routed = MixtralConfig(**sizes, num_key_value_heads=2, intermediate_size=64, num_local_experts=4)
    model = MixtralForCausalLM(routed).eval()
    expected = one_by_one(model, tokenizer, prompts[:4])
    model.config.output_router_logits = True
    assert generate(model, tokenizer, prompts[:4], PLAIN, max_new_tokens=12) == expected
    assert model.config.output_router_logits


def test_peft_model(tokenizer, prompts):
    peft = pytest.importorskip("peft")
    plain = generate(tiny_model(tokenizer), tokenizer, prompts, PLAIN, max_new_tokens=12)
    adapted = peft.get_peft_model(tiny_model(tokenizer), peft.LoraConfig(r=4, lora_dropout=0.5, task_type="CAUSAL_LM"))
    torch.manual_seed(0)
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.2)
    own = adapted.get_base_model().generation_config
    own.update(repetition_penalty=4.0)
    adapted.train()
    found = generate(adapted, tokenizer, prompts, PLAIN, max_new_tokens=12)
    assert adapted.training
    assert adapted.get_base_model().generation_config is own
    own.repetition_penalty = None
    assert found == one_by_one(adapted.eval(), tokenizer, prompts)
    assert found != plain


def generate_on_rank(folder: Path, prompts: list[list[int]]) -> None:
    accelerator = Accelerator(cpu=True)
    tokenizer = tiny_tokenizer()
    model = accelerator.prepare(tiny_model(tokenizer))
    rows, original = [], accelerator.unwrap_model(model).generate

    def spy(input_ids, **kwargs):
        rows.append(len(input_ids))
        return original(input_ids=input_ids, **kwargs)

    accelerator.unwrap_model(model).generate = spy
    runtime = Runtime(accelerator, batch_tokens=200)
    texts = generate(model, tokenizer, prompts, runtime, max_new_tokens=12)
    one = generate(model, tokenizer, prompts[:1], runtime, max_new_tokens=12)
    result = {"texts": texts, "one": one, "rows": sum(rows), "training": model.training}
    (folder / f"{accelerator.process_index}.json").write_text(json.dumps(result))
    accelerator.end_training()


def test_ranks_share_the_work_and_get_all_answers(model, tokenizer, prompts, tmp_path):
    succeed(generate_on_rank, tmp_path, prompts, folder=tmp_path)
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2))
    expected = generate(model, tokenizer, prompts, PLAIN, max_new_tokens=12)
    assert first["texts"] == second["texts"] == expected
    assert first["one"] == second["one"] == expected[:1]
    assert min(first["rows"], second["rows"]) > 3
    assert first["rows"] + second["rows"] == len(set(map(tuple, prompts))) + 1


def test_logits_that_are_nan_are_named_and_no_answer_is_made_of_them(model, tokenizer):
    with torch.no_grad():
        model.model.embed_tokens.weight[7] = torch.nan
    assert generate_ids(model, tokenizer, [[8, 9]], PLAIN, max_new_tokens=1) != [[0]]
    with pytest.raises(ValueError, match=r"logits are not finite \(NaN\) after `prompts\[1\]`"):
        generate_ids(model, tokenizer, [[8, 9], [8, 7, 9]], PLAIN, max_new_tokens=2)
