"""Functions that ranks run with a model sharded by FSDP2, on the CPU."""

from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, PartialState
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin
from peft import LoraConfig
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from benchmarks.nuggets import one_shot_loss
from hf_dataselect.engines.forward.generation import generate_ids
from hf_dataselect.engines.forward.hidden_states import hidden_state
from hf_dataselect.engines.forward.likelihood import likelihood
from hf_dataselect.engines.gradients import per_example
from hf_dataselect.engines.gradients.collect import gradients
from hf_dataselect.engines.gradients.projection import Projection
from hf_dataselect.engines.runtime.ranks import leave_ranks
from hf_dataselect.engines.runtime.runtime import Runtime
from hf_dataselect.engines.runtime.token_rows import TokenRows
from hf_dataselect.engines.store.identity import model_identity
from hf_dataselect.service import select_dataset
from hf_dataselect.training.trainer import DataSelectingTrainer
from tests.rows import alpaca
from tests.tiny import tiny_mixtral, tiny_model, tiny_tokenizer, with_lora
from tests.tiny_training import tiny_trainer
from tests.tiny_vision import image_rows, tiny_vlm


#: LESS on a few rows, with a warm-up of two updates.
LESS = {"warmup_fraction": 0.3, "warmup_epochs": 1, "warmup_batch_size": 1, "warmup_gradient_accumulation": 1}
LESS |= {"warmup_learning_rate": 1e-3, "projection_dim": 64, "lora_r": 2}
UNPROJECTED = Projection("none", dtype="float32")


