"""Models that ZeRO-3 partitions: the numbers of one process that holds all weights."""

from dataclasses import replace
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from torch.multiprocessing.reductions import StorageWeakRef

from hf_dataselect.compat.deepspeed import is_gathered
from hf_dataselect.engines.runtime import zero3
from hf_dataselect.engines.runtime.runtime import Runtime
from hf_dataselect.engines.store import identity
from hf_dataselect.engines.store.identity import model_identity
from hf_dataselect.engines.tuning.settings import WarmupSettings
from hf_dataselect.engines.tuning.temporary_weights import check_tunable
from hf_dataselect.errors import SelectionError
from tests.partitioned import deepspeed_on_cpu, of_rank, row_gradients, row_losses, with_biases
from tests.processes import run_ranks
from tests.rows import alpaca
from tests.sharded import passes
from tests.tiny import tiny_model, tiny_tokenizer, with_lora


WHOLE = Runtime(batch_tokens=100, dtype="float32")


@pytest.mark.skipif(find_spec("deepspeed") is None, reason="needs deepspeed, which the tests do not install")
def test_a_partitioned_model_gives_the_numbers_of_a_whole_one_and_the_error_of_a_rank_ends_all(tmp_path):
    model = tiny_model(tiny_tokenizer())
    model.config.tie_word_embeddings = True
    model.tie_weights()
    model.save_pretrained(tmp_path / "model")
    alpaca(4, seed=3).to_json(tmp_path / "target.jsonl")
    zero, one = run_ranks(of_rank, tmp_path, 1, ranks=2, folder=tmp_path, patch=deepspeed_on_cpu)
    assert (zero.exitcode, zero.hung, one.exitcode, one.hung) == (1, False, 1, False), zero.log[-4000:] + one.log
    assert "ValueError: this rank fails" in one.log and "Rank 1 failed" in zero.log and "this rank fails" in zero.log

    results, other = (np.load(tmp_path / f"{rank}.npz") for rank in range(2))
    assert results["sharded"] == len(list(model.parameters())) and results["identity"] == model_identity(model)
    for name, values in passes(model, WHOLE).items():
        np.testing.assert_array_equal(results[name], values, name)
    np.testing.assert_array_equal(results["biased"], row_losses(with_biases(), replace(WHOLE, dtype="bfloat16")))
    untied = tiny_model(tiny_tokenizer())
    assert results["sharded again"] == len(list(untied.parameters()))
    np.testing.assert_array_equal(results["gradients"], row_gradients(with_lora(untied, 0.1), WHOLE))
    np.testing.assert_array_equal(results["scores"], results["scores whole"])
    np.testing.assert_array_equal(results["losses"], results["losses plain"])  # evaluated after each step
    assert results["losses"] == pytest.approx(results["losses whole"], rel=1e-5)
    assert np.isfinite(results["scores half"]).all() and results["dtypes"].tolist() == [str(torch.bfloat16)]
    for name in results.files:
        np.testing.assert_array_equal(results[name], other[name], name)


class Gathered:
    """What `deepspeed.zero.GatheredParameters` does where there is one rank; counts the weights in memory."""

    memory: list[tuple[StorageWeakRef, int]] = []

    def __init__(self, parameters):
        self.parameters = {id(one): one for one in parameters if not is_gathered(one)}.values()

    def __enter__(self):
        for parameter in self.parameters:
            parameter.data = parameter.ds_tensor.clone()
            self.memory.append((StorageWeakRef(parameter.untyped_storage()), parameter.numel()))

    def __exit__(self, *error):
        for parameter in self.parameters:
            parameter.data = torch.empty(0)

    @classmethod
    def numbers(cls) -> int:
        return sum(count for storage, count in cls.memory if not storage.expired())


@pytest.fixture
def one_rank(monkeypatch):
    """A process group of one rank that gathers as DeepSpeed does."""
    for module in (zero3, identity):
        monkeypatch.setattr(module, "gathered", Gathered)
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


def deep_model() -> torch.nn.Module:
    """Three layers, and weights around them."""
    model = tiny_model(tiny_tokenizer(), layers=3)
    model.model.extra = torch.nn.Parameter(torch.ones(3))
    return model


def partitioned(model: torch.nn.Module) -> torch.nn.Module:
    for place, parameter in enumerate(model.parameters()):
        parameter.ds_id, parameter.ds_shape, parameter.ds_tensor = place, parameter.shape, parameter.data
        parameter.data = torch.empty(0)
    return model


def test_no_more_than_a_layer_and_the_head_are_in_memory(one_rank):
    whole, model, most = deep_model(), partitioned(deep_model()), []
    weights, layer = [*model.parameters()], whole.model.layers[0]
    size = sum(one.numel() for one in (*layer.parameters(), whole.lm_head.weight, whole.model.extra))
    assert model_identity(model) == model_identity(whole)
    for module in (*model.model.layers, model.model.norm):
        module.register_forward_hook(lambda *_: most.append(Gathered.numbers()))
    np.testing.assert_array_equal(row_losses(model, WHOLE), row_losses(whole, WHOLE))
    whole, model = with_lora(whole, 0.1), with_lora(model, 0.1)
    expected = row_gradients(whole, WHOLE)
    for recompute in (False, True):
        vectors = row_gradients(model, replace(WHOLE, gradient_checkpointing=recompute))
        np.testing.assert_array_equal(vectors, expected)
    assert max(most) == size and Gathered.numbers() == 0 and not any(one.numel() for one in weights)


def test_an_adapter_that_is_partitioned_too_is_not_tuned():
    model = with_lora(tiny_model(tiny_tokenizer()), 0.1)
    next(one for one in model.parameters() if one.requires_grad).ds_tensor = None
    with pytest.raises(SelectionError, match="ZeRO-3 shards the adapter 'default' too.* select before `train"):
        check_tunable(model, WarmupSettings())
