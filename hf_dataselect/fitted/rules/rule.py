"""
Rules that predict, from indicators of rows, the loss of a model fine-tuned on them.

A rule is a JSON file; network weights and axes of principal components are in a .safetensors file beside it. A fitted
one has a checksum. To edit it, or to write one by hand, leave out its entry `checksum`: it is read with a warning.
"""

import hashlib
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from safetensors.numpy import load, save

from ...engines.store.checked import read_json, write_json
from ...engines.store.files import write_atomic
from ...errors import DamagedFile
from .attention import predict


logger = logging.getLogger(__name__)

_REMEDY = "Fit it again with `hf-dataselect fit-rule`; or, if you edited it, remove its entry `checksum`."


@dataclass(frozen=True, kw_only=True)
class FittedRule:
    """
    Base of both kinds of rules.

    Args:
        r2 (`float`, *optional*):
            Fraction of the variance of its targets that it explains; `None` if they are all equal.
        left_out_r2 (`float`, *optional*):
            The same for subsets left out of the fit (cross-validation). Below 0, it predicts worse than the mean.
        subsets (`int`, *optional*):
            Number of fine-tuned models that it was fitted to.
        sources (`dict`, *optional*):
            What computed the indicators; the rule is valid on that scale only.
        about (`dict`, *optional*):
            Model, rows and settings that it was fitted with.
        tensors (`dict[str, np.ndarray]`, *optional*):
            Network weights and axes of principal components.
    """

    r2: float | None = None
    left_out_r2: float | None = None
    subsets: int | None = None
    sources: dict[str, Any] = field(default_factory=dict)
    about: dict[str, Any] = field(default_factory=dict)
    tensors: dict[str, np.ndarray] = field(default_factory=dict, compare=False, repr=False)

    regressor: ClassVar[str]

    @property
    def columns(self) -> list[str]:
        """Columns that it weights."""
        raise NotImplementedError

    @property
    def names(self) -> list[str]:
        """Indicators that it weights; `pca1` and `pca2` are both of `pca`."""
        return list(dict.fromkeys(map(indicator_of, self.columns)))

    def log_loss(self, indicators: Mapping[str, np.ndarray]) -> np.ndarray:
        """Predicted log loss of each row, `(n,)`, lower is better; NaN where an indicator is NaN."""
        raise NotImplementedError

    def warn_of_others(self, identities: Mapping[str, str]) -> None:
        """Warn if the indicators come from another model than the one the rule was fitted with."""
        fitted = self.about.get("identities", {})
        if others := [what for what, identity in identities.items() if fitted.get(what, identity) != identity]:
            logger.warning(
                "The rule was fitted with another %s: it is valid on its scale only. Fit a new rule, or leave the "
                "option to the rule.",
                ", ".join(others),
            )

    def summary(self) -> str:
        """Lines for a log: the fit and its quality."""
        r2, left_out = ("unknown" if r2 is None else f"{r2:.3f}" for r2 in (self.r2, self.left_out_r2))
        low, high = self.about["losses"]
        return (
            f"Losses of the {self.subsets} subsets: {low:.4f} to {high:.4f}\n"
            f"R2 {r2} over {self.subsets} subsets, {left_out} of those left out of the fit"
        )

    def save(self, path: Path) -> None:
        """Write the rule as JSON, and its tensors beside it."""
        described = {"regressor": self.regressor} | asdict(replace(self, tensors={}))
        if self.tensors:
            data = save({name: np.ascontiguousarray(array) for name, array in self.tensors.items()})
            write_atomic(path.with_suffix(".safetensors"), data)
            described["tensors"] = {"file": path.with_suffix(".safetensors").name, "hash": _hash(data)}
        write_json(path, described)


@dataclass(frozen=True)
class Rule(FittedRule):
    """
    log(loss) = intercept + sum of coefficient x mean indicator. Other arguments as in [`FittedRule`].

    Args:
        intercept (`float`):
            Of the logarithm of the held-out loss.
        coefficients (`dict[str, float]`):
            By indicator.
    """

    intercept: float
    coefficients: dict[str, float]

    def __post_init__(self):
        object.__setattr__(self, "intercept", float(self.intercept))
        object.__setattr__(self, "coefficients", {name: float(value) for name, value in self.coefficients.items()})

    regressor: ClassVar[str] = "linear"

    @property
    def columns(self) -> list[str]:
        return list(self.coefficients)

    def log_loss(self, indicators: Mapping[str, np.ndarray]) -> np.ndarray:
        return self.intercept + sum(value * indicators[name] for name, value in self.coefficients.items())

    def summary(self) -> str:
        lines = [f"{name:>10}  {value:+.6g}" for name, value in self.coefficients.items()]
        return "\n".join([*lines, f" intercept  {self.intercept:+.6g}", super().summary()])

    def check(self) -> None:
        """Raise `ValueError` for numbers that are not finite."""
        if not self.coefficients or not np.isfinite([self.intercept, *self.coefficients.values()]).all():
            raise ValueError("no finite coefficients")


