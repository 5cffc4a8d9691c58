"""
Choose the method by trial: the one whose rows lower the held-out loss more than random rows do, beyond chance; where
none does, random rows.

1. Train the model, as the run does, on small random subsets of the pool, each time from the same weights.
2. Let the methods score the pool, once and with one cache; those whose scores predict the random subsets' losses best
   (rank correlation, as in an audit) go on, as many as the time is enough for.
3. Successive halving: train on some of the rows that each would keep, as many as a random subset has; then on others
   of those of the better half, and so on, four trainings for the last. A method with a target never sees the rows that
   judge it: where these are the target, it sees one half and is judged by the other, both ways.
4. Keep what the best method keeps if the interval of its gain lies above 0. The interval is as wide as the number of
   methods tried demands (Bonferroni): the best of many looks better than it is.

    gain = mean held-out loss after training on random subsets - that after training on a method's top rows

It never takes much more than `auto_budget`: by default, selecting takes as long as training on the whole pool (STR 1).
The decision, what was tried, and which rows decided are figures of the selection. Scores, columns and excluded rows
are the chosen method's.

Relations: `random` is what it falls back to, with the same rows as a run of it; `hf-dataselect audit` measures the
same, with more subsets, for all methods.
"""

import dataclasses
import logging
import math
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, NamedTuple

import numpy as np

from ..context import Context
from ..data.records import Records
from ..options import Interval, PositiveFloat
from ..registry import load_selector
from ..selector import Card, Need, Scores, Selector


logger = logging.getLogger(__name__)

#: Methods of one pass or less, that differ in what they prefer.
DEFAULTS = (
    "bm25",
    "length",
    {"method": "perplexity", "selection_kwargs": {"keep": "bottom"}},
    {"method": "perplexity", "selection_kwargs": {"keep": "middle"}},
    {"method": "ifd", "selection_kwargs": {"warmup": "none"}},
    "rds",
)
#: Trainings on the rows of the method that is left in the end.
ROUNDS = 4
#: Rows of a subset, at least.
LEAST = 8
#: Held-out rows that decide, at most: each is evaluated after every training.
MOST_ROWS = 64


class Chosen(NamedTuple):
    """The method that was chosen, and its features."""

    selector: Selector
    features: Any


