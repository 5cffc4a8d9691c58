"""
Indicators of instruction data (arXiv 2307.06290): per-row numbers that a rule weights.

| name | is | runs |
|---|---|---|
| `len` | tokens of the answers | nothing |
| `mtld` | lexical diversity of the answers, see `text_statistics.py` | nothing |
| `rew` | reward of the last answer | a reward model |
| `ppl` | perplexity of the answers | the pending fine-tune model |
| `knn` | Euclidean distance to the k-th nearest neighbour, in an encoder's vectors | an encoder |
| `nat`, `coh`, `und` | naturalness, coherence, understandability of the last answer, 0 to 1 | an evaluator |
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import ClassVar, NamedTuple

import numpy as np

from ..context import Context
from ..data.records import Records
from ..engines.forward.sentence_encoder import check_sentence_encoder
from ..engines.forward.seq2seq import load_evaluator, yes_probability
from ..engines.llm.load import load_reward_model
from ..engines.llm.reward_model import check_reward_model
from ..engines.runtime.loading import check_pretrained
from ..engines.subset.neighbours import nearest_distance
from ..options import PositiveInt, check_declared
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


class Indicators(NamedTuple):
    """Indicators of rows, and what other rows must share to be comparable."""

    #: By column, float64 `(n,)` each; rows without a value are NaN and entered in `ctx.account`.
    columns: dict[str, np.ndarray]
    #: What a rule keeps to compute them for other rows: the axes of principal components.
    basis: dict[str, np.ndarray]
    #: Hash of each model that computed them, by option.
    identities: dict[str, str]


@dataclass
class IndicatorSources:
    """
    Models and settings that compute the indicators.

    Args:
        reward_model (`str`):
            Of `rew`: sequence-classification model with one label, by hub name or folder.
        evaluator (`str`):
            Of `nat`, `coh` and `und`: T5-style evaluator that answers yes or no, by hub name or folder.
        encoder (`str`):
            Of `knn`: a sentence-transformers encoder (extra `embed`), or `"model"`, the pending fine-tune model.
        neighbour (`int`):
            Of `knn`: k of the k-th nearest neighbour.
    """

    reward_model: str = "OpenAssistant/reward-model-deberta-v3-large-v2"
    evaluator: str = "MingZhong/unieval-dialog"
    encoder: str = "sentence-transformers/all-MiniLM-L6-v2"
    neighbour: PositiveInt = 6

    names: ClassVar[tuple[str, ...]] = NAMES
    method: ClassVar[str] = "instruction_mining"

    def __post_init__(self):
        check_declared(self, "selection_kwargs")

    def needs_model(self, names: Sequence[str]) -> bool:
        """Whether these indicators run the pending fine-tune model."""
        return "ppl" in names or ("knn" in names and self.encoder == "model")

    def used(self, names: Sequence[str]) -> dict[str, str | int]:
        """The options that these indicators use."""
        kinds = {"rew": ["reward_model"], "knn": ["encoder", "neighbour"]}
        kinds |= dict.fromkeys(QUESTIONS, ["evaluator"])
        wanted = {option for name in names for option in kinds.get(name, [])}
        return {option: value for option, value in asdict(self).items() if option in wanted}

    def extras(self, names: Sequence[str]) -> dict[str, str]:
        """Packages that these indicators need, each with the extra that installs it."""
        packages = dict(TEXT_FEATURES["mtld"].extras) if "mtld" in names else {}
        return packages | ({"sentence_transformers": "embed"} if "knn" in names and self.encoder != "model" else {})

    def check(self, names: Sequence[str]) -> None:
        """Raise `ValueError`, before weights load, for models that can't compute these indicators."""
        if "rew" in names:
            check_reward_model(self.reward_model, "reward_model")
        if set(names) & set(QUESTIONS):
            config = check_pretrained(self.evaluator, "evaluator")
            if not config.is_encoder_decoder:
                raise ValueError(f"`selection_kwargs`: evaluator={self.evaluator!r} is not an encoder-decoder model.")
        if "knn" in names and self.encoder != "model":
            check_sentence_encoder(self.encoder)

    def possible(self, names: Sequence[str], records: Records) -> list[str]:
        """The indicators available for these rows: all."""
        return list(names)

    def measure(self, records: Records, ctx: Context, names: Sequence[str]) -> Indicators:
        """[`Indicators`] of rows, `names` of them."""
        columns, identities = {}, {}
        for name in names:
            if name == "len":
                columns[name] = answer_tokens(records, ctx)
            elif name == "mtld":
                columns[name] = text_feature("mtld", records, ctx)
            elif name == "rew":
                reward_model = load_reward_model(self.reward_model, ctx.runtime)
                columns[name] = answer_rewards(records, ctx, reward_model)
                identities["reward_model"] = reward_model.identity
            elif name == "ppl":
                columns[name] = np.exp(answer_loss(records, ctx).mean)
            elif name == "knn":
                columns[name] = _neighbour_distances(records, ctx, self)
        asked = [name for name in names if name in QUESTIONS]
        columns |= _evaluations(records, ctx, asked, self.evaluator) if asked else {}
        return Indicators(columns, {}, identities)


def _neighbour_distances(records: Records, ctx: Context, sources: IndicatorSources) -> np.ndarray:
    vectors_of = RowVectors(records, ctx, sources.encoder)
    embedded = vectors_of.stored(np.arange(len(records)))
    vectors_of.close()
    usable = np.flatnonzero(embedded.usable)
    distances = np.full(len(records), np.nan)
    if len(usable) <= sources.neighbour:
        ctx.account.note("unscorable", f"fewer than {sources.neighbour} other rows to be near to", usable)
        return distances
    distances[usable] = nearest_distance(embedded.take(usable), sources.neighbour, ctx.runtime, "Comparing rows")
    ctx.account.note("unscorable", "did not fit in memory", usable[np.isnan(distances[usable])])
    return distances


def _evaluations(records: Records, ctx: Context, names: Sequence[str], evaluator: str) -> dict[str, np.ndarray]:
    model, tokenizer = load_evaluator(evaluator, ctx.runtime)
    end, columns = tokenizer.eos_token or "</s>", {}
    asked = [r for r in records if r.problem is None and r.answer.strip()]
    rows = np.array([record.index for record in asked], np.int64)
    for name in names:
        texts = [f"question: {QUESTIONS[name]} {end} response: {record.answer}" for record in asked]
        if name == "coh":
            pairs = zip(texts, asked, strict=True)
            texts = [f"{text} {end} dialogue history: {record.prompt}" for text, record in pairs]
        answer = yes_probability(model, tokenizer, texts, ctx.runtime, f"Evaluating {name}")
        columns[name] = np.full(len(records), np.nan)
        columns[name][rows] = answer.probability
        ctx.account.note("truncated", "longer than the evaluator's window", rows[answer.cut])
        ctx.account.note("unscorable", "no answer", np.setdiff1d(np.arange(len(records)), rows))
        ctx.account.note("unscorable", f"the evaluator gives no {name}", np.flatnonzero(np.isnan(columns[name])))
    return columns
