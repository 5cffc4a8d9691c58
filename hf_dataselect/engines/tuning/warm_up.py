"""A temporarily tuned model: trained on a few rows, lent out, and put back bit for bit."""

import json
import logging
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object, is_peft_model
from datasets import Dataset, Features, List, Value
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import PrinterCallback, ProgressCallback, TrainerCallback

from ...errors import SelectionError
from ..gradients import adam
from ..runtime import token_rows as tokens
from ..runtime.account import Account
from ..runtime.batching import main_process_first, same_on_all_ranks
from ..runtime.model_state import preserved, unprepared
from ..runtime.token_rows import TokenRows
from ..store.files import check_writable
from ..store.identity import code_version, digest, model_identity, weights_identity
from ..store.vector_store import free_bytes
from ..tuning import checkpoints as epochs_module
from ..tuning import temporary_weights as lending
from .checkpoints import Checkpoint, EpochRecorder, packed, unpacked
from .temporary_weights import adapter_copy, all_weights, temporary_lora


logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class WarmupSettings:
    """
    How the model is tuned for a while.

    Args:
        method (`str`, *optional*, defaults to `"lora"`):
            `"lora"`: a temporary adapter (a copy of the user's own where the model is a `PeftModel`). `"full"`: all
            weights, with a copy of them kept in main memory, and a file as large as the model in the cache folder for
            each set of rows and settings.
        epochs (`float`, *optional*, defaults to `1`):
            Passes over the rows.
        learning_rate (`float`, *optional*, defaults to `2e-5`):
            Peak of the schedule; 3 % of the updates, rounded down, lead up to it.
        schedule (`str`, *optional*, defaults to `"cosine"`):
            How the learning rate falls: `"cosine"` or `"linear"`.
        optimizer (`str`, *optional*, defaults to `"adamw_torch_fused"`):
            As in [`~transformers.TrainingArguments`].
        batch_size (`int`, *optional*, defaults to `8`):
            Rows of a step on one device.
        gradient_accumulation (`int`, *optional*, defaults to `16`):
            Batches of an update.
        lora_r (`int`, *optional*, defaults to `16`):
            Rank of the temporary adapter.
        lora_alpha (`int`, *optional*):
            By default twice the rank.
        lora_dropout (`float`, *optional*, defaults to `0.0`):
            While tuning.
        lora_targets (`tuple[str]`, *optional*, defaults to `("all-linear",)`):
            Layers it is put on.
        layers (`tuple[str]`, *optional*):
            With `method="full"`, the linear layers that are tuned (see [`linear_layers`]) instead of all weights.
        gradient_checkpointing (`bool`, *optional*, defaults to `False`):
            Trade compute for memory.
        seed (`int`, *optional*, defaults to `42`):
            Of initialisation and order of rows.
    """

    method: Literal["lora", "full"] = "lora"
    epochs: float = 1
    learning_rate: float = 2e-5
    schedule: Literal["cosine", "linear"] = "cosine"
    optimizer: str = "adamw_torch_fused"
    batch_size: int = 8
    gradient_accumulation: int = 16
    lora_r: int = 16
    lora_alpha: int | None = None
    lora_dropout: float = 0.0
    lora_targets: tuple[str, ...] = ("all-linear",)
    layers: tuple[str, ...] = ()
    gradient_checkpointing: bool = False
    seed: int = 42


class ImageRows(NamedTuple):
    """Rows with images, which TRL makes tokens and pixels of as it trains; what is tuned on them is not kept."""

    #: In a layout that [`~trl.SFTTrainer`] trains a vision-language model on.
    dataset: Dataset
    #: Window in tokens.
    max_length: int | None


