"""
IFD, instruction-following difficulty (arXiv 2308.12032, "From Quantity to Quality"; code tianyi-lab/Cherry_LLM).

The claim: the rows whose prompt helps the model least to predict the answer teach it most; 5 % of Alpaca chosen so
beat all of it.

1. Embed the prompts with the model (mean last hidden state), cluster them (k-means, 100), and of each cluster take
   every (n / 10)-th row whose prompt perplexity lies between the 25th and 75th percentile: about 1,000 rows.
2. Warm-up fine-tuning on these for one epoch; the weights are restored bit for bit.
3. Score each answer under the fine-tuned model, given its prompt and given a bare response header.
4. Exclude rows with IFD above 1 (the prompt makes the answer less likely: misaligned); keep the highest others.

    IFD = conditional loss s(A|Q) / unconditional loss s(A), means over the label tokens

`ratio="perplexity"` ranks by exp(s(A|Q) - s(A)) instead, which is also called IFD (Superfiltering). Columns of
scores.parquet: `conditional_loss` and `unconditional_loss`, nats a token.

Relations: [`Superfiltering`] is this with a small model and no warm-up; [`Length`] is the control for its known bias
towards long answers; [`Perplexity`] shares the pass for s(A|Q).
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from sklearn.cluster import KMeans

from ..context import Context
from ..data.records import Records
from ..errors import NoUsableRow, SelectionError
from ..features.loss import answer_loss, prompt_features
from ..features.tuning import check_warmup, needs_of_warmup, tuned_on
from ..options import NonNegativeInt, PositiveFloat, PositiveInt
from ..selector import Card, Need, Scores, Selector, Split, Want


@dataclass
class IFD(Selector):
    """
    Args:
        warmup (`str`, *optional*, defaults to `"lora"`):
            How the model is fine-tuned before it scores: `"lora"` (a temporary adapter), `"full"` (all weights, as in
            the paper; keeps a copy of the weights in main memory, and the fine-tuned ones, as large as the model, in
            the cache folder) or `"none"` (the paper's later variant).
        warmup_clusters (`int`, *optional*, defaults to `100`):
            k-means clusters of the prompts. More means more warm-up rows.
        warmup_rows_per_cluster (`int`, *optional*, defaults to `10`):
            Rows taken of each.
        warmup_pool (`int`, *optional*, defaults to `50_000`):
            Rows that are clustered at most, drawn at random; each costs a pass over its prompt.
        warmup_epochs (`float`, *optional*, defaults to `1`):
            Passes over the warm-up rows.
        warmup_learning_rate (`float`, *optional*):
            By default 2e-5 for `"full"` and 2e-4 for `"lora"`.
        warmup_batch_size (`int`, *optional*, defaults to `8`):
            Rows of a batch on one device; more needs more memory.
        warmup_gradient_accumulation (`int`, *optional*, defaults to `16`):
            Batches of an optimizer step (8 x 16 = 128 rows, as in the paper).
        ratio (`str`, *optional*, defaults to `"loss"`):
            `"loss"`: ratio of mean losses, the paper's. `"perplexity"`: ratio of perplexities.
        drop_above_one (`bool`, *optional*, defaults to `True`):
            Exclude rows with a ratio above 1, as the paper does.
        response_header (`str`, *optional*):
            What stands before the answer for its unconditional loss; by default the chat template's assistant header.
        header_tokens (`int`, *optional*):
            Window that the header adds for the unconditional loss. By default both losses are over the same tokens;
            the authors' code has 4 whatever the header's length.
        drop_overlong (`bool`, *optional*, defaults to `False`):
            Exclude rows whose prompt and scored answer together exceed the window. The authors' code does; with a
            tokenizer that adds a beginning-of-sequence token it never happens there.
    """

    warmup: Literal["lora", "full", "none"] = "lora"
    warmup_clusters: PositiveInt = 100
    warmup_rows_per_cluster: PositiveInt = 10
    warmup_pool: PositiveInt = 50_000
    warmup_epochs: PositiveFloat = 1
    warmup_learning_rate: PositiveFloat | None = None
    warmup_batch_size: PositiveInt = 8
    warmup_gradient_accumulation: PositiveInt = 16
    ratio: Literal["loss", "perplexity"] = "loss"
    drop_above_one: bool = True
    response_header: str | None = None
    header_tokens: NonNegativeInt | None = None
    drop_overlong: bool = False

    card: ClassVar[Card] = Card(
        title="answers that the prompt helps with least (instruction-following difficulty)",
        paper="2308.12032",
        features="model-oriented",
        label_source="loss of the warmed-up pending fine-tune model",
        trained_llms=1,
        steps=("score answers with and without their prompt", "exclude ratios above 1", "keep the top k"),
        llm_uses=1,
        model_free=False,
        dataset_free=False,
        multi_turn="all assistant turns: each given all before it, and each given nothing; one ratio of means",
        deviations=(
            "prompts are rendered with the model's own chat template, not Alpaca's",
            "the warm-up fine-tunes a temporary LoRA adapter unless `warmup: full`",
            "at most `warmup_pool` rows are clustered",
            "the budget counts all rows, not those with a ratio up to 1",
        ),
    )
    splits: ClassVar[Split | None] = "features"
    columns: ClassVar[tuple[str, ...] | None] = ("conditional_loss", "unconditional_loss")

    @property
    def by_row(self) -> bool:
        """Without a warm-up on some of the rows."""
        return self.warmup == "none"

    def needs(self) -> frozenset[Need]:
        return frozenset({"text", "prompt", "model"}) | needs_of_warmup(self)

    def forecast(self, rows: int, target: int, kept: int) -> dict[str, int]:
        if self.warmup == "none":
            return {"forward_rows": 2 * rows}
        tuned_on = min(self.warmup_clusters * self.warmup_rows_per_cluster, rows)
        pool = min(self.warmup_pool, rows)
        return {"forward_rows": 2 * rows + pool, "warmup_rows": round(tuned_on * self.warmup_epochs)}

    def wants(self) -> frozenset[Want]:
        return frozenset({"loss", "unconditional loss"} if self.warmup == "none" else ())

    def featurize(self, records: Records, ctx: Context) -> dict[str, np.ndarray]:
        check_warmup(ctx, self)
        rows = [] if self.warmup == "none" else self._warmup_rows(records, ctx)
        with tuned_on(records, rows, ctx, self) as ctx:
            conditional = answer_loss(records, ctx)
            options = {"response_header": self.response_header, "header_tokens": self.header_tokens}
            unconditional = answer_loss(records, ctx, ctx.text_format(**options), unconditional=True)
        # Without the prompt, more of the answer fits in the window.
        longer = unconditional.tokens > conditional.tokens
        return {"conditional": conditional.mean, "unconditional": unconditional.mean, "longer": longer}

    def score(self, features: dict[str, np.ndarray], ctx: Context) -> Scores:
        conditional, unconditional = features["conditional"], features["unconditional"]
        ctx.account.note("unscorable", "the unconditional loss is 0", np.flatnonzero(unconditional == 0))
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            ratio = conditional / unconditional if self.ratio == "loss" else np.exp(conditional - unconditional)
        values = np.where(np.isfinite(ratio), ratio, np.nan).astype(np.float32)
        return Scores(values, {"conditional_loss": conditional, "unconditional_loss": unconditional})

    def exclude(self, scores: np.ndarray, features: dict[str, np.ndarray], ctx: Context) -> dict[str, np.ndarray]:
        masks = {}
        if self.drop_overlong:
            masks["prompt and answer exceed the window"] = features["longer"] & np.isfinite(scores)
        if self.drop_above_one:
            masks["IFD above 1: the prompt makes the answer less likely"] = scores > 1
        return masks

    def _warmup_rows(self, records: Records, ctx: Context) -> np.ndarray:
        """Diverse rows of medium prompt perplexity (paper, section 2.1; its code's k-means and percentiles)."""
        pool = np.sort(np.random.default_rng(ctx.seed).permutation(len(records))[: self.warmup_pool])
        features = ctx.of_all_parts(lambda ctx: prompt_features(records, ctx, pool))
        usable = np.flatnonzero(np.isfinite(features.perplexity) & np.isfinite(features.embedding).all(1))
        if len(usable) == 0:
            raise NoUsableRow("`ifd`: no row has a prompt and an answer within the window to warm up on.")
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
        if not sum(map(len, rows)):
            raise SelectionError(
                f"`ifd`: each of the {clusters} clusters has two rows, neither of medium perplexity to warm up on: "
                "lower `warmup_clusters`, or raise `warmup_rows_per_cluster`."
            )
        return np.sort(pool[np.concatenate(rows)])
