"""Warm-up fine-tuning: the model temporarily fine-tuned on some rows."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import numpy as np

from ..context import Context
from ..data.encoded import Encoded
from ..data.records import Records
from ..engines.runtime.token_rows import TokenRows
from ..engines.tuning.temporary_weights import check_tunable
from ..engines.tuning.warm_up import WarmupSettings, warmed_up
from ..errors import NoUsableRow
from ..options import Fraction, Interval, PositiveFloat, PositiveInt


def tuning_rows(records: Records, rows: np.ndarray, ctx: Context) -> TokenRows:
    """Token rows for warm-up fine-tuning: the tokens and labels that TRL trains on."""
    return ctx.trained(records.subset(rows), parts=True).tokens


def needs_of_warmup(options: Any) -> frozenset[str]:
    """What a method needs for its warm-up, by its option `warmup`."""
    return frozenset({"all weights"} if options.warmup == "full" else ())


def check_warmup(ctx: Context, options: Any) -> None:
    """Raise [`SelectionError`], before anything is scored for the warm-up, for a model that can't be tuned so."""
    if options.warmup != "none":
        check_tunable(ctx.model, _settings(ctx, options))


@contextmanager
def tuned_on(records: Records, rows: Sequence[int], ctx: Context, options: Any) -> Iterator[Context]:
    """
    The context with its model temporarily fine-tuned on some rows; unchanged without rows, or if `warmup` is "none".

    Args:
        rows (`Sequence[int]`):
            Row numbers; those of the main process are used.
        options (`Any`):
            The method, with the options `warmup`, `warmup_epochs`, `warmup_learning_rate`, `warmup_batch_size` and
            `warmup_gradient_accumulation`.
    """
    rows = ctx.agreed(rows)
    if options.warmup == "none" or len(rows) == 0:
        yield ctx
        return
    chosen = tuning_rows(records, rows, ctx)
    with warmed_up(ctx.model, ctx.tokenizer, chosen, _settings(ctx, options), ctx.runtime) as model:
        yield ctx.using(model)


def _settings(ctx: Context, options: Any) -> WarmupSettings:
    return WarmupSettings(
        method=options.warmup,
        epochs=options.warmup_epochs,
        learning_rate=options.warmup_learning_rate or (2e-5 if options.warmup == "full" else 2e-4),
        batch_size=options.warmup_batch_size,
        gradient_accumulation=options.warmup_gradient_accumulation,
        seed=ctx.seed,
    )


@dataclass(kw_only=True)
class WarmupOptions:
    """
    Options of the warm-up after whose epochs gradients are taken, for selectors to inherit before [`Selector`], whose
    calls it adds to.

    Args:
        warmup_fraction (`float`, *optional*, defaults to `0.05`):
            Part of the rows, drawn at random, for the warm-up.
        warmup_epochs (`int`, *optional*, defaults to `4`):
            Checkpoints; each costs a backward pass of every row.
        warmup_learning_rate (`float`, *optional*, defaults to `2e-5`):
            Peak of a linear schedule.
        warmup_batch_size (`int`, *optional*, defaults to `8`):
            Rows of a batch on one device; more needs more memory.
        warmup_gradient_accumulation (`int`, *optional*, defaults to `16`):
            Batches of an optimizer step on each rank (8 x 16 = 128 rows, as in the paper).
        warmup_optimizer (`str`, *optional*, defaults to `"adamw_torch_fused"`):
            `"adamw_bnb_8bit"` takes a quarter of the memory for its state.
        lora_r (`int`, *optional*, defaults to `128`):
            Rank of the adapter. A gradient has as many numbers as the adapter; 8 is far cheaper. A model that has an
            adapter already is fine-tuned with that, and the `lora_` options have no effect.
        lora_alpha (`int`, *optional*, defaults to `512`):
            Its scale.
        lora_dropout (`float`, *optional*, defaults to `0.1`):
            During the warm-up; off when gradients are taken.
        lora_targets (`tuple[str]`, *optional*, defaults to `("q_proj", "k_proj", "v_proj", "o_proj")`):
            Layers that it is added to; `[all-linear]` fits every model.
        layers (`tuple[str]`, *optional*):
            Endings of the names of linear layers, such as `[layers.29.mlp.down_proj]`: these are fine-tuned and
            differentiated themselves, without an adapter.
    """

    warmup_fraction: Fraction = 0.05
    warmup_epochs: PositiveInt = 4
    warmup_learning_rate: PositiveFloat = 2e-5
    warmup_batch_size: PositiveInt = 8
    warmup_gradient_accumulation: PositiveInt = 16
    warmup_optimizer: Literal["adamw_torch_fused", "adamw_torch", "adamw_bnb_8bit"] = "adamw_torch_fused"
    lora_r: PositiveInt = 128
    lora_alpha: PositiveInt = 512
    lora_dropout: Annotated[float, Interval(0, 1, closed="left")] = 0.1
    lora_targets: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "o_proj")
    layers: tuple[str, ...] = ()

    splits: ClassVar[Literal["features"]] = "features"

    def needs(self) -> frozenset[Any]:
        return super().needs() | {"text", "model"} | ({"all weights"} if self.layers else set())

    def rows_tuned_on(self, rows: int) -> int:
        """Rows that the warm-up of a pool of `rows` sees, those of all epochs."""
        return max(1, round(self.warmup_fraction * rows)) * self.warmup_epochs

    def warmup(self, ctx: Context) -> WarmupSettings:
        """The settings of the warm-up."""
        return WarmupSettings(
            method="full" if self.layers else "lora",
            layers=tuple(self.layers),
            epochs=self.warmup_epochs,
            learning_rate=self.warmup_learning_rate,
            schedule="linear",
            optimizer=self.warmup_optimizer,
            batch_size=self.warmup_batch_size,
            gradient_accumulation=self.warmup_gradient_accumulation,
            lora_r=self.lora_r,
            lora_alpha=self.lora_alpha,
            lora_dropout=self.lora_dropout,
            lora_targets=tuple(self.lora_targets),
            seed=ctx.seed,
        )

    def warmup_rows(self, encoded: Encoded, ctx: Context) -> np.ndarray:
        """The rows that it is on, int64, ascending."""
        useless = [row for rows in encoded.problems.values() for row in rows]
        usable = np.setdiff1d(np.arange(len(encoded.truncated)), useless)
        if len(usable) == 0:
            raise NoUsableRow("`dataset_name`: no row has an answer within the window to warm up on.")
        drawn = np.random.default_rng(ctx.seed).permutation(usable)
        return np.sort(drawn[: max(1, round(self.warmup_fraction * len(usable)))])
