"""
LESS (arXiv 2402.04333, "Selecting Influential Data for Targeted Instruction Tuning"; code princeton-nlp/LESS).

The claim: rows whose gradient, as the optimizer would apply it, points the way a few rows of a target task need, train
that task best; 5 % chosen so often beat all of the data.

1. Tune the model with LoRA on a random 5 % for four epochs (here for a while: it comes back bit for bit), and keep the
   weights and Adam's state after each.
2. At each of these checkpoints, of every candidate row the update that Adam would make of its gradient, and of every
   target row the plain gradient; both projected to 8,192 numbers and scaled to length 1.
3. Influence of a candidate on a target row: inner product of the two, summed over the checkpoints, weighted by their
   learning rates. Mean over the rows of a subtask (column `subtask` of the target), then the highest over subtasks.
4. Keep the highest.

All of it is one run: gradients of whole batches by hooks, no second program, nothing to compile.

Relations: [`RDS`] wants the same target, costs one forward pass, and at large scale was found to choose better.
"""

import logging
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from torch import nn

from ..context import Context
from ..data.records import Records
from ..data.text import Encoded, encode
from ..engines.gradients.adam import AdamFeature
from ..engines.gradients.collect import check_room_for_gradients
from ..engines.gradients.layers import left_out, linear_layers, lora_layers
from ..engines.gradients.projection import Projection
from ..engines.runtime.token_rows import TokenRows
from ..engines.subset.target_similarity import Target, for_target, highest
from ..engines.tuning.warm_up import WarmupSettings, warmed_up_by_epoch
from ..errors import SelectionError
from ..features.gradients import answer_gradients
from ..features.target_rows import encode_target, refuse_without_target, subtasks
from ..features.tuning import TUNING_OPTIONS
from ..selector import Card, Selector


logger = logging.getLogger(__name__)


