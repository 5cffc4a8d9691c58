"""
Loss drop along a target's path (arXiv 2605.09404, "Let the Target Select for Itself"): rows whose loss falls when the
model is fine-tuned on the target only.

The claim: as good as gradient influence towards a target, without gradients of candidates: one short warm-up, then two
forward passes a row; the warm-up serves any further pool.

1. Fine-tune the model on the target-task examples (a temporary adapter); the weights are restored bit for bit.
2. Score each candidate's answer before (b) and after (a) it, mean losses in nats a token.

    loss drop = b - a
    score     = loss drop / b with `normalize: start` (the part of its loss that a row loses), loss drop with `none`

Columns of scores.parquet: `loss_before` and `loss_after`. `loss_before` is the loss of [`Perplexity`], from one pass.

Relations: [`LESS`] needs the same target and compares gradients; [`BM25`] is the control without a model.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from ..context import Context
from ..data.records import Records
from ..features.loss import answer_loss
from ..features.target_rows import encode_target
from ..features.tuning import check_warmup, needs_of_warmup, tuned_on
from ..options import PositiveFloat, PositiveInt
from ..selector import Card, Need, Scores, Selector, Split, Want


@dataclass
class TokenDrop(Selector):
    """
    Args:
        normalize (`str`, *optional*, defaults to `"start"`):
            `"start"`: by the loss before the warm-up. `"none"`: not at all, which favours rows of high loss.
        warmup (`str`, *optional*, defaults to `"lora"`):
            How the model is fine-tuned on the target: `"lora"` (a temporary adapter) or `"full"` (all weights).
        warmup_epochs (`float`, *optional*, defaults to `4`):
            Passes over the target. Too many and only its copies gain.
        warmup_learning_rate (`float`, *optional*):
            By default 2e-5 for `"full"` and 2e-4 for `"lora"`.
        warmup_batch_size (`int`, *optional*, defaults to `8`):
            Rows of a batch on one device.
        warmup_gradient_accumulation (`int`, *optional*, defaults to `1`):
            Batches of an optimizer step; a target is small.
    """

    normalize: Literal["start", "none"] = "start"
    warmup: Literal["lora", "full"] = "lora"
    warmup_epochs: PositiveFloat = 4
    warmup_learning_rate: PositiveFloat | None = None
    warmup_batch_size: PositiveInt = 8
    warmup_gradient_accumulation: PositiveInt = 1

    card: ClassVar[Card] = Card(
        title="rows whose loss falls when the model learns the target",
        paper="2605.09404",
        features="model-oriented",
        label_source="loss of the pending fine-tune model before and after a warm-up on the target",
        trained_llms=1,
        steps=("score answers", "warm-up on the target", "score answers again", "rank", "keep the top k"),
        llm_uses=3,
        code=False,
        model_free=False,
        multi_turn="all assistant turns, each with all before it as context",
        deviations=(
            "the paper was read in part: its normaliser, rank, epochs and learning rate are not known here, and "
            "`normalize: start` and the warm-up's defaults are this package's",
        ),
        evidence="the authors' only, and of their own normaliser; no code and no replication found",
    )
    splits: ClassVar[Split | None] = "rows"
    columns: ClassVar[tuple[str, ...] | None] = ("loss_before", "loss_after")

    def needs(self) -> frozenset[Need]:
        return frozenset({"text", "model", "target"}) | needs_of_warmup(self)

    def wants(self) -> frozenset[Want]:
        return frozenset({"loss"})

    def forecast(self, rows: int, target: int, kept: int) -> dict[str, int]:
        return {"forward_rows": 2 * rows, "warmup_rows": round(target * self.warmup_epochs)}

    def featurize(self, records: Records, ctx: Context) -> dict[str, np.ndarray]:
        check_warmup(ctx, self)
        encoded = encode_target(ctx, ctx.text_format())
        before = answer_loss(records, ctx, label="Scoring answers before the warm-up").mean
        usable = np.flatnonzero(~encoded.problematic)
        with tuned_on(ctx.target, usable, ctx, self) as tuned:
            after = answer_loss(records, tuned, label="Scoring answers after the warm-up").mean
        return {"loss_before": before, "loss_after": after}

    def score(self, features: dict[str, np.ndarray], ctx: Context) -> Scores:
        before, after = features["loss_before"], features["loss_after"]
        ctx.account.note("unscorable", "the loss before the warm-up is 0", np.flatnonzero(before == 0))
        with np.errstate(invalid="ignore", divide="ignore"):
            drop = (before - after) / (before if self.normalize == "start" else 1.0)
        return Scores(np.where(np.isfinite(drop), drop, np.nan).astype(np.float32), features)
