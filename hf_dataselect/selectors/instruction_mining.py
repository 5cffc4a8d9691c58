"""
Instruction Mining (arXiv 2307.06290): rows of which a linear rule over indicators foretells a low loss.

The claim: how good an instruction dataset is, that is, the loss of a model tuned on it, can be foretold from the means
of a few indicators of its rows, and rows chosen by the same rule, 2.5 % of a pool, do better than random ones.

1. Measure the indicators of each row: reward and length of the answer, perplexity, lexical diversity, distance to
   neighbours, and what a trained evaluator says of naturalness, coherence and understandability.
2. Foretell the log loss by the rule, and keep the rows with the lowest: as many as the budget says, or, with
   `search_trials`, as BlendSearch finds best up to there, by tuning the model on the first so many and measuring its
   loss on `selection_target`.

The rule was fitted by least squares to 129 models tuned on different subsets; two are published:

    v1: log L = 1.0694 - 0.1498 Rew + 0.00008257 Len - 0.9350 Knn6
    v2: log L = 0.0274 - 0.0078 Rew + 0.4421 Und - 0.3212 Nat - 0.1520 Coh  (R2 0.522)

In v2 the sign of Und is as published: better understandability raises the loss that it foretells. A coefficient holds
for the models that measured its indicator, and the rule for the model and the data it was fitted with:
`hf-dataselect fit-rule` fits one of your own.

Relations: [`Indicator`] ranks by one of them alone.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ..context import Context
from ..data.records import Records
from ..engines.tuning.warm_up import WarmupSettings
from ..features.indicators import IndicatorSources, indicator_values
from ..features.tuned_loss import TunedLoss
from ..fitted.rules.rule import PUBLISHED, FittedRule, load_rule, named_by_rule
from ..selector import Card, Selector


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
            `sentence-transformers/all-MiniLM-L6-v2`, or `"model"`, the model to be tuned.
        neighbour (`int`, *optional*):
            The how manyeth nearest row, by default 6.
        search_trials (`int`, *optional*, defaults to `0`):
            Sizes of the subset that are tried, from a sixteenth of the budget up (extra `search`); each costs a
            tuning. 0 keeps as many rows as the budget says.
        search_epochs (`float`, *optional*, defaults to `1`):
            Passes over the rows of each trial, which tunes a temporary LoRA adapter.
    """

    rule: str = "v2"
    reward_model: str | None = None
    evaluator: str | None = None
    encoder: str | None = None
    neighbour: int | None = None
    search_trials: int = 0
    search_epochs: float = 1

    card: ClassVar[Card] = Card(
        title="rows of which a linear rule over indicators foretells a low loss",
        paper="2307.06290",
        features="human-designed and model-oriented",
        label_source="a rule fitted to the loss of models tuned on subsets",
        trained_llms=129,
        steps=("tune models on subsets", "fit the rule", "measure the indicators", "keep the lowest loss foretold"),
        llm_uses=2,
        code=False,
        model_free=False,
        multi_turn="length, diversity and perplexity of all answers; the last answer for the others",
        needs=frozenset({"text", "prompt", "model"}),
        deviations=(
            "the authors publish no code",
            "the default reward model is not the paper's, and its rewards are on another scale, so that Rew weighs "
            "otherwise: fit a rule of your own where that matters",
            "the evaluator is asked in words of our own",
            "Len is counted in the model's own tokens",
            "`fit-rule` draws subsets that lean towards high or low indicators, so that few of them tell the "
            "coefficients apart",
            "the size of the subset is the budget, unless `search_trials` lets it be searched for; trials tune a LoRA "
            "adapter",
        ),
    )

    def __post_init__(self):
        for name, least in (("search_trials", 0), ("search_epochs", 1e-9)):
            if not getattr(self, name) >= least:
                raise ValueError(f"`selection_kwargs`: {name}={getattr(self, name)} is too small.")
        needs = self.card.needs | ({"target"} if self.search_trials else set())
        if self._written() and not self.search_trials and not self.sources().needs_model(self._rule().names):
            needs -= {"model"}
        self.card = dataclasses.replace(self.card, needs=needs)

    def _written(self) -> bool:
        """Whether there is a rule; `fit-rule` may be about to write it, and `check` refuses it until then."""
        return not self.rule.endswith(".json") or Path(self.rule).expanduser().is_file()

    def _rule(self) -> FittedRule:
        return load_rule(self.rule, IndicatorSources, PUBLISHED)

    def sources(self) -> IndicatorSources:
        """What measures the indicators: the options, else what the rule was fitted with, else the defaults."""
        names = [item.name for item in dataclasses.fields(IndicatorSources)]
        given = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        return IndicatorSources(**{**(self._rule().sources if self._written() else {}), **given})

    def extras(self) -> dict[str, str]:
        found = self.sources().extras(self._rule().names if self._written() else [])
        return found | ({"flaml": "search"} if self.search_trials else {})

    def check(self, records: Records) -> None:
        with named_by_rule(self, self._rule()):
            self.sources().check(self._rule().names)

    def featurize(self, records: Records, ctx: Context) -> dict[str, Any]:
        found = indicator_values(records, ctx, self._rule().names, self.sources())
        return found | {"records": records}

    def score(self, features: dict[str, Any], ctx: Context) -> np.ndarray:
        rule = self._rule()
        rule.warn_of_others(ctx)
        foretold = rule.log_loss(features)
        if np.isfinite(foretold).any():
            ctx.account.figures["mean log loss foretold, of all rows"] = round(float(np.nanmean(foretold)), 4)
        return -foretold.astype(np.float32)

    def select(self, scores: np.ndarray, features: dict[str, Any], k: int, ctx: Context) -> np.ndarray:
        order = super().select(scores, features, k, ctx)
        if not self.search_trials or len(order) < 2:
            return order
        settings = WarmupSettings(
            epochs=self.search_epochs,
            learning_rate=2e-4,
            gradient_checkpointing=ctx.gradient_checkpointing,
            seed=ctx.seed,
        )
        tuned_loss, losses = TunedLoss(features["records"], ctx.target, ctx, settings), {}

        def loss_of(n: int) -> float:
            found = tuned_loss(order[:n])
            ctx.account.count(search_rows=n * self.search_epochs)
            losses[n] = found if np.isfinite(found) else np.inf
            return losses[n]

        best = best_size(loss_of, max(1, len(order) // 16), len(order), self.search_trials, ctx.seed)
        tuned_loss.close()
        ctx.account.figures["held-out loss by rows kept"] = {n: round(loss, 4) for n, loss in sorted(losses.items())}
        return order[:best]


def best_size(loss_of: Callable[[int], float], smallest: int, largest: int, trials: int, seed: int) -> int:
    """The number of rows with the lowest loss among those that BlendSearch tries: both ends and the middle first."""
    from flaml import BlendSearch, tune

    starts = dict.fromkeys((smallest, round((smallest * largest) ** 0.5), largest))
    # Without seconds as the cost, the same seed tries the same numbers, on all ranks.
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