@dataclass
class Auto(Selector):
    """
    Args:
        methods (`list`, *optional*):
            What to choose from: names, or mappings of `method`, `selection_kwargs` and `name`. By default methods that
            take a pass over the pool or less; those that can't score these rows are left out, and named.
        auto_budget (`float`, *optional*):
            Seconds that all of it may take. By default those of training on the whole pool: of `baseline_dir`, or
            extrapolated from the first training on a subset.
        subsets (`int`, *optional*, defaults to `8`):
            Random subsets to train on.
        held_out (`str`, *optional*):
            Rows that decide: `"target"`, `"eval"`, or hub name, folder or file. By default `selection_target` if it
            has 16 rows or more, else the evaluation rows, which the run is then also evaluated on.
    """

    methods: list[Any] = field(default_factory=lambda: list(DEFAULTS))
    auto_budget: PositiveFloat | None = None
    subsets: Annotated[int, Interval(8)] = 8
    held_out: str | None = None

    card: ClassVar[Card] = Card(
        title="rows of the method that helps most in trials on this pool, or random rows",
        features="those of the methods tried",
        label_source="the chosen method",
        trained_llms=20,
        small_llm=False,
        steps=("fine-tune on random subsets", "score by each method", "fine-tune on top rows", "halve", "keep"),
        llm_uses=3,
        model_free=False,
        dataset_free=False,
        multi_turn="as the chosen method",
    )
    nested: ClassVar[bool] = False

    def __post_init__(self):
        super().__post_init__()
        if not self.methods:
            raise ValueError("`selection_kwargs`: methods is empty: name what to choose from.")

    def needs(self) -> frozenset[Need]:
        return frozenset({"text", "model", "training"})

    def forecast(self, rows: int, target: int, kept: int) -> dict[str, int]:
        trainings = self.subsets + halving(len(self.methods)) * (2 if target else 1)  # both halves of a target
        # Trials take no longer than training on the whole pool and the training amid which the time is up, unless
        # `auto_budget` says so.
        size = max(kept, LEAST)
        trained_on = trainings * size if self.auto_budget else min(trainings * size, rows + size)
        return {"forward_rows": rows * len(self.methods) + MOST_ROWS * trainings, "warmup_rows": trained_on}

    def featurize(self, records: Records, ctx: Context) -> Chosen:
        selector, alone = self._decide(ctx), dataclasses.replace(ctx, trials=None)
        return Chosen(selector, selector.featurize(records, alone))

    def score(self, features: Chosen, ctx: Context) -> np.ndarray | Scores:
        return features.selector.score(features.features, ctx)

    def exclude(self, scores: np.ndarray, features: Chosen, ctx: Context) -> dict[str, np.ndarray]:
        return features.selector.exclude(scores, features.features, ctx)

    def select(self, scores: np.ndarray, records: Records, features: Chosen, k: int, ctx: Context) -> np.ndarray:
        return features.selector.select(scores, records, features.features, k, ctx)

    def _decide(self, ctx: Context) -> Selector:
        """The method to select by; what is known of the others is noted."""
        trials = ctx.trials
        trials.plan(self.subsets + halving(len(trials.names)) + 2)
        trials.add_random()
        scored = [name for name in trials.names if trials.left > trials.seconds / 2 and trials.score(name)]
        if scored:
            trials.plan(self.subsets + halving(len(scored)))
        while scored and len(trials.random) < self.subsets and trials.afford():
            trials.add_random()
        complete = len(trials.random) == self.subsets and self._halve(scored, trials)
        gains = {name: trials.gain(name, len(scored)) for name in trials.tops}
        better = [name for name, gain in gains.items() if gain.verdict == "above 0"]
        best = max(better, key=lambda name: gains[name].value, default=None)
        figures, untried = ctx.account.figures, [name for name in trials.names if name not in gains]
        why_not = {name: trials.left_out.get(name, "time") for name in [*untried, *trials.left_out]}
        late = not complete and bool(scored or "time" in why_not.values())
        if best is not None:
            why = f"its rows lower the held-out loss by {_said(gains[best])} nats a token more than random rows do"
        elif gains:
            why = f"none of {len(gains)} methods lowers the held-out loss beyond chance more than random rows do"
            why += "; the time was up" if late else ""
        else:
            why = "no method was tried, since " + ("the time was up" if late else "all are left out")
        figures["chosen"] = f"{best or 'random'}: {why}"
        shown = sorted(gains, key=lambda name: -gains[name].value)
        figures["gain over random rows"] = "; ".join(f"{name} {_said(gains[name])}" for name in shown) or "not tried"
        if why_not:
            figures["not tried"] = "; ".join(f"{name} ({why})" for name, why in why_not.items())
        figures["decided by"] = trials.source
        figures["trials"] = (
            f"{trials.trained} trainings on {trials.size} rows, {trials.spent:.0f} of {trials.seconds:.0f} seconds"
        )
        logger.info("`auto` chooses %s.", figures["chosen"])
        return load_selector("random") if best is None else trials.selector(best)

    def _halve(self, scored: list[str], trials: Any) -> bool:
        """Train on the top rows of the methods by successive halving; whether the time was enough."""
        alive = sorted(scored, key=lambda name: -trials.prediction(name))
        while alive and not trials.afford(halving(len(alive))):
            alive.pop()
        complete = len(alive) == len(scored)
        for number in range(ROUNDS):
            for name in [*alive]:
                if not trials.afford(trials.trainings_of(name)):
                    return False
                if not trials.add_top(name):
                    alive.remove(name)
            if number < ROUNDS - 1:
                alive.sort(key=lambda name: -trials.gain(name, len(scored)).value)
                alive = alive[: math.ceil(len(alive) / 2)]
        return complete


def halving(methods: int) -> int:
    """Trainings of successive halving among as many methods."""
    total = 0
    for _ in range(ROUNDS):
        total, methods = total + methods, math.ceil(methods / 2)
    return total


def _said(gain: Any) -> str:
    return f"{gain.value:.4f} [{gain.low:.4f}, {gain.high:.4f}]"
