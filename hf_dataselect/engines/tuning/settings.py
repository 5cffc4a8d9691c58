"""How a model is temporarily fine-tuned: [`WarmupSettings`], or a run's own arguments in [`TrainingSettings`]."""

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal


@dataclass(frozen=True)
class WarmupSettings:
    """
    How the model is temporarily fine-tuned.

    Args:
        method (`str`, *optional*, defaults to `"lora"`):
            `"lora"`: a temporary adapter (or the user's own, restored afterwards, if the model has one). `"full"`: all
            weights, with a copy of them in main memory, and a file as large as the model in the cache folder for each
            set of rows and settings.
        epochs (`float`, *optional*, defaults to `1`):
            Passes over the rows.
        learning_rate (`float`, *optional*, defaults to `2e-5`):
            Peak of the schedule, after a linear warm-up of 3 % of the updates, rounded down.
        schedule (`str`, *optional*, defaults to `"cosine"`):
            Decay of the learning rate: `"cosine"` or `"linear"`.
        optimizer (`str`, *optional*, defaults to `"adamw_torch_fused"`):
            As in [`~transformers.TrainingArguments`].
        batch_size (`int`, *optional*, defaults to `8`):
            Rows per device and step.
        gradient_accumulation (`int`, *optional*, defaults to `16`):
            Batches per update.
        lora_r (`int`, *optional*, defaults to `16`):
            Rank of the temporary adapter.
        lora_alpha (`int`, *optional*):
            By default twice the rank.
        lora_dropout (`float`, *optional*, defaults to `0.0`):
            While tuning; drawn for each row by itself, so that the number of ranks does not change it.
        lora_targets (`tuple[str]`, *optional*, defaults to `("all-linear",)`):
            Layers that get an adapter.
        layers (`tuple[str]`, *optional*):
            With `method="full"`, the linear layers that are tuned (see [`linear_layers`]) instead of all weights.
        seed (`int`, *optional*, defaults to `42`):
            Of initialization and order of rows.
    """

    #: Whether the dropout of adapters is drawn for each row, not for each batch as a run does.
    dropout_by_row: ClassVar[bool] = True

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
    seed: int = 42

    def arguments(self, rows: int, world: int) -> dict[str, Any]:
        """Arguments of [`~trl.SFTConfig`] that decide the tuned weights, for so many rows and ranks."""
        updates = self.epochs * rows / (self.batch_size * self.gradient_accumulation * world)
        return {
            "num_train_epochs": self.epochs,
            "learning_rate": self.learning_rate,
            "lr_scheduler_type": self.schedule,
            "optim": self.optimizer,
            "warmup_steps": int(0.03 * updates),
            "per_device_train_batch_size": self.batch_size,
            "gradient_accumulation_steps": self.gradient_accumulation,
            "seed": self.seed,
        }


@dataclass(frozen=True)
class TrainingSettings(WarmupSettings):
    """
    Fine-tuning as a run trains: with its own arguments, whatever they are, in place of the others here.

    Args:
        given (`dict[str, Any]`):
            Arguments of [`~trl.SFTConfig`].
    """

    dropout_by_row: ClassVar[bool] = False

    given: dict[str, Any] = field(default_factory=dict)

    def arguments(self, rows: int, world: int) -> dict[str, Any]:
        """Those of the run, with this seed."""
        return self.given | {"seed": self.seed}
