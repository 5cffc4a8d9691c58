"""
Rows whose answers a reward model scores highest: the quality that [`QDIT`] and [`MoDS`] begin with, alone.

    score = reward of the row's last answer, given all turns before it

A reward model is a sequence classification model with one label, such as [`~trl.RewardTrainer`] trains. Chosen by
quality alone, rows resemble each other; `selection_diversity` spreads them.

Relations: [`AlpaGasus`] asks a judge for a rating in words.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ..context import Context
from ..data.records import Records
from ..engines.llm.load import load_reward_model
from ..engines.llm.reward_model import check_reward_model
from ..features.rewards import answer_rewards
from ..selector import Card, Need, Selector, Split


@dataclass
class Reward(Selector):
    """
    Args:
        model (`str`, *optional*, defaults to `"OpenAssistant/reward-model-deberta-v3-large-v2"`):
            The reward model by hub name or folder.
    """

    model: str = "OpenAssistant/reward-model-deberta-v3-large-v2"

    card: ClassVar[Card] = Card(
        title="rows whose answers a reward model scores highest",
        features="model-oriented",
        label_source="a reward model",
        steps=("score the answers", "keep the top k"),
        llm_uses=1,
        multi_turn="the last answer is scored, given all turns before it",
        evidence="a step of published methods; by itself a baseline that QDIT's paper finds below random rows at its "
        "worst tenth",
    )
    by_row: ClassVar[bool] = True
    splits: ClassVar[Split | None] = "rows"
    columns: ClassVar[tuple[str, ...] | None] = ()

    def needs(self) -> frozenset[Need]:
        return frozenset({"text", "prompt"})

    def check(self, records: Records) -> None:
        check_reward_model(self.model, "model")

    def forecast(self, rows: int, target: int, kept: int) -> dict[str, int]:
        return {"forward_rows": rows}

    def featurize(self, records: Records, ctx: Context) -> np.ndarray:
        option = f"`selection_kwargs`: model={self.model!r}"
        return answer_rewards(records, ctx, load_reward_model(self.model, ctx.runtime, option=option))

    def score(self, features: np.ndarray, ctx: Context) -> np.ndarray:
        return features.astype(np.float32)
