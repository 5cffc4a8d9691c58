"""
IFD, instruction-following difficulty (arXiv 2308.12032, "From Quantity to Quality"; code tianyi-lab/Cherry_LLM).

The claim: rows where the prompt helps the model least on the way to the answer teach it most; 5 % of Alpaca chosen so
beat all of it.

1. Embed the prompts with the model (mean last hidden state), cluster them (k-means, 100), and of each cluster take
   every (n / 10)-th row whose prompt perplexity lies between the 25th and 75th percentile: about 1,000 rows.
2. Tune the model on these for one epoch (here for a while: the weights come back bit for bit).
3. s(A|Q) = mean loss of the answer behind its prompt, s(A) = mean loss of the answer behind a bare response header,
   both under the tuned model; IFD = s(A|Q) / s(A).
4. Drop rows with IFD above 1 (the prompt makes the answer less likely: misaligned); keep the highest others.

`ratio="perplexity"` ranks by exp(s(A|Q) - s(A)) instead, which many call IFD too (Superfiltering).

Relations: [`Superfiltering`] is this with a small model and no warm-up; [`Length`] is the control for its known taste
for long answers; [`Perplexity`] shares the pass for s(A|Q).
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from sklearn.cluster import KMeans

from ..context import Context
from ..data.records import Records
from ..engines.subset.choose import top_k
from ..errors import SelectionError
from ..features.loss import answer_loss, prompt_features
from ..features.tuning import TUNING_OPTIONS, tuned_on
from ..selector import Card, Selector


@dataclass
class IFD(Selector):
    """
    Args:
        warmup (`str`, *optional*, defaults to `"lora"`):
            How the model is tuned before it scores: `"lora"` (a temporary adapter), `"full"` (all weights, as in the
            paper; keeps a copy of the weights in main memory, and the tuned ones, as large as the model, in the cache
            folder) or `"none"` (the paper's later variant).
        warmup_clusters (`int`, *optional*, defaults to `100`):
            k-means clusters of the prompts. More means more warm-up rows.
        warmup_rows_per_cluster (`int`, *optional*, defaults to `10`):
            Rows taken of each.
        warmup_pool (`int`, *optional*, defaults to `50_000`):
            Rows drawn at random to be clustered, at most; each costs two passes over its prompt.
        warmup_epochs (`float`, *optional*, defaults to `1`):
            Passes over the warm-up rows.
        warmup_learning_rate (`float`, *optional*):
            By default 2e-5 for `"full"` and 2e-4 for `"lora"`.
        warmup_batch_size (`int`, *optional*, defaults to `8`):
            Rows of a step on one device; more needs more memory.
        warmup_gradient_accumulation (`int`, *optional*, defaults to `16`):
            Batches of an update (8 x 16 = 128 rows, as in the paper).
        ratio (`str`, *optional*, defaults to `"loss"`):
            `"loss"`: ratio of mean losses, the paper's. `"perplexity"`: ratio of perplexities.
        drop_above_one (`bool`, *optional*, defaults to `True`):
            Drop rows with a ratio above 1, as the paper does.
        response_header (`str`, *optional*):
            What stands before an answer alone; by default the chat template's assistant header.
        header_tokens (`int`, *optional*):
            Extra window of an answer alone. The default lets both texts score the same tokens; the authors' code
            has 4 whatever the header's length.
        drop_overlong (`bool`, *optional*, defaults to `False`):
            Drop rows whose prompt and scored answer together exceed the window. The authors' code does; with a
            tokenizer that adds a start token it never happens there.
    """

    warmup: Literal["lora", "full", "none"] = "lora"
    warmup_clusters: int = 100
    warmup_rows_per_cluster: int = 10
    warmup_pool: int = 50_000
    warmup_epochs: float = 1
    warmup_learning_rate: float | None = None
    warmup_batch_size: int = 8
    warmup_gradient_accumulation: int = 16
    ratio: Literal["loss", "perplexity"] = "loss"
    drop_above_one: bool = True
    response_header: str | None = None
    header_tokens: int | None = None
    drop_overlong: bool = False

    card: ClassVar[Card] = Card(
        title="answers that the prompt helps with least (instruction-following difficulty)",
        paper="2308.12032",
        features="model-oriented",
        label_source="loss of the warmed-up pending fine-tune model",
        trained_llms=1,
        steps=("score answers with and without their prompt", "drop ratios above 1", "keep the top k"),
        llm_uses=1,
        model_free=False,
        dataset_free=False,
        multi_turn="all assistant turns, each with all before it as context, against each alone; one ratio of means",
        needs=frozenset({"text", "prompt", "model"}),
        deviations=(
            "prompts are written with the model's own chat template, not Alpaca's",
            "the warm-up tunes a temporary LoRA adapter unless `warmup: full`",
            "at most `warmup_pool` rows are clustered",
            "equal scores keep the order of the dataset; the budget counts all rows, not the surviving ones",
        ),
    )

    def __post_init__(self):
        self.refuse_unless_positive("warmup_clusters", "warmup_rows_per_cluster", "warmup_pool", *TUNING_OPTIONS)

    def featurize(self, records: Records, ctx: Context) -> dict[str, np.ndarray]:
        rows = [] if self.warmup == "none" else self._warmup_rows(records, ctx)
        with tuned_on(records, rows, ctx, self) as ctx:
            behind = answer_loss(records, ctx)
            options = {"response_header": self.response_header, "header_tokens": self.header_tokens}
            alone = answer_loss(records, ctx, ctx.text_format(**options), alone=True)
        # An answer alone that is longer than what the prompt left of the window was cut, or holds a token more.
        longer = alone.tokens > behind.tokens
        return {"behind": behind.mean, "alone": alone.mean, "longer": longer}

    def score(self, features: dict[str, np.ndarray], ctx: Context) -> np.ndarray:
        behind, alone = features["behind"], features["alone"]
        ctx.account.note("unscorable", "the answer alone has no loss", np.flatnonzero(alone == 0))
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            ratio = behind / alone if self.ratio == "loss" else np.exp(behind - alone)
        return np.where(np.isfinite(ratio), ratio, np.nan).astype(np.float32)

    def select(self, scores: np.ndarray, features: dict[str, np.ndarray], k: int, ctx: Context) -> np.ndarray:
        refused = np.zeros(len(scores), bool)
        if self.drop_overlong:
            refused = features["longer"] & np.isfinite(scores)
            ctx.account.note("dropped", "prompt and answer exceed the window", np.flatnonzero(refused))
        if self.drop_above_one:
            above = (scores > 1) & ~refused
            ctx.account.note("dropped", "IFD above 1: the prompt makes the answer less likely", np.flatnonzero(above))
            refused |= above
        return top_k(np.where(refused, np.nan, scores), k)

    def _warmup_rows(self, records: Records, ctx: Context) -> np.ndarray:
        """Diverse rows of middling prompt perplexity (paper, section 2.1; its code's k-means and percentiles)."""
        pool = np.sort(np.random.default_rng(ctx.seed).permutation(len(records))[: self.warmup_pool])
        features = prompt_features(records.subset(pool), ctx)
        usable = np.flatnonzero(np.isfinite(features.perplexity) & np.isfinite(features.embedding).all(1))
        if len(usable) == 0:
            raise SelectionError("`ifd`: no row has a prompt and an answer within the window to warm up on.")
        clusters = min(self.warmup_clusters, len(usable))
        labels = KMeans(clusters, random_state=0).fit_predict(features.embedding[usable])
        rows = []
        for label in range(clusters):
            members = usable[labels == label]
            if len(members) >= self.warmup_rows_per_cluster:
                low, high = np.percentile(features.perplexity[members], (25, 75))
                perplexity = features.perplexity[members]
                members = members[(low <= perplexity) & (perplexity <= high)]
                step = max(1, len(members) // self.warmup_rows_per_cluster)
                members = members[::step][: self.warmup_rows_per_cluster]
            rows.append(members)
        return ctx.agreed(np.sort(pool[np.concatenate(rows)]))
