"""
Indicators of instruction data (arXiv 2307.06290), numbers of a row that a rule weighs.

| name | is | runs |
|---|---|---|
| `len` | tokens of the answers | nothing |
| `mtld` | lexical diversity of the answers, see `human.py` | nothing |
| `rew` | reward of the last answer | a reward model |
| `ppl` | perplexity of the answers | the model to be tuned |
| `knn` | Euclidean distance to the nearest but so many rows, in an encoder's vectors | an encoder |
| `nat`, `coh`, `und` | naturalness, coherence, understandability of the last answer, 0 to 1 | an evaluator |
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import ClassVar

import numpy as np

from ..context import Context
from ..data.records import Records
from ..engines.forward.sentence_encoder import check_sentence_encoder
from ..engines.forward.seq2seq import load_evaluator, yes_probability
from ..engines.llm.reward_model import check_reward_model
from ..engines.runtime.loading import check_pretrained
from ..engines.subset.neighbours import nearest_distance
from .loss import answer_loss
from .rewards import answer_rewards
from .row_vectors import RowVectors
from .text_statistics import TEXT_FEATURES, answer_tokens, text_feature


NAMES = ("len", "mtld", "rew", "ppl", "knn", "nat", "coh", "und")

#: What the evaluator is asked, in the layout that UniEval is trained on.
QUESTIONS = {
    "nat": "Does this response sound natural in a dialogue?",
    "coh": "Does this response follow coherently from the dialogue history?",
    "und": "Can this response be understood in the dialogue?",
}


@dataclass
class IndicatorSources:
    """
    What measures the indicators.

    Args:
        reward_model (`str`):
            Of `rew`: sequence-classification model with one label, by hub name or folder.
        evaluator (`str`):
            Of `nat`, `coh` and `und`: T5-style evaluator that answers yes or no, by hub name or folder.
        encoder (`str`):
            Of `knn`: a sentence-transformers encoder (extra `embed`), or `"model"`, the model to be tuned.
        neighbour (`int`):
            Of `knn`: the how manyeth nearest row.
    """

    reward_model: str = "OpenAssistant/reward-model-deberta-v3-large-v2"
    evaluator: str = "MingZhong/unieval-dialog"
    encoder: str = "sentence-transformers/all-MiniLM-L6-v2"
    neighbour: int = 6

    names: ClassVar[tuple[str, ...]] = NAMES
    method: ClassVar[str] = "instruction_mining"

    def __post_init__(self):
        if self.neighbour < 1:
            raise ValueError(f"`selection_kwargs`: neighbour={self.neighbour} must be at least 1.")

    def needs_model(self, names: Sequence[str]) -> bool:
        """Whether these indicators run the model to be tuned."""
        return "ppl" in names or ("knn" in names and self.encoder == "model")

    def used(self, names: Sequence[str]) -> dict[str, str | int]:
        """The sources of these indicators, for the record."""
        kinds = {"rew": ["reward_model"], "knn": ["encoder", "neighbour"]}
        kinds |= dict.fromkeys(QUESTIONS, ["evaluator"])
        wanted = {option for name in names for option in kinds.get(name, [])}
        return {option: value for option, value in asdict(self).items() if option in wanted}

    def extras(self, names: Sequence[str]) -> dict[str, str]:
        """Packages that these indicators need, and the extra that brings each."""
        found = dict(TEXT_FEATURES["mtld"].extras) if "mtld" in names else {}
        return found | ({"sentence_transformers": "embed"} if "knn" in names and self.encoder != "model" else {})

    def check(self, names: Sequence[str]) -> None:
        """Refuse, with a `ValueError`, models that can't measure these indicators, before weights load."""
        if "rew" in names:
            check_reward_model(self.reward_model, "reward_model")
        if set(names) & set(QUESTIONS):
            config = check_pretrained(self.evaluator, "evaluator")
            if not config.is_encoder_decoder:
                raise ValueError(f"`selection_kwargs`: evaluator={self.evaluator!r} is no encoder-decoder model.")
        if "knn" in names and self.encoder != "model":
            check_sentence_encoder(self.encoder)

    def possible(self, names: Sequence[str], records: Records) -> list[str]:
        """Those of the indicators that these rows can have: all."""
        return list(names)

    def measure(
        self, records: Records, ctx: Context, names: Sequence[str]
    ) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """[`indicator_values`], and what a rule has to keep to measure others alike: nothing."""
        return indicator_values(records, ctx, names, self), {}


