"""
DEITA (arXiv 2312.15685, "What Makes Good Data for Alignment?"; code hkust-nlp/deita): complex, good and different.

The claim: 6,000 rows that are complex, well answered and diverse align a 7B model as ten times as many do.

1. Two scorers read each turn: one rates the complexity of the query, one the quality of the answer, from 1 to 6. The
   rating is an expectation: the mean digit under the softmax over the logits of the six digits after the scorer's
   prompt, from one forward.
2. Score each row (long chats score high).
3. Best first, keep each row whose cosine to every row kept so far is at most `threshold`.

    score = sum over the turns of complexity x quality

A scorer is a causal model by name. Its prompt is the one that it was trained on: given as an option, or read from its
model card (a text with `{instruction}`, and `{output}` for quality, in a block of Python; `hf-dataselect train-scorer`
writes such a card). Any other model is prompted through its chat template. Columns of scores.parquet: `complexity` and
`quality`, means over the turns.

Relations: [`InsTag`] measures complexity and diversity by tags; `selection_diversity: filter` adds step 3 to any other
method.
"""

from collections import Counter
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ..context import Context
from ..data.layouts import Record
from ..data.records import Records
from ..diversity import Diversity
from ..errors import Checks
from ..features.judgements import note_injection, suspects_injection, turns_of
from ..features.ratings import check_scorer, expected_ratings, load_scorer
from ..features.sentence_vectors import EncoderOption
from ..fitted.scorers.scorer_prompts import card_template, fill, own_question
from ..options import Cosine
from ..selector import Card, Need, Scores, Selector, Split


