"""What a model takes on this machine, measured on some rows: seconds of a token, and bytes. Nothing is trained."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from transformers import AutoConfig, AutoModelForCausalLM
from trl import ModelConfig, get_peft_config

from ..compat.transformers import without_router_logits
from ..data.encoded import Encoded
from ..engines.forward.likelihood import likelihood
from ..engines.runtime.batching import padded
from ..engines.runtime.token_rows import TokenRows
from .config import DataSelectingConfig


#: Tokens that scoring is measured on at most, and rows that generation is.
MOST_TOKENS, ANSWERS = 4096, 8
#: Seconds after which a call is not repeated.
LONG = 5.0
#: Tokens generated to measure generation.
NEW_TOKENS = 8


@dataclass(frozen=True)
class Rates:
    """
    Args:
        score, train, generate (`float`):
            Seconds of a token in a pass that scores, in a training step, and of a new one.
        parameters, trainable (`int`):
            Of the model, and of what is trained.
        weight_bytes (`int`):
            Of the weights as they are loaded.
    """

    score: float
    train: float
    generate: float
    parameters: int
    trainable: int
    weight_bytes: int

    @property
    def saved_bytes(self) -> int:
        """A model, or its adapter, on the disk."""
        return self.weight_bytes * self.trainable // self.parameters

    @property
    def training_bytes(self) -> int:
        """Weights, gradients and the two moments of AdamW; activations come on top."""
        return self.weight_bytes + 3 * self.saved_bytes


def measured_rates(args: DataSelectingConfig, model: ModelConfig, encoded: Encoded) -> Rates:
    """
    Rates of a model with random weights, which compute as fast as its own.

    Args:
        args ([`DataSelectingConfig`]), model ([`~trl.ModelConfig`]):
            How it is trained; without quantization.
        encoded ([`Encoded`]):
            Some candidates.
    """
    config = AutoConfig.from_pretrained(
        model.model_name_or_path, revision=model.model_revision, trust_remote_code=args.trust_remote_code
    )
    dtype = getattr(torch, model.dtype) if model.dtype not in (None, "auto") else config.dtype
    accelerator = Accelerator(cpu=args.use_cpu)
    made = AutoModelForCausalLM.from_config(
        config, dtype=dtype, attn_implementation=model.attn_implementation, trust_remote_code=args.trust_remote_code
    ).to(accelerator.device)
    weights = sum(parameter.numel() * parameter.element_size() for parameter in made.parameters())
    parameters = sum(parameter.numel() for parameter in made.parameters())
    runtime = args.runtime(accelerator).uncached()
    # As many rows as a batch holds, so that what a batch costs besides its tokens is shared out as in a run.
    wanted = 1 + np.searchsorted(np.cumsum(encoded.tokens.lengths), min(runtime.batch_tokens or 0, MOST_TOKENS))
    rows = encoded.tokens.select(range(min(int(wanted), len(encoded.tokens))))
    score = _seconds(rows, lambda rows: likelihood(made.eval(), rows, runtime)) / rows.lengths.sum()
    asked = rows.select(range(min(ANSWERS, len(rows))))
    generate = _seconds(asked, lambda rows: _generate(made, rows)) / NEW_TOKENS / len(asked)
    if (adapter := get_peft_config(model)) is not None:
        from peft import get_peft_model

        made = get_peft_model(made, adapter)
    trainable = sum(parameter.numel() for parameter in made.parameters() if parameter.requires_grad)
    if args.gradient_checkpointing:
        made.gradient_checkpointing_enable()
        made.enable_input_require_grads()
    batch = rows.select(range(min(args.per_device_train_batch_size, len(rows))))
    with torch.autocast(accelerator.device.type, torch.bfloat16, enabled=bool(args.bf16)):
        train = _seconds(batch, lambda rows: _step(made, rows)) / batch.lengths.sum()
    return Rates(float(score), float(train), float(generate), parameters, trainable, weights)


def _ids(model: Any, rows: TokenRows, longest: int | None = None) -> torch.Tensor:
    return padded([ids[:longest] for ids, _ in rows.take(range(len(rows)))]).to(model.device).long()


def _step(model: Any, rows: TokenRows) -> None:
    """Forward and backward; no weight changes."""
    ids = _ids(model, rows)
    model.train()(input_ids=ids, labels=ids).loss.backward()


def _generate(model: Any, rows: TokenRows) -> None:
    prompts, lengths = _ids(model, rows, 64), {"min_new_tokens": NEW_TOKENS, "max_new_tokens": NEW_TOKENS}
    with torch.no_grad(), without_router_logits(model):
        model.generate(prompts, attention_mask=torch.ones_like(prompts), do_sample=False, pad_token_id=0, **lengths)


def _seconds(rows: TokenRows, work: Callable[[TokenRows], Any]) -> float:
    """The shortest of up to three calls, of one where a call takes long; one row warms up."""
    _once(lambda: work(rows.select(range(1))))
    timed: list[float] = []
    while len(timed) < 3 and sum(timed) < LONG:
        timed.append(_once(lambda: work(rows)))
    return min(timed)


def _once(work: Callable[[], Any]) -> float:
    started = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - started
