"""Warm-up fine-tuning: a model temporarily fine-tuned on a few rows, then restored bit for bit."""

import logging
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from copy import deepcopy
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import torch
from datasets import Dataset
from torch import nn
from transformers import ProgressCallback, TrainerCallback

from ...compat.transformers import keep_to
from ...errors import NoUsableRow, SelectionError, TrainingDiverged
from ..runtime.model_state import preserved, unprepared
from ..runtime.ranks import training_phase
from ..runtime.runtime import Runtime
from ..runtime.sharding import trained_as_it_is
from ..runtime.shared_work import alone
from ..runtime.token_rows import TokenRows, labelled
from ..store.files import check_cache
from ..store.identity import digest, note_identity, weights_identity
from ..store.tensors import load_tensors, save_tensors
from .checkpoints import Checkpoint, EpochRecorder, packed, unpacked
from .ranks import of_ranks
from .row_dropout import dropout_by_row
from .settings import WarmupSettings
from .temporary_weights import temporary_weights


logger = logging.getLogger(__name__)

#: Raise it when unchanged rows and settings give other tuned weights, or when the file format changes.
VERSION = 3
#: Libraries whose versions decide the tuned weights too.
_LIBRARIES = ("torch", "transformers", "trl", "peft")


class ImageRows(NamedTuple):
    """Rows with images, which TRL tokenizes and makes pixels of as it trains; what is tuned on them is not cached."""

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
    runtime: Runtime,
) -> Iterator[nn.Module]:
    """
    `model` fine-tuned on `rows`, inside the `with` block; afterwards, also after an exception, weights, adapters and
    flags are restored.

    The tuned weights are cached under the content of model, rows and settings, so that a killed run goes on with the
    very same model instead of tuning it again, and so that of two runs at once only one tunes. Damaged ones are named
    in a warning, and tuned again.

    Args:
        model ([`~transformers.PreTrainedModel`] or [`~peft.PeftModel`]):
            The model; quantized ones take `method="lora"`.
        tokenizer ([`~transformers.PreTrainedTokenizerBase`]):
            The model's; batches are padded with its token. For rows with images, the processor.
        rows ([`TokenRows`] or [`ImageRows`]):
            What is trained on: their label tokens, the same as in scoring.
        settings ([`WarmupSettings`]):
            How to tune.
        runtime ([`Runtime`]):
            Ranks, cache, gradient checkpointing, and where the rows that are tuned on are booked, or the seconds that
            the cached weights took.

    Raises:
        [`SelectionError`]: `method="full"` on a quantized model, layers that take no adapter, no row with label
            tokens, weights that are not finite afterwards, or ranks with different ones.
    """
    with _tuned(model, tokenizer, rows, settings, runtime) as tuned:
        yield tuned


@contextmanager
def warmed_up_by_epoch(
    model: nn.Module,
    tokenizer: Any,
    rows: TokenRows,
    settings: WarmupSettings,
    runtime: Runtime,
    before: Callable[[nn.Module], None] | None = None,
) -> Iterator[tuple[nn.Module, list[Checkpoint]]]:
    """
    As [`warmed_up`], with the states of model and optimizer at the end of every epoch; all of it is cached (three
    times the tuned weights, an epoch). `before` is called with the model before it is tuned, unless the weights are
    cached: the place to refuse what comes after.

    Raises:
        [`SelectionError`]: as [`warmed_up`], or an optimizer other than Adam.
    """
    epochs = []
    with _tuned(model, tokenizer, rows, settings, runtime, epochs, before) as tuned:
        yield tuned, epochs


