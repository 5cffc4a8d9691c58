"""
Gain of a selector's top rows over random: how much lower the held-out loss is after training on them than after
training on random subsets of the same size.

Any subset of rows is better or worse than the mean of random ones by luck. The interval counts that luck: by as much
as random subsets vary, the top rows of a selector that knows nothing would differ. Beside it, evaluation rows and
training seeds vary. Rows are counted with the noise of single losses; subsets and seeds by what their means vary
beyond that noise. The variance between seeds is pooled over selectors, each of which has a few seeds only; with one
seed each, it stays in the variance between random subsets, which were trained once, too.
"""

from collections.abc import Sequence

import numpy as np

from .estimate import LEVEL, Estimate, Part, cell_noise, half_width


def gain(random: np.ndarray, top: np.ndarray, seeds: Part, level: float = LEVEL, drawn: bool = True) -> Estimate:
    """
    Mean difference of losses, positive where the top rows are better.

    Args:
        random (`np.ndarray`):
            Losses after training on random subsets, `(subsets, rows)`.
        top (`np.ndarray`):
            Losses after training on the top rows, `(seeds, rows)`.
        seeds ([`Part`]):
            Variance of one seed, from [`between_seeds`].
        level (`float`, *optional*, defaults to `0.95`):
            Level of the interval.
        drawn (`bool`, *optional*, defaults to `True`):
            Whether the top rows are one draw of those that the selector may choose. If not, lines of `top` are draws
            of the rows that are asked about, and `seeds` is their variance; with one line each, it is taken for that
            of random subsets.
    """
    differences = random.mean(0) - top.mean(0)
    value, (count, rows) = float(differences.mean()), random.shape
    if rows < 2 or count < 2:
        return Estimate(value)
    luck = _excess(random)
    own = max(0.0, luck - seeds.variance) if drawn or not seeds.freedom else 0.0
    parts = [Part(float(differences.var(ddof=1)) / rows, rows - 1), Part(luck / count + own, count - 1)]
    if seeds.freedom:
        parts.append(Part(seeds.variance / len(top), seeds.freedom))
    half = half_width(parts, level)
    return Estimate(value, value - half, value + half)


def between_seeds(tops: Sequence[np.ndarray]) -> Part:
    """Variance of the mean loss between training seeds, pooled over selectors `(seeds, rows)` each."""
    several = [top for top in tops if len(top) > 1]
    freedom = sum(len(top) - 1 for top in several)
    return Part(sum((len(top) - 1) * _excess(top) for top in several) / max(1, freedom), freedom)


def _excess(losses: np.ndarray) -> float:
    """Variance between the means of lines, beyond the noise of cells."""
    if len(losses) < 2:
        return 0.0
    return max(0.0, float(losses.mean(1).var(ddof=1)) - len(losses) * cell_noise(losses))
