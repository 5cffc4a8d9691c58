"""Fit rules to the log losses of models fine-tuned on subsets: by least squares, or with a small network."""

from collections.abc import Callable, Sequence

import numpy as np

from .attention import fit_attention, predict
from .rule import AttentionRule, Rule


#: Deviation, relative to the largest magnitude, up to which a column is constant: float32 rounding.
ROUNDING = 1e-6


def fit_linear(
    names: Sequence[str], subsets: Sequence[np.ndarray], losses: np.ndarray, pool: np.ndarray, seed: int
) -> Rule:
    """
    A weighted sum of indicators, fitted to the means of subsets.

    Args:
        names (`Sequence[str]`):
            Of the indicators.
        subsets (`Sequence[np.ndarray]`):
            Indicators of each subset's rows, `(rows, d)`.
        losses (`np.ndarray`):
            Log loss of the model fine-tuned on each, `(subsets,)`.
        pool (`np.ndarray`):
            Indicators of all rows that subsets are drawn from, `(n, d)`.
        seed (`int`):
            Of the cross-validation folds.

    Raises:
        `ValueError`: see [`standardised`].
    """
    means = np.array([values.mean(0) for values in subsets])

    def fit(chosen: np.ndarray):
        intercept, coefficients, _ = least_squares(means[chosen], losses[chosen], names)
        return lambda some: intercept + means[some] @ coefficients

    intercept, coefficients, r2 = least_squares(means, losses, names)
    named = dict(zip(names, map(float, coefficients), strict=True))
    return Rule(intercept, named, r2=r2, left_out_r2=left_out_r2(fit, losses, seed))


def fit_network(
    names: Sequence[str], subsets: Sequence[np.ndarray], losses: np.ndarray, pool: np.ndarray, seed: int
) -> AttentionRule:
    """
    A network with self-attention. Arguments as in [`fit_linear`].

    Raises:
        `ValueError`: see [`check_varied`].
    """
    check_varied(pool, names, "rows")
    mean, scale = spread(pool)
    subsets = [(values - mean) / scale for values in subsets]

    def fit_to(chosen: np.ndarray):
        centre, unit = spread(losses[chosen])
        weights = fit_attention([subsets[i] for i in chosen], (losses[chosen] - centre) / unit, seed)
        return centre, unit if np.isfinite(unit) else 0.0, weights

    def fit(chosen: np.ndarray):
        centre, unit, weights = fit_to(chosen)
        return lambda some: np.array([centre + unit * predict(weights, subsets[i]).mean() for i in some])

    centre, unit, weights = fit_to(np.arange(len(subsets)))
    predicted = np.array([centre + unit * predict(weights, values).mean() for values in subsets])
    return AttentionRule(
        {name: [float(m), float(s)] for name, m, s in zip(names, mean, scale, strict=True)},
        [float(centre), float(unit)],
        r2=r_squared(losses, predicted),
        left_out_r2=left_out_r2(fit, losses, seed),
        tensors=weights,
    )


def spread(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """
    Mean and standard deviation of each column; infinite where it is constant, so that it is 0 when standardised.
    """
    centre, scale = values.mean(0), values.std(0)
    # Equal numbers minus their mean leave rounding only.
    return centre, np.where(scale > ROUNDING * np.abs(values).max(0), scale, np.inf)


def check_varied(values: np.ndarray, names: Sequence[str], of: str) -> None:
    """
    Raise `ValueError` for constant columns.

    Args:
        values (`np.ndarray`):
            `(n, d)`.
        names (`Sequence[str]`):
            Of the columns.
        of (`str`):
            What `values` are of: rows or subsets.
    """
    if same := [name for name, scale in zip(names, spread(values)[1], strict=True) if np.isinf(scale)]:
        raise ValueError(
            f"`indicators`: {', '.join(same)}: the same in all {len(values)} {of}, so that nothing can be fitted to "
            "it. Remove it."
        )


def standardised(indicators: np.ndarray, names: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """
    Mean indicators of subsets, each column to mean 0 and deviation 1, and the deviations.

    Args:
        indicators (`np.ndarray`):
            `(subsets, d)`.
        names (`Sequence[str]`):
            Of the columns.

    Raises:
        `ValueError`: they do not determine a coefficient of each column.
    """
    check_varied(indicators, names, "subsets")
    centre, scale = spread(indicators)
    design = (indicators - centre) / scale
    if np.linalg.matrix_rank(design, rtol=1e-6) < design.shape[1]:
        raise ValueError(
            f"{len(design)} subsets do not determine {design.shape[1]} coefficients: their mean indicators depend on "
            "each other. Fit more subsets, or fewer indicators."
        )
    return design, scale


def least_squares(
    indicators: np.ndarray, log_losses: np.ndarray, names: Sequence[str]
) -> tuple[float, np.ndarray, float | None]:
    """
    Intercept, coefficients `(d,)` and R2 of the least-squares fit.

    Args:
        indicators (`np.ndarray`):
            Mean indicators of each subset `(subsets, d)`.
        log_losses (`np.ndarray`):
            `(subsets,)`.
        names (`Sequence[str]`):
            Of the indicators.

    Raises:
        `ValueError`: see [`standardised`].
    """
    # Indicators differ in size by many powers of ten.
    design, scale = standardised(indicators, names)
    fitted, *_ = np.linalg.lstsq(design, log_losses - log_losses.mean(), rcond=None)
    coefficients = fitted / scale
    intercept = float(log_losses.mean() - indicators.mean(0) @ coefficients)
    return intercept, coefficients, r_squared(log_losses, intercept + indicators @ coefficients)


def r_squared(targets: np.ndarray, predicted: np.ndarray) -> float | None:
    """Share of the variance of `targets` that `predicted` explains; `None` if they are all equal."""
    _, deviation = spread(targets)
    return float(1 - np.mean((targets - predicted) ** 2) / deviation**2) if np.isfinite(deviation) else None


def left_out_r2(
    fit: Callable[[np.ndarray], Callable[[np.ndarray], np.ndarray]], log_losses: np.ndarray, seed: int, folds: int = 10
) -> float | None:
    """
    Cross-validated R2: of predictions for subsets left out of the fit, in ten folds.

    Args:
        fit (`Callable`):
            Subsets to fit to -> (subsets -> their predicted log losses).
        log_losses (`np.ndarray`):
            `(subsets,)`.

    Returns:
        `float`: `None` if a fold leaves too few subsets to fit to, or all losses are equal.
    """
    n, predicted = len(log_losses), np.empty(len(log_losses))
    order = np.random.default_rng(seed).permutation(n)
    for part in np.array_split(order, min(folds, n)):
        try:
            predicted[part] = fit(np.setdiff1d(order, part))(part)
        except ValueError:
            return None
    return r_squared(log_losses, predicted)
