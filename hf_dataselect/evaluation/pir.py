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
there are several runs (seeds), these are drawn too, together with the examples. Few runs drawn with replacement would
show too little of the chance between them, so theirs is drawn from Student's distribution instead (each run's
deviation times a random weight): with endless examples, that gives the t interval over runs. What an interval does not
cover is said in words beside it.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import beta, norm, t

from .benchmarks import Setting
from .published import table


WINS_RATE = "wins rate"
BENCHMARK_RATIO = "benchmark ratio"
#: The kind of a [`bridged_pir`].
ESTIMATED = "wins rate, estimated from a benchmark ratio"

RESAMPLES = 2000
#: Below this, a bootstrap mistakes the examples at hand for the whole world.
MIN_EXAMPLES = 10
_LEVEL = 0.95
#: Random draws at a time: 8 MiB of weights.
_DRAWS = 2**20


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
            examples[name] = _Ratio(*rows, rows[0].shape[1], higher)
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
            examples[name] = _Ratio(won, lost, name, paired=True)
        elif wins + ties:
            left_out[name] = f"no ratio of {wins} wins and 0 losses ({ties} ties)"
        else:
            left_out[name] = "no example was judged"
    pir = PIR(_mean(ratios), WINS_RATE, ratios, left_out)
    if any(ratios.values()):
        pir = _with_interval(pir, examples, seed)
    elif any(np.isin(found, (1, -1)).any() for found in tests.values()):
        low, high = _exact(list(tests.values()))
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


class _Ratio(NamedTuple):
    """
    A ratio of two means over the same examples, float64 `(runs, examples)` with NaN where an example has no value.

    Ratios of equal `rows` share the draw of examples. `paired`: both sides come from the same runs (wins and losses),
    so a run is drawn for both.
    """

    mine: np.ndarray
    other: np.ndarray
    rows: int | str
    higher_is_better: bool = True
    paired: bool = False


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


def _with_interval(pir: PIR, examples: dict[str, _Ratio], seed: int, without: Sequence[str] = ()) -> PIR:
    """The PIR with a bootstrap interval over the settings that have enough examples for one."""
    sizes = {name: int(min(np.isfinite(side).any(0).sum() for side in ratio[:2])) for name, ratio in examples.items()}
    enough = {name: ratio for name, ratio in examples.items() if sizes[name] >= MIN_EXAMPLES}
    without = [f"{name} (no values by example)" for name in without]
    without += [f"{name} (fewer than {MIN_EXAMPLES} examples)" for name in examples if name not in enough]
    if not enough:
        return replace(pir, interval=f"no interval{': without ' if without else ''}{', '.join(without)}")
    drawn = _bootstrap(list(enough.values()), seed)
    value = _mean({name: pir.settings[name] for name in enough})
    low, high = _ends(drawn, value, min(sizes[name] for name in enough))
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


