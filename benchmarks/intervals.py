"""
Coverage and power of the intervals of a PIR, by simulation.

A model and its baseline are evaluated on the same examples, by several runs a side. The score of a run on an example
has a difficulty of the example, a chance of the run (its training), and noise of the two together. Coverage is the
share of trials whose interval holds the true ratio, of a model that is as good as the baseline and of one that is 5 %
better; power is the share of trials in which the latter is called better. With one run a side, the interval is about
these runs: coverage is of their own true ratio.

    python benchmarks/intervals.py --trials 1000
"""

import argparse
import itertools

import numpy as np

from hf_dataselect.evaluation.benchmark import Setting
from hf_dataselect.evaluation.comparison.pir import benchmark_pir
from hf_dataselect.evaluation.comparison.wins import wins_pir


GAIN = 0.05


def accuracy(rng, n, runs, sd, gain):
    """Right or wrong, about 65 % right; how often depends on the example."""
    hard, chance = 0.93 * rng.beta(3, 1.3, n), 1 + sd * rng.standard_normal((2, runs, 1))
    sides = [np.clip(hard * (1 + more) * factor, 0, 1) for more, factor in zip((gain, 0), chance, strict=True)]
    pir = benchmark_pir(*[[{"a": Setting.of((rng.random((n,)) < p) * 1.0, True)} for p in side] for side in sides])
    return pir, (chance[0].mean() * (1 + gain)) / chance[1].mean()


def loss(rng, n, runs, sd, gain):
    """Losses, lognormal over examples, with a noise of 20 % between runs on one example."""
    base, chance = rng.lognormal(0, 0.5, n), 1 + sd * rng.standard_normal((2, runs, 1))
    sides = [base / (1 + more) * factor for more, factor in zip((gain, 0), chance, strict=True)]
    runs_of = [[{"a": Setting.of(row * (1 + 0.2 * rng.standard_normal(n)), False)} for row in side] for side in sides]
    return benchmark_pir(*runs_of), chance[1].mean() / chance[0].mean() * (1 + gain)


def wins(rng, n, runs, sd, gain):
    """Wins, ties (40 %) and losses; the odds of a win against a loss are 1 in the middle, or 5 % better."""
    odds = (1 + gain) * np.exp(sd * rng.standard_normal((runs, 1)))
    base = np.exp(0.5 * rng.standard_normal(n))
    won = base * odds / (1 + base * odds)
    outcomes = np.where(rng.random((runs, n)) < 0.4, 0, np.where(rng.random((runs, n)) < won, 1, -1))
    # The ratio of the expected wins and losses, by quadrature over the examples.
    points, weights = np.polynomial.hermite_e.hermegauss(32)
    expected = np.exp(0.5 * points) * (odds.mean() if runs == 1 else 1 + gain)
    return wins_pir({"a": outcomes}), (weights @ (expected / (1 + expected))) / (weights @ (1 / (1 + expected)))


def main(argv=None) -> list[list[str]]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--examples", type=int, nargs="+", default=[60, 200, 1000])
    parser.add_argument("--runs", type=int, nargs="+", default=[1, 2, 3, 5])
    parser.add_argument("--kinds", nargs="+", default=["accuracy", "loss", "wins"])
    options = parser.parse_args(argv)
    print("| score | examples | run sd | runs a side | coverage, equal | coverage, 5 % better | called better |")
    print("|---|---|---|---|---|---|---|")
    rows = []
    for kind, n, sd, runs in itertools.product(options.kinds, options.examples, (0.0, 0.01, 0.03), options.runs):
        cells = [kind, str(n), f"{sd:.0%}", str(runs)]
        for gain in (0.0, GAIN):
            held = better = 0
            for trial in range(options.trials):
                rng = np.random.default_rng([trial, n, runs, round(1000 * sd), round(100 * gain)])
                pir, own = globals()[kind](rng, n, runs, sd, gain)
                truth = own if runs == 1 or kind == "wins" else 1 + gain
                held, better = held + (pir.low <= truth <= pir.high), better + (pir.verdict == "better")
            cells.append(f"{held / options.trials:.1%}")
        rows.append([*cells, f"{better / options.trials:.0%}"])
        print("| " + " | ".join(rows[-1]) + " |", flush=True)
    return rows


if __name__ == "__main__":
    main()
