"""
MoDS (arXiv 2311.15653, "Model-oriented Data Selection"; code CASIA-LM/MoDS): rows of high quality that cover the
instructions, and those that the model fine-tuned on them still answers badly.

The claim: 4,000 rows chosen so fine-tune a model better than all 214,000.

1. Quality: a reward model scores each answer; exclude rows with a reward up to `quality_threshold`.
2. Coverage: of the others, take seed rows by greedy k-center over embeddings of the instructions.
3. Necessity: warm-up fine-tuning on the seed rows; the model generates responses to every row of high quality, and the
   reward model scores them; rows whose response is scored below `necessity_threshold` are necessary.
4. The subset is the seed rows and the necessary ones. Its size is an outcome, and reported; where the budget is
   smaller, the most necessary rows are added first.

    score = reward of the row's answer

Relations: [`DEITA`] has a quality and a distance too, but no step with the pending fine-tune model; [`IFD`] measures
necessity by likelihood and needs no generation.
"""

from collections import Counter
from dataclasses import dataclass
from functools import partial
from typing import Annotated, ClassVar, Literal

import numpy as np

from ..context import Context
from ..data.records import Records
from ..engines.llm.reward_model import check_reward_model
from ..engines.subset.choose import k_center
from ..features.generated_answers import generated_answers
from ..features.rewards import answer_rewards
from ..features.sentence_vectors import EncoderOption, instruction_vectors
from ..features.tuning import check_warmup, needs_of_warmup, tuned_on
from ..options import Interval, Number, PositiveFloat, PositiveInt
from ..selector import Card, Need, Selector, Split


