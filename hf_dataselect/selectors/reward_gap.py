"""
Implicit-reward gap of preference pairs (arXiv 2508.04149): keep the pairs that a DPO model tells apart least.

The claim: a tenth of the pairs, those of the smallest gap, trains a better DPO model than random pairs or all of them.
The implicit reward of an answer under a model trained with DPO (the policy) and the model it was trained from (the
reference), summed over the tokens of the answer:

    r(x, y) = beta (log p_policy(y | x) - log p_reference(y | x)),    gap = r(x, chosen) - r(x, rejected)

    score = -|gap|

The authors' code ranks the signed gap instead (`keep: lowest`): the most negative ones, where the policy prefers the
rejected answer, come first, and some of these are mislabelled. Columns of scores.parquet: `gap`, `reward_chosen` and
`reward_rejected`.

Relations: SelectiveDPO (arXiv 2502.09650) claims the opposite, that the easy half of the pairs trains best, by another
measure, the validation loss; `keep: highest` keeps the easy pairs. Neither is known to have been replicated.
"""

import dataclasses
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from ..context import Context
from ..data.preferences import check_pairs, rejected_answers
from ..data.records import Records
from ..errors import SelectionError
from ..features.loss import answer_loss, check_scoring_model
from ..options import PositiveFloat
from ..selector import Card, Need, Scores, Selector, Split


@dataclass
class RewardGap(Selector):
    """
    Args:
        policy (`str`):
            The model trained with DPO, by hub name or folder.
        reference (`str`, *optional*):
            The model that it was trained from, of the same vocabulary; by default the model to be fine-tuned.
        beta (`float`, *optional*, defaults to `0.1`):
            Of DPO; it scales the gaps and leaves their order as it is.
        keep (`str`, *optional*, defaults to `"smallest"`):
            Which gaps: `"smallest"` (nearest to 0, as in the paper), `"lowest"` (most negative, as in the authors'
            code) or `"highest"` (easy pairs).
    """

    policy: str = ""
    reference: str | None = None
    beta: PositiveFloat = 0.1
    keep: Literal["smallest", "lowest", "highest"] = "smallest"

    default_budget: ClassVar[float] = 0.1
    card: ClassVar[Card] = Card(
        title="preference pairs that a DPO model tells apart least (or most)",
        paper="2508.04149",
        features="model-oriented",
        label_source="implicit rewards of a model trained with DPO",
        trained_llms=1,
        steps=("score both answers with two models", "rank the gaps", "keep the top k"),
        llm_uses=1,
        model_free=False,
        dataset_free=False,
        multi_turn="all assistant turns of both conversations; those that they share cancel out",
        deviations=(
            "the gaps nearest to 0 are kept; the code keeps the most negative: `keep: lowest`",
            "padding is not counted; the code sums over it at batch sizes above 1",
            "rows are rendered with the chat template, where the code joins texts",
            "SelectiveDPO (arXiv 2502.09650) claims the opposite: `keep: highest`",
        ),
    )
    by_row: ClassVar[bool] = True
    splits: ClassVar[Split | None] = "rows"
    columns: ClassVar[tuple[str, ...] | None] = ("gap", "reward_chosen", "reward_rejected")

    def needs(self) -> frozenset[Need]:
        return frozenset({"text"} if self.reference else {"text", "model"})

    def check(self, records: Records) -> None:
        if not self.policy:
            raise ValueError(
                "`selection_kwargs`: policy is required: a model trained with DPO, a hub name or a folder."
            )
        check_pairs(records)
        for option in ("policy", "reference"):
            if name := getattr(self, option):
                check_scoring_model(name, option)

    def forecast(self, rows: int, target: int, kept: int) -> dict[str, int]:
        return {"forward_rows": 4 * rows}

    def featurize(self, records: Records, ctx: Context) -> dict[str, np.ndarray]:
        base = ctx.with_model(self.reference) if self.reference else ctx
        policy = ctx.with_model(self.policy)
        if policy.tokenizer.get_vocab() != base.tokenizer.get_vocab():
            raise SelectionError(
                f"`selection_kwargs`: policy={self.policy!r} has another vocabulary than its reference "
                f"({base.model_id}): their log-likelihoods can't be compared token by token."
            )
        window = min(filter(None, (base.max_length, policy.max_length)), default=None)
        base = dataclasses.replace(base, max_length=window)
        rejected = rejected_answers(records)
        return {
            "reward_chosen": self.beta * implicit_rewards(records, base, base.using(policy.model)),
            "reward_rejected": self.beta * implicit_rewards(rejected, base, base.using(policy.model)),
        }

    def score(self, features: dict[str, np.ndarray], ctx: Context) -> Scores:
        gap = features["reward_chosen"] - features["reward_rejected"]
        scores = {"smallest": -np.abs(gap), "lowest": -gap, "highest": gap}[self.keep]
        return Scores(scores.astype(np.float32), {"gap": gap, **features})


def implicit_rewards(records: Records, reference: Context, policy: Context) -> np.ndarray:
    """`log p_policy - log p_reference` of the answers, summed over their tokens, nats, float64 `(n,)`."""
    losses = [answer_loss(records, ctx) for ctx in (reference, policy)]
    return losses[0].mean * losses[0].tokens - losses[1].mean * losses[1].tokens
