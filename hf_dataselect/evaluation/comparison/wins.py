"""PIR by wins rate: wins / losses of a model's answers against the baseline's (paper, section 6.1.1)."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike

from .bootstrap import Ratio, exact_interval
from .pir import MIN_EXAMPLES, PIR, WINS_RATE, mean_of, with_interval


def wins_pir(outcomes: Mapping[str, ArrayLike], seed: int = 0) -> PIR:
    """
    PIR by wins rate.

    Args:
        outcomes (`Mapping[str, ArrayLike]`):
            By test set, for each example: 1, 0 or -1 for a win, tie or loss of the model against the baseline, NaN if
            not judged. Shape `(examples,)`, or `(runs, examples)` for several seeds.
        seed (`int`, *optional*, defaults to `0`):
            Seed of the bootstrap.

    Returns:
        [`PIR`]: The mean over test sets, as in the paper. Where a judged test set has no win, no loss or fewer than 10
        examples, its ratio says little, and the value is that of all wins and losses together. Without any win or any
        loss, or with fewer than 10 examples in all, the interval is exact (Clopper-Pearson): twenty wins without a
        loss still count as better.

    Raises:
        `ValueError`: An outcome is not one of these values, or test sets differ in the number of runs.
    """
    tests = {name: np.atleast_2d(np.asarray(given, np.float64)) for name, given in outcomes.items()}
    for name, given in tests.items():
        if given.ndim != 2 or not (np.isin(given, (-1, 0, 1)) | np.isnan(given)).all():
            raise ValueError(f"`outcomes`: {name!r} must hold 1, 0, -1 or NaN for each example.")
    if len({*(runs := {name: len(given) for name, given in tests.items()}).values()}) > 1:
        raise ValueError(f"`outcomes` must have the same number of runs in each test set, got {runs}.")
    ratios, left_out, examples, counts = {}, {}, {}, {}
    for name, given in tests.items():
        wins, losses = counts[name] = (int((given == 1).sum()), int((given == -1).sum()))
        if np.isnan(given).all():
            left_out[name] = "no example was judged"
        elif losses:
            ratios[name] = wins / losses
        if wins or losses:
            won, lost = (np.where(np.isnan(given), np.nan, given == outcome) for outcome in (1, -1))
            examples[name] = Ratio(won, lost, name, paired=True)
    judged = {name: int(np.isfinite(ratio.model).any(0).sum()) for name, ratio in examples.items()}
    weak = [name for name, number in judged.items() if 0 in counts[name] or number < MIN_EXAMPLES]
    wins, losses = (sum(numbers) for numbers in zip((0, 0), *counts.values(), strict=True))
    if not losses:
        left_out["all"] = f"no ratio of {wins} wins and 0 losses"
    pir = PIR(wins / losses if weak and losses else mean_of(ratios), WINS_RATE, ratios, left_out)
    if wins and losses and sum(judged.values()) >= MIN_EXAMPLES:
        if weak:
            joined = (
                np.concatenate(parts, 1) for parts in zip(*(part[:2] for part in examples.values()), strict=True)
            )
            examples = {"all": Ratio(*joined, "all", paired=True)}
        pir = with_interval(pir, examples, seed)
        if weak:
            pir.interval += f"; all wins / all losses, as {', '.join(weak)} alone would say little"
        bias = _bias(counts, weak) * max(runs.values())  # runs on the same examples add none
        pir.interval += f"; wins / losses of few examples are biased upwards, here by about {bias:.1%}"
    elif wins or losses:
        low, high = exact_interval(list(tests.values()))
        pir = replace(pir, low=low, high=high, interval="exact, of all wins / all losses", verdict="")
    if unjudged := sum(int(np.isnan(given).sum()) for given in tests.values()):
        pir.interval += f"; {unjudged} {'examples' if max(runs.values()) == 1 else 'verdicts'} were not judged"
    return pir


def _bias(counts: dict[str, tuple[int, int]], pooled: list[str]) -> float:
    """Relative bias of the mean of wins / losses: about 1 / losses for each ratio, weighted by the ratios."""
    if pooled:
        return 1 / sum(losses for _, losses in counts.values())
    ratios = {name: wins / losses for name, (wins, losses) in counts.items() if losses}
    total = sum(ratios.values())
    return sum(ratio / counts[name][1] for name, ratio in ratios.items()) / total if total else 0.0