@dataclass
class DEITA(EncoderOption, Selector):
    """
    Args:
        complexity_scorer (`str`, *optional*, defaults to `"hkust-nlp/deita-complexity-scorer"`):
            Causal model that rates queries: hub name, folder, or `"model"` for the pending fine-tune model.
        quality_scorer (`str`, *optional*, defaults to `"hkust-nlp/deita-quality-scorer"`):
            The same for answers.
        complexity_prompt (`str`, *optional*):
            The scorer's own prompt, with `{instruction}` where the query goes; by default that of its model card.
        quality_prompt (`str`, *optional*):
            The same with `{instruction}` and `{output}`.
        threshold (`float`, *optional*, defaults to `0.9`):
            Highest cosine to a kept row. Lower keeps rows farther apart, and fewer.
        encoder (`str`, *optional*, defaults to `"model"`):
            What rows are compared by: `"model"` (last hidden state of the pending fine-tune model at the end of the
            answer), or a sentence-transformers encoder (extra `embed`).
    """

    complexity_scorer: str = "hkust-nlp/deita-complexity-scorer"
    quality_scorer: str = "hkust-nlp/deita-quality-scorer"
    complexity_prompt: str | None = None
    quality_prompt: str | None = None
    threshold: Cosine = 0.9
    encoder: str = "model"

    card: ClassVar[Card] = Card(
        title="complex, well answered and diverse rows",
        paper="2312.15685",
        features="model-oriented",
        label_source="complexity x quality of two scorers trained on ChatGPT's rankings",
        trained_llms=2,
        steps=(
            "score the complexity of each query",
            "score the quality of each answer",
            "multiply, sum over turns and rank",
            "embed",
            "keep the best that are not similar to a kept one",
        ),
        llm_uses=3,
        dataset_free=False,
        chatgpt_free=False,
        multi_turn="complexity x quality of each turn, summed; a row with a turn that has no score has none",
        deviations=(
            "a digit or a score that is missing is NaN and named, where the code puts 3.0",
            "the plain softmax over the six digits, where a checkpoint's sampling options change the code's",
            "each row is compared with kept rows only, which is the code with `batch_size` 1, not 64",
            "rows are embedded by the pending fine-tune model, and only as the filter reaches them",
            "embedded at the last token of the answer, where the code takes that of the text: after a template's end "
            "of turn most rows look alike (60 Alpaca rows, SmolLM2-135M: 69 % of pairs have a cosine above 0.9; here "
            "2 %)",
            "a scorer without a prompt of its own is prompted in other words than the authors'",
        ),
    )
    splits: ClassVar[Split | None] = "rows"
    columns: ClassVar[tuple[str, ...] | None] = ("complexity", "quality")
    spreads_out: ClassVar[bool] = True

    @property
    def compared_by(self) -> str:
        return self.encoder

    def __post_init__(self):
        super().__post_init__()
        for name, holds in (
            ("complexity_prompt", ["{instruction}"]),
            ("quality_prompt", ["{instruction}", "{output}"]),
        ):
            value = getattr(self, name)
            if value is not None and not all(place in value for place in holds):
                raise ValueError(f"`selection_kwargs`: {name} must hold {' and '.join(holds)}, where the texts go.")

    def needs(self) -> frozenset[Need]:
        own = "model" in (self.complexity_scorer, self.quality_scorer)
        return super().needs() | {"prompt"} | ({"model"} if own else set())

    def check(self, records: Records) -> None:
        checks = Checks()
        for kind in ("complexity", "quality"):
            checks(self._check_scorer, kind)
        checks(super().check, records)
        checks.finish()

    def _check_scorer(self, kind: str) -> None:
        option = f"{kind}_scorer"
        if (name := getattr(self, option)) != "model":
            check_scorer(name, option)
        self._prompt(kind)

    def _prompt(self, kind: str) -> str | None:
        """The prompt of a scorer; `None` for one without."""
        return getattr(self, f"{kind}_prompt") or card_template(getattr(self, f"{kind}_scorer"), kind)

    def forecast(self, rows: int, target: int, kept: int) -> dict[str, int]:
        passes = Counter(forward_rows=2 * rows)
        passes.update(self.embedded(rows))
        return dict(passes)

    def featurize(self, records: Records, ctx: Context) -> dict[str, Any]:
        sizes, empty, suspected = [], [], []
        for record in records:
            pairs = _turns(record)
            sizes.append(len(pairs))
            empty += [not _asks(pair) for pair in pairs]
            suspected += [record.index] if any(map(suspects_injection, pairs)) else []
        row, empty = np.repeat(np.arange(len(sizes)), sizes), np.array(empty, bool)
        ctx.account.note("unscorable", "no answer", np.flatnonzero(np.array(sizes) == 0))
        ctx.account.note("unscorable", "a query or an answer is empty", row[empty])
        note_injection(suspected, ctx)
        names = {"complexity": self.complexity_scorer, "quality": self.quality_scorer}
        features: dict[str, Any] = {"turns": np.array(sizes), "row": row}
        scorer = loaded = None
        for kind, prompt in {kind: self._prompt(kind) for kind in names}.items():
            asked = (pair for record in records for pair in _turns(record) if _asks(pair))
            questions = (fill(prompt, *pair) if prompt else own_question(kind, *pair) for pair in asked)
            ratings = np.full(len(row), np.nan)
            if not empty.all():
                if loaded != names[kind]:
                    scorer = None  # the one before makes room
                    scorer, loaded = load_scorer(names[kind], ctx), names[kind]
                ratings[~empty] = expected_ratings(questions, scorer, ctx.runtime, f"Scoring {kind}")
            why = f"no {kind}: longer than the scorer's window, or does not fit in memory"
            ctx.account.note("unscorable", why, row[~empty & np.isnan(ratings)])
            features[kind] = ratings
        return features

    def score(self, features: dict[str, np.ndarray], ctx: Context) -> Scores:
        turns, row = features["turns"], features["row"]

        def total(values: np.ndarray) -> np.ndarray:
            return np.where(turns > 0, np.bincount(row, values, minlength=len(turns)), np.nan)

        means = {kind: total(features[kind]) / np.maximum(turns, 1) for kind in ("complexity", "quality")}
        return Scores(total(features["complexity"] * features["quality"]).astype(np.float32), means)

    def select(
        self, scores: np.ndarray, records: Records, features: dict[str, np.ndarray], k: int, ctx: Context
    ) -> np.ndarray:
        similar = Diversity("filter", threshold=self.threshold, encoder=self.encoder)
        return similar.choose(lambda wanted: ctx.best(scores, wanted), records, k, ctx)


def _turns(record: Record) -> list[tuple[str, str]]:
    return turns_of(record) if record.problem is None else []


def _asks(pair: tuple[str, str]) -> bool:
    return all(text.strip() for text in pair)
