"""
How often `auto` claims a gain that is none, and what it gets, by simulation.

Each row of a pool of 400 has a hidden effect on every held-out row: one shared by all, and one of its own. The loss
after training on a subset is a constant minus the mean effect of its rows, a chance of training, and noise. Methods
score rows by the shared effect times a number, and noise: in `none`, six that know nothing; in `one`, one of six knows
something; in `worse`, half of them prefer bad rows. The rows that `auto` keeps are worth their mean effect, without
chance and noise. A worse choice is one below the mean of the pool.

    python benchmarks/auto_claims.py --trials 400
"""

import argparse
import dataclasses
from types import SimpleNamespace

import numpy as np

from hf_dataselect.context import Context
from hf_dataselect.fitted.subset_losses import Measured
from hf_dataselect.selectors.auto import Auto
from hf_dataselect.selectors.random import Random
from hf_dataselect.training.trials import Trials


WORLDS = {"none": [0.0] * 6, "one": [0.0] * 5 + [1.0], "weak": [0.0] * 5 + [0.3], "worse": [-1.0] * 3 + [0.0] * 3}


class Simulated(Trials):
    """Trials on a pool whose rows have hidden effects on held-out rows, and methods that see them with noise."""

    def __init__(self, ctx: Context, seed: int, methods: dict[str, float], rows: int = 40, seconds: float = 1e9):
        draw = np.random.default_rng(seed)
        self.effects = draw.standard_normal((400, 1)) + 0.5 * draw.standard_normal((400, 24))
        shared = self.effects.mean(1)
        self.scores = {name: share * shared + draw.standard_normal(400) for name, share in methods.items()}
        self.noise, self.spending = draw, 0.0
        entries = [SimpleNamespace(name=name) for name in methods]
        self._planned = SimpleNamespace(
            entries=entries, held_out=range(24), source="simulated", halved=False, weights=None
        )
        self._trainer = SimpleNamespace(args=SimpleNamespace(seed=seed, max_steps=-1))
        self._ctx, self._usable, self._chosen, self.left_out = ctx, np.arange(400), {}, {}
        self.rows, self.seconds, self.size, self.cost, self.source = rows, seconds, 10, 0.0, "simulated"
        self._halves = [np.arange(24) % 2 == 0, np.arange(24) % 2 == 1]
        self._forget()

    @property
    def spent(self) -> float:
        return self.spending

    def plan(self, trainings: int) -> None:
        pass

    def score(self, name: str) -> bool:
        scores = self.scores[name]
        self._chosen[name] = [SimpleNamespace(scores=scores, indices=np.argsort(-scores)[: self.rows])]
        return True

    def selector(self, name: str) -> str:
        return name

    def _train(self, rows: np.ndarray, seed: int, name: str) -> Measured:
        self.spending += 1
        self.cost = 1.0
        noise = 0.1 * self.noise.standard_normal() + 0.1 * self.noise.standard_normal(24)
        return Measured(3 - self.effects[rows].mean(0) + noise, {})

    def gained(self, name: str) -> float:
        """What the rows that a method keeps are worth more than the mean row."""
        shared = self.effects.mean(1)
        return float(shared[np.argsort(-self.scores[name])[: self.rows]].mean() - shared.mean())


def decide(seed: int, methods: dict[str, float], **options) -> tuple[str | Random, Simulated, dict[str, str]]:
    """The choice of `auto` (a name, or [`Random`]), its trials, and its figures."""
    ctx = Context(None)
    trials = Simulated(ctx, seed, methods, **options)
    return Auto()._decide(dataclasses.replace(ctx, trials=trials)), trials, ctx.account.figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=400)
    options = parser.parse_args()
    print(
        "| methods | a method is kept | a worse one than random | share of the best method's gain |\n|---|---|---|---|"
    )
    for world, shares in WORLDS.items():
        methods, kept, worse, gains, best = {f"method{i}": share for i, share in enumerate(shares)}, 0, 0, 0.0, 0.0
        for seed in range(options.trials):
            choice, trials, _ = decide(seed, methods)
            best += max(0.0, *map(trials.gained, methods))
            if not isinstance(choice, Random):
                kept, gain = kept + 1, trials.gained(choice)
                worse, gains = worse + (gain < 0), gains + gain
        print(
            f"| {world} | {kept / options.trials:.1%} | {worse / options.trials:.1%} | {gains / best:.0%} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
