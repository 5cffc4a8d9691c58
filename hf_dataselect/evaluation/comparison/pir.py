"""
PIR, the performance improvement ratio of a model over the baseline (paper, section 6.1.1), never without its kind.

| kind | is the mean over | of | made by |
|---|---|---|---|
| wins rate | test sets | wins / losses of the model against the baseline, ties left out | [`wins_pir`] |
| benchmark ratio | settings | score(SEM) / score(BM), inverted where lower is better | [`benchmark_pir`] |
| wins rate, estimated | | the benchmark ratio put on the wins scale by the paper's line | [`bridged_pir`] |

The kinds are on different scales and are never averaged with each other.

Beside each value stands a 95 % interval. It comes from a bootstrap: the examples of a test set are drawn again with
replacement, the same ones for model and baseline, and the whole PIR is computed from them, 2,000 times over. Where
there are several runs (seeds), these are drawn too, see bootstrap.py. What an interval does not cover is said in words
beside it.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import ArrayLike

from ..benchmark import Setting
from .bootstrap import Ratio, bootstrap, exact_interval, interval_of
from .published import table


WINS_RATE = "wins rate"
BENCHMARK_RATIO = "benchmark ratio"
#: The kind of a [`bridged_pir`].
ESTIMATED = "wins rate, estimated from a benchmark ratio"

#: Below this, a bootstrap mistakes the examples at hand for the whole world.
MIN_EXAMPLES = 10


@dataclass
class PIR:
    """
    Args:
        value (`float`):
            The mean; above 1 is better than the baseline. NaN if nothing can be compared.
        kind (`str`):
            Which PIR it is.
        settings (`dict[str, float]`):
            The ratio in each setting or test set.
        left_out (`dict[str, str]`):
            Settings that could not be compared, and why.
        low, high (`float`):
            95 % interval; NaN if there is none, `high` may be infinite.
        interval (`str`):
            How the interval was made and what it does not cover.
        verdict (`str`, *optional*):
            `"better"` or `"worse"` than the baseline, `"no difference shown"` (the interval holds 1), or
            `"not known"` (there is no interval). By default read off the interval.
    """

    value: float
    kind: str = BENCHMARK_RATIO
    settings: dict[str, float] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    low: float = math.nan
    high: float = math.nan
    interval: str = "no interval"
    verdict: str = ""

    @property
    def partial(self) -> bool:
        """Whether the interval is of the mean of some settings only."""
        return "; of the mean" in self.interval

    def __post_init__(self):
        if not self.verdict:
            sides = {"better": self.low > 1, "worse": self.high < 1, "no difference shown": self.low <= 1 <= self.high}
            self.verdict = next((verdict for verdict, holds in sides.items() if holds), "not known")


def benchmark_pir(
    model: dict[str, Setting] | Sequence[dict[str, Setting]],
    baseline: dict[str, Setting] | Sequence[dict[str, Setting]],
    seed: int = 0,
) -> PIR:
    """
    PIR by benchmark ratio.

    Args:
        model, baseline (`dict[str, Setting]` or a list of these):
            Settings of the model and of the baseline (BM), by name; a list holds runs of several seeds, evaluated
            on the same rows, whose scores are averaged. The two lists need not be of the same length.
        seed (`int`, *optional*, defaults to `0`):
            Of the bootstrap.

    Returns:
        [`PIR`]: settings that only some of the runs have, whose directions differ, or whose ratio has no meaning
        (division by a score that is not positive, a negative score, or NaN) are left out and named. The interval is
        of those settings whose score is a mean over examples; a corpus metric (BLEU) has no part in it. Settings
        with the same number of examples are taken to be of the same rows: if they are not, sharing the draw does no
        harm, as the order of rows is no property of a model.
    """
    runs = [[side] if isinstance(side, Mapping) else list(side) for side in (model, baseline)]
    ratios, left_out, examples, without = {}, {}, {}, []
    for name in sorted({name for side in runs for run in side for name in run}):
        if why := _incomparable(name, *runs):
            left_out[name] = why
            continue
        mine, other = ([run[name] for run in side] for side in runs)
        higher = mine[0].higher_is_better
        scores = [float(np.mean([run.score for run in side])) for side in ((mine, other) if higher else (other, mine))]
        if not (0 <= scores[0] < math.inf and 0 < scores[1] < math.inf):
            left_out[name] = f"no ratio of {scores[0]:g} and {scores[1]:g}"
            continue
        ratios[name] = scores[0] / scores[1]
        rows = [_examples(side) for side in (mine, other)]
        if rows[0] is None or rows[1] is None or rows[0].shape[1] != rows[1].shape[1]:
            without.append(name)
        else:
            examples[name] = Ratio(*rows, rows[0].shape[1], higher)
    pir = PIR(_mean(ratios), BENCHMARK_RATIO, ratios, left_out)
    return _with_interval(pir, examples, seed, without)


def wins_pir(outcomes: Mapping[str, ArrayLike], seed: int = 0) -> PIR:
    """
    PIR by wins rate.

    Args:
        outcomes (`Mapping[str, ArrayLike]`):
            By test set: 1, 0 or -1 for each example that the model wins, ties or loses against the baseline, NaN for
            one that is not judged. Shape `(examples,)`, or `(runs, examples)` for several seeds.
        seed (`int`, *optional*, defaults to `0`):
            Of the bootstrap.

    Returns:
        [`PIR`]: test sets without a loss have no ratio; they are left out and named. If no ratio, or none but zero,
        is left, wins and losses of all sets are taken together for the interval (Clopper-Pearson), so that twenty
        wins without a loss still count as better.

    Raises:
        `ValueError`: an outcome is something else, or test sets have different numbers of runs.
    """
    tests = {name: np.atleast_2d(np.asarray(given, np.float64)) for name, given in outcomes.items()}
    for name, found in tests.items():
        if found.ndim != 2 or not (np.isin(found, (-1, 0, 1)) | np.isnan(found)).all():
            raise ValueError(f"`outcomes`: {name!r} must hold 1, 0, -1 or NaN for each example.")
    if len(runs := {name: len(found) for name, found in tests.items()}) and len({*runs.values()}) > 1:
        raise ValueError(f"`outcomes` must have the same number of runs in each test set, got {runs}.")
    ratios, left_out, examples = {}, {}, {}
    for name, found in tests.items():
        wins, ties, losses = (int((found == outcome).sum()) for outcome in (1, 0, -1))
        if losses:
            ratios[name] = wins / losses
            won, lost = (np.where(np.isnan(found), np.nan, found == outcome) for outcome in (1, -1))
            examples[name] = Ratio(won, lost, name, paired=True)
        elif wins + ties:
            left_out[name] = f"no ratio of {wins} wins and 0 losses ({ties} ties)"
        else:
            left_out[name] = "no example was judged"
    pir = PIR(_mean(ratios), WINS_RATE, ratios, left_out)
    if any(ratios.values()):
        pir = _with_interval(pir, examples, seed)
    elif any(np.isin(found, (1, -1)).any() for found in tests.values()):
        low, high = exact_interval(list(tests.values()))
        pir = replace(pir, low=low, high=high, interval="exact, of all wins / all losses", verdict="")
    if unjudged := sum(int(np.isnan(found).sum()) for found in tests.values()):
        pir.interval += f"; {unjudged} examples were not judged"
    return pir


def wins_pir_of_counts(counts: Mapping[str, tuple[int, int, int]], seed: int = 0) -> PIR:
    """
    [`wins_pir`] where only the numbers of wins, ties and losses are known.

    Args:
        counts (`Mapping[str, tuple[int, int, int]]`):
            Wins, ties and losses by test set.
        seed (`int`, *optional*, defaults to `0`):
            Of the bootstrap.
    """
    return wins_pir({name: np.repeat([1, 0, -1], found) for name, found in counts.items()}, seed)


def bridged_pir(pir: PIR, counterpart: str = "same model") -> PIR:
    """
    Put a benchmark ratio on the wins scale by a line through two published methods that have both. An estimate: two
    points leave no room for an error, so the line's own is not in the interval. Equal scores come out at 1.44 there,
    so the verdict stays that of the benchmark ratio.

    Args:
        pir ([`PIR`]):
            A benchmark ratio.
        counterpart (`str`, *optional*, defaults to `"same model"`):
            What it is a ratio to: `"same model"` trained on everything (BM), or `"other models"` of its size.

    Returns:
        [`PIR`]: NaN, with the reason, where the line would lead to 0 or below.

    Raises:
        `ValueError`: it is no benchmark ratio, or the counterpart is another.
    """
    if pir.kind != BENCHMARK_RATIO:
        raise ValueError(f"`pir` must be of the kind {BENCHMARK_RATIO!r}, got {pir.kind!r}.")
    if counterpart not in (lines := table()["bridge"]):
        raise ValueError(f"`counterpart={counterpart!r}` must be one of {', '.join(map(repr, lines))}.")
    (x0, y0), (x1, y1) = lines[counterpart]
    value, low, high = (y0 + (y1 - y0) / (x1 - x0) * (x - x0) for x in (pir.value, pir.low, pir.high))
    kind, left_out = f"{ESTIMATED} ({counterpart})", dict(pir.left_out)
    how = f"{pir.interval}; the error of the line to the wins scale is not in it"
    if not x0 <= pir.value <= x1:
        how += f", which is known from {x0} to {x1} only"
    if value <= 0:
        left_out["all"] = f"the wins scale ends above a benchmark ratio of {pir.value:.3f}"
        value = low = high = math.nan
    return PIR(value, kind, dict(pir.settings), left_out, max(low, 0.0), high, how, pir.verdict)


def selection_to_tuning_ratio(seconds: float, baseline_seconds: float | None) -> float | None:
    """STR: selection seconds / training seconds of the baseline (evaluations not counted); `None` if unknown."""
    return seconds / baseline_seconds if baseline_seconds else None


def cost_warning(str_ratio: float | None) -> str | None:
    """A sentence if selecting cost more than training on everything; `None` if it did not, or is not known."""
    if str_ratio is None or not str_ratio > 1:
        return None
    return f"Selecting alone took {str_ratio:.1f} times as long as training on everything (STR above 1)."


def _incomparable(name: str, mine: list[dict[str, Setting]], other: list[dict[str, Setting]]) -> str | None:
    having = [sum(name in run for run in side) for side in (mine, other)]
    for who, has, side in zip(("model", "baseline"), having, (mine, other), strict=True):
        if 0 < has < len(side):
            return f"only {has} of the {who}'s {len(side)} runs have it"
    if 0 in having:
        return f"only the {'model' if having[0] else 'baseline'} has it"
    if len({run[name].higher_is_better for run in (*mine, *other)}) > 1:
        return "the two runs disagree on its direction"
    return None


def _examples(runs: list[Setting]) -> np.ndarray | None:
    """`(runs, examples)`, or `None` for a score that is not the mean of its examples."""
    if any(run.examples is None or len(run.examples) != len(runs[0].examples or ()) for run in runs):
        return None
    found = np.array([run.examples for run in runs], np.float64)
    same = np.allclose(np.nanmean(found, axis=1), [run.score for run in runs], rtol=1e-6, atol=1e-9)
    return found if same else None


def _mean(ratios: dict[str, float]) -> float:
    return sum(ratios.values()) / len(ratios) if ratios else math.nan


def _with_interval(pir: PIR, examples: dict[str, Ratio], seed: int, without: Sequence[str] = ()) -> PIR:
    """The PIR with a bootstrap interval over the settings that have enough examples for one."""
    sizes = {name: int(min(np.isfinite(side).any(0).sum() for side in ratio[:2])) for name, ratio in examples.items()}
    enough = {name: ratio for name, ratio in examples.items() if sizes[name] >= MIN_EXAMPLES}
    without = [f"{name} (no values by example)" for name in without]
    without += [f"{name} (fewer than {MIN_EXAMPLES} examples)" for name in examples if name not in enough]
    if not enough:
        return replace(pir, interval=f"no interval{': without ' if without else ''}{', '.join(without)}")
    drawn = bootstrap(list(enough.values()), seed)
    value = _mean({name: pir.settings[name] for name in enough})
    low, high = interval_of(drawn, value, min(sizes[name] for name in enough))
    one = next(iter(enough.values()))
    numbers = {ratio.rows: ratio.mine.shape[1] for ratio in enough.values()}
    interval = f"paired bootstrap over {' + '.join(map(str, numbers.values()))} examples"
    runs = [len(one.mine)] if one.paired else [len(one.mine), len(one.other)]
    if max(runs) > 1:
        interval += f" and {' + '.join(map(str, runs))} runs"
    if min(runs) == 1:
        interval += "; chance between runs is not in it" + (" on the side with one" if max(runs) > 1 else "")
    if without:
        interval += f"; of the mean {value:.3f} of {', '.join(enough)}, without {', '.join(without)}"
    return replace(pir, low=low, high=high, interval=interval, verdict="")