@contextmanager
def warmed_up(
    model: nn.Module,
    tokenizer: Any,
    rows: TokenRows | ImageRows,
    settings: WarmupSettings,
    accelerator: Accelerator | None = None,
    cache_dir: Path | None = None,
    account: Account | None = None,
) -> Iterator[nn.Module]:
    """
    Lend out `model` tuned on `rows`; afterwards, also after an exception, weights, adapters and flags are as before.

    The tuned weights are kept in `cache_dir` under the content of model, rows and settings, so that a killed run goes
    on with the very same model instead of tuning it again.

    Args:
        model ([`~transformers.PreTrainedModel`] or [`~peft.PeftModel`]):
            The model; quantized ones take `method="lora"`.
        tokenizer ([`~transformers.PreTrainedTokenizerBase`]):
            The model's; batches are padded with its token. For rows with images, the processor.
        rows ([`TokenRows`] or [`ImageRows`]):
            What is trained on: their counted tokens, and no other, as scoring counts them.
        settings ([`WarmupSettings`]):
            How to tune.
        account ([`Account`], *optional*):
            Where the rows that are tuned on are counted, or the seconds that it once took where the tuned weights are
            found in `cache_dir`.

    Raises:
        [`SelectionError`]: `method="full"` on a quantized model, no row has a counted token, or the ranks hold
            different weights afterwards.
    """
    with _tuned(model, tokenizer, rows, settings, accelerator, cache_dir, account) as tuned:
        yield tuned


@contextmanager
def warmed_up_by_epoch(
    model: nn.Module,
    tokenizer: Any,
    rows: TokenRows,
    settings: WarmupSettings,
    accelerator: Accelerator | None = None,
    cache_dir: Path | None = None,
    account: Account | None = None,
    before: Callable[[nn.Module], None] | None = None,
) -> Iterator[tuple[nn.Module, list[Checkpoint]]]:
    """
    As [`warmed_up`], with what the model and its optimizer were at the end of every epoch; all of it is kept in
    `cache_dir` (three times the tuned weights, an epoch). `before` is called with the model before it is tuned, if it
    is: the place to refuse what comes after.

    Raises:
        [`SelectionError`]: `method="full"` on a quantized model, no row with a counted token, an optimizer that is
            no Adam, or the ranks hold different weights afterwards.
    """
    epochs = []
    with _tuned(model, tokenizer, rows, settings, accelerator, cache_dir, account, epochs, before) as tuned:
        yield tuned, epochs


@contextmanager
def _tuned(model, tokenizer, rows, settings, accelerator, cache_dir, account, epochs=None, before=None):
    if settings.method == "full" and getattr(model, "is_quantized", False):
        raise SelectionError("A quantized model can't be tuned in full: use the warm-up method 'lora'.")
    saved = None
    if cache_dir is not None and isinstance(rows, TokenRows):
        processes, precision = (accelerator.num_processes, accelerator.mixed_precision) if accelerator else (1, "no")
        modules = [sys.modules[__name__], lending, tokens, *([adam, epochs_module] if epochs is not None else [])]
        code = [code_version(*modules), *map(version, ("torch", "transformers", "trl", "peft"))]
        content = rows.keys().tobytes().hex()
        described = [model_identity(model), content, asdict(settings), processes, precision, epochs is not None]
        key = digest([code, described])
        saved = check_writable(Path(cache_dir) / "warmup") / f"{key}.safetensors"
    lend = all_weights if settings.method == "full" else adapter_copy if is_peft_model(model) else temporary_lora
    if lend is temporary_lora:
        lend = partial(lend, images=isinstance(rows, ImageRows))
    with preserved(model), unprepared(model), lend(model, settings) as (tuned, weights, load):
        # Ranks that do not see the file have to tune, and tuning takes all of them.
        if saved is not None and all(gather_object([saved.exists()])):
            state = load_file(saved)
            with safe_open(saved, "pt") as file:
                facts = json.loads(file.metadata()["facts"])
            if epochs is None:
                load(state)
            else:
                epochs += unpacked(state, facts["epochs"], load)
            if account is not None:
                account.add_cached_seconds(facts["seconds"])
        else:
            if before is not None:
                before(tuned)
            started = time.perf_counter()
            recorder = None if epochs is None else EpochRecorder(tuned, weights, load, epochs)
            with preserved(tuned):
                _train(tuned, tokenizer, rows, settings, accelerator, *([recorder] if recorder else []))
            if account is not None:
                account.count(warmup_rows=len(rows.dataset) * settings.epochs)
            if saved is not None and (accelerator is None or accelerator.is_main_process):
                state, facts = (weights(), []) if epochs is None else packed(epochs)
                _keep(saved, state, {"seconds": time.perf_counter() - started, "epochs": facts})
        # Each rank would score with a model of its own, none of them the one that was asked for.
        several = accelerator is not None and accelerator.num_processes > 1
        if several and not same_on_all_ranks(accelerator, weights_identity(weights())):
            raise SelectionError("The ranks hold different weights after the warm-up: it was not averaged over them.")
        yield tuned


