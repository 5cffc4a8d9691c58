"""
Superfiltering (arXiv 2402.00530; code tianyi-lab/Superfiltering): IFD with a small, untuned model.

The claim: a weak model orders rows by difficulty as a strong one does, so GPT-2 can filter for a 7B model, about 20
times as fast. Texts are bare: prompt, newline, answer, no chat template.

    IFD = perplexity of the answer behind its prompt / perplexity of the answer alone

Rows at or above 1 are dropped, the highest others kept. `diversity=True` is the paper's Superfiltering.D: of the best
`diversity_pool` rows, facility location over sentence embeddings picks the ones to keep.

Relations: [`IFD`] uses the model to be tuned, after a warm-up, and the ratio of losses.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from transformers import AutoConfig

from ..context import Context
from ..data.records import Records
from ..engines.forward.sentence_encoder import sentence_embeddings
from ..engines.subset.choose import exponential_distance, facility_location, top_k
from ..features.loss import answer_loss
from ..selector import Card, Selector


@dataclass
class Superfiltering(Selector):
    """
    Args:
        model (`str`, *optional*, defaults to `"gpt2"`):
            Scoring model by hub name or folder; never replaced by another. A bigger one costs more and agrees better
            with the model to be tuned.
        diversity (`bool`, *optional*, defaults to `False`):
            Whether facility location picks among the best rows.
        diversity_pool (`float`, *optional*, defaults to `0.2`):
            Part of the dataset that it picks from; its time grows with the square.
        encoder (`str`, *optional*, defaults to `"sentence-transformers/all-MiniLM-L6-v2"`):
            Sentence encoder for it (extra `embed`).
    """

    model: str = "gpt2"
    diversity: bool = False
    diversity_pool: float = 0.2
    encoder: str = "sentence-transformers/all-MiniLM-L6-v2"

    card: ClassVar[Card] = Card(
        title="IFD under a small model, optionally spread out by facility location",
        paper="2402.00530",
        features="model-oriented",
        label_source="loss of GPT-2",
        trained_llms=1,
        small_llm=True,
        steps=("score answers with and without their prompt", "drop ratios from 1", "keep the top k"),
        llm_uses=1,
        model_free=False,
        dataset_free=False,
        multi_turn="all assistant turns, each with all before it as context, against each alone; one ratio of means",
        needs=frozenset({"text", "prompt"}),
        deviations=(
            "the paper's table counts GPT-2 as one trained model, although it is used as published",
            "rows that can't be scored are NaN, where the code ranks them last with 0",
            "the budget is a part of this dataset, where the code takes 52,002 rows for granted",
            "equal scores keep the order of the dataset",
        ),
    )

    def __post_init__(self):
        if not 0 < self.diversity_pool <= 1:
            raise ValueError(f"`selection_kwargs`: diversity_pool={self.diversity_pool} must be in (0, 1].")
        self.spreads_out = self.diversity

    def extras(self) -> dict[str, str]:
        return {"sentence_transformers": "embed"} if self.diversity else {}

    def check(self, records: Records) -> None:
        try:
            AutoConfig.from_pretrained(self.model)
        except (OSError, ValueError) as error:
            raise ValueError(f"`selection_kwargs`: model={self.model!r} can't be found: {error}") from error

    def featurize(self, records: Records, ctx: Context) -> dict[str, Any]:
        small = ctx.with_model(self.model)
        bare = small.text_format(style="plain")
        behind = answer_loss(records, small, bare)
        alone = answer_loss(records, small, bare, alone=True)
        return {"behind": behind.mean, "alone": alone.mean, "records": records}

    def score(self, features: dict[str, Any], ctx: Context) -> np.ndarray:
        with np.errstate(over="ignore"):
            ratio = np.exp(features["behind"] - features["alone"])
        return np.where(np.isfinite(ratio), ratio, np.nan).astype(np.float32)

    def select(self, scores: np.ndarray, features: dict[str, Any], k: int, ctx: Context) -> np.ndarray:
        misaligned = scores >= 1
        ctx.account.note("dropped", "IFD of 1 or more: the prompt does not help", np.flatnonzero(misaligned))
        scores = np.where(misaligned, np.nan, scores)
        if not self.diversity:
            return top_k(scores, k)
        pool = top_k(scores, max(k, round(self.diversity_pool * len(scores))))
        chosen = features["records"].subset(pool)
        texts = ["\n".join(filter(None, (record.prompt, record.answer))) for record in chosen]
        vectors = sentence_embeddings(texts, self.encoder, ctx.accelerator)
        picked, _ = facility_location(vectors, k, exponential_distance)
        return pool[picked]
