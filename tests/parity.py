"""
Trainings on several ranks, each beside a plain `SFTTrainer` on the rows that were kept: [`on_rank`] writes what each
rank ends with as `FOLDER/RANK.json`.
"""

import hashlib
import json
import shutil
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from accelerate import PartialState
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from transformers import set_seed
from trl import SFTConfig, SFTTrainer

from hf_dataselect.engines.tuning import warm_up as warmup
from hf_dataselect.errors import SelectionError
from hf_dataselect.training import callbacks
from hf_dataselect.training.config import DataSelectingConfig
from hf_dataselect.training.trainer import DataSelectingTrainer
from tests.engines.llm.test_local import reward_model
from tests.rows import layout
from tests.tiny import tiny_model, tiny_tokenizer
from tests.tiny_training import PLAIN


WARM = {"warmup_batch_size": 2, "warmup_gradient_accumulation": 1, "warmup_learning_rate": 1e-2}
IFD = WARM | {"warmup_clusters": 2, "warmup_rows_per_cluster": 3, "drop_above_one": False}
LESS = WARM | {"lora_r": 4, "lora_alpha": 8, "warmup_epochs": 2, "warmup_fraction": 0.5, "projection_dim": 64}
NUGGETS = {"tasks": 4, "threshold": 0.0}
MODS = WARM | {"encoder": "model", "seed_rows": 4, "max_new_tokens": 4}
EVERY = {"eval_strategy": "steps", "eval_steps": 1}
START = {"eval_on_start": True}
AMP = {"bf16": True}
GENERATED = {"benchmark_metrics": ["exact_match"], "benchmark_max_new_tokens": 3}
#: Lines of one length are compiled once.
COMPILED = EVERY | {"torch_compile": True, "torch_compile_backend": "eager", "pad_to_multiple_of": 128}

#: Name: method, its options, the trainer's options, and what is done; `half` is a bfloat16 model, `lora` an adapter.
CASES = {
    "evaluated": ("full", {}, EVERY | START | GENERATED, "train"),
    "evaluated lora half auto": ("full", {}, EVERY | {"selection_dtype": "auto"}, "train"),
    "evaluated before unseeded lora": ("perplexity", {}, EVERY, "evaluate select train"),
    "evaluated before": ("full", {}, AMP, "evaluate train"),
    "evaluated before lora": ("full", {}, GENERATED, "evaluate train"),
    "packed accumulated": (
        "full", {}, EVERY | AMP | {"packing": True, "gradient_accumulation_steps": 2, "max_length": 64}, "train"
    ),
    "best": (
        "perplexity", {}, EVERY | {"save_strategy": "steps", "save_steps": 1, "load_best_model_at_end": True}, "train"
    ),
    "resumed lora": (
        "perplexity", {}, EVERY | {"save_strategy": "steps", "save_steps": 2, "max_steps": 4}, "train resume"
    ),
    "again half": ("perplexity", {}, EVERY | {"selection_dtype": "float32"}, "select train select train"),
    "ifd": ("ifd", IFD | {"warmup": "lora"}, EVERY | AMP, "evaluate train select train"),
    "ifd full checkpointed": (
        "ifd", IFD | {"warmup": "full"}, EVERY | {"gradient_checkpointing": True}, "train select train"
    ),
    "ifd lora half": ("ifd", IFD | {"warmup": "lora"}, EVERY, "train select train"),
    "less": ("less", LESS, EVERY, "train select train"),
    "less lora": ("less", LESS, AMP | {"selection_dtype": "float32"}, "evaluate select train"),
    "less layers": ("less", LESS | {"layers": ["q_proj", "v_proj"]}, EVERY, "train select train"),
    "nuggets": ("nuggets", NUGGETS, EVERY, "train select train"),
    "rds lora": ("rds", {}, EVERY | AMP, "train select train"),
    "deita lora": (
        "deita",
        {"complexity_scorer": "model", "quality_scorer": "model", "encoder": "model"},
        EVERY | AMP,
        "evaluate train select train",
    ),
    "neftune compiled": (
        "perplexity", {}, COMPILED | {"neftune_noise_alpha": 5}, "evaluate select train select train"
    ),
    "mods": ("mods", MODS, EVERY | {"gradient_accumulation_steps": 2}, "train select train"),
}  # fmt: skip
#: Options that plain `SFTConfig` does not have.
OWN = {*GENERATED, "selection_dtype"}


