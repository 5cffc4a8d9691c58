"""
PIR, the performance improvement ratio of a model over the baseline (paper, section 6.1.1), never without its kind.

| kind | mean over | of | computed by |
|---|---|---|---|
| wins rate | test sets | wins / losses of the model against the baseline, without ties | [`~wins.wins_pir`] |
| benchmark ratio | settings | score(SEM) / score(BM), inverted where lower is better | [`benchmark_pir`] |
| wins rate, estimated | | the benchmark ratio, mapped to the wins scale by the paper's line | [`bridged_pir`] |

The kinds have different scales and are never averaged.

Each value has a 95 % interval from a paired bootstrap: the examples of a test set are resampled with replacement, the
same for model and baseline, and the whole PIR is recomputed, 2,000 times. With several runs (seeds) the runs vary too,
see [`bootstrap`]. The text of an interval states what it does not cover.

A setting is part of the value only if its ratio can be estimated: its score is a mean over examples, at least 10 have
a score of every run, and at least 10 of these a score other than 0 on one side. A score of 0 on one side has no ratio,
whichever side it is: where the other has 10 examples or more, such a setting forbids the opposite verdict. The rules
do not depend on who is better; settings that are left out are named. If no setting passes, the value is the mean of
all ratios, without an interval.
"""

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from ..benchmark import Setting
from .bootstrap import Ratio, bootstrap, interval_of, ratio_of
from .published import table


WINS_RATE = "wins rate"
BENCHMARK_RATIO = "benchmark ratio"
#: The kind of a [`bridged_pir`].
ESTIMATED = "wins rate, estimated from a benchmark ratio"
#: Verdict where the interval contains 1.
SAME = "no significant difference"

#: Examples, and examples with a score other than 0, below which a bootstrap can't tell the variance of a ratio.
MIN_EXAMPLES = 10


@dataclass
class PIR:
    """
    Args:
        value (`float`):
            The mean; above 1 is better than the baseline. NaN if nothing can be compared.
        kind (`str`):
            Kind of PIR.
        settings (`dict[str, float]`):
            Ratio of each setting or test set.
        left_out (`dict[str, str]`):
            Excluded settings and the reason.
        low, high (`float`):
            95 % interval; NaN without one, `high` may be infinite.
        interval (`str`):
            How the interval was computed and what it does not cover.
        verdict (`str`, *optional*):
            `"better"` or `"worse"` than the baseline, `"no significant difference"` (the interval contains 1), or
            `"unknown"` (without an interval). By default it follows from the interval.
        intervals (`dict[str, list[float]]`):
            95 % interval of each ratio in `settings` that has one.
    """

    value: float
    kind: str = BENCHMARK_RATIO
    settings: dict[str, float] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    low: float = math.nan
    high: float = math.nan
    interval: str = "no interval"
    verdict: str = ""
    intervals: dict[str, list[float]] = field(default_factory=dict)

    @property
    def verdicts(self) -> dict[str, str]:
        """The verdict on each setting by its own interval, without correction for their number."""
        return {name: _verdict(*self.intervals.get(name, (math.nan, math.nan))) for name in self.settings}

    def __post_init__(self):
        self.verdict = self.verdict or _verdict(self.low, self.high)


def _verdict(low: float, high: float) -> str:
    verdicts = {"better": low > 1, "worse": high < 1, SAME: low <= 1 <= high}
    return next((verdict for verdict, holds in verdicts.items() if holds), "unknown")