def rows() -> TokenRows:
    """Rows of many lengths, so that ranks make different numbers of passes; most have a common prefix."""
    draw = np.random.default_rng(0)
    begin = draw.integers(6, 300, 12).tolist()
    ids = [(begin if i % 3 else []) + draw.integers(6, 300, int(draw.integers(4, 60))).tolist() for i in range(17)]
    return TokenRows.from_lists([*ids, [7, 8, 9]], [*([(len(row) // 2, len(row))] for row in ids), []])


def passes(model: torch.nn.Module, runtime: Runtime) -> dict[str, np.ndarray]:
    """What the forward engines compute of the rows."""
    given, tokenizer = rows(), tiny_tokenizer()
    prompts = [ids[:9].tolist() for ids, _ in given.take(range(5))]
    answers = generate_ids(model, tokenizer, prompts, runtime, max_new_tokens=3)
    return {
        **likelihood(model, given, runtime)._asdict(),
        "states": hidden_state(model, given, runtime, "position", with_loss=True),
        "layers": hidden_state(model, given.select(np.arange(3)), runtime, "mean", layers=[0, 1]),
        "one-shot": one_shot_loss(model, given.select(np.arange(3)), given.select(np.arange(4, 7)), runtime),
        "answers": np.array([[*ids, -1, -1, -1][:3] for ids in answers]),
    }


def faint(model: torch.nn.Module) -> torch.nn.Module:
    """The model with gradients that float16 rounds to 0, and weights that it doesn't."""
    with torch.no_grad():
        model.get_decoder().norm.weight.mul_(5e-6)
    return model


def faint_gradients(model: torch.nn.Module, runtime: Runtime) -> np.ndarray:
    """Unit vectors of gradients of an adapter beside the weights."""
    return gradients(with_lora(model, 0.1), rows().select(np.arange(4)), runtime, project=UNPROJECTED).vectors


def selected(folder: Path, train: bool = True, **options) -> tuple[np.ndarray, list[float], DataSelectingTrainer]:
    """Scores of LESS, and the losses of the training and of the evaluation after it."""
    given = {"selection_target": str(folder.parent / "target.jsonl"), "selection_budget": 4, "max_steps": 2}
    given |= {"eval_dataset": alpaca(3, seed=7), "train_dataset": alpaca(12)}
    torch.manual_seed(0)  # of an adapter
    trainer = tiny_trainer(folder, "less", LESS, **given, **options)
    if train:
        trainer.train()
    else:
        trainer.select()
    losses = [entry[name] for entry in trainer.state.log_history for name in entry if "loss" in name]
    return trainer.selection.scores, losses, trainer


def quantized(folder: Path) -> torch.nn.Module:
    """The model in 4-bit, in numbers that FSDP2 shards."""
    config = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_quant_storage=torch.float32)
    return AutoModelForCausalLM.from_pretrained(folder, quantization_config=config, device_map="cpu")


def of_experts(folder: Path, **options) -> tuple[np.ndarray, torch.nn.Module]:
    """Scores of LESS by a mixture of experts, for a training loop of one's own; and the model."""
    model, given = tiny_mixtral(tiny_tokenizer()), {"target": str(folder / "target.jsonl"), "max_length": 128}
    given |= {"method_kwargs": LESS, "dtype": "float32", "cache_dir": None, "accelerator": Accelerator(**options)}
    return select_dataset(alpaca(12), "less", model, tiny_tokenizer(), 4, **given)[1].scores, model


def of_images(folder: Path, **options) -> DataSelectingTrainer:
    """A trainer of a vision-language model, whose rows have images; the method reads their texts."""
    model, processor = tiny_vlm()
    options |= {"model": model, "processing_class": processor, "train_dataset": image_rows(8), "selection_budget": 2}
    return tiny_trainer(folder, "perplexity", **options)


def shard_on_cpus(rank: int = 0) -> None:
    """Let accelerate shard on CPUs as it does on GPUs; it silently doesn't."""
    begin = AcceleratorState.__init__

    def patched(self, *given, fsdp_plugin=None, **options):
        first = not AcceleratorState._shared_state
        begin(self, *given, fsdp_plugin=fsdp_plugin, **options)
        if first and fsdp_plugin is not None and self.distributed_type == DistributedType.MULTI_CPU:
            if self.mixed_precision != "no":
                fsdp_plugin.set_mixed_precision(self.mixed_precision)
            self.distributed_type, self.fsdp_plugin = DistributedType.FSDP, fsdp_plugin
            PartialState._shared_state["distributed_type"] = DistributedType.FSDP

    AcceleratorState.__init__ = patched


def score_where_one_fails(model: torch.nn.Module, runtime: Runtime, here: bool) -> None:
    """Losses, as a command computes them on each rank; one rank fails in a pass."""

    def fail(*_) -> None:
        raise ValueError("this rank fails")

    if here:
        model.get_input_embeddings().register_forward_hook(fail)
    try:
        likelihood(model, rows(), runtime)
    except Exception as error:
        leave_ranks(error)
        raise


def of_rank(folder: Path, fails: int) -> None:
    """Everything that is asserted of sharded models, by each rank; then one rank fails in a pass."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
    from torch.distributed.tensor import DTensor
    from transformers.distributed import DistributedConfig

    def sharded(model: torch.nn.Module) -> float:
        """Part of the parameters."""
        return np.mean([isinstance(parameter, DTensor) for parameter in model.parameters()])

    accelerator = Accelerator(cpu=True)
    rank, config = accelerator.process_index, DistributedConfig(fsdp_size=accelerator.num_processes)
    model = AutoModelForCausalLM.from_pretrained(folder / "model", distributed_config=config)
    runtime = Runtime(accelerator, batch_tokens=100, silent=True)
    found = passes(model, runtime) | {"sharded": sharded(model), "identity": model_identity(model)}
    scale, mesh = per_example.FLOAT16_SCALE, init_device_mesh("cpu", (2,))
    for dtype, factor in ((torch.bfloat16, scale), (torch.float16, scale), (torch.float16, 1.0)):
        per_example.FLOAT16_SCALE, policy = factor, MixedPrecisionPolicy(param_dtype=dtype)
        in_dtype = fully_shard(faint(tiny_model(tiny_tokenizer())), mesh=mesh, mp_policy=policy)
        found[f"gradients {dtype} {factor:.0f}"] = faint_gradients(in_dtype, runtime)
    per_example.FLOAT16_SCALE = scale
    layers = {"transformer_layer_cls_to_wrap": ["LlamaDecoderLayer"]}
    by_accelerate = {"fsdp": True, "fsdp_config": layers}
    checkpointed = {"fsdp": True, "fsdp_config": layers | {"activation_checkpointing": True}}
    own = {"train": False, "peft_config": LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM")}
    found["scores experts"], experts = of_experts(folder)
    found["experts"] = sharded(experts)
    online = {"selection_schedule": {"every": 1}, "guard_dataset": {"a": alpaca(12, seed=7)}}
    for name, given in {
        "model": online,
        "4-bit": own,
        "model sharded": online | checkpointed,
        "bfloat16": by_accelerate | {"bf16": True, "selection_dtype": "auto", "gradient_checkpointing": True},
        "4-bit sharded": own | by_accelerate,
    }.items():
        AcceleratorState._reset_state(reset_partial_state=True)
        base = {"model": quantized(folder / "model")} if name.startswith("4-bit") else {}
        found[f"scores {name}"], found[f"losses {name}"], trainer = selected(folder / name, **given, **base)
        found[name], found[f"identity {name}"] = sharded(trainer.model), model_identity(trainer.model)
        if trainer.online is not None:
            (again,) = trainer.online.policy.state["selections"]
            found[f"rows {name}"], found[f"change {name}"] = again["rows"], trainer.guard.changes["a"].change
        if name == "model sharded":
            found["checkpointed"] = sum("CheckpointWrapper" in str(type(part)) for part in trainer.model.modules())
            found["kept"] = trainer.accelerator.state.fsdp_plugin.activation_checkpointing
    AcceleratorState._reset_state(reset_partial_state=True)
    layers = {"transformer_layer_cls_to_wrap": ["LlamaDecoderLayer", "CLIPEncoderLayer"]}
    trainer = of_images(folder / "images", fsdp=True, fsdp_config=layers)
    found["scores images sharded"], found["images sharded"] = trainer.select().scores, sharded(trainer.model)
    AcceleratorState._reset_state(reset_partial_state=True)
    plugin = FullyShardedDataParallelPlugin(fsdp_version=2, auto_wrap_policy="transformer_based_wrap")
    found["scores experts sharded"], experts = of_experts(folder, fsdp_plugin=plugin)
    found["experts sharded"] = sharded(experts)
    np.savez(folder / f"{rank}.npz", **found)
    score_where_one_fails(model, runtime, rank == fails)