@contextmanager
def _tuned(model, tokenizer, rows, settings, runtime, epochs=None, before=None):
    tunable = temporary_weights(model, settings, images=isinstance(rows, ImageRows))
    saved, writable, base = None, False, runtime.identity(model)
    rows_tuned_on = len(rows if isinstance(rows, TokenRows) else rows.dataset)
    if runtime.cache_dir is not None and isinstance(rows, TokenRows):
        ranks = [runtime.world, runtime.precision]
        described = [base, rows.keys().tobytes().hex(), asdict(settings), ranks, epochs is not None]
        key = digest([VERSION, [version(name) for name in _LIBRARIES], described])
        saved, writable = Path(runtime.cache_dir) / "warmup" / f"{key}.safetensors", check_cache(runtime.cache_dir)
        if writable:
            saved.parent.mkdir(exist_ok=True)
    with preserved(model), unprepared(model), tunable as (tuned, weights, put):

        def load(state: dict[str, torch.Tensor]) -> None:
            put(state)
            identify()

        def identify() -> str:
            """Hash of what was tuned; with the base model's, which nothing else differs from, the tuned model's."""
            own = weights_identity(weights())
            if base is not None:
                note_identity(tuned, digest([base, asdict(settings), own]))
            return own

        files = runtime.account.cache_files

        def cached(tell: bool) -> bool:
            """Whether the weights were read; ranks that do not see the file must tune, which takes all of them."""
            found = None if saved is None else load_tensors(saved, logger.warning if tell else None)
            if not all(runtime.gather(found is not None)):
                return False
            state, facts = found
            if epochs is None:
                put(state)
            else:
                epochs.extend(unpacked(state, facts["epochs"], load))
            runtime.book(cached_seconds=0 if saved.name in files else facts["seconds"])
            return True

        def tune() -> None:
            if before is not None:
                before(tuned)
            started = time.perf_counter()
            recorder = None if epochs is None else EpochRecorder(tuned, weights, load, epochs)
            with preserved(tuned):
                _train(tuned, tokenizer, rows, settings, runtime, *([recorder] if recorder else []))
            if lost := [name for name, weight in weights().items() if not torch.isfinite(weight).all()]:
                raise TrainingDiverged(
                    f"{len(lost)} weights are not finite after the warm-up ({lost[0]!r}, ...), as the loss or its "
                    "gradient was not: repair the model's weights, load it in float32 or bfloat16, or lower the "
                    "learning rate of the warm-up."
                )
            runtime.book(warmup_rows=rows_tuned_on * settings.epochs)
            tuned_weights = weights()  # all ranks together
            if writable and runtime.is_main:
                state, facts = (tuned_weights, []) if epochs is None else packed(epochs)
                try:
                    save_tensors(saved, state, {"seconds": time.perf_counter() - started, "epochs": facts})
                except OSError as error:
                    logger.warning(
                        "The warmed-up weights can't be saved (%s): a killed run will tune them again.", error
                    )

        if not cached(tell=runtime.is_main and not writable):
            lock = saved.with_suffix(".lock") if runtime.broadcast(writable) else None
            with nullcontext() if lock is None else alone(runtime, lock, "fine-tuning the same warm-up"):
                if lock is None or not cached(tell=runtime.is_main):
                    tune()
        if runtime.world > 1:
            runtime.account.figures["warm-up"] = of_ranks(tuned, rows_tuned_on, settings, runtime.world)
        if saved is not None:
            files[saved.name] = None
        # Otherwise each rank would score with a different model.
        if (base is not None or runtime.world > 1) and not runtime.agree(identify()):
            raise SelectionError("The ranks hold different weights after the warm-up: it was not averaged over them.")
        yield tuned


def _train(
    tuned: nn.Module,
    tokenizer: Any,
    rows: TokenRows | ImageRows,
    settings: WarmupSettings,
    runtime: Runtime,
    *callbacks: TrainerCallback,
) -> None:
    from trl import SFTConfig, SFTTrainer

    # Token rows are truncated already.
    rows, window = rows if isinstance(rows, ImageRows) else (labelled(rows), None)
    if len(rows) == 0:
        raise NoUsableRow("No row to warm up on has an answer within the window.")
    precision = runtime.precision
    with tempfile.TemporaryDirectory() as folder:
        given = {"max_length": window} | settings.arguments(len(rows), runtime.world)
        given |= {
            "gradient_checkpointing": runtime.gradient_checkpointing,
            "bf16": precision == "bf16",
            "fp16": precision == "fp16",
            "use_cpu": next(tuned.parameters()).device.type == "cpu",
            "save_strategy": "no",
            "logging_strategy": "no",
            "report_to": "none",
        }
        with trained_as_it_is(tuned):
            args = SFTConfig(folder, **given)
            # A copy: a tokenizer without a pad token is given one.
            trainer = SFTTrainer(tuned, args, train_dataset=rows, processing_class=deepcopy(tokenizer))
            by_row = dropout_by_row(tuned, settings.seed) if settings.dropout_by_row else nullcontext()
            with by_row as rows_seen, training_phase(trainer, "Warming up"):
                keep_to(trainer, [_WarmupBar(), *([rows_seen] if rows_seen else []), *callbacks])
                runtime.account.tuning_seconds = trainer.train().metrics["train_runtime"]


class _WarmupBar(ProgressCallback):
    """A progress bar with a label, and without logs."""

    def on_train_begin(self, args, state, control, **kwargs):
        super().on_train_begin(args, state, control, **kwargs)
        if self.training_bar is not None:
            self.training_bar.set_description("Warming up")

    def on_log(self, args, state, control, **kwargs):
        pass
