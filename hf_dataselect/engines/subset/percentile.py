"""Percentile of more numbers than fit in memory."""

from collections.abc import Callable, Iterable

import numpy as np


#: Bits of a number that are counted at a time.
HALF = 16


def percentile(parts: Callable[[], Iterable[np.ndarray]], q: float) -> float:
    """
    What `np.percentile` gives for all numbers together; NaN of none. Numbers from 0 are in the order of their bits,
    so that two passes that count the upper and the lower half of these give exact order statistics.

    Args:
        parts (`Callable`):
            Gives the numbers, finite float32 from 0, in parts; called twice.
        q (`float`):
            From 0 to 100.
    """
    upper = np.zeros(2**HALF, np.int64)
    for part in parts():
        upper += np.bincount(part.view(np.uint32) >> HALF, minlength=2**HALF)
    ends = np.cumsum(upper)
    if ends[-1] == 0:
        return np.nan
    place = (ends[-1] - 1) * (q / 100)
    ranks = np.minimum([int(place), int(place) + 1], ends[-1] - 1)
    prefixes = np.searchsorted(ends, ranks, side="right")
    lower = np.zeros((2, 2**HALF), np.int64)
    for part in parts():
        bits = part.view(np.uint32)
        for prefix, counts in zip(prefixes, lower, strict=True):
            counts += np.bincount(bits[bits >> HALF == prefix] & (2**HALF - 1), minlength=2**HALF)
    within = zip(np.cumsum(lower, 1), ranks - (ends - upper)[prefixes], strict=True)
    suffixes = [np.searchsorted(counts, rank, side="right") for counts, rank in within]
    around = (prefixes.astype(np.uint32) << HALF | np.array(suffixes, np.uint32)).view(np.float32)
    between = float(place - int(place))
    return np.percentile(around, 100 * between) if between else around[0]
