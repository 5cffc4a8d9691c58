"""Where a selection may run: how it is launched, with which model and rows."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from datasets import Dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from hf_dataselect.selection import Selection
from hf_dataselect.training.config import DataSelectingConfig
from hf_dataselect.training.trainer import DataSelectingTrainer
from tests.partitioned import deepspeed_on_cpu, partitioned
from tests.rows import layout
from tests.selectors.small import LAYOUTS, with_columns
from tests.sharded import shard_on_cpus
from tests.tiny import tiny_mixtral, tiny_tokenizer
from tests.tiny_vision import image_rows, tiny_vlm


PARTS = 3


class NotHere(Exception):
    """What a mode needs is not installed here."""


def rows_for(name: str) -> dict[str, Any]:
    """Rows that a method reads, 36 as `auto` wants at least 32; for `grape`, three answers to each prompt."""
    rows = with_columns(layout(LAYOUTS.get(name, "alpaca"), 36), name)
    if name == "grape":
        first = [row - row % 3 for row in range(len(rows))]
        prompts = {column: [rows[row][column] for row in first] for column in ("instruction", "input")}
        rows = Dataset.from_dict(rows.to_dict() | prompts)
    return {"train_dataset": rows}


def loaded(folder: Path, **options: Any) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder / "LLAMA", **options)


def offloaded(folder: Path) -> dict[str, Any]:
    places = dict.fromkeys(("model.embed_tokens", "model.layers.0", "model.norm", "model.rotary_emb"), "cpu")
    places |= dict.fromkeys(("model.layers.1", "lm_head"), "disk")
    return {"model": loaded(folder, device_map=places, offload_folder=str(folder / "offloaded"))}


def quantized(folder: Path) -> dict[str, Any]:
    config = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4")
    adapter = LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM")
    return {"model": loaded(folder, quantization_config=config, device_map="cpu"), "peft_config": adapter}


def experts(folder: Path) -> dict[str, Any]:
    return {"model": tiny_mixtral(tiny_tokenizer())}


def seeing(folder: Path) -> dict[str, Any]:
    model, processor = tiny_vlm()
    return {"model": model, "processing_class": processor}


def pictures(name: str) -> dict[str, Any]:
    kind = "messages" if LAYOUTS.get(name) == "messages" else "prompt-completion"
    rows = image_rows(36, layout=kind)
    return {"train_dataset": with_columns(rows, name), "eval_dataset": image_rows(8, seed=5, layout=kind)}


def streamed(name: str) -> dict[str, Any]:
    rows = rows_for(name)["train_dataset"]
    fields = DataSelectingConfig.__dataclass_fields__
    option = {"selection_stream_rows": len(rows)} if "selection_stream_rows" in fields else {}
    return {"train_dataset": rows.to_iterable_dataset()} | option


def in_parts(trainer: DataSelectingTrainer) -> Selection:
    """Computed by parts, then selected, which has to run no model."""
    try:
        from hf_dataselect.engines.runtime.part import Part
        from hf_dataselect.parts import check_part, compute_part
    except ImportError as error:
        raise NotHere("`--part` is not part of this version") from error
    cache = trainer.args.runtime(None).cache_dir
    for number in range(1, PARTS + 1):
        part = Part(number, PARTS)
        check_part(trainer.plan, part, cache)
        compute_part(trainer.plan, trainer.context(), part)
    selection = trainer.select()
    passes = {kind: count for kind, count in selection.passes.items() if count and not kind.startswith("cached")}
    assert not passes, f"after the parts, {passes} were left to compute"
    return selection


def dtensors(model: Any) -> int:
    from torch.distributed.tensor import DTensor

    return sum(isinstance(parameter, DTensor) for parameter in model.parameters())


@dataclass(frozen=True)
class Mode:
    """
    Args:
        title (`str`): Heading of its column.
        about (`str`): What is tried.
        ranks (`int`): Processes.
        env (`dict`): What `accelerate launch` would set.
        patch (`Callable`, *optional*): Called in each process before anything else.
        package (`str`, *optional*): What has to be installed.
        model (`Callable`): Folder of models -> the trainer's model and what goes with it.
        rows (`Callable`): Method -> the trainer's rows and what goes with them.
        select (`Callable`): What selects.
        sharded (`Callable`, *optional*): Model -> number of sharded parameters, which must not be 0.
        same (`bool`): Whether the rows chosen should be those of one process.
    """

    title: str
    about: str
    ranks: int = 1
    env: dict[str, str] = field(default_factory=dict)
    patch: Callable[[int], None] | None = None
    package: str | None = None
    model: Callable[[Path], dict[str, Any]] = lambda folder: {}
    rows: Callable[[str], dict[str, Any]] = rows_for
    select: Callable[[DataSelectingTrainer], Selection] = DataSelectingTrainer.select
    sharded: Callable[[Any], int] | None = None
    same: bool = True


def deepspeed(stage: int, **options: Any) -> Mode:
    env = {"ACCELERATE_USE_DEEPSPEED": "true", "ACCELERATE_DEEPSPEED_ZERO_STAGE": str(stage)}
    about = f"two processes, as `accelerate launch --use_deepspeed --zero_stage {stage}` starts them"
    return Mode(f"ZeRO-{stage}", about, 2, env, deepspeed_on_cpu, "deepspeed", **options)


FSDP = {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2", "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP"}
FSDP |= {"FSDP_CPU_RAM_EFFICIENT_LOADING": "true"}
MODES = {
    "one": Mode("one process", "nothing else"),
    "ddp": Mode("DDP", "two processes, each with the whole model", 2),
    "fsdp2": Mode(
        "FSDP2",
        "two processes, as `accelerate launch --use_fsdp --fsdp_version 2` starts them",
        2,
        FSDP,
        shard_on_cpus,
        sharded=dtensors,
    ),
    "zero2": deepspeed(2),
    "zero3": deepspeed(3, sharded=partitioned),
    "offload": Mode("offloaded", "`device_map` leaves a layer and the head on disk", model=offloaded),
    "4bit": Mode("4-bit", "base of bitsandbytes with LoRA", package="bitsandbytes", model=quantized, same=False),
    "moe": Mode("MoE", "Mixtral of four experts", model=experts, same=False),
    "vision": Mode("images", "Llava and rows with images", model=seeing, rows=pictures, same=False),
    "parts": Mode("`--part`", f"{PARTS} parts, then a selection that runs no model", select=in_parts),
    "stream": Mode("streamed", "the pool is an `IterableDataset`", rows=streamed),
}
