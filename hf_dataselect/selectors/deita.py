"""
DEITA (arXiv 2312.15685, "What Makes Good Data for Alignment?"; code hkust-nlp/deita): complex, good and different.

The claim: 6,000 rows that are complex and well answered, and not alike, align a 7B model as ten times as many do.

1. Two scorers read each turn: one rates the complexity of the query, one the quality of the answer, from 1 to 6. The
   rating is an expectation: the mean digit under the softmax over the logits of the six digits behind the scorer's
   prompt, from one forward.
2. Score of a row = sum over its turns of complexity x quality (so long chats win).
3. Walk from the best row on and keep each whose cosine to every row kept so far is at most `threshold`.

A scorer is a causal model by name. Its prompt is the one that it was trained on: given as an option, or found on its
model card (a text with `{instruction}`, and `{output}` for quality, in a block of Python; `hf-dataselect train-scorer`
writes such a card). Any other model is asked in words of our own through its chat template.

Relations: [`InsTag`] measures complexity and diversity by tags; `selection_diversity: filter` puts step 3 behind any
other method.
"""

import copy
import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from transformers import AutoConfig

from ..context import Context
from ..data.layouts import Record
from ..data.records import Records
from ..data.text import default_chat_template
from ..diversity import Diversity
from ..engines.llm.judge import Conversation
from ..engines.llm.local import ModelJudge, digit_ids, expected_rating
from ..errors import SelectionError
from ..features.judgements import note_pushy, speaks_to_the_judge, turns_of
from ..fitted.scorers.scorer_prompts import card_template, fill, own_question
from ..selector import Card, Selector


DIGITS = ("1", "2", "3", "4", "5", "6")


@dataclass
class DEITA(Selector):
    """
    Args:
        complexity_scorer (`str`, *optional*, defaults to `"hkust-nlp/deita-complexity-scorer"`):
            Causal model that rates queries: hub name, folder, or `"model"` for the model to be tuned.
        quality_scorer (`str`, *optional*, defaults to `"hkust-nlp/deita-quality-scorer"`):
            The same for answers.
        complexity_prompt (`str`, *optional*):
            The scorer's own prompt, with `{instruction}` where the query goes; by default that of its model card.
        quality_prompt (`str`, *optional*):
            The same with `{instruction}` and `{output}`.
        threshold (`float`, *optional*, defaults to `0.9`):
            Rows with a higher cosine to a kept one are left out. Lower keeps rows farther apart, and fewer.
        encoder (`str`, *optional*, defaults to `"model"`):
            What rows are compared by: `"model"` (last hidden state of the model to be tuned at the end of the answer),
            or a sentence-transformers encoder (extra `embed`).
    """

    complexity_scorer: str = "hkust-nlp/deita-complexity-scorer"
    quality_scorer: str = "hkust-nlp/deita-quality-scorer"
    complexity_prompt: str | None = None
    quality_prompt: str | None = None
    threshold: float = 0.9
    encoder: str = "model"

    card: ClassVar[Card] = Card(
        title="complex, well answered rows that are not alike",
        paper="2312.15685",
        features="model-oriented",
        label_source="complexity x quality of two scorers trained on ChatGPT's rankings",
        trained_llms=2,
        steps=(
            "score the complexity of each query",
            "score the quality of each answer",
            "multiply, sum over turns and rank",
            "embed",
            "keep the best that are not near a kept one",
        ),
        llm_uses=3,
        dataset_free=False,
        chatgpt_free=False,
        multi_turn="complexity x quality of each turn, summed; a row with a turn that has no score has none",
        needs=frozenset({"text", "prompt", "model"}),
        deviations=(
            "a digit or a score that is missing is NaN and named, where the code puts 3.0",
            "the plain softmax over the six digits, where a checkpoint's sampling options change the code's",
            "each row is compared with kept rows only, which is the code with `batch_size` 1, not 64",
            "equal scores keep the order of the dataset",
            "rows are embedded by the model to be tuned, and only as the walk comes to them",
            "embedded at the last token of the answer, where the code takes that of the text: behind a template's end "
            "of turn most rows look alike (60 Alpaca rows, SmolLM2-135M: 69 % of pairs have a cosine above 0.9; here "
            "2 %)",
            "a scorer without a prompt of its own is asked in other words than the authors'",
        ),
    )
    spreads_out: ClassVar[bool] = True

    def __post_init__(self):
        for name, holds in (
            ("complexity_prompt", ["{instruction}"]),
            ("quality_prompt", ["{instruction}", "{output}"]),
        ):
            value = getattr(self, name)
            if value is not None and not all(place in value for place in holds):
                raise ValueError(f"`selection_kwargs`: {name} must hold {' and '.join(holds)}, where the texts go.")
        if not -1 <= self.threshold <= 1:
            raise ValueError(f"`selection_kwargs`: threshold={self.threshold} must be a cosine, in [-1, 1].")
        if "model" not in (self.complexity_scorer, self.quality_scorer, self.encoder):
            self.card = dataclasses.replace(self.card, needs=self.card.needs - {"model"})

    def extras(self) -> dict[str, str]:
        return {} if self.encoder == "model" else {"sentence_transformers": "embed"}

    def check(self, records: Records) -> None:
        for option in ("complexity_scorer", "quality_scorer"):
            name = getattr(self, option)
            try:
                _ = name == "model" or AutoConfig.from_pretrained(name)
            except (OSError, ValueError) as error:
                raise ValueError(f"`selection_kwargs`: {option}={name!r} can't be found: {error}") from error
        self._prompts()

    def _prompts(self) -> dict[str, str | None]:
        """The prompt of each scorer; `None` asks in our own words."""
        return {
            "complexity": self.complexity_prompt or card_template(self.complexity_scorer, "complexity"),
            "quality": self.quality_prompt or card_template(self.quality_scorer, "quality"),
        }

    def featurize(self, records: Records, ctx: Context) -> dict[str, Any]:
        sizes, empty, pushy = [], [], []
        for record in records:
            pairs = _turns(record)
            sizes.append(len(pairs))
            empty += [not _asks(pair) for pair in pairs]
            pushy += [record.index] if any(map(speaks_to_the_judge, pairs)) else []
        row, empty = np.repeat(np.arange(len(sizes)), sizes), np.array(empty, bool)
        ctx.account.note("unscorable", "no answer", np.flatnonzero(np.array(sizes) == 0))
        ctx.account.note("unscorable", "a query or an answer is empty", row[empty])
        note_pushy(pushy, ctx)
        names = {"complexity": self.complexity_scorer, "quality": self.quality_scorer}
        features: dict[str, Any] = {"records": records, "row": row}
        scorer = None
        for kind, prompt in self._prompts().items():
            asked = (pair for record in records for pair in _turns(record) if _asks(pair))
            questions = (fill(prompt, *pair) if prompt else own_question(kind, *pair) for pair in asked)
            ratings = np.full(len(row), np.nan)
            if not empty.all():
                if scorer is None or scorer.model_id != names[kind]:
                    scorer = None  # the one before makes room
                    scorer = _scorer(names[kind], ctx)
                ratings[~empty] = _rate(scorer, questions, f"Scoring {kind}")
            why = f"no {kind}: longer than the scorer's window, or too big for the memory"
            ctx.account.note("unscorable", why, row[~empty & np.isnan(ratings)])
            features[kind] = ratings
        return features

    def score(self, features: dict[str, Any], ctx: Context) -> np.ndarray:
        n = len(features["records"])
        product = features["complexity"] * features["quality"]
        total = np.bincount(features["row"], product, minlength=n)
        total[np.bincount(features["row"], minlength=n) == 0] = np.nan
        return total.astype(np.float32)

    def select(self, scores: np.ndarray, features: dict[str, Any], k: int, ctx: Context) -> np.ndarray:
        near = Diversity("filter", threshold=self.threshold, encoder=self.encoder)
        rank = super().select
        return near.choose(lambda wanted: rank(scores, features, wanted, ctx), features["records"], k, ctx)


