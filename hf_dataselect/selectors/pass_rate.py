"""
Prompts for RL by difficulty: keep those that the model solves about half of the time.

Where all answers to a prompt get the same reward, its advantages are 0 in GRPO, and it teaches nothing. The difficulty
is the share of rollouts that succeed, from a column of the dataset:

    score = -|pass rate - target|

Rates of 0 and 1 are excluded. One rollout tells no rate. Column of scores.parquet: `pass_rate`.

Relations: [`~hf_dataselect.training.prompt_sampler.PromptSampler`] (MoPPS, arXiv 2507.04632) estimates the rates while
training, and needs no rollouts before; [`~hf_dataselect.training.rollouts.with_rollouts`] makes some.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ..context import Context
from ..data.columns import check_column, number_of
from ..data.records import Records
from ..options import Fraction, Number
from ..selector import Card, Scores, Selector


@dataclass
class PassRate(Selector):
    """
    Args:
        column (`str`, *optional*, defaults to `"pass_rate"`):
            The column: a rate in [0, 1], or a list of the rewards of a row's rollouts, at least two.
        target (`float`, *optional*, defaults to `0.5`):
            The rate that scores highest.
        success (`float`, *optional*, defaults to `1.0`):
            Reward from which a rollout counts as a success, where the column holds rewards.
        keep_constant (`bool`, *optional*, defaults to `False`):
            Whether prompts that are always or never solved may be kept.
    """

    column: str = "pass_rate"
    target: Fraction = 0.5
    success: Number = 1.0
    keep_constant: bool = False

    default_budget: ClassVar[float] = 0.5
    card: ClassVar[Card] = Card(
        title="prompts that the model solves about half of the time",
        features="model-oriented",
        label_source="share of rollouts that succeed, from a column",
        steps=("read the rates", "exclude 0 and 1", "keep the top k"),
        model_free=False,
        multi_turn="rows are taken whole",
    )
    by_row: ClassVar[bool] = True
    columns: ClassVar[tuple[str, ...] | None] = ("pass_rate",)

    def check(self, records: Records) -> None:
        check_column("column", self.column, records.dataset)
        for row, value in enumerate(self._given(records)):
            if not isinstance(value, list) and abs(number_of(value) - 0.5) > 0.5:
                raise ValueError(
                    f"`selection_kwargs`: column={self.column!r} has {value!r} in row {row}: a rate is in [0, 1]; "
                    "rewards of rollouts are lists."
                )

    def _given(self, records: Records) -> Iterable[Any]:
        for batch in records.dataset.select_columns([self.column]).with_format(None).iter(10_000):
            yield from batch[self.column]

    def featurize(self, records: Records, ctx: Context) -> np.ndarray:
        rates = np.full(len(records), np.nan, np.float32)
        missing: dict[str, list[int]] = {}
        for row, value in enumerate(self._given(records)):
            given = map(number_of, value if isinstance(value, list) else ())
            rewards = [reward for reward in given if not np.isnan(reward)]
            if len(rewards) > 1:
                rates[row] = np.mean([reward >= self.success for reward in rewards])
            elif rewards:
                missing.setdefault(f"one rollout only in `{self.column}`", []).append(row)
            elif np.isnan(rate := number_of(value)):
                missing.setdefault(f"no pass rate in `{self.column}`", []).append(row)
            else:
                rates[row] = rate
        for reason, rows in missing.items():
            ctx.account.note("unscorable", reason, np.array(rows))
        return rates

    def score(self, features: np.ndarray, ctx: Context) -> Scores:
        return Scores(-np.abs(features - np.float32(self.target)), {"pass_rate": features})

    def exclude(self, scores: np.ndarray, features: np.ndarray, ctx: Context) -> dict[str, np.ndarray]:
        if self.keep_constant:
            return {}
        return {"never solved: no advantage": features == 0, "always solved: no advantage": features == 1}