def _train(
    tuned: nn.Module,
    tokenizer: Any,
    rows: TokenRows | ImageRows,
    settings: WarmupSettings,
    accelerator: Accelerator | None,
    *callbacks: TrainerCallback,
) -> None:
    from trl import SFTConfig, SFTTrainer

    # Token rows are cut already.
    rows, window = rows if isinstance(rows, ImageRows) else (labelled(rows), None)
    if len(rows) == 0:
        raise SelectionError("No row to warm up on has an answer within the window.")
    precision = accelerator.mixed_precision if accelerator else "no"
    processes = accelerator.num_processes if accelerator else 1
    updates = settings.epochs * len(rows) / (settings.batch_size * settings.gradient_accumulation * processes)
    with tempfile.TemporaryDirectory() as folder:
        args = SFTConfig(
            folder,
            num_train_epochs=settings.epochs,
            learning_rate=settings.learning_rate,
            lr_scheduler_type=settings.schedule,
            optim=settings.optimizer,
            warmup_steps=int(0.03 * updates),
            per_device_train_batch_size=settings.batch_size,
            gradient_accumulation_steps=settings.gradient_accumulation,
            max_length=window,
            gradient_checkpointing=settings.gradient_checkpointing,
            seed=settings.seed,
            bf16=precision == "bf16",
            fp16=precision == "fp16",
            use_cpu=next(tuned.parameters()).device.type == "cpu",
            save_strategy="no",
            logging_strategy="no",
            report_to="none",
        )
        # A copy, because a tokenizer without a pad token is given one.
        trainer = SFTTrainer(tuned, args, train_dataset=rows, processing_class=deepcopy(tokenizer))
        for callback in (ProgressCallback, PrinterCallback):
            trainer.remove_callback(callback)
        for callback in (_WarmupBar, *callbacks):
            trainer.add_callback(callback)
        trainer.train()


def labelled(rows: TokenRows) -> Dataset:
    """Rows as [`~trl.SFTTrainer`] trains on them: `labels` are -100 at all other tokens. Rows of none are left out."""

    def label(batch: dict[str, list]) -> dict[str, list]:
        labels = []
        for ids, flat in zip(batch["input_ids"], batch["spans"], strict=True):
            row = [-100] * len(ids)
            for start, end in zip(flat[::2], flat[1::2], strict=True):
                row[max(start, 1) : end] = ids[max(start, 1) : end]  # nothing foretells the first token
            labels.append(row)
        kept = [i for i, row in enumerate(labels) if any(token != -100 for token in row)]
        return {"input_ids": [batch["input_ids"][i] for i in kept], "labels": [labels[i] for i in kept]}

    features = Features({name: List(Value("int32")) for name in ("input_ids", "labels")})
    options = {"batched": True, "remove_columns": ["spans"], "features": features, "desc": "Labelling rows"}
    with main_process_first(rows.dataset):
        return rows.dataset.with_format(None).map(label, **options)


class _WarmupBar(ProgressCallback):
    """A progress bar that says what it is of, and nothing else."""

    def on_train_begin(self, args, state, control, **kwargs):
        super().on_train_begin(args, state, control, **kwargs)
        if self.training_bar is not None:
            self.training_bar.set_description("Warming up")

    def on_log(self, args, state, control, **kwargs):
        pass


def _keep(path: Path, state: dict[str, torch.Tensor], facts: dict[str, Any]) -> None:
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    needed, free = sum(tensor.nbytes for tensor in tensors.values()), free_bytes(path.parent)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        if needed > free:  # the run may need what is left of the disk
            raise OSError(f"they take {needed / 1e9:.1f} GB, and {free / 1e9:.1f} GB are left")
        save_file(tensors, temporary, metadata={"facts": json.dumps(facts)})
        temporary.replace(path)
    except (OSError, SafetensorError) as error:
        temporary.unlink(missing_ok=True)
        logger.warning("The warmed-up weights can't be saved (%s): a killed run will tune them again.", error)
