"""[`Context`]: what a selector may use of the run it is part of."""

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .data.records import Records
from .data.text import TextFormat
from .engines.runtime.account import Account
from .errors import SelectionError


@dataclass(frozen=True)
class Context:
    """
    What a selector may use. Frozen: a selector borrows it.

    Args:
        tokenizer ([`~transformers.PreTrainedTokenizerBase`]):
            The model's.
        model ([`~transformers.PreTrainedModel`], *optional*):
            The pending fine-tune model (PFM), as the trainer holds it.
        accelerator ([`~accelerate.Accelerator`], *optional*):
            The trainer's.
        model_id (`str`, *optional*):
            Name or path of the model, for the record.
        target ([`Records`], *optional*):
            Rows of the task to be good at.
        judge (`Any`, *optional*):
            Judge engine.
        diversity ([`Diversity`], *optional*):
            What follows the method's own ranking.
        seed (`int`, *optional*, defaults to `42`):
            Same seed, same subset.
        cache_dir (`Path`, *optional*):
            Where results are kept; `None` keeps none.
        max_length (`int`, *optional*, defaults to `1024`):
            Window in tokens, for scoring as for training.
        batch_tokens (`int`, *optional*):
            Tokens of a scoring batch; by default 1,536 on a CPU and 16,384 elsewhere.
        dtype (`str`, *optional*, defaults to `"auto"`):
            Dtype to score in.
        num_proc (`int`, *optional*):
            Processes that tokenize.
        gradient_checkpointing (`bool`, *optional*, defaults to `False`):
            Whether a warm-up trades compute for memory, as the training does.
        vllm_memory (`float`, *optional*):
            Part of the GPU's memory in which vLLM generates; `None` generates without it.
        account ([`Account`], *optional*):
            Where rows and passes are counted.
        processor ([`~transformers.ProcessorMixin`], *optional*):
            That of a vision-language model: what makes tokens and pixels of its rows.
    """

    tokenizer: Any
    model: Any = None
    accelerator: Any = None
    model_id: str | None = None
    target: Records | None = None
    judge: Any = None
    diversity: Any = None
    seed: int = 42
    cache_dir: Path | None = None
    max_length: int | None = 1024
    batch_tokens: int | None = None
    dtype: str = "auto"
    num_proc: int | None = None
    gradient_checkpointing: bool = False
    vllm_memory: float | None = None
    account: Account = field(default_factory=Account)
    processor: Any = None

    def __post_init__(self):
        if self.batch_tokens is None:
            on_cpu = self.accelerator is None or self.accelerator.device.type == "cpu"
            object.__setattr__(self, "batch_tokens", 1536 if on_cpu else 16384)

    def text_format(self, **options: Any) -> TextFormat:
        """[`TextFormat`] with this context's tokenizer and window."""
        return TextFormat(self.tokenizer, **{"max_length": self.max_length, **options})

    def with_model(self, name: str) -> "Context":
        """
        The same context with another model, loaded by hub name or folder; it is never replaced by a third one. The
        window shrinks to the positions that it has.

        Raises:
            [`SelectionError`]: it can't be loaded.
        """
        from transformers import AutoModelForCausalLM, AutoTokenizer

        try:
            tokenizer = AutoTokenizer.from_pretrained(name)
            model = AutoModelForCausalLM.from_pretrained(name, dtype="auto")
        except (OSError, ValueError) as error:
            raise SelectionError(f"Can't load the scoring model {name!r}: {error}") from error
        if self.accelerator is not None:
            model.to(self.accelerator.device)
        positions = getattr(model.config.get_text_config(), "max_position_embeddings", None)
        window = min(filter(None, (self.max_length, positions)), default=None)
        return dataclasses.replace(self, model=model, tokenizer=tokenizer, model_id=name, max_length=window)

    def using(self, model: Any) -> "Context":
        """The same context with a model at hand (a warmed-up one)."""
        return dataclasses.replace(self, model=model)

    def agreed(self, value: Any) -> Any:
        """The main process's value on every rank."""
        if self.accelerator is None or self.accelerator.num_processes == 1:
            return value
        from accelerate.utils import broadcast_object_list

        return broadcast_object_list([value])[0]