def trainer(kind, folder: Path, name: str, rows: Dataset, **own):
    tokenizer = tiny_tokenizer()
    model = tiny_model(tokenizer, layers=1, hidden=32).to(torch.bfloat16 if "half" in name else torch.float32)
    options = PLAIN | {"max_steps": 3} | CASES[name][2]
    if own:
        config, options = DataSelectingConfig, own | {"selection_dtype": "bfloat16"} | options
    else:
        config, options = SFTConfig, {key: value for key, value in options.items() if key not in OWN}
    torch.manual_seed(PartialState().process_index if "unseeded" in name else 0)
    lora = LoraConfig(r=4, lora_alpha=8, lora_dropout=0.1, target_modules="all-linear")
    if "unseeded" in name:  # a user's own, drawn on each rank
        model = get_peft_model(model, lora)
    return kind(
        model,
        config(str(folder), **options),
        train_dataset=rows,
        eval_dataset=layout("messages", 4, seed=5),
        processing_class=tokenizer,
        peft_config=lora if "lora" in name and "unseeded" not in name else None,
    )


def outcome(done: SFTTrainer) -> dict:
    """Hash of the trained weights and of the optimizer's state, and the losses."""

    def hashed(tensors) -> str:
        parts = (tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy() for tensor in tensors)
        return hashlib.sha256(b"".join(part.tobytes() for part in parts)).hexdigest()

    states = done.optimizer.state_dict()["state"].values()
    return {
        "weights": hashed(p for p in done.model.parameters() if p.requires_grad),
        "optimizer": hashed(value for state in states for value in state.values() if torch.is_tensor(value)),
        "losses": [entry["loss"] for entry in done.state.log_history if "loss" in entry],
    }


def compared(name: str, folder: Path) -> dict:
    """What this rank ends each training with, and what it ends with by plain `SFTTrainer`."""
    method, kwargs, _, actions = CASES[name]
    rows = layout("messages", 20)
    target = folder / f"target{PartialState().process_index}.jsonl"
    layout("messages", 4, seed=3).to_json(target)
    own = {"selection_method": method, "selection_cache_dir": str(folder / "cache"), "selection_batch_tokens": 256}
    if method == "mods":
        kwargs = kwargs | {"reward_model": str(folder / "rewards")}
        if PartialState().is_main_process:
            reward_model(tiny_tokenizer()).save_pretrained(folder / "rewards")
            tiny_tokenizer().save_pretrained(folder / "rewards")
        PartialState().wait_for_everyone()
    own |= {"selection_kwargs": kwargs}
    own |= {"selection_budget": 9} if method != "full" else {}
    own |= {"selection_target": str(target)} if method in ("less", "rds") else {}

    def anew(kind) -> SFTTrainer:
        if kind is DataSelectingTrainer:
            return trainer(kind, folder / "ours", name, rows, **own)
        return trainer(kind, folder / "plain", name, rows.select(np.sort(ours.selection.indices)))

    ours, plain, results = anew(DataSelectingTrainer), None, {"ours": [], "plain": []}
    for action in actions.split():
        if action in ("evaluate", "select"):
            getattr(ours, action)()
            continue
        checkpoint = {}
        if action == "resume":
            ours, plain, checkpoint = anew(DataSelectingTrainer), None, {"resume_from_checkpoint": True}
            for side in ("ours", "plain"):
                if PartialState().is_main_process:
                    shutil.rmtree(folder / side / "checkpoint-4")
            PartialState().wait_for_everyone()
        set_seed(1)
        ours.train(**checkpoint)
        fresh = anew(SFTTrainer)
        plain = plain or fresh
        plain.train_dataset = fresh.train_dataset  # of the rows kept now
        set_seed(1)
        plain.train(**checkpoint)
        results["ours"].append(outcome(ours))
        results["plain"].append(outcome(plain))
    return results


def diverged(folder: Path) -> dict:
    """What is said where the ranks hold different weights."""
    rank, said = PartialState().process_index, {}

    def shift(model, *_, **__) -> None:
        with torch.no_grad():
            next(p for p in model.parameters() if p.requires_grad).add_(rank)

    def apart(**options):
        rows, options["selection_cache_dir"] = layout("messages", 12), "none"
        return trainer(DataSelectingTrainer, folder, "evaluated before", rows, **options)

    done = apart(selection_method="perplexity", selection_budget=4)
    shift(done.model)
    try:
        done.select()
    except SelectionError as error:
        said["select"] = str(error)
    done = apart(selection_method="ifd", selection_kwargs=IFD, selection_budget=4)
    with mock.patch.object(warmup, "_train", shift):
        try:
            done.select()
        except SelectionError as error:
            said["warm-up"] = str(error)
    done = apart(selection_method="random", selection_budget=4)
    shift(done.model)
    with mock.patch.object(callbacks.logger, "error") as logged:
        done.evaluate()
    said["evaluate"] = logged.call_count
    return said


def on_rank(folder: Path, name: str) -> None:
    state = PartialState(cpu=True)
    result = diverged(folder) if name == "diverged" else compared(name, folder)
    (folder / f"{state.process_index}.json").write_text(json.dumps(result))
    state.destroy_process_group()
