"""
What only a GPU shows: dtypes, attention, quantization, compilation, offloading, memory that runs out, and one sharded
rank. `TEST_DEVICE=cpu` runs here what a CPU can, to try the tests themselves.
"""

import importlib.util
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from peft import LoraConfig
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from hf_dataselect.compat.accelerate import is_offloaded
from hf_dataselect.data.records import Records
from hf_dataselect.engines.forward.generation import generate_ids
from hf_dataselect.engines.forward.hidden_states import hidden_state
from hf_dataselect.engines.forward.likelihood import likelihood
from hf_dataselect.engines.gradients.collect import gradients
from hf_dataselect.engines.gradients.layers import linear_layers
from hf_dataselect.engines.runtime.runtime import Runtime
from hf_dataselect.engines.runtime.token_rows import TokenRows
from hf_dataselect.engines.store.identity import model_identity
from hf_dataselect.pipeline import select
from hf_dataselect.registry import load_selector
from tests.engines.runtime.test_offloaded import PARTS
from tests.processes import environment
from tests.rows import alpaca
from tests.tiny import context_of, tiny_model, tiny_tokenizer
from tests.tiny_training import tiny_trainer, write_recipe


DEVICE = torch.device(os.environ.get("TEST_DEVICE", "cuda"))
pytestmark = pytest.mark.skipif(
    DEVICE.type == "cuda" and not torch.cuda.is_available(), reason="needs a GPU that torch sees (CUDA)"
)
CPU, BF16 = {"use_cpu": DEVICE.type == "cpu"}, {"bf16": DEVICE.type != "cpu"}
LESS = {"lora_r": 4, "warmup_epochs": 1, "projection_dim": 256}
FSDP2 = ["--use_fsdp", "--fsdp_version", "2"]
ZERO3 = ["--use_deepspeed", "--zero_stage", "3"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder, tokenizer = tmp_path_factory.mktemp("model"), tiny_tokenizer()
    for part in (tiny_model(tokenizer), tokenizer):
        part.save_pretrained(folder)
    return folder


def load(folder, **options):
    return AutoModelForCausalLM.from_pretrained(folder, **options).eval()


def rows(n: int = 24) -> TokenRows:
    draw = np.random.default_rng(0)
    ids = [draw.integers(6, 300, int(draw.integers(6, 90))).tolist() for _ in range(n)]
    return TokenRows.from_lists(ids, [[(len(row) // 2, len(row))] for row in ids])


@pytest.mark.parametrize("dtype, far", [("float32", 1e-3), ("bfloat16", 0.15), ("float16", 0.03)])
def test_losses_and_states_are_those_of_a_cpu(folder, dtype, far):
    model, plain, tokens = load(folder).to(DEVICE), load(folder), rows()
    expected = likelihood(plain, tokens, Runtime(dtype="float32"))
    found = likelihood(model, tokens, Runtime(dtype=dtype))
    np.testing.assert_allclose(found.mean_loss, expected.mean_loss, rtol=far, atol=far)
    np.testing.assert_array_equal(found.tokens, expected.tokens)
    states = [
        hidden_state(one, tokens, Runtime(dtype=kind), "mean") for one, kind in ((model, dtype), (plain, "auto"))
    ]
    cosines = (states[0] * states[1]).sum(1) / np.prod([np.linalg.norm(one, axis=1) for one in states], axis=0)
    assert cosines.min() > 0.99


@pytest.mark.parametrize("attention", ["eager", "sdpa", "flash_attention_2"])
def test_every_attention_gives_the_same_losses(folder, attention):
    if attention.startswith("flash") and importlib.util.find_spec("flash_attn") is None:
        pytest.skip("needs flash-attn")
    model = load(folder, attn_implementation=attention, dtype=torch.bfloat16).to(DEVICE)
    expected = likelihood(load(folder), rows(), Runtime(dtype="float32")).mean_loss
    np.testing.assert_allclose(likelihood(model, rows(), Runtime()).mean_loss, expected, rtol=0.15, atol=0.15)


def test_gradients_are_those_of_a_cpu(folder):
    vectors = []
    for device in (DEVICE, "cpu"):
        model = load(folder).to(device)
        layers = linear_layers(model, ["q_proj", "down_proj"])
        vectors.append(gradients(model, rows(), Runtime(dtype="float32"), layers=layers).vectors[:])
    np.testing.assert_allclose((vectors[0] * vectors[1]).sum(1), 1, atol=1e-3)


def test_it_generates_what_a_cpu_generates(folder):
    prompts, tokenizer = [[5, 6, 7], [9, 10, 11, 12]], tiny_tokenizer()
    found = [
        generate_ids(load(folder).to(d), tokenizer, prompts, Runtime(), max_new_tokens=6) for d in (DEVICE, "cpu")
    ]
    assert found[0] == found[1]


def test_offloaded_weights_are_scored_on_the_gpu(folder, tmp_path):
    main = "cpu" if DEVICE.type == "cpu" else 0
    places = dict.fromkeys(PARTS, main) | {"model.layers.0": "cpu", "model.layers.1": "disk", "lm_head": "disk"}
    model = load(folder, device_map=places, offload_folder=str(tmp_path))
    whole = load(folder).to(DEVICE)
    assert is_offloaded(model) and model_identity(model) == model_identity(whole)
    found = [likelihood(one, rows(), Runtime(dtype="float32")).loss for one in (model, whole)]
    np.testing.assert_allclose(*found, rtol=1e-5)


@pytest.mark.parametrize("method, options", [("perplexity", {}), ("less", LESS)])
def test_a_quantized_model_selects(folder, method, options, tmp_path):
    alpaca(3, seed=9).to_json(tmp_path / "target.jsonl")
    config = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16)
    model = load(folder, quantization_config=config, device_map={"": DEVICE})
    given = {
        "peft_config": LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM"),
        "bf16": not CPU["use_cpu"],
    }
    target = {"selection_target": str(tmp_path / "target.jsonl"), "selection_budget": 6}
    trainer = tiny_trainer(tmp_path, method, options, model=model, **given | target | CPU)
    before = model_identity(trainer.model)  # with the adapter, which the trainer adds
    found = trainer.select()
    assert len(found.indices) == 6 and np.isfinite(found.scores).all()
    assert model_identity(trainer.model) == before


@pytest.mark.skipif(DEVICE.type == "cpu", reason="limits the memory of a GPU")
def test_batches_that_do_not_fit_are_halved(folder):
    model, many = load(folder).to(DEVICE), rows(4000)
    expected = likelihood(model, many, Runtime(dtype="float32", batch_tokens=2048)).mean_loss
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.empty_cache()
    before = torch.cuda.memory_stats()["num_ooms"]
    try:
        torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + 2**25) / total)
        found = likelihood(model, many, Runtime(dtype="float32", batch_tokens=2**20)).mean_loss
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert torch.cuda.memory_stats()["num_ooms"] > before
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_all_kinds_of_methods_select(folder, tmp_path):
    tokenizer, target = tiny_tokenizer(), Records(alpaca(3, seed=9))
    for method, options in {
        "ifd": {"warmup_clusters": 2, "warmup_rows_per_cluster": 2},
        "rds": {},
        "nuggets": {"tasks": 3, "threshold": None},
        "less": LESS,
        "selectit": {"prompts": 2},
        "t_shirt": {"model": str(folder), "copies": 2},
    }.items():
        ctx = context_of(tokenizer, tiny_model(tokenizer).to(DEVICE), max_length=128, target=target)
        found = select(alpaca(), load_selector(method, options), 4, ctx)
        assert len(found.indices) == 4 and np.isfinite(found.scores).any(), method


@pytest.mark.skipif(DEVICE.type == "cpu", reason="accelerate shards on GPUs only")
@pytest.mark.parametrize("options", [FSDP2, ZERO3], ids=["FSDP2", "ZeRO-3"])
@pytest.mark.parametrize(("method", "kwargs"), [("ifd", {"warmup": "none"}), ("less", LESS)])
def test_one_sharded_rank_selects(method, kwargs, options, tmp_path):
    if options is ZERO3 and importlib.util.find_spec("deepspeed") is None:
        pytest.skip("needs deepspeed")
    alpaca(3, seed=9).to_json(tmp_path / "target.jsonl")
    given = {"selection_target": str(tmp_path / "target.jsonl")} if method == "less" else {}
    given |= {"selection_method": method, "selection_kwargs": kwargs}
    recipe = write_recipe(tmp_path, use_cpu=False, bf16=True, **given)
    command = [sys.executable, "-m", "accelerate.commands.launch", "--num_processes", "1", "--num_machines", "1"]
    command += ["--mixed_precision", "bf16", "--dynamo_backend", "no", *options]
    command += ["-m", "hf_dataselect", "select", "--config", str(recipe)]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=180, cwd=tmp_path)
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    assert (tmp_path / "run" / "selected.parquet").exists()


@pytest.mark.skipif(DEVICE.type == "cpu", reason="minutes on a CPU")
def test_a_compiled_run_selects_and_trains(tmp_path):
    options = {"torch_compile": True, "selection_budget": 6, **CPU, **BF16}
    trainer = tiny_trainer(tmp_path, "perplexity", **options)
    plain = tiny_trainer(tmp_path / "plain", "perplexity", **options | {"torch_compile": False}).select()
    assert trainer.select().indices.tolist() == plain.indices.tolist()
    assert np.isfinite(trainer.train().training_loss)
