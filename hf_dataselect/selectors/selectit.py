"""
SelectIT (arXiv 2402.16705; code Blue-Raincoat/SelectIT): the model rates its own rows from 1 to 5, and the rating
counts as far as it is sure.

The claim: 20 % of Alpaca, chosen by the uncertainty of the model itself, beat all of it, without another model.

The model is asked to rate a row in `prompts` wordings, one forward each; p_i is the probability of the digit i as the
next token, among the five digits.

    token score    = (likeliest digit) x mean over the other four i of (max q - q_i),     q = softmax(p)
    sentence score = mean over the wordings of the token scores / (1 + alpha x their standard deviation)

With `prompts: 1` the score is that of the token level. Columns of scores.parquet: `rating` (mean likeliest digit) and
`spread` (the standard deviation).

Relations: [`AlpaGasus`] asks a judge for the same; [`DEITA`] takes the expected digit of trained scorers.
"""

from dataclasses import dataclass
from itertools import compress
from typing import Annotated, ClassVar

import numpy as np
from scipy.special import softmax

from ..context import Context
from ..data.records import Records
from ..features.ratings import digit_logits
from ..options import Interval, NonNegativeFloat
from ..selector import Card, Need, Scores, Selector, Split


SCALE = ("1", "2", "3", "4", "5")
#: In this package's words. The digit follows a line break, where most tokenizers have a token of its own for it.
WORDINGS = (
    "Rate how well the answer follows the instruction, from 1 (not at all) to 5 (in every way).",
    "On a scale of 1 to 5, how useful is this pair of instruction and answer for training an assistant?",
    "Give the answer below a grade between 1 and 5 for accuracy, completeness and clarity. 5 is best.",
    "From 1 (poor) to 5 (excellent): how good is this answer as an example to learn from?",
    "Judge the answer to the instruction with one digit, where 1 means useless and 5 means flawless.",
)


@dataclass
class SelectIT(Selector):
    """
    Args:
        prompts (`int`, *optional*, defaults to `5`):
            Wordings that the model is asked in, each one forward a row: 1 is the paper's token level, more its
            sentence level.
        alpha (`float`, *optional*, defaults to `0.2`):
            How much disagreement between wordings lowers a score.
    """

    prompts: Annotated[int, Interval(1, len(WORDINGS))] = 5
    alpha: NonNegativeFloat = 0.2

    card: ClassVar[Card] = Card(
        title="rows that the model rates high, and is sure of",
        paper="2402.16705",
        features="model-oriented",
        label_source="digit probabilities of the pending fine-tune model after rating prompts",
        steps=("rate each row in several wordings", "lower by the disagreement", "rank", "keep the top k"),
        llm_uses=5,
        model_free=False,
        multi_turn="the last answer, with all before it as the instruction",
        deviations=(
            "no model level: the code weights the scores of 7B, 13B and 70B models",
            "other wordings than the authors'; the prompt of the token level is the first, not drawn without a seed",
            "a row that does not fit is NaN, where the code drops one prompt and shifts the rows after it",
        ),
        evidence="the authors' on Alpaca with Llama 2; no replication found",
    )
    by_row: ClassVar[bool] = True
    splits: ClassVar[Split | None] = "rows"
    columns: ClassVar[tuple[str, ...] | None] = ("rating", "spread")
    default_budget: ClassVar[float | int | str] = 0.2

    def needs(self) -> frozenset[Need]:
        return frozenset({"text", "prompt", "model"})

    def forecast(self, rows: int, target: int, kept: int) -> dict[str, int]:
        return {"forward_rows": self.prompts * rows}

    def featurize(self, records: Records, ctx: Context) -> np.ndarray:
        asked = np.array([r.problem is None and bool(r.prompt.strip() and r.answer.strip()) for r in records])
        ctx.account.note("unscorable", "the prompt or the answer is empty", np.flatnonzero(~asked))
        logits = np.full((len(records), self.prompts, len(SCALE)), np.nan)
        for number, wording in enumerate(WORDINGS[: self.prompts]):
            texts = (_question(wording, r.prompt.strip(), r.answer.strip()) for r in compress(records, asked))
            label = f"Rating rows {number + 1}/{self.prompts}"
            logits[asked, number] = digit_logits(texts, ctx, SCALE, label)
        lost = asked & ~np.isfinite(logits).all((1, 2))
        why = "no rating: longer than the model's window, or does not fit in memory"
        ctx.account.note("unscorable", why, np.flatnonzero(lost))
        return logits

    def score(self, features: np.ndarray, ctx: Context) -> Scores:
        tokens = token_scores(softmax(features, -1))
        scores, spread = sentence_scores(tokens, self.alpha), tokens.std(1)
        known = np.isfinite(features).all((1, 2))
        rating = np.where(known, 1.0 + features.argmax(-1).mean(1), np.nan)
        return Scores(np.where(known, scores, np.nan).astype(np.float32), {"rating": rating, "spread": spread})


def token_scores(probabilities: np.ndarray) -> np.ndarray:
    """Token score of five digits' probabilities `(..., 5)`, which need not sum to 1."""
    q = softmax(probabilities / probabilities.sum(-1, keepdims=True), -1)
    others = (q.max(-1, keepdims=True) - q).sum(-1) / (q.shape[-1] - 1)
    return (q.argmax(-1) + 1) * others


def sentence_scores(tokens: np.ndarray, alpha: float) -> np.ndarray:
    """Sentence score of token scores `(n, wordings)`."""
    return tokens.mean(1) / (1 + alpha * tokens.std(1))


def _question(wording: str, instruction: str, answer: str) -> str:
    return f"{wording}\n\nInstruction:\n{instruction}\n\nAnswer:\n{answer}\n\nThe digit alone:\n"
