"""
Coverage of the intervals of an audit, by simulation.

Each row of a pool has a hidden effect on every evaluation row: one shared by all, and one of its own. The loss that
training on a subset takes off an evaluation row is the sum of its rows' effects, a chance of the training, and noise.
Selectors score rows by the shared effect (`true`), by it and noise (`half`, `weak`), or by noise (`random`). Coverage
is the share of trials whose interval holds the value over infinitely many subsets, evaluation rows and seeds; of
gains, also over infinitely many draws of the selector's noise, which decides its top rows.

    python benchmarks/audit_intervals.py --trials 1000
"""

import argparse
import itertools

import numpy as np
from scipy.stats import rankdata

from hf_dataselect.evaluation.audit.gain import between_seeds, gain
from hf_dataselect.evaluation.audit.prediction import predict, subset_sums


POOL, SIZE = 300, 15
SCORERS = {"true": 0.0, "half": 1.0, "weak": 4.0, "random": np.inf}
#: Standard deviations beside the shared effect of a row (1): of its own effects, of trainings, of single losses.
WORLDS = {"alike": (0.0, 0.1, 0.1), "mixed": (0.5, 0.5, 0.5), "different": (2.0, 0.2, 2.0)}


class World:
    """A pool with hidden effects."""

    def __init__(self, name: str, seed: int = 0):
        rng = np.random.default_rng(seed)
        self.own, self.chance, self.noise = WORLDS[name]
        self.shared, self.error = rng.standard_normal((2, POOL))

    def scores(self, scorer: str) -> np.ndarray:
        error = SCORERS[scorer]
        return self.error if np.isinf(error) else self.shared + error * self.error

    def best(self, rng, scorer: str) -> np.ndarray:
        """Top rows of a selector with new noise, `(1, SIZE)`."""
        error, noise = SCORERS[scorer], rng.standard_normal(POOL)
        return np.argsort(-(noise if np.isinf(error) else self.shared + error * noise))[None, :SIZE]

    def effects(self, rng, rows: int) -> np.ndarray:
        return self.shared[:, None] + self.own * rng.standard_normal((POOL, rows))

    def reductions(self, rng, subsets: np.ndarray, effects: np.ndarray) -> np.ndarray:
        scale, shape = np.sqrt(SIZE), (len(subsets), effects.shape[1])
        chance = self.chance * rng.standard_normal((shape[0], 1)) + self.noise * rng.standard_normal(shape)
        return effects[subsets].sum(1) + scale * chance


def draw(rng, count: int) -> np.ndarray:
    return rng.random((count, POOL)).argpartition(SIZE, 1)[:, :SIZE]


def truth(world: World, scores: np.ndarray, rows: int) -> tuple[float, float]:
    """LDS and rank correlation with the mean loss over very many subsets, means over sets of evaluation rows."""
    found = []
    for trial in range(10):
        rng = np.random.default_rng([1, trial])
        subsets = draw(rng, 3000)
        y = world.reductions(rng, subsets, world.effects(rng, rows))
        ranks = rankdata(subset_sums(scores, subsets)), rankdata(y, axis=0), rankdata(y.mean(1))
        by_row = np.corrcoef(ranks[0], ranks[1].T)[0, 1:]
        found.append((by_row.mean(), np.corrcoef(ranks[0], ranks[2])[0, 1]))
    return tuple(np.mean(found, 0))


def expected_gain(world: World, scorer: str) -> float:
    rng = np.random.default_rng(3)
    found = [world.shared[world.best(rng, scorer)].sum() for _ in range(5_000)]
    return float(np.mean(found)) - SIZE * float(world.shared.mean())


def coverage(world: World, scorer: str, count: int, rows: int, seeds: int, trials: int) -> list[float]:
    """Share of trials whose interval holds the truth: of LDS, of the mean loss, of the gain."""
    scores = world.scores(scorer)
    wanted = *truth(world, scores, rows), expected_gain(world, scorer)
    held = np.zeros(3)
    for trial in range(trials):
        rng = np.random.default_rng([2, trial, count, rows])
        subsets, effects = draw(rng, count), world.effects(rng, rows)
        y = world.reductions(rng, subsets, effects)
        found = predict(subset_sums(scores, subsets), y)
        best = [np.repeat(world.best(rng, scorer), seeds, 0) for _ in range(6)]
        tops = [world.reductions(rng, rows, effects) for rows in best]
        estimates = found.lds, found.mean_loss, gain(-y, -tops[0], between_seeds(tops))
        held += [one.low <= value <= one.high for one, value in zip(estimates, wanted, strict=True)]
    return (held / trials).tolist()


def main(argv=None) -> list[list[str]]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--subsets", type=int, nargs="+", default=[24, 64])
    parser.add_argument("--rows", type=int, nargs="+", default=[20, 80])
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--worlds", nargs="+", default=list(WORLDS))
    parser.add_argument("--scorers", nargs="+", default=list(SCORERS))
    options = parser.parse_args(argv)
    print("| evaluation rows are | scorer | subsets | evaluation rows | LDS | mean loss | gain |")
    print("|---|---|---|---|---|---|---|")
    lines = []
    for name, scorer, count, rows in itertools.product(options.worlds, options.scorers, options.subsets, options.rows):
        shares = coverage(World(name), scorer, count, rows, options.seeds, options.trials)
        lines.append([name, scorer, str(count), str(rows), *(f"{share:.1%}" for share in shares)])
        print("| " + " | ".join(lines[-1]) + " |", flush=True)
    return lines


if __name__ == "__main__":
    main()
