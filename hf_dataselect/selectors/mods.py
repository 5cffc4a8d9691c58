"""
MoDS (arXiv 2311.15653, "Model-oriented Data Selection"; code CASIA-LM/MoDS): rows of high quality that cover the
instructions, and those that the model so tuned still answers badly.

The claim: 4,000 rows chosen so tune a model better than all 214,000.

1. Quality: a reward model judges each answer; keep rows above `quality_threshold`.
2. Coverage: of these, take seed rows by greedy k-center over embeddings of the instructions.
3. Necessity: tune the model on the seed rows, let it answer every row of high quality, and judge its answers; rows
   whose answer is rewarded below `necessity_threshold` are necessary.
4. The subset is the seed rows and the necessary ones. Its size is an outcome, and reported; where the budget is
   smaller, the most necessary rows are added first.

Relations: [`DEITA`] has a quality and a distance too, but asks nothing of the model to be tuned; [`IFD`] measures
necessity by likelihood and needs no generation.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from tqdm.auto import tqdm

from ..context import Context
from ..data.records import Records
from ..engines.forward.sentence_encoder import (
    check_sentence_encoder,
    embedding_store,
    load_sentence_encoder,
    sentence_embeddings,
    text_keys,
)
from ..engines.llm.reward_model import check_reward_model
from ..engines.store.vector_store import stored_vectors
from ..engines.subset.choose import k_center
from ..errors import SelectionError
from ..features.generated_answers import own_answers
from ..features.hidden_states import prompt_embedding
from ..features.rewards import answer_rewards
from ..features.tuning import TUNING_OPTIONS, tuned_on
from ..selector import Card, Selector


@dataclass
class MoDS(Selector):
    """
    Args:
        reward_model (`str`, *optional*, defaults to `"OpenAssistant/reward-model-deberta-v3-large-v2"`):
            Sequence-classification model with one label, by hub name or folder; one of [`~trl.RewardTrainer`] works.
        quality_threshold (`float`, *optional*, defaults to `0.0`):
            Rows with a reward up to this are dropped. It is on the reward model's own scale.
        necessity_threshold (`float`, *optional*, defaults to `0.0`):
            Rows are necessary if the tuned model's answer is rewarded below this.
        seed_rows (`float` or `int`, *optional*, defaults to `0.5`):
            Rows that cover the instructions: a part of the budget (up to 1.0), or a count (from 2). With a count, the
            tuned model and its answers serve all budgets.
        encoder (`str`, *optional*, defaults to `"bert-base-uncased"`):
            What instructions are embedded by: a sentence-transformers encoder or a BERT, by hub name or folder (extra
            `embed`), or `"model"`, the model to be tuned.
        warmup (`str`, *optional*, defaults to `"lora"`):
            How the model is tuned on the seed rows: `"lora"` (a temporary adapter), `"full"` (all weights, as in the
            paper; costs what it does for `ifd`) or `"none"`.
        warmup_epochs (`float`, *optional*, defaults to `3`):
            Passes over the seed rows.
        warmup_learning_rate (`float`, *optional*):
            By default 2e-5 for `"full"` and 2e-4 for `"lora"`.
        warmup_batch_size (`int`, *optional*, defaults to `8`):
            Rows of a step on one device; more needs more memory.
        warmup_gradient_accumulation (`int`, *optional*, defaults to `64`):
            Batches of an update (8 x 64 = 512 rows, as in the paper).
        max_new_tokens (`int`, *optional*, defaults to `512`):
            Length of an answer at most; longer ones, and those that reach the model's last position, are cut and
            judged so. It decides what this method costs.
    """

    reward_model: str = "OpenAssistant/reward-model-deberta-v3-large-v2"
    quality_threshold: float = 0.0
    necessity_threshold: float = 0.0
    seed_rows: float | int = 0.5
    encoder: str = "bert-base-uncased"
    warmup: Literal["lora", "full", "none"] = "lora"
    warmup_epochs: float = 3
    warmup_learning_rate: float | None = None
    warmup_batch_size: int = 8
    warmup_gradient_accumulation: int = 64
    max_new_tokens: int = 512

    card: ClassVar[Card] = Card(
        title="well answered rows that cover the instructions, and those the tuned model answers badly",
        paper="2311.15653",
        features="model-oriented",
        label_source="a reward model, on the rows' answers and on the tuned model's own",
        trained_llms=1,
        steps=(
            "keep rows of high reward",
            "cover the instructions by k-center",
            "tune on these, answer all rows of high reward, and find the badly answered",
            "join both",
        ),
        llm_uses=4,
        model_free=False,
        dataset_free=False,
        multi_turn="the last answer is judged and given anew, behind all turns before it; they are what is embedded",
        needs=frozenset({"text", "prompt", "model"}),
        deviations=(
            "greedy answers instead of 4 beams, up to `max_new_tokens` 512 instead of 1,024",
            "a row that is both a seed row and necessary is kept once",
            "the warm-up tunes a temporary LoRA adapter unless `warmup: full`",
            "the first centre is drawn from the run's seed",
            "what covers is the whole prompt, the input of a row with it; the code embeds the instruction alone",
            "the budget caps the subset, seed rows first, then the most necessary",
            "a row that can't be judged is NaN and named, where the code drops it without a word",
        ),
    )
    spreads_out: ClassVar[bool] = True

    def __post_init__(self):
        self.refuse_unless_positive("seed_rows", *TUNING_OPTIONS)
        for name in ("quality_threshold", "necessity_threshold"):
            if np.isnan(getattr(self, name)):
                raise ValueError(f"`selection_kwargs`: {name}=nan must be a number.")
        if self.seed_rows > 1 and self.seed_rows != int(self.seed_rows):
            raise ValueError(f"`selection_kwargs`: seed_rows={self.seed_rows} must be a part up to 1.0, or a count.")
        if self.max_new_tokens < 1:
            raise ValueError(f"`selection_kwargs`: max_new_tokens={self.max_new_tokens} must be at least 1.")

    def extras(self) -> dict[str, str]:
        return {} if self.encoder == "model" else {"sentence_transformers": "embed"}

    def check(self, records: Records) -> None:
        check_reward_model(self.reward_model, "reward_model")
        if self.encoder != "model":
            check_sentence_encoder(self.encoder)

    def featurize(self, records: Records, ctx: Context) -> dict[str, Any]:
        return {"records": records, "reward": answer_rewards(records, ctx, self.reward_model)}

    def score(self, features: dict[str, Any], ctx: Context) -> np.ndarray:
        return features["reward"].astype(np.float32)

    def select(self, scores: np.ndarray, features: dict[str, Any], k: int, ctx: Context) -> np.ndarray:
        records, reward = features["records"], features["reward"]
        low = reward <= self.quality_threshold
        ctx.account.note("dropped", f"reward up to {self.quality_threshold:g}", np.flatnonzero(low))
        good = np.flatnonzero(np.isfinite(scores) & ~low)
        if len(good) == 0:
            return good
        wanted = int(self.seed_rows) if self.seed_rows > 1 else max(1, round(self.seed_rows * k))
        seed = self._cover(records.subset(good), min(wanted, k), ctx)
        judged = self._judge_answers(records, good, seed, ctx)
        necessary = np.flatnonzero(judged < self.necessity_threshold)
        added = necessary[np.argsort(judged[necessary], kind="stable")]
        added = added[~np.isin(added, seed)]
        kept = good[np.concatenate([seed, added[: k - len(seed)]])]
        ctx.account.figures |= {
            "rows of high quality": len(good),
            "seed rows": len(seed),
            "necessary rows": len(necessary),
            "seed and necessary rows together": len(seed) + len(added),
            "without a judged answer of the model": good[np.isnan(judged)].tolist(),
        }
        return kept[np.argsort(-scores[kept], kind="stable")]

    def _cover(self, records: Records, k: int, ctx: Context) -> np.ndarray:
        """Rows, at most `k`, each as far as can be from those before it."""
        if self.encoder == "model":
            vectors = prompt_embedding(records, ctx)
        else:
            encoder = _encoder(self.encoder, ctx)
            store = embedding_store(ctx.cache_dir, encoder, encoder.get_embedding_dimension(), unit=False)
            texts = [record.prompt for record in records]
            main = ctx.accelerator is None or ctx.accelerator.is_main_process
            with tqdm(total=len(texts), desc="Embedding instructions", unit="row", disable=not main) as bar:
                found = stored_vectors(
                    store,
                    text_keys(texts),
                    lambda rows: sentence_embeddings([texts[i] for i in rows], encoder, ctx.accelerator, unit=False),
                    ctx.accelerator,
                    on_rows=bar.update,
                )
            store.close()
            ctx.account.count(embedded_rows=len(texts) - found.cached, cached_rows=found.cached)
            ctx.account.add_cached_seconds(found.cached_seconds)
            vectors = found.vectors[:]
        usable = np.flatnonzero(np.isfinite(vectors).all(1))
        if len(usable) == 0:
            return usable
        first = int(np.random.default_rng(ctx.seed).integers(len(usable)))
        return ctx.agreed(usable[k_center(vectors[usable], k, [first])[0]])

    def _judge_answers(self, records: Records, good: np.ndarray, seed: np.ndarray, ctx: Context) -> np.ndarray:
        """Rewards of the tuned model's answers to the rows of high quality."""
        asked = records.subset(good)
        with tuned_on(asked, seed, ctx, self) as tuned:
            answers, short = own_answers(asked, tuned, self.max_new_tokens)
        ctx.account.note("truncated", "the model's answer reached its last position", good[short])
        return answer_rewards(asked, ctx, self.reward_model, answers)


def _encoder(name: str, ctx: Context) -> Any:
    """A sentence encoder; of a BERT that is none, its first token's state, of 96 tokens at most."""
    from sentence_transformers import SentenceTransformer, models
    from sentence_transformers.util import is_sentence_transformer_model

    if is_sentence_transformer_model(name):
        return load_sentence_encoder(name, ctx.accelerator)
    try:
        transformer = models.Transformer(name, max_seq_length=96)
    except (OSError, ValueError) as error:
        raise SelectionError(f"`selection_kwargs`: encoder={name!r} can't be loaded: {error}") from error
    pooling = models.Pooling(transformer.get_embedding_dimension(), pooling_mode="cls")
    device = str(ctx.accelerator.device) if ctx.accelerator else None
    return SentenceTransformer(modules=[transformer, pooling], device=device)
