"""Models sharded by FSDP2 on two ranks: the numbers of one process that holds all weights."""

import numpy as np
import pytest
import torch

from hf_dataselect.engines.runtime.runtime import Runtime
from hf_dataselect.engines.runtime.sharding import sharding_of_model
from hf_dataselect.engines.store.identity import model_identity
from hf_dataselect.sharding_refusals import check_sharded
from tests.processes import run_ranks
from tests.rows import alpaca
from tests.sharded import faint, faint_gradients, of_images, of_rank, passes, shard_on_cpus
from tests.tiny import tiny_model, tiny_tokenizer
from tests.tiny_training import tiny_trainer


@pytest.mark.long
def test_a_sharded_model_gives_the_numbers_of_a_whole_one_and_the_error_of_a_rank_ends_all(tmp_path):
    tokenizer = tiny_tokenizer()
    model = tiny_model(tokenizer)
    model.config.tie_word_embeddings = True
    model.tie_weights()
    model.save_pretrained(tmp_path / "model")
    alpaca(4, seed=3).to_json(tmp_path / "target.jsonl")
    zero, one = run_ranks(of_rank, tmp_path, 1, ranks=2, folder=tmp_path, patch=shard_on_cpus)
    assert (zero.exitcode, zero.hung, one.exitcode, one.hung) == (1, False, 1, False), zero.log[-4000:] + one.log
    assert "ValueError: this rank fails" in one.log and "Rank 1 failed" in zero.log and "this rank fails" in zero.log

    images = of_images(tmp_path / "one").select()
    found, other = (np.load(tmp_path / f"{rank}.npz") for rank in range(2))
    assert found["sharded"] == 1 and found["identity"] == model_identity(model)
    for name, values in passes(model, Runtime(batch_tokens=100, dtype="float32")).items():
        np.testing.assert_array_equal(found[name], values, name)
    for kind in ("model", "4-bit", "experts"):
        assert found[kind] == 0 and found[f"{kind} sharded"] == 1
        far = 5e-3 if kind == "4-bit" else 0  # TRL trains its adapter in bfloat16
        np.testing.assert_allclose(found[f"scores {kind} sharded"], found[f"scores {kind}"], far, err_msg=kind)
    np.testing.assert_allclose(found["scores images sharded"], images.scores, 1e-6)
    assert found["images sharded"] == 1 and found["identity 4-bit sharded"] == found["identity 4-bit"]
    assert found["losses model sharded"] == pytest.approx(found["losses model"], rel=1e-5)
    np.testing.assert_array_equal(found["rows model sharded"], found["rows model"])  # chosen again after a step
    assert found["change model sharded"] == pytest.approx(found["change model"], rel=1e-3) and found["change model"]
    assert np.isfinite(found["scores bfloat16"]).all()
    begun = [found[f"losses {name}"][0] for name in ("bfloat16", "model")]
    assert begun[0] == pytest.approx(begun[1], rel=0.15)  # of other rows, by rounding
    assert found["checkpointed"] == 2 and found["kept"]  # each layer once, and the plugin is as it was
    exact = faint_gradients(faint(tiny_model(tokenizer)), Runtime(dtype="float32"))
    for kind in ("bfloat16", "float16"):
        assert ((found[f"gradients torch.{kind} 1024"] * exact).sum(1) > 0.97).all(), kind
    assert (np.nan_to_num(found["gradients torch.float16 1"]) * exact).sum(1).min() < 0.9
    for name in found.files:
        np.testing.assert_array_equal(found[name], other[name], name)


TWO, ONE = ({"fsdp": True, "fsdp_config": {"version": version}} for version in (2, 1))
#: Methods, what is said of them, and arguments of the trainer.
REFUSED = [
    ("perplexity", {}, "FSDP1 shards in a way.* Use FSDP2: `fsdp_version: 2`.* Or run `hf-dataselect select`", ONE),
    ("ifd", {"warmup": "full"}, "it tunes weights of the model itself.*`warmup: lora` without `layers`", TWO),
    ("less", {"layers": ["down_proj"]}, "it tunes weights of the model itself.*`warmup: lora` without `layers`", TWO),
    ("auto", {"methods": ["random"]}, "it trains the model again and again", TWO),
]


@pytest.mark.parametrize(("method", "kwargs", "said", "options"), REFUSED, ids=[case[0] for case in REFUSED])
def test_what_cannot_be_exact_is_refused_before_a_model_loads(method, kwargs, said, options, tmp_path):
    options = options | {"model": "no/such/model", "processing_class": tiny_tokenizer()}
    if method == "less":
        options |= {"selection_target": alpaca(3)}
    with pytest.raises(ValueError, match=said):
        tiny_trainer(tmp_path, method, kwargs, **options)


def test_a_launch_that_accelerate_does_not_shard_selects_and_one_that_an_earlier_trainer_left_says_so(
    monkeypatch, tmp_path
):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(ValueError, match='FSDP1 shards.* If nothing .*`del os.environ."ACCELERATE_USE_FSDP".`'):
        tiny_trainer(tmp_path, "perplexity")
    monkeypatch.setenv("FSDP_VERSION", "2")  # on one process and on CPUs, it leaves the model whole
    assert len(tiny_trainer(tmp_path, "perplexity", selection_budget=3).select().indices) == 3


def test_ranks_that_hold_all_weights_refuse_nothing_and_zero_3_what_fsdp2_refuses():
    for sharding in (None, "ZeRO-1", "ZeRO-2"):
        check_sharded(sharding, "mods", {"model", "all weights"})
    check_sharded("ZeRO-3", "ifd", {"model"})
    with pytest.raises(ValueError, match="`selection_method='ifd'` runs the model, which ZeRO-3 shards; it tunes"):
        check_sharded("ZeRO-3", "ifd", {"model", "all weights"})
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    try:
        model = tiny_model(tiny_tokenizer())
        assert sharding_of_model(model) is None
        model.lm_head.weight.ds_id = 0  # as DeepSpeed marks what it shards
        assert sharding_of_model(model) == "ZeRO-3"
    finally:
        torch.distributed.destroy_process_group()
