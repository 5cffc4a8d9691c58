"""[`audit`]: what each selector's scores predict, what its top rows gain, and what it costs, from plain arrays."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ...errors import SelectionError
from .estimate import Estimate
from .gain import between_seeds, gain
from .prediction import MIN_SUBSETS, Prediction, predict, subset_sums


#: Selectors that others have to beat.
CONTROLS = ("random", "length", "bm25")


@dataclass
class Scored:
    """
    A selector's scores, and the losses after training on its top rows.

    Args:
        scores (`np.ndarray`):
            `(n,)`; NaN = no score.
        top (`np.ndarray`):
            Loss of each evaluation row after training on the top rows, `(seeds, rows)`.
        kept (`int`):
            Number of the top rows that were trained on.
        seconds (`float`):
            What scoring and choosing cost.
        about (`dict`):
            Method, options, and what else identifies it.
    """

    scores: np.ndarray
    top: np.ndarray
    kept: int
    seconds: float
    about: dict[str, Any] = field(default_factory=dict)


@dataclass
class Finding:
    """
    What an audit says of a selector.

    Args:
        name (`str`):
            Its name in the audit.
        prediction ([`Prediction`]):
            How well its scores predict losses.
        gain ([`Estimate`]):
            Held-out loss of random subsets minus that of its top rows.
        unscored (`int`):
            Rows of the pool without a score.
        kept, seconds, about:
            As in [`Scored`].
        str_ratio (`float`, *optional*):
            Seconds / seconds of training on the whole pool.
    """

    name: str
    prediction: Prediction
    gain: Estimate
    unscored: int
    kept: int
    seconds: float
    str_ratio: float | None = None
    about: dict[str, Any] = field(default_factory=dict)


@dataclass
class Audit:
    """
    Args:
        findings (`list[Finding]`):
            Highest LDS first; those without one last.
        subsets, subset_rows, rows (`int`):
            Random subsets with losses, rows of each, evaluation rows with losses.
        seeds (`int`):
            Trainings on each selector's top rows.
        untrained, trained, spread (`float`):
            Mean loss before training, after training on random subsets, and the standard deviation between these.
        lost_rows, lost_subsets (`int`):
            Evaluation rows and subsets without losses.
    """

    findings: list[Finding]
    subsets: int
    subset_rows: int
    rows: int
    seeds: int
    untrained: float
    trained: float
    spread: float
    lost_rows: int = 0
    lost_subsets: int = 0


def audit(
    subsets: np.ndarray,
    losses: np.ndarray,
    untrained: np.ndarray,
    scored: Mapping[str, Scored],
    full_seconds: float | None = None,
) -> Audit:
    """
    Compare scores with what training on random subsets did.

    Args:
        subsets (`np.ndarray`):
            Row numbers of each subset, `(subsets, k)`.
        losses (`np.ndarray`):
            Loss of each evaluation row after training on each subset, `(subsets, rows)`; NaN = none.
        untrained (`np.ndarray`):
            Loss of each evaluation row before training, `(rows,)`.
        scored (`dict[str, Scored]`):
            The selectors by name.
        full_seconds (`float`, *optional*):
            Seconds of training on the whole pool.

    Returns:
        [`Audit`]: evaluation rows without one of the losses, and subsets without any, are left out and counted.

    Raises:
        [`SelectionError`]: fewer than `MIN_SUBSETS` subsets, or no evaluation row, have losses.
    """
    alive = np.isfinite(losses).any(1)
    tables = [losses[alive], untrained[None], *(one.top for one in scored.values())]
    known = np.all([np.isfinite(table).all(0) for table in tables], 0)
    if alive.sum() < MIN_SUBSETS or not known.any():
        raise SelectionError(
            f"{alive.sum()} of {len(subsets)} subsets and {known.sum()} of {losses.shape[1]} held-out rows have "
            f"finite losses; an audit takes {MIN_SUBSETS} subsets. Lower `learning_rate`, or check the held-out rows."
        )
    random, tops = losses[alive][:, known], {name: one.top[:, known] for name, one in scored.items()}
    seeds, findings = between_seeds(list(tops.values())), []
    for name, one in scored.items():
        prediction = predict(subset_sums(one.scores, subsets[alive]), untrained[known] - random)
        findings.append(
            Finding(
                name,
                prediction,
                gain(random, tops[name], seeds),
                int(np.isnan(one.scores).sum()),
                one.kept,
                one.seconds,
                one.seconds / full_seconds if full_seconds else None,
                one.about,
            )
        )
    findings.sort(key=lambda finding: -np.nan_to_num(finding.prediction.lds.value, nan=-math.inf))
    means = random.mean(1)
    return Audit(
        findings,
        subsets=len(random),
        subset_rows=subsets.shape[1],
        rows=int(known.sum()),
        seeds=max(map(len, tops.values()), default=0),
        untrained=float(untrained[known].mean()),
        trained=float(means.mean()),
        spread=float(means.std(ddof=1)),
        lost_rows=int((~known).sum()),
        lost_subsets=int((~alive).sum()),
    )