@dataclass
class LESS(Selector):
    """
    Args:
        rule (`str`, *optional*, defaults to `"max"`):
            `"max"`: the rows that help any subtask most, the paper's. `"round_robin"`: subtasks choose in turn, found
            better where few rows are kept (arXiv 2602.14696).
        projection (`str`, *optional*, defaults to `"sketch"`):
            `"rademacher"`: the paper's dense projection; many times the cost, the same error. `"none"`: whole
            gradients, for small adapters: of each number of the adapter 2 bytes on disk a row and epoch, and in memory
            about 16 for each row of a batch and 6 for each target row (rank 128 on a 7B model has 134 million).
        projection_dim (`int`, *optional*, defaults to `8192`):
            Numbers kept of a gradient, 2 bytes each, a row and epoch.
        momentum (`bool`, *optional*, defaults to `True`):
            Whether Adam's running mean, the same for every row, is in the features; the paper's way. It outweighs what
            tells rows apart; `false` leaves it out.
        warmup_fraction (`float`, *optional*, defaults to `0.05`):
            Part of the rows, drawn at random, that the model is tuned on.
        warmup_epochs (`int`, *optional*, defaults to `4`):
            Checkpoints; each costs a backward pass of every row.
        warmup_learning_rate (`float`, *optional*, defaults to `2e-5`):
            Peak of a linear schedule.
        warmup_batch_size (`int`, *optional*, defaults to `8`):
            Rows of a step on one device; more needs more memory.
        warmup_gradient_accumulation (`int`, *optional*, defaults to `16`):
            Batches of an update (8 x 16 = 128 rows, as in the paper).
        warmup_optimizer (`str`, *optional*, defaults to `"adamw_torch_fused"`):
            `"adamw_bnb_8bit"` takes a quarter of the memory for its state.
        lora_r (`int`, *optional*, defaults to `128`):
            Rank of the adapter that is tuned. A gradient has as many numbers as the adapter; 8 is far cheaper. A model
            that has an adapter already is tuned with a copy of that, and the `lora_` options mean nothing.
        lora_alpha (`int`, *optional*, defaults to `512`):
            Its scale.
        lora_dropout (`float`, *optional*, defaults to `0.1`):
            While tuning; off when gradients are taken.
        lora_targets (`tuple[str]`, *optional*, defaults to `("q_proj", "k_proj", "v_proj", "o_proj")`):
            Layers it is put on; `[all-linear]` fits every model.
        layers (`tuple[str]`, *optional*):
            Endings of the names of linear layers, such as `[layers.29.mlp.down_proj]`: these are tuned and
            differentiated themselves, without an adapter, as a full fine-tune would.
    """

    rule: Literal["max", "round_robin"] = "max"
    projection: Literal["sketch", "rademacher", "none"] = "sketch"
    projection_dim: int = 8192
    momentum: bool = True
    warmup_fraction: float = 0.05
    warmup_epochs: int = 4
    warmup_learning_rate: float = 2e-5
    warmup_batch_size: int = 8
    warmup_gradient_accumulation: int = 16
    warmup_optimizer: Literal["adamw_torch_fused", "adamw_torch", "adamw_bnb_8bit"] = "adamw_torch_fused"
    lora_r: int = 128
    lora_alpha: int = 512
    lora_dropout: float = 0.1
    lora_targets: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "o_proj")
    layers: tuple[str, ...] = ()

    card: ClassVar[Card] = Card(
        title="rows whose gradients point the way a target task needs",
        paper="2402.04333",
        features="model-oriented",
        label_source="similarity of gradients to those of target rows",
        trained_llms=1,
        steps=("tune on a random part", "gradients of rows and target", "inner products", "keep the top k"),
        llm_uses=2,
        model_free=False,
        dataset_free=False,
        multi_turn="the loss is the mean over the tokens of all assistant turns",
        needs=frozenset({"text", "model", "target"}),
        deviations=(
            "the projection is a sparse one unless `projection: rademacher`; neither is the code's random stream",
            "texts are written with the model's own chat template, not Tulu's",
            "tuned in the precision of the run, gradients in that of `selection_dtype`, Adam's update in float32",
            "a target without a column `subtask` is one subtask; its rows without an answer in the window don't count",
            "of a user's adapter, only the factors of its linear layers count, not biases or `modules_to_save`",
            "equal scores keep the order of the dataset",
        ),
    )

    def __post_init__(self):
        Projection(self.projection, self.projection_dim)
        self.refuse_unless_positive("warmup_fraction", *TUNING_OPTIONS, "lora_r", "lora_alpha")
        if not 0 <= self.lora_dropout < 1:
            raise ValueError(f"`selection_kwargs`: lora_dropout={self.lora_dropout} must be from 0 to below 1.")
        if self.warmup_fraction > 1:
            raise ValueError(f"`selection_kwargs`: warmup_fraction={self.warmup_fraction} must be at most 1.")

    def featurize(self, records: Records, ctx: Context) -> dict[str, np.ndarray]:
        if hasattr(ctx.model, "peft_config") and not self.layers:
            lora_layers(ctx.model)  # refuses other adapters before anything is tuned
        # The end of a turn counts: it is trained on.
        text_format = ctx.text_format(end_of_turn=True)
        encoded_target = encode_target(ctx, text_format)
        encoded = encode(records, text_format, num_proc=ctx.num_proc)
        rows = self._warmup_rows(encoded, ctx)
        settings = WarmupSettings(
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
            gradient_checkpointing=ctx.gradient_checkpointing,
            seed=ctx.seed,
        )
        options = {"project": Projection(self.projection, self.projection_dim)}
        groups = subtasks(ctx.target)
        if groups is None:  # one subtask, or, to choose in turn, each row for itself
            groups = np.arange(len(ctx.target)) * (self.rule == "round_robin")

        def check_room(model: nn.Module) -> None:
            vectors = self.warmup_epochs * (len(records) + len(ctx.target))
            check_room_for_gradients(ctx.cache_dir, vectors, self._layers(model), **options)

        similarity = 0
        with warmed_up_by_epoch(
            ctx.model,
            ctx.tokenizer,
            TokenRows(encoded.tokens.dataset.select(rows)),
            settings,
            ctx.accelerator,
            ctx.cache_dir,
            ctx.account,
            check_room,
        ) as (model, epochs):
            tuned, rates = ctx.using(model), sum(epoch.learning_rate for epoch in epochs)
            options["layers"] = self._layers(model)
            if others := left_out(model, options["layers"]):
                logger.warning(
                    "`less`: %s trained weights are left out of the gradients: %s.", len(others), others[:8]
                )
            for number, epoch in enumerate(epochs, 1):
                epoch.load()
                place = f"{number}/{len(epochs)}"
                wanted = answer_gradients(encoded_target, tuned, f"Target gradients {place}", target=True, **options)
                refuse_without_target(np.isfinite(wanted.norm), encoded_target, ctx)
                target = Target(wanted.vectors, groups, "mean")
                given = {"adam": AdamFeature(epoch.adam, self.momentum), "reduce": target.similarity}
                found = answer_gradients(encoded, tuned, f"Gradients {place}", **given, **options)
                similarity = similarity + epoch.learning_rate / rates * found.vectors
        return {"similarity": similarity}

    def score(self, features: dict[str, np.ndarray], ctx: Context) -> np.ndarray:
        return highest(features["similarity"])

    def select(self, scores: np.ndarray, features: dict[str, np.ndarray], k: int, ctx: Context) -> np.ndarray:
        return for_target(features["similarity"], scores, k, self.rule)

    def _layers(self, model: nn.Module) -> dict[str, nn.Linear]:
        return linear_layers(model, self.layers) if self.layers else lora_layers(model)

    def _warmup_rows(self, encoded: Encoded, ctx: Context) -> np.ndarray:
        useless = [row for rows in encoded.problems.values() for row in rows]
        usable = np.setdiff1d(np.arange(len(encoded.truncated)), useless)
        if len(usable) == 0:
            raise SelectionError("`less`: no row has an answer within the window to warm up on.")
        drawn = np.random.default_rng(ctx.seed).permutation(usable)
        return np.sort(drawn[: max(1, round(self.warmup_fraction * len(usable)))])
