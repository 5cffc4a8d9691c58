"""Functions that ranks run with a model that ZeRO-3 of DeepSpeed partitions, on the CPU."""

import copy
import os
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, PartialState
from accelerate.utils import DistributedType
from transformers import AutoModelForCausalLM
from transformers.integrations import HfDeepSpeedConfig
from transformers.integrations.deepspeed import unset_hf_deepspeed_config

from hf_dataselect.engines.forward.likelihood import likelihood
from hf_dataselect.engines.gradients.collect import gradients
from hf_dataselect.engines.runtime.runtime import Runtime
from hf_dataselect.engines.store.identity import model_identity
from hf_dataselect.training.trainer import DataSelectingTrainer
from tests.rows import alpaca
from tests.sharded import UNPROJECTED, passes, rows, score_where_one_fails, selected
from tests.tiny import tiny_model, tiny_tokenizer, with_lora
from tests.tiny_training import tiny_trainer


ZERO3 = {
    "train_micro_batch_size_per_gpu": "auto",
    "gradient_accumulation_steps": "auto",
    "zero_optimization": {"stage": 3},
    "zero_allow_untested_optimizer": True,
    "zero_force_ds_cpu_optimizer": False,
    "bf16": {"enabled": "auto"},
}


def deepspeed_on_cpu(rank: int) -> None:
    """Let accelerate use DeepSpeed on CPUs as it does on GPUs, without the C++ extension that it would compile."""
    os.environ["DS_ACCELERATOR"] = "cpu"
    if find_spec("deepspeed") is not None:  # else each user says that it is missing
        import_module("deepspeed.comm.torch").build_shm_op = lambda: None
    begin, cpus = AcceleratorState.__init__, (DistributedType.MULTI_CPU, DistributedType.DEEPSPEED)

    def patched(self, *given, deepspeed_plugin=None, **options):
        begin(self, *given, deepspeed_plugin=deepspeed_plugin, **options)
        if deepspeed_plugin is None or self.deepspeed_plugins or self.distributed_type not in cpus:
            return
        plugins = deepspeed_plugin if isinstance(deepspeed_plugin, dict) else {"default": deepspeed_plugin}
        for plugin in plugins.values():
            plugin.set_mixed_precision(self._mixed_precision)
        next(iter(plugins.values())).select(_from_accelerator_state=True)
        self.deepspeed_plugins, self._mixed_precision = plugins, "no"
        self.distributed_type = PartialState._shared_state["distributed_type"] = DistributedType.DEEPSPEED

    AcceleratorState.__init__ = patched


def partitioned(model: torch.nn.Module) -> int:
    """Parameters of which this rank holds a part."""
    return sum(hasattr(parameter, "ds_id") and parameter.numel() == 0 for parameter in model.parameters())


def with_biases() -> torch.nn.Module:
    """The tiny model with biases that are not 0, in bfloat16."""
    config = tiny_model(tiny_tokenizer()).config
    config.attention_bias = config.mlp_bias = True
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).eval()
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter)
    return model.to(torch.bfloat16)


def row_losses(model: torch.nn.Module, runtime: Runtime) -> np.ndarray:
    return likelihood(model, rows(), runtime).loss


def row_gradients(model: torch.nn.Module, runtime: Runtime) -> np.ndarray:
    """Unit vectors of gradients of an adapter."""
    return gradients(model, rows().select(np.arange(5)), runtime, project=UNPROJECTED).vectors


def of_rank(folder: Path, fails: int) -> None:
    """Everything that is asserted of partitioned models, by each rank; then one rank fails in a pass."""
    import deepspeed

    def zero3() -> dict:
        """Arguments of another trainer in this process."""
        AcceleratorState._reset_state()
        unset_hf_deepspeed_config()
        return {"deepspeed": copy.deepcopy(ZERO3)}

    def losses(trainer: DataSelectingTrainer) -> list[float]:
        return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]

    accelerator = Accelerator(cpu=True)
    rank, runtime = accelerator.process_index, Runtime(accelerator, batch_tokens=100, silent=True)
    results = {}
    results["scores whole"], _, trainer = selected(folder / "whole")
    results["losses whole"] = losses(trainer)
    config = ZERO3 | {"train_micro_batch_size_per_gpu": 1, "gradient_accumulation_steps": 1, "bf16": {}}
    loading = HfDeepSpeedConfig(config)
    model = AutoModelForCausalLM.from_pretrained(folder / "model")
    del loading
    results |= passes(model, runtime) | {"sharded": partitioned(model), "identity": model_identity(model)}
    biased, untied = with_biases(), tiny_model(tiny_tokenizer())
    for one in (biased, untied):
        deepspeed.zero.Init(module=one, config_dict_or_path=config)
    results["biased"] = row_losses(biased, runtime)
    results["gradients"] = row_gradients(with_lora(untied, 0.1), runtime)
    results["sharded again"] = partitioned(untied)
    evaluated = {"eval_strategy": "steps", "eval_steps": 1, "benchmark_metrics": ["exact_match"]}
    evaluated |= {"benchmark_max_new_tokens": 3}
    results["scores"], _, trainer = selected(folder / "zero3", **zero3(), **evaluated)
    results["losses"], chosen = losses(trainer), np.sort(trainer.selection.indices)
    same = {"train_dataset": alpaca(12).select(chosen), "max_steps": 2}
    plain = tiny_trainer(folder / "plain", **same, **zero3())
    plain.train()
    results["losses plain"] = losses(plain)
    in_half = {"bf16": True, "selection_dtype": "auto"}
    results["scores half"], _, trainer = selected(folder / "half", train=False, **in_half, **zero3())
    results["dtypes"] = sorted({str(parameter.dtype) for parameter in trainer.model.parameters()})
    np.savez(folder / f"{rank}.npz", **results)
    score_where_one_fails(model, runtime, rank == fails)
