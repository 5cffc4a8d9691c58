"""Fit rules to the log losses of models tuned on subsets: by least squares, or a small network."""

from collections.abc import Callable, Sequence

import numpy as np

from .attention import fit_attention, foretell
from .rules import AttentionRule, Rule


def fit_linear(
    names: Sequence[str], subsets: Sequence[np.ndarray], losses: np.ndarray, pool: np.ndarray, seed: int
) -> Rule:
    """
    A weighed sum of indicators, fitted to the means of subsets.

    Args:
        names (`Sequence[str]`):
            Of the indicators.
        subsets (`Sequence[np.ndarray]`):
            Indicators of each subset's rows, `(rows, d)`.
        losses (`np.ndarray`):
            Log loss of the model tuned on each, `(subsets,)`.
        pool (`np.ndarray`):
            Indicators of all rows that subsets are drawn from, `(n, d)`.
        seed (`int`):
            Of the parts that are left out.

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
    """A network with self-attention, fitted to the same as [`fit_linear`]."""
    mean, scale = pool.mean(0), pool.std(0)
    scale = np.where(scale > 0, scale, 1)
    subsets = [(values - mean) / scale for values in subsets]

    def fit_to(chosen: np.ndarray):
        centre, spread = losses[chosen].mean(), losses[chosen].std() or 1.0
        weights = fit_attention([subsets[i] for i in chosen], (losses[chosen] - centre) / spread, seed)
        return centre, spread, weights

    def fit(chosen: np.ndarray):
        centre, spread, weights = fit_to(chosen)
        return lambda some: np.array([centre + spread * foretell(weights, subsets[i]).mean() for i in some])

    centre, spread, weights = fit_to(np.arange(len(subsets)))
    foretold = np.array([centre + spread * foretell(weights, values).mean() for values in subsets])
    return AttentionRule(
        {name: [float(m), float(s)] for name, m, s in zip(names, mean, scale, strict=True)},
        [float(centre), float(spread)],
        r2=r_squared(losses, foretold),
        left_out_r2=left_out_r2(fit, losses, seed),
        tensors=weights,
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
    scale, centre = indicators.std(0), indicators.mean(0)
    # What is left of equal numbers after a mean is taken is rounding, and no information.
    constant = scale <= 1e-9 * np.abs(centre)
    if constant.any():
        same = ", ".join(name for name, is_constant in zip(names, constant, strict=True) if is_constant)
        raise ValueError(
            f"`indicators`: {same}: the same in all {len(indicators)} subsets, so that no coefficient can be fitted. "
            "Leave it out."
        )
    design = (indicators - centre) / scale
    if np.linalg.matrix_rank(design, rtol=1e-6) < design.shape[1]:
        raise ValueError(
            f"{len(design)} subsets do not determine {design.shape[1]} coefficients: their mean indicators depend on "
            "each other. Fit more subsets, or fewer indicators."
        )
    return design, scale


def least_squares(
    indicators: np.ndarray, log_losses: np.ndarray, names: Sequence[str]
) -> tuple[float, np.ndarray, float]:
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


def r_squared(found: np.ndarray, foretold: np.ndarray) -> float:
    """Share of the variance of `found` that `foretold` explains; NaN where there is none."""
    total = ((found - found.mean()) ** 2).sum()
    return float(1 - ((found - foretold) ** 2).sum() / total) if total > 0 else float("nan")


def left_out_r2(
    fit: Callable[[np.ndarray], Callable[[np.ndarray], np.ndarray]], log_losses: np.ndarray, seed: int, folds: int = 10
) -> float | None:
    """
    R2 of what is foretold of subsets that were left out of the fit, a tenth of them (one at least) at a time.

    Args:
        fit (`Callable`):
            Subsets to fit to -> (subsets -> their log losses as foretold).
        log_losses (`np.ndarray`):
            `(subsets,)`.

    Returns:
        `float`: `None` where too few subsets are left to fit to.
    """
    n, foretold = len(log_losses), np.empty(len(log_losses))
    order = np.random.default_rng(seed).permutation(n)
    for part in np.array_split(order, min(folds, n)):
        try:
            foretold[part] = fit(np.setdiff1d(order, part))(part)
        except ValueError:
            return None
    return r_squared(log_losses, foretold)