def _scorer(name: str, ctx: Context) -> Context:
    """A context whose model rates, and whose tokenizer has all that it takes."""
    scorer = dataclasses.replace(ctx, model_id=name) if name == "model" else ctx.with_model(name)
    tokenizer = copy.copy(scorer.tokenizer)
    tokenizer.chat_template = tokenizer.chat_template or default_chat_template(tokenizer)
    missing = [digit for digit, id in zip(DIGITS, digit_ids(tokenizer, DIGITS), strict=True) if id is None]
    if missing:
        raise SelectionError(
            f"The scorer {name!r} can't rate: its tokenizer has no token of its own for {', '.join(missing)}. "
            "Name another `complexity_scorer` or `quality_scorer`."
        )
    return dataclasses.replace(scorer, tokenizer=tokenizer)


def _rate(scorer: Context, questions: Iterable[Conversation | str], progress: str) -> np.ndarray:
    """Expected digit behind each question."""
    judge = ModelJudge(
        scorer.model_id,
        scorer.model,
        scorer.tokenizer,
        cache_dir=scorer.cache_dir,
        accelerator=scorer.accelerator,
        batch_tokens=scorer.batch_tokens,
        dtype=scorer.dtype,
    )
    logits = judge.digit_logits(questions, DIGITS, progress)
    scorer.account.add_cached_seconds(judge.cost.cached_seconds)
    scorer.account.count(
        forward_rows=judge.cost.calls, forward_tokens=judge.cost.prompt_tokens, cached_rows=judge.cost.cached
    )
    return expected_rating(logits, range(1, 7))


def _turns(record: Record) -> list[tuple[str, str]]:
    return turns_of(record) if record.problem is None else []


def _asks(pair: tuple[str, str]) -> bool:
    return all(text.strip() for text in pair)