def benchmark_pir(
    model: dict[str, Setting] | Sequence[dict[str, Setting]],
    baseline: dict[str, Setting] | Sequence[dict[str, Setting]],
    seed: int = 0,
) -> PIR:
    """
    PIR by benchmark ratio.

    Args:
        model, baseline (`dict[str, Setting]` or a list of these):
            Settings of the model and of the baseline (BM), by name. A list holds runs with different seeds, evaluated
            on the same rows; their scores are averaged. The two lists may differ in length.
        seed (`int`, *optional*, defaults to `0`):
            Seed of the bootstrap.

    Returns:
        [`PIR`]: Settings that only some runs have, whose directions differ, or whose ratio is undefined (division by a
        score that is not positive, a negative score, or NaN) are excluded and named, and so are those whose ratio
        can't be estimated, such as corpus metrics (BLEU), see above. Settings with equally many examples share their
        resamples; this is valid for different rows too, as the order of rows carries no information.
    """
    runs = [[side] if isinstance(side, Mapping) else list(side) for side in (model, baseline)]
    ratios, left_out, examples, without, decided, lost = {}, {}, {}, {}, {}, {}
    for name in sorted({name for side in runs for run in side for name in run}):
        if reason := _incomparable(name, *runs):
            left_out[name] = reason
            continue
        mine, other = ([run[name] for run in side] for side in runs)
        higher = mine[0].higher_is_better
        above, below = (float(np.mean([run.score for run in side])) for side in (mine, other)[:: 1 if higher else -1])
        rows = _examples(mine, other)
        if not (0 < above < math.inf and 0 < below < math.inf):
            left_out[name] = f"no ratio of {above:g} and {below:g}"
            if rows is not None and max(above, below) > 0 == min(above, below) and not _too_few(*rows):
                decided[name] = "better" if above else "worse"
            continue
        ratios[name] = above / below
        if rows is None:
            without[name] = "no score by example"
        elif reason := _too_few(*rows):
            without[name] = reason
        else:
            if unknown := len(mine[0].examples or ()) - rows[0].shape[1]:
                lost[name] = unknown
            examples[name] = Ratio(*rows, name if unknown else rows[0].shape[1], higher)
            ratios[name] = ratio_of(examples[name]) if unknown else ratios[name]
    if not examples:
        why = "; ".join(f"{name}: {reason}" for name, reason in without.items())
        return PIR(mean_of(ratios), BENCHMARK_RATIO, ratios, left_out, interval=f"no interval{why and f' ({why})'}")
    pir = PIR(mean_of({name: ratios[name] for name in examples}), BENCHMARK_RATIO, ratios, left_out | without)
    pir = with_interval(pir, examples, seed)
    for name, number in lost.items():
        pir.interval += f"; {number} examples of {name} without a score of every run are not compared"
    if against := [name for name, verdict in decided.items() if {verdict, pir.verdict} == {"better", "worse"}]:
        pir = replace(pir, verdict="unknown", interval=f"{pir.interval}; no verdict against {', '.join(against)}")
    return pir


def bridged_pir(pir: PIR, counterpart: str = "same model") -> PIR:
    """
    Map a benchmark ratio to the wins scale, by the line through two published methods that have both. This is an
    estimate; with two points the error of the line is unknown and not part of the interval.

    Args:
        pir ([`PIR`]):
            A benchmark ratio.
        counterpart (`str`, *optional*, defaults to `"same model"`):
            Denominator of the ratio: the `"same model"` trained on everything (BM), or `"other models"` of its size.

    Returns:
        [`PIR`]: NaN, with the reason in `left_out`, where the interval contains 1, since the line would put a model
        equal to its baseline at 1.44, and where the ratio or an end of its interval is not between the two methods.

    Raises:
        `ValueError`: `pir` is not a benchmark ratio, or the counterpart is unknown.
    """
    if pir.kind != BENCHMARK_RATIO:
        raise ValueError(f"`pir` must be of the kind {BENCHMARK_RATIO!r}, got {pir.kind!r}.")
    if counterpart not in (lines := table()["bridge"]):
        raise ValueError(f"`counterpart={counterpart!r}` must be one of {', '.join(map(repr, lines))}.")
    (x0, y0), (x1, y1) = lines[counterpart]
    points = (pir.value, pir.low, pir.high)
    value, low, high = (y0 + (y1 - y0) / (x1 - x0) * (x - x0) for x in points)
    left_out, how = dict(pir.left_out), f"{pir.interval}; the error of the line to the wins scale is not included"
    reason = None
    if pir.verdict == SAME:
        reason = f"its interval holds 1 ({pir.low:.4f} to {pir.high:.4f})"
    elif any(x < x0 or x > x1 for x in points):
        ends = "" if math.isnan(pir.low) else f" ({pir.low:.4f} to {pir.high:.4f})"
        reason = (
            f"its benchmark ratio {pir.value:.4f}{ends} is outside the range {x0} to {x1} in which the line is known"
        )
    if reason is not None:
        left_out["all"] = reason
        value = low = high = math.nan
    return PIR(value, f"{ESTIMATED} ({counterpart})", dict(pir.settings), left_out, low, high, how, pir.verdict)