@dataclass(frozen=True)
class AttentionRule(FittedRule):
    """
    log(loss) = mean over a dataset's rows of a small self-attention network's output for a row's indicators,
    see [`AttentionRegressor`]. Other arguments as in [`FittedRule`].

    Args:
        standard (`dict[str, list[float]]`):
            Mean and standard deviation of each indicator, by which rows are standardised.
        target (`list[float]`):
            Mean and standard deviation of the log losses it was fitted to.
    """

    standard: dict[str, list[float]]
    target: list[float]

    regressor: ClassVar[str] = "attention"

    @property
    def columns(self) -> list[str]:
        return list(self.standard)

    def log_loss(self, indicators: Mapping[str, np.ndarray]) -> np.ndarray:
        values = np.column_stack([indicators[name] for name in self.columns])
        mean, scale = np.array(list(self.standard.values())).T
        return self.target[0] + self.target[1] * predict(self.tensors, (values - mean) / scale)

    def check(self) -> None:
        """Raise for numbers that are not finite, and for weights of another network."""
        if not np.isfinite([*self.target, *np.ravel(list(self.standard.values()))]).all():
            raise ValueError("no finite numbers")
        predict(self.tensors, np.zeros((1, len(self.standard))))


#: Rules of arXiv 2307.06290, first and later version.
PUBLISHED = {
    "v1": Rule(1.0694, {"rew": -0.1498, "len": 8.257e-5, "knn": -0.9350}),
    "v2": Rule(0.0274, {"rew": -0.0078, "und": 0.4421, "nat": -0.3212, "coh": -0.1520}, r2=0.522, subsets=129),
}


def indicator_of(column: str) -> str:
    """The indicator of a column: `pca` for `pca3`."""
    return column.rstrip("0123456789")


def load_rule(name: str, sources: type, published: Mapping[str, FittedRule] | None = None) -> FittedRule:
    """
    A published rule by name, or one of `hf-dataselect fit-rule` by path.

    Args:
        sources (`type`):
            What computes the method's indicators: [`IndicatorSources`] or [`ImageTextSources`].
        published (`Mapping`, *optional*):
            The method's published rules by name.

    Raises:
        `ValueError`: an unknown rule, a file that is not a rule or whose numbers are not those that were fitted, or a
            rule of other indicators or another method.
    """
    if name in (published or {}):
        return published[name]
    path = Path(name).expanduser()
    if not path.is_file():
        others = " nor ".join(map(repr, published or {}))
        raise ValueError(
            f"`selection_kwargs`: rule={name!r} is "
            + (f"neither {others} nor a file" if others else "not a file")
            + ": write one with `hf-dataselect fit-rule`."
        )
    try:
        described = read_json(path, _REMEDY)
        kind = {"linear": Rule, "attention": AttentionRule}[described.pop("regressor", "linear")]
        beside = described.pop("tensors", None)
        rule = kind(**described, tensors=_beside(path, **beside) if beside else {})
        rule.check()
        sources(**_typed(rule.sources, asdict(sources())))
    except DamagedFile as error:
        raise ValueError(f"`selection_kwargs`: rule={name!r}: {error}") from error
    except (OSError, ValueError, TypeError, AttributeError, KeyError, RuntimeError) as error:
        raise ValueError(f"`selection_kwargs`: rule={name!r} is not a rule file: {error}.") from error
    # Equal names do not suffice: `len` counts tokens in one method, and characters in the other.
    if (method := rule.about.get("method", sources.method)) != sources.method:
        raise ValueError(f"`selection_kwargs`: rule={name!r} is a rule of `{method}`, not of `{sources.method}`.")
    if unknown := sorted(set(rule.names) - set(sources.names)):
        raise ValueError(
            f"`selection_kwargs`: rule={name!r} has unknown indicators {unknown}. Known: {', '.join(sources.names)}."
        )
    return rule


def _typed(given: Any, defaults: dict[str, Any]) -> dict[str, Any]:
    """`given`, checked: only entries of `defaults`, each of the same type."""
    wrong = [name for name, value in given.items() if type(value) is not type(defaults.get(name))]
    if wrong:
        raise ValueError(f"its `sources` have no such {', '.join(f'{name}={given[name]!r}' for name in wrong)}")
    return given


@contextmanager
def named_by_rule(options: Any, rule: FittedRule | None) -> Iterator[None]:
    """
    Add to the error about a source that the rule file names it, where the `options` of the method do not.

    Raises:
        `ValueError`: the error, and where the name comes from.
    """
    try:
        yield
    except ValueError as error:
        sources = rule.sources if rule else {}
        named = [name for name in sources if getattr(options, name) is None and f"{name}=" in str(error)]
        if not named:
            raise
        raise ValueError(
            f"{error}\nrule={options.rule!r} was fitted with it, and names it: set `{named[0]}` to use another one."
        ) from error


def _beside(path: Path, file: str, hash: str) -> dict[str, np.ndarray]:
    data = (path.parent / Path(file).name).read_bytes()
    if _hash(data) != hash:
        raise ValueError(f"{file} beside it is not the one that it was written with")
    return load(data)


def _hash(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=12).hexdigest()
