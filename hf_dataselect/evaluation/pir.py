"""PIR, the performance improvement ratio of a model over the baseline (paper, section 5.1), always with its kind."""

import math
from dataclasses import dataclass, field

from .benchmarks import Setting


#: The kind computed here; win-rate PIRs are on another scale and are never averaged with it.
BENCHMARK_RATIO = "benchmark ratio"


@dataclass
class PIR:
    """
    Args:
        value (`float`):
            Mean over the settings of score(SEM) / score(BM), inverted where lower is better. Above 1: better than the
            baseline. NaN if no setting can be compared.
        kind (`str`):
            Which PIR it is.
        settings (`dict[str, float]`):
            The ratio in each setting.
        left_out (`dict[str, str]`):
            Settings that could not be compared, and why.
    """

    value: float
    kind: str = BENCHMARK_RATIO
    settings: dict[str, float] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)


def benchmark_pir(model: dict[str, Setting], baseline: dict[str, Setting]) -> PIR:
    """
    PIR by benchmark ratio.

    Args:
        model, baseline (`dict[str, Setting]`):
            Settings of the model and of the baseline (BM), by name.

    Returns:
        [`PIR`]: settings that only one of them has, whose directions differ, or whose ratio has no meaning (division
        by a score that is not positive, a negative score, or NaN) are left out and named.
    """
    ratios, left_out = {}, {}
    for name in sorted({*model, *baseline}):
        if name not in model or name not in baseline:
            left_out[name] = f"only the {'model' if name in model else 'baseline'} has it"
            continue
        mine, other = model[name], baseline[name]
        if mine.higher_is_better != other.higher_is_better:
            left_out[name] = "the two runs disagree on its direction"
            continue
        above, below = (mine, other) if mine.higher_is_better else (other, mine)
        if not (0 <= above.score < math.inf and 0 < below.score < math.inf):
            left_out[name] = f"no ratio of {above.score:g} and {below.score:g}"
        else:
            ratios[name] = above.score / below.score
    value = sum(ratios.values()) / len(ratios) if ratios else math.nan
    return PIR(value, settings=ratios, left_out=left_out)


def selection_to_tuning_ratio(seconds: float, baseline_seconds: float | None) -> float | None:
    """STR: selection seconds / training seconds of the baseline (evaluations not counted); `None` if unknown."""
    return seconds / baseline_seconds if baseline_seconds else None
