"""What a model takes on this machine, measured on some rows: seconds of a token, and bytes. Nothing is trained."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator
from transformers import AutoConfig, AutoModelForCausalLM
from trl import ModelConfig, get_peft_config

from ..data.encoded import Encoded
from ..engines.forward.likelihood import likelihood
from ..engines.runtime.batching import padded
from .config import DataSelectingConfig


#: Rows that the rates are measured on.
SAMPLE = 8
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
    rows = encoded.tokens.select(range(min(SAMPLE, len(encoded.tokens))))
    runtime = args.runtime(accelerator).uncached()
    score = _seconds(lambda: likelihood(made.eval(), rows, runtime)) / rows.lengths.sum()
    generate = _seconds(lambda: _generate(made, rows)) / NEW_TOKENS / len(rows)
    if (adapter := get_peft_config(model)) is not None:
        from peft import get_peft_model

        made = get_peft_model(made, adapter)
    trainable = sum(parameter.numel() for parameter in made.parameters() if parameter.requires_grad)
    if args.gradient_checkpointing:
        made.gradient_checkpointing_enable()
        made.enable_input_require_grads()
    batch = rows.select(range(min(args.per_device_train_batch_size, len(rows))))
    ids = padded([ids for ids, _ in batch.take(range(len(batch)))]).to(accelerator.device).long()
    with torch.autocast(accelerator.device.type, torch.bfloat16, enabled=bool(args.bf16)):
        train = _seconds(lambda: made.train()(input_ids=ids, labels=ids).loss.backward()) / batch.lengths.sum()
    return Rates(float(score), float(train), float(generate), parameters, trainable, weights)


def _generate(model: Any, rows: Any) -> None:
    prompts = padded([ids[:64] for ids, _ in rows.take(range(len(rows)))]).to(model.device).long()
    with torch.no_grad():
        model.generate(
            prompts, attention_mask=torch.ones_like(prompts), min_new_tokens=NEW_TOKENS, max_new_tokens=NEW_TOKENS,
            do_sample=False, pad_token_id=0,
        )  # fmt: skip


def _seconds(work: Callable[[], Any]) -> float:
    """Of the second call, the first one warms up; of the first one where a call takes long."""
    seconds = _once(work)
    return seconds if seconds > LONG else _once(work)


def _once(work: Callable[[], Any]) -> float:
    started = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - started