def _bootstrap(ratios: list[_Ratio], seed: int) -> np.ndarray:
    """Mean of the ratios in each resample, float64 `(RESAMPLES,)`; NaN where one of them is 0 / 0."""
    rng = np.random.default_rng(seed)
    runs = [len(ratios[0].mine)] if ratios[0].paired else [len(ratios[0].mine), len(ratios[0].other)]
    mine, other = (2 * _run_weights(rng, *runs))[:2]  # of a pair, one draw for both sides
    total = np.zeros(RESAMPLES)
    for rows in dict.fromkeys(ratio.rows for ratio in ratios):
        together = [ratio for ratio in ratios if ratio.rows == rows]
        size = together[0].mine.shape[1]
        own, its = _Columns.of([r.mine for r in together]), _Columns.of([r.other for r in together])
        at_once = max(1, _DRAWS // size)
        for start in range(0, RESAMPLES, at_once):
            part = slice(start, min(start + at_once, RESAMPLES))
            drawn = _row_weights(rng, part.stop - start, size)
            scores = zip(together, own.means(drawn, mine[part]), its.means(drawn, other[part]), strict=True)
            for ratio, model, baseline in scores:
                above, below = (model, baseline) if ratio.higher_is_better else (baseline, model)
                with np.errstate(divide="ignore", invalid="ignore"):
                    # Rounded, so that two copies of a run differ by nothing but the order of summation: not at all.
                    total[part] += np.round(above / np.where(below < 0, np.nan, below), 12)
    return total / len(ratios)


class _Columns(NamedTuple):
    """Settings of the same rows, side by side: values `(examples, settings * runs)`, 0 where not known."""

    values: np.ndarray
    known: np.ndarray | None

    @classmethod
    def of(cls, settings: list[np.ndarray]) -> "_Columns":
        stacked = np.concatenate(settings).T
        known = np.isfinite(stacked)
        return cls(np.where(known, stacked, 0.0), None if known.all() else known.astype(np.float64))

    def means(self, rows: np.ndarray, runs: np.ndarray) -> np.ndarray:
        """Means over examples, then over runs, by weights `(resamples, ...)`; `(settings, resamples)`."""
        with np.errstate(invalid="ignore"):
            found = (rows @ self.values) / (len(self.values) if self.known is None else rows @ self.known)
        return np.einsum("bsr,br->sb", found.reshape(len(rows), -1, runs.shape[1]), runs)


def _row_weights(rng: np.random.Generator, resamples: int, n: int) -> np.ndarray:
    """How often each of `n` rows is drawn, `(resamples, n)`: products with it are faster than gathering the rows."""
    drawn = rng.integers(n, size=(resamples, n)) + n * np.arange(resamples)[:, None]
    return np.bincount(drawn.ravel(), minlength=resamples * n).reshape(resamples, n).astype(np.float64)


def _run_weights(rng: np.random.Generator, *sides: int) -> list[np.ndarray]:
    """
    Weights of each side's runs, `(RESAMPLES, runs)`: weighted means spread about the plain one as Student's t does.
    Degrees of freedom of the sides add up, as in the test for two samples.
    """
    freedom = max(1, sum(sides) - len(sides))
    scale = np.sqrt(rng.chisquare(freedom, (RESAMPLES, 1)) / freedom)
    found = []
    for runs in sides:
        spread = rng.standard_normal((RESAMPLES, runs))
        spread -= spread.mean(1, keepdims=True)  # of one run: 0
        found.append(1 / runs + spread / (scale * math.sqrt(runs * max(1, runs - 1))))
    return found


def _ends(drawn: np.ndarray, value: float, n: int) -> tuple[float, float]:
    """
    95 % interval of a value of `n` examples from its resamples; those without a ratio count at both ends.

    The percentiles are corrected for bias (Efron): a mean of ratios comes out too high, and once more in the
    resamples, which would call too many equal models better. And they lie a little further out, as Student's interval
    is wider than the normal one (Hesterberg, arXiv 1411.5279: expanded percentiles).
    """
    tail = t.ppf((1 - _LEVEL) / 2, n - 1) * math.sqrt(n / (n - 1))
    side = np.nan_to_num(np.sign(np.round(drawn - value, 9)))
    bias = norm.ppf(np.clip((1 - side.mean()) / 2, 1 / len(drawn), 1 - 1 / len(drawn)))
    low = np.quantile(np.where(np.isnan(drawn), 0.0, drawn), norm.cdf(2 * bias + tail), method="lower")
    high = np.quantile(np.where(np.isnan(drawn), np.inf, drawn), norm.cdf(2 * bias - tail), method="higher")
    return float(max(low, 0.0)), float(high)


def _exact(tests: list[np.ndarray]) -> tuple[float, float]:
    """Clopper-Pearson interval of wins / losses over all test sets; runs of the same examples are no new examples."""
    wins, losses = (sum((found == outcome).mean(0).sum() for found in tests) for outcome in (1, -1))
    tail = (1 - _LEVEL) / 2
    low = beta.ppf(tail, wins, losses + 1) if wins else 0.0
    high = beta.ppf(1 - tail, wins + 1, losses) if losses else 1.0
    return float(low / (1 - low)), float(high / (1 - high)) if losses else math.inf