@dataclass
class MoDS(EncoderOption, Selector):
    """
    Args:
        reward_model (`str`, *optional*, defaults to `"OpenAssistant/reward-model-deberta-v3-large-v2"`):
            Sequence-classification model with one label, by hub name or folder; one of [`~trl.RewardTrainer`] works.
        quality_threshold (`float`, *optional*, defaults to `0.0`):
            Reward that a row must exceed, on the reward model's own scale.
        necessity_threshold (`float`, *optional*, defaults to `0.0`):
            Reward below which a response of the fine-tuned model makes its row necessary.
        seed_rows (`float` or `int`, *optional*, defaults to `0.5`):
            Rows that cover the instructions: a part of the budget (up to 1.0), or a count (from 2). With a count, the
            fine-tuned model and its responses serve all budgets.
        encoder (`str`, *optional*, defaults to `"bert-base-uncased"`):
            What instructions are embedded by: a sentence-transformers encoder or a BERT, by hub name or folder (extra
            `embed`), or `"model"`, the pending fine-tune model.
        warmup (`str`, *optional*, defaults to `"lora"`):
            How the model is fine-tuned on the seed rows: `"lora"` (a temporary adapter), `"full"` (all weights, as in
            the paper; costs what it does for `ifd`) or `"none"`.
        warmup_epochs (`float`, *optional*, defaults to `3`):
            Passes over the seed rows.
        warmup_learning_rate (`float`, *optional*):
            By default 2e-5 for `"full"` and 2e-4 for `"lora"`.
        warmup_batch_size (`int`, *optional*, defaults to `8`):
            Rows of a batch on one device; more needs more memory.
        warmup_gradient_accumulation (`int`, *optional*, defaults to `64`):
            Batches of an optimizer step (8 x 64 = 512 rows, as in the paper).
        max_new_tokens (`int`, *optional*, defaults to `512`):
            Length of a response at most; longer ones, and those that reach the model's last position, are truncated
            and scored so. It dominates the cost of this method.
    """

    reward_model: str = "OpenAssistant/reward-model-deberta-v3-large-v2"
    quality_threshold: Number = 0.0
    necessity_threshold: Number = 0.0
    seed_rows: Annotated[float | int, Interval(0, closed="neither")] = 0.5
    encoder: str = "bert-base-uncased"
    warmup: Literal["lora", "full", "none"] = "lora"
    warmup_epochs: PositiveFloat = 3
    warmup_learning_rate: PositiveFloat | None = None
    warmup_batch_size: PositiveInt = 8
    warmup_gradient_accumulation: PositiveInt = 64
    max_new_tokens: PositiveInt = 512

    card: ClassVar[Card] = Card(
        title="well answered rows that cover the instructions, and those the fine-tuned model answers badly",
        paper="2311.15653",
        features="model-oriented",
        label_source="a reward model, on the rows' answers and on the fine-tuned model's responses",
        trained_llms=1,
        steps=(
            "keep rows of high reward",
            "cover the instructions by k-center",
            "fine-tune on these, answer all rows of high reward, and find the badly answered",
            "join both",
        ),
        llm_uses=4,
        model_free=False,
        dataset_free=False,
        multi_turn="the last answer is scored and generated, given all turns before it; these are what is embedded",
        deviations=(
            "greedy answers instead of 4 beams, up to `max_new_tokens` 512 instead of 1,024",
            "a row that is both a seed row and necessary is kept once",
            "the warm-up fine-tunes a temporary LoRA adapter unless `warmup: full`",
            "the first centre is drawn from the run's seed",
            "the whole prompt is embedded, including a row's input; the code embeds the instruction only",
            "the budget caps the subset, seed rows first, then the most necessary",
            "a row without a reward is NaN and named, where the code drops it silently",
        ),
    )
    splits: ClassVar[Split | None] = "selection"
    columns: ClassVar[tuple[str, ...] | None] = ()
    spreads_out: ClassVar[bool] = True
    nested: ClassVar[bool] = False

    def __post_init__(self):
        super().__post_init__()
        if self.seed_rows > 1 and self.seed_rows != int(self.seed_rows):
            raise ValueError(f"`selection_kwargs`: seed_rows={self.seed_rows} must be a part up to 1.0, or a count.")

    def needs(self) -> frozenset[Need]:
        return super().needs() | {"text", "prompt", "model"} | needs_of_warmup(self)

    def check(self, records: Records) -> None:
        check_reward_model(self.reward_model, "reward_model")
        super().check(records)

    def forecast(self, rows: int, target: int, kept: int) -> dict[str, int]:
        seed = int(self.seed_rows) if self.seed_rows > 1 else max(1, round(self.seed_rows * kept))
        tuned_on = 0 if self.warmup == "none" else round(min(seed, kept) * self.warmup_epochs)
        passes = Counter(forward_rows=2 * rows, warmup_rows=tuned_on, answered_rows=rows)
        passes.update(self.embedded(rows))
        return dict(passes)

    def featurize(self, records: Records, ctx: Context) -> np.ndarray:
        check_warmup(ctx, self)
        return answer_rewards(records, ctx, self.reward_model)

    def score(self, features: np.ndarray, ctx: Context) -> np.ndarray:
        return features.astype(np.float32)

    def exclude(self, scores: np.ndarray, features: np.ndarray, ctx: Context) -> dict[str, np.ndarray]:
        return {f"reward up to {self.quality_threshold:g}": features <= self.quality_threshold}

    def select(self, scores: np.ndarray, records: Records, features: np.ndarray, k: int, ctx: Context) -> np.ndarray:
        good = np.flatnonzero(np.isfinite(scores))
        if len(good) == 0:
            return good
        wanted = int(self.seed_rows) if self.seed_rows > 1 else max(1, round(self.seed_rows * k))
        seed = ctx.agreed(self._cover(records.subset(good), min(wanted, k), ctx))
        judged = self._judge_answers(records, good, seed, ctx)
        necessary = np.flatnonzero(judged < self.necessity_threshold)
        added = necessary[ctx.best(-judged[necessary])]
        added = added[~np.isin(added, seed)]
        kept = good[np.concatenate([seed, added[: k - len(seed)]])]
        ctx.account.figures |= {
            "rows of high quality": len(good),
            "seed rows": len(seed),
            "necessary rows": len(necessary),
            "seed and necessary rows together": len(seed) + len(added),
            "without a judged answer of the model": good[np.isnan(judged)].tolist(),
        }
        return kept[ctx.best(scores[kept])]

    def _cover(self, records: Records, k: int, ctx: Context) -> np.ndarray:
        """Rows, at most `k`, by greedy k-center."""
        embedded = ctx.of_all_parts(partial(instruction_vectors, records, self.encoder))
        usable = np.flatnonzero(embedded.usable)
        if len(usable) == 0:
            return usable
        first = int(np.random.default_rng(ctx.seed).integers(len(usable)))
        return usable[k_center(embedded.take(usable), k, [first])[0]]

    def _judge_answers(self, records: Records, good: np.ndarray, seed: np.ndarray, ctx: Context) -> np.ndarray:
        """Rewards of the fine-tuned model's responses to the rows of high quality."""
        asked = records.subset(good)
        with tuned_on(asked, seed, ctx, self) as tuned:
            answers, short = generated_answers(asked, tuned, self.max_new_tokens)
        ctx.account.note("truncated", "the model's answer reached its last position", good[short])
        return answer_rewards(asked, ctx.whole, self.reward_model, answers)
