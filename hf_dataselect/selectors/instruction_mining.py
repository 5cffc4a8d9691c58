"""
Instruction Mining (arXiv 2307.06290): rows for which a linear rule over indicators predicts a low loss.

The claim: the quality of an instruction dataset, that is, the loss of a model fine-tuned on it, can be predicted from
the means of a few indicators of its rows, and rows chosen by the same rule, 2.5 % of a pool, beat random ones.

1. Measure the indicators of each row: reward and length of the answer, perplexity, lexical diversity, distance to
   neighbours, and a trained evaluator's naturalness, coherence and understandability.
2. Predict the log loss by the rule, and keep the rows with the lowest: the budget, or with `search_trials` the number
   up to it that BlendSearch finds best, by fine-tuning the model on that many rows and measuring its loss on
   `selection_target`.

    score = -predicted log loss
    v1: log L = 1.0694 - 0.1498 Rew + 0.00008257 Len - 0.9350 Knn6
    v2: log L = 0.0274 - 0.0078 Rew + 0.4421 Und - 0.3212 Nat - 0.1520 Coh  (R2 0.522)

Both published rules were fitted by least squares to 129 models fine-tuned on different subsets. In v2 the sign of Und
is as published: better understandability raises the predicted loss. A coefficient holds for the models that measured
its indicator, and the rule for the model and the data that it was fitted with: `hf-dataselect fit-rule` fits one of
your own. Columns of scores.parquet: the indicators that the rule weights.

Relations: [`Indicator`] ranks by a single one of them.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import numpy as np

from ..context import Context
from ..data.records import Records
from ..engines.tuning.warm_up import WarmupSettings
from ..features.indicators import IndicatorSources
from ..features.tuned_loss import TunedLoss
from ..fitted.rules.rule import PUBLISHED, FittedRule, load_rule, named_by_rule
from ..options import NonNegativeInt, PositiveFloat, PositiveInt
from ..selector import Card, Need, Scores, Selector, Split


@dataclass
class InstructionMining(Selector):
    """
    Args:
        rule (`str`, *optional*, defaults to `"v2"`):
            `"v1"`, `"v2"`, or the path of a rule file that `hf-dataselect fit-rule` wrote.
        reward_model (`str`, *optional*):
            Sequence-classification model with one label, by hub name or folder. This and the next three are by default
            what the rule file was fitted with, else `OpenAssistant/reward-model-deberta-v3-large-v2`.
        evaluator (`str`, *optional*):
            T5-style evaluator that answers yes or no, by default `MingZhong/unieval-dialog`.
        encoder (`str`, *optional*):
            What distances are measured in: a sentence-transformers encoder (extra `embed`), by default
            `sentence-transformers/all-MiniLM-L6-v2`, or `"model"`, the pending fine-tune model.
        neighbour (`int`, *optional*):
            k of the k-th nearest neighbour, by default 6.
        search_trials (`int`, *optional*, defaults to `0`):
            Sizes of the subset that are tried, from a sixteenth of the budget up (extra `search`); each costs a
            fine-tuning. 0 keeps the budget.
        search_epochs (`float`, *optional*, defaults to `1`):
            Passes over the rows of each trial, which fine-tunes a temporary LoRA adapter.
    """

    rule: str = "v2"
    reward_model: str | None = None
    evaluator: str | None = None
    encoder: str | None = None
    neighbour: PositiveInt | None = None
    search_trials: NonNegativeInt = 0
    search_epochs: PositiveFloat = 1

    splits: ClassVar[Split | None] = "rows"
    card: ClassVar[Card] = Card(
        title="rows for which a linear rule over indicators predicts a low loss",
        paper="2307.06290",
        features="human-designed and model-oriented",
        label_source="a rule fitted to the loss of models fine-tuned on subsets",
        trained_llms=129,
        steps=("fine-tune on subsets", "fit the rule", "measure the indicators", "keep the lowest predicted loss"),
        llm_uses=2,
        code=False,
        model_free=False,
        multi_turn="length, diversity and perplexity of all answers; the last answer for the others",
        deviations=(
            "the authors publish no code",
            "the default reward model is not the paper's, and its rewards are on another scale, so that Rew weighs "
            "otherwise: fit a rule of your own where that matters",
            "the evaluator's questions are reworded",
            "Len is counted in the model's own tokens",
            "`fit-rule` draws subsets that lean towards high or low indicators, so that few of them tell the "
            "coefficients apart",
            "the size of the subset is the budget, unless `search_trials` searches for it; trials fine-tune a LoRA "
            "adapter",
        ),
    )

    def __post_init__(self):
        super().__post_init__()
        self.sources()  # raises for a file that is not a rule

    @property
    def nested(self) -> bool:
        """Without a search for the size."""
        return not self.search_trials

    def needs(self) -> frozenset[Need]:
        if self.search_trials:
            return frozenset({"text", "prompt", "model", "target"})
        without = self._written() and not self.sources().needs_model(self._rule.names)
        return frozenset({"text", "prompt"} if without else {"text", "prompt", "model"})

    def _written(self) -> bool:
        """Whether the rule exists; `fit-rule` may be about to write it, and `check` refuses it until then."""
        return not self.rule.endswith(".json") or Path(self.rule).expanduser().is_file()

    @cached_property
    def _rule(self) -> FittedRule:
        return load_rule(self.rule, IndicatorSources, PUBLISHED)

    def sources(self) -> IndicatorSources:
        """What computes the indicators: the options, else what the rule was fitted with, else the defaults."""
        names = [item.name for item in dataclasses.fields(IndicatorSources)]
        given = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        return IndicatorSources(**{**(self._rule.sources if self._written() else {}), **given})

    def extras(self) -> dict[str, str]:
        extras = self.sources().extras(self._rule.names if self._written() else [])
        return extras | ({"flaml": "search"} if self.search_trials else {})

    def check(self, records: Records) -> None:
        with named_by_rule(self, self._rule):
            self.sources().check(self._rule.names)

    def featurize(self, records: Records, ctx: Context) -> dict[str, np.ndarray]:
        rule = self._rule
        measured = self.sources().measure(records, ctx, rule.names)
        rule.warn_of_others(measured.identities)
        return measured.columns

    def score(self, features: dict[str, np.ndarray], ctx: Context) -> Scores:
        rule = self._rule
        predicted = rule.log_loss(features)
        if np.isfinite(predicted).any():
            ctx.account.figures["mean predicted log loss of all rows"] = round(float(np.nanmean(predicted)), 4)
        return Scores(-predicted.astype(np.float32), features)

    def select(
        self, scores: np.ndarray, records: Records, features: dict[str, np.ndarray], k: int, ctx: Context
    ) -> np.ndarray:
        order = ctx.best(scores, k)
        if not self.search_trials or len(order) < 2:
            return order
        settings = WarmupSettings(
            epochs=self.search_epochs,
            learning_rate=2e-4,
            seed=ctx.seed,
        )
        tuned_loss, losses = TunedLoss(records, ctx.target, ctx, settings), {}

        def loss_of(n: int) -> float:
            loss = tuned_loss(order[:n])
            ctx.account.count(search_rows=n * self.search_epochs)
            losses[n] = loss if np.isfinite(loss) else np.inf
            return losses[n]

        best = best_size(loss_of, max(1, len(order) // 16), len(order), self.search_trials, ctx.seed)
        ctx.account.figures["held-out loss by rows kept"] = {n: round(loss, 4) for n, loss in sorted(losses.items())}
        return order[:best]


def best_size(loss_of: Callable[[int], float], smallest: int, largest: int, trials: int, seed: int) -> int:
    """The number of rows with the lowest loss among those that BlendSearch tries: both ends and the middle first."""
    from flaml import BlendSearch, tune

    starts = dict.fromkeys((smallest, round((smallest * largest) ** 0.5), largest))
    # Without seconds as the cost, the same seed always tries the same numbers.
    search = BlendSearch(
        metric="loss",
        mode="min",
        space={"rows": tune.lograndint(smallest, largest + 1)},
        points_to_evaluate=[{"rows": rows} for rows in starts],
        cost_attr=None,
        seed=seed,
    )
    tried: dict[int, float] = {}

    def evaluate(config: dict[str, int]) -> dict[str, float]:
        rows = int(config["rows"])
        if rows not in tried:
            tried[rows] = loss_of(rows)
        return {"loss": tried[rows], "rows": rows}

    tune.run(evaluate, search_alg=search, metric="loss", mode="min", num_samples=trials, use_ray=False, verbose=0)
    return min(tried, key=lambda rows: (tried[rows], rows))