def indicator_values(
    records: Records, ctx: Context, names: Sequence[str], sources: IndicatorSources
) -> dict[str, np.ndarray]:
    """
    Indicators by name, float64 `(n,)` each; rows without one are NaN and entered in `ctx.account`.

    Args:
        names (`Sequence[str]`):
            Some of `NAMES`.
        sources ([`IndicatorSources`]):
            What measures them.
    """
    found = {}
    for name in names:
        if name == "len":
            found[name] = answer_tokens(records, ctx)
        elif name == "mtld":
            found[name] = text_feature("mtld", records, ctx)
        elif name == "rew":
            found[name] = answer_rewards(records, ctx, sources.reward_model)
        elif name == "ppl":
            found[name] = np.exp(answer_loss(records, ctx).mean)
        elif name == "knn":
            found[name] = _neighbour_distances(records, ctx, sources)
    asked = [name for name in names if name in QUESTIONS]
    return found | (_evaluations(records, ctx, asked, sources.evaluator) if asked else {})


def _neighbour_distances(records: Records, ctx: Context, sources: IndicatorSources) -> np.ndarray:
    vectors_of = RowVectors(records, ctx, sources.encoder)
    vectors = vectors_of(np.arange(len(records)))
    vectors_of.close()
    usable = np.flatnonzero(np.isfinite(vectors).all(1))
    found = np.full(len(records), np.nan)
    if len(usable) <= sources.neighbour:
        ctx.account.note("unscorable", f"fewer than {sources.neighbour} other rows to be near to", usable)
        return found
    options = {"accelerator": ctx.accelerator, "cache_dir": ctx.cache_dir, "progress": "Comparing rows"}
    distances = nearest_distance(vectors[usable], sources.neighbour, **options)
    found[usable] = distances.distance
    ctx.account.count(cached_rows=distances.cached)
    ctx.account.add_cached_seconds(distances.cached_seconds)
    ctx.account.note("unscorable", "did not fit in memory", usable[np.isnan(distances.distance)])
    return found


def _evaluations(records: Records, ctx: Context, names: Sequence[str], evaluator: str) -> dict[str, np.ndarray]:
    model, tokenizer = load_evaluator(evaluator, ctx.accelerator)
    end, found = tokenizer.eos_token or "</s>", {}
    asked = [r for r in records if r.problem is None and r.answer.strip()]
    rows = np.array([record.index for record in asked], np.int64)
    for name in names:
        texts = [f"question: {QUESTIONS[name]} {end} response: {record.answer}" for record in asked]
        if name == "coh":
            pairs = zip(texts, asked, strict=True)
            texts = [f"{text} {end} dialogue history: {record.prompt}" for text, record in pairs]
        answer = yes_probability(
            model,
            tokenizer,
            texts,
            batch_tokens=ctx.batch_tokens,
            dtype=ctx.dtype,
            accelerator=ctx.accelerator,
            cache_dir=ctx.cache_dir,
            progress=f"Evaluating {name}",
        )
        found[name] = np.full(len(records), np.nan)
        found[name][rows] = answer.probability
        ctx.account.count(forward_rows=len(texts) - answer.cached, cached_rows=answer.cached)
        ctx.account.add_cached_seconds(answer.cached_seconds)
        ctx.account.note("truncated", "longer than the evaluator's window", rows[answer.cut])
        ctx.account.note("unscorable", "no answer", np.setdiff1d(np.arange(len(records)), rows))
        ctx.account.note("unscorable", f"the evaluator gives no {name}", np.flatnonzero(np.isnan(found[name])))
    return found