def selection_to_tuning_ratio(seconds: float, baseline_seconds: float | None) -> float | None:
    """STR: selection seconds / training seconds of the baseline without evaluation; `None` if unknown."""
    return seconds / baseline_seconds if baseline_seconds else None


def cost_warning(str_ratio: float | None) -> str | None:
    """A warning if selection took longer than training on everything, else `None`."""
    if str_ratio is None or not str_ratio > 1:
        return None
    return f"Selection took {str_ratio:.1f} times as long as training on everything (STR above 1)."


def _incomparable(name: str, mine: list[dict[str, Setting]], other: list[dict[str, Setting]]) -> str | None:
    having = [sum(name in run for run in side) for side in (mine, other)]
    for who, has, side in zip(("model", "baseline"), having, (mine, other), strict=True):
        if 0 < has < len(side):
            return f"only {has} of the {who}'s {len(side)} runs have it"
    if 0 in having:
        return f"only the {'model' if having[0] else 'baseline'} has it"
    if len({run[name].higher_is_better for run in (*mine, *other)}) > 1:
        return "the runs disagree on its direction"
    return None


def _examples(mine: list[Setting], other: list[Setting]) -> tuple[np.ndarray, np.ndarray] | None:
    """
    Scores of each side `(runs, examples)`, of the examples that every run has a score of; `None` for scores that are
    not means of as many examples.
    """
    runs = [*mine, *other]
    if any(run.examples is None or len(run.examples) != len(runs[0].examples or ()) for run in runs):
        return None
    examples = np.array([run.examples for run in runs], np.float64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a run without any score
        means = np.nanmean(examples, axis=1) if examples.size else np.full(len(runs), np.nan)
    if not np.allclose(means, [run.score for run in runs], rtol=1e-6, atol=1e-9):
        return None
    known = examples[:, np.isfinite(examples).all(0)]
    return known[: len(mine)], known[len(mine) :]


def mean_of(ratios: dict[str, float]) -> float:
    """Mean of the ratios of settings or test sets; NaN of none."""
    return sum(ratios.values()) / len(ratios) if ratios else math.nan


def _too_few(model: np.ndarray, baseline: np.ndarray) -> str | None:
    """Why a ratio of examples `(runs, examples)` can't be estimated."""
    if model.shape[1] < MIN_EXAMPLES:
        return f"fewer than {MIN_EXAMPLES} examples that every run has a score of"
    if max(int((side != 0).any(0).sum()) for side in (model, baseline)) < MIN_EXAMPLES:
        return f"fewer than {MIN_EXAMPLES} examples have a score other than 0"
    return None


def with_interval(pir: PIR, examples: dict[str, Ratio], seed: int) -> PIR:
    """The PIR with bootstrap intervals of its value and of each ratio."""
    sizes = [int(min(np.isfinite(side).any(0).sum() for side in ratio[:2])) for ratio in examples.values()]
    each, together = bootstrap(list(examples.values()), seed)
    low, high = interval_of(together, pir.value, min(sizes))
    intervals = {
        name: list(interval_of(draws, pir.settings[name], size))
        for name, draws, size in zip(examples, each, sizes, strict=True)
        if name in pir.settings
    }
    one = next(iter(examples.values()))
    numbers = {ratio.rows: ratio.model.shape[1] for ratio in examples.values()}
    interval = f"paired bootstrap over {' + '.join(map(str, numbers.values()))} examples"
    runs = [len(one.model)] if one.paired else [len(one.model), len(one.baseline)]
    if max(runs) > 1:
        interval += f" and {' + '.join(map(str, runs))} runs"
    if max(runs) == 1:
        interval += "; variance between runs is not included"
    elif min(runs) == 1:
        interval += "; the side with one run is taken to vary as the other"
    return replace(pir, low=low, high=high, intervals=intervals, interval=interval, verdict="")
