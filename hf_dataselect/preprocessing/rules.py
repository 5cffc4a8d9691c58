"""Linear rules that foretell, from mean indicators of a dataset, the loss of a model tuned on it."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..engines.cache import write_atomic
from .indicators import NAMES


@dataclass(frozen=True)
class Rule:
    """
    log(loss) = intercept + sum of coefficient x mean indicator. Of a row, lower is better.

    Args:
        intercept (`float`):
            Of the logarithm of the held-out loss.
        coefficients (`dict[str, float]`):
            By indicator.
        r2 (`float`, *optional*):
            Share of the variance that it explains of what it was fitted to.
        subsets (`int`, *optional*):
            How many tuned models that were.
        sources (`dict`, *optional*):
            What measured the indicators; a coefficient is worth something on that scale only.
        about (`dict`, *optional*):
            Model, rows and settings that it was fitted with.
    """

    intercept: float
    coefficients: dict[str, float]
    r2: float | None = None
    subsets: int | None = None
    sources: dict[str, Any] = field(default_factory=dict)
    about: dict[str, Any] = field(default_factory=dict)

    def log_loss(self, indicators: Mapping[str, np.ndarray]) -> np.ndarray:
        """Foretold log loss, `(n,)`; NaN where an indicator is."""
        return self.intercept + sum(value * indicators[name] for name, value in self.coefficients.items())

    def save(self, path: Path) -> None:
        """Write the rule as JSON."""
        write_atomic(path, json.dumps(asdict(self), indent=2) + "\n")


#: Rules of arXiv 2307.06290, of its first and of its later version.
PUBLISHED = {
    "v1": Rule(1.0694, {"rew": -0.1498, "len": 8.257e-5, "knn": -0.9350}),
    "v2": Rule(0.0274, {"rew": -0.0078, "und": 0.4421, "nat": -0.3212, "coh": -0.1520}, r2=0.522, subsets=129),
}


def load_rule(name: str) -> Rule:
    """
    A published rule by name, or one of `hf-dataselect fit-rule` by path.

    Raises:
        `ValueError`: no such rule, or a file that is none.
    """
    if name in PUBLISHED:
        return PUBLISHED[name]
    path = Path(name).expanduser()
    if not path.is_file():
        raise ValueError(
            f"`selection_kwargs`: rule={name!r} is neither {' nor '.join(map(repr, PUBLISHED))} nor a file."
        )
    try:
        rule = Rule(**json.loads(path.read_text(encoding="utf-8")))
        numbers = [float(rule.intercept), *map(float, rule.coefficients.values())]
        unknown = set(rule.coefficients) - set(NAMES)
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"`selection_kwargs`: rule={name!r} is no rule file: {error}.") from error
    if unknown or not rule.coefficients or not np.isfinite(numbers).all():
        problem = f"unknown indicators {sorted(unknown)}" if unknown else "no finite coefficients"
        raise ValueError(f"`selection_kwargs`: rule={name!r} has {problem}. Known: {', '.join(NAMES)}.")
    return rule


def least_squares(indicators: np.ndarray, log_losses: np.ndarray) -> tuple[float, np.ndarray, float]:
    """
    Intercept, coefficients `(d,)` and R2 of the least-squares fit.

    Args:
        indicators (`np.ndarray`):
            Mean indicators of each subset `(subsets, d)`.
        log_losses (`np.ndarray`):
            `(subsets,)`.

    Raises:
        `ValueError`: the subsets do not determine the coefficients.
    """
    # Indicators differ in size by many powers of ten.
    scale = indicators.std(0)
    design = (indicators - indicators.mean(0)) / np.where(scale > 0, scale, 1)
    if np.linalg.matrix_rank(design) < design.shape[1]:
        raise ValueError(
            f"{len(design)} subsets do not determine {design.shape[1]} coefficients: their mean indicators are the "
            "same or depend on each other. Fit more subsets, or fewer indicators."
        )
    fitted, *_ = np.linalg.lstsq(design, log_losses - log_losses.mean(), rcond=None)
    coefficients = fitted / scale
    intercept = float(log_losses.mean() - indicators.mean(0) @ coefficients)
    rest = log_losses - intercept - indicators @ coefficients
    total = ((log_losses - log_losses.mean()) ** 2).sum()
    return intercept, coefficients, float(1 - (rest**2).sum() / total) if total > 0 else float("nan")
