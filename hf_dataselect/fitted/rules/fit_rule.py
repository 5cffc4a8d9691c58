"""
Fit the rule of `instruction_mining` or `instructiongpt4` to your own model and rows.

The model is temporarily fine-tuned on each of many subsets, and the logarithm of its held-out loss is fitted to the
subsets' indicators: by least squares to their means (arXiv 2307.06290: 129 models), or by a small network with
self-attention (arXiv 2308.12067: 30). Each loss is appended to `subsets.jsonl`: a killed fit resumes, and more subsets
can be added later.
"""

import logging
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ...context import Context
from ...data.records import Records
from ...engines.store.files import check_writable
from ...engines.tuning.warm_up import WarmupSettings
from ...features.image_text import ImageTextSources
from ...features.indicators import IndicatorSources
from ...features.tuned_loss import TunedLoss
from ...options import NonNegativeFloat, PositiveFloat, PositiveInt, check_declared
from ...runs.files import plain
from ..subset_losses import SubsetLosses
from .fitting import check_varied, fit_linear, fit_network, spread, standardised
from .rule import FittedRule


logger = logging.getLogger(__name__)

METHODS = {kind.method: kind.names for kind in (IndicatorSources, ImageTextSources)}


@dataclass
class FitRuleArguments:
    """How the rule is fitted; each option is described in its `help`."""

    indicators: list[str] = field(
        default_factory=list,
        metadata={
            "help": "Indicators of the rule, all by default. Each costs a pass over the rows. "
            "instruction_mining: len, mtld, rew, ppl, knn, nat, coh, und; instructiongpt4: clip, len, rew, judge, pca"
        },
    )
    regressor: Literal["linear", "attention"] = field(
        default="linear",
        metadata={
            "help": "'linear': a weighted sum, interpretable. 'attention': a small network, which needs more "
            "subsets; see `left_out_r2`."
        },
    )
    subsets: PositiveInt = field(
        default=129, metadata={"help": "Models to fine-tune. More cost proportionally more time and fit better."}
    )
    subset_rows: PositiveInt = field(
        default=1000, metadata={"help": "Rows of a subset. More cost more time per subset."}
    )
    tuning: Literal["lora", "full"] = field(
        default="lora",
        metadata={
            "help": "Fine-tune a temporary adapter, or all weights (slower, a copy in main memory). Epochs and batch "
            "are those of the training."
        },
    )
    tuning_learning_rate: PositiveFloat | None = field(
        default=None,
        metadata={
            "help": "Default: 2e-4 for an adapter, the training's for all weights. If too low, all losses are alike."
        },
    )
    lean: NonNegativeFloat = field(
        default=1.0,
        metadata={
            "help": "How far subsets lean towards high or low indicators; 0 draws uniformly and needs many more."
        },
    )

    def __post_init__(self):
        check_declared(self)
        self.check(self.indicators, [name for names in METHODS.values() for name in names])

    def check(self, columns: list[str], known: list[str] | tuple[str, ...]) -> None:
        """
        Raise for what can't be fitted.

        Args:
            columns (`list[str]`):
                Columns that the rule weights.
            known (`list[str]`):
                Indicators that the method knows.

        Raises:
            `ValueError`: unknown indicators, or too few subsets.
        """
        if set(self.indicators) - set(known) or len(set(self.indicators)) < len(self.indicators):
            raise ValueError(f"`indicators={self.indicators}` must be different names of {', '.join(known)}.")
        least = len(columns) + 2 if self.regressor == "linear" else 3
        if self.subsets < least:
            raise ValueError(
                f"`subsets={self.subsets}` can't determine "
                + (f"{len(columns)} coefficients and an intercept" if self.regressor == "linear" else "a network")
                + f": it takes {least} at least, or fewer `indicators`."
            )


def fit_rule(
    records: Records,
    held_out: Records,
    ctx: Context,
    sources: IndicatorSources | ImageTextSources,
    arguments: FitRuleArguments,
    settings: WarmupSettings,
    folder: Path,
) -> FittedRule:
    """
    Fit a rule and write it to `folder/rule.json`.

    Args:
        records ([`Records`]):
            Rows that subsets are drawn from.
        held_out ([`Records`]):
            Rows whose loss the rule predicts.
        ctx ([`Context`]):
            Model, tokenizer, ranks, cache.
        sources ([`IndicatorSources`] or [`ImageTextSources`]):
            What computes the indicators.
        arguments ([`FitRuleArguments`]):
            Indicators, number and size of the subsets.
        settings ([`WarmupSettings`]):
            How the model is fine-tuned.
        folder (`Path`):
            For `rule.json` and `subsets.jsonl`.

    Returns:
        [`FittedRule`]

    Raises:
        `ValueError`: too few rows, or subsets that do not determine the coefficients.
    """
    arguments.check([], sources.names)
    folder, wanted = check_writable(folder), arguments.indicators or list(sources.names)
    names = sources.possible(wanted, records)
    if not names:
        raise ValueError(f"`indicators={wanted}` need rows with images.")
    if len(names) < len(wanted):
        logger.info("Excluded, as no row has an image: %s.", ", ".join(name for name in wanted if name not in names))
    measured = sources.measure(records, ctx, names)
    columns, values = list(measured.columns), np.column_stack(list(measured.columns.values()))
    arguments.check(columns, sources.names)
    excluded = _excluded(records, values, ctx)
    usable = np.setdiff1d(np.arange(len(records)), [row for rows in excluded.values() for row in rows])
    log = logger.info if ctx.runtime.is_main else logger.debug
    for reason, rows in excluded.items():
        log("%d of %d rows are excluded from all subsets: %s.", len(rows), len(records), reason)
    if len(usable) < 2 * arguments.subset_rows:
        raise ValueError(
            f"`subset_rows={arguments.subset_rows}`: {len(usable)} rows of {len(records)} have all indicators, and "
            "different subsets need twice `subset_rows`."
        )
    drawn = ctx.runtime.broadcast(
        [
            draw_subset(values, usable, arguments.subset_rows, arguments.lean, [ctx.seed, number])
            for number in range(arguments.subsets)
        ]
    )
    subsets = [values[rows] for rows in drawn]
    # Before any model is fine-tuned.
    if arguments.regressor == "linear":
        standardised(np.array([subset.mean(0) for subset in subsets]), columns)
    else:
        check_varied(values[usable], columns, "rows")

    # `subsets.jsonl` is the only copy of the losses.
    loss_of = TunedLoss(records, held_out, replace(ctx, runtime=ctx.runtime.uncached()), settings)
    store = SubsetLosses(folder / "subsets.jsonl", loss_of.key, ctx.runtime)
    losses = [float(entry.losses.mean()) for entry in store.measure(drawn, lambda rows: (loss_of(rows), {}))]
    for reason, rows in loss_of.unscorable.items():
        log("%d of %d held-out rows have no loss: %s.", len(rows), len(held_out), reason)
    fit = fit_linear if arguments.regressor == "linear" else fit_network
    rule = replace(
        fit(columns, subsets, np.log(losses), values[usable], ctx.seed),
        subsets=arguments.subsets,
        sources={name: _absolute(value) for name, value in sources.used(names).items()},
        about={"method": sources.method, "model": ctx.model_id, "images": records.images is not None}
        | {key: plain(loss_of.described[key]) for key in ("rows", "held_out", "settings")}
        | {"identities": measured.identities}
        | {"lean": arguments.lean, "losses": [min(losses), max(losses)]}
        | {"rows left out": {reason: len(rows) for reason, rows in excluded.items()}},
    )
    rule = ctx.runtime.broadcast(replace(rule, tensors=rule.tensors | measured.basis))
    if ctx.runtime.is_main:
        _warn_of_poor_fit(rule)
        rule.save(folder / "rule.json")
    return rule


def _excluded(records: Records, values: np.ndarray, ctx: Context) -> dict[str, list[int]]:
    """Rows that no subset may hold, by the first reason known."""
    lost, excluded = set(np.flatnonzero(~np.isfinite(values).all(1)).tolist()), {}
    unreadable = records.unreadable()
    lost.update(*(rows.tolist() for rows in unreadable.values()))
    kinds = unreadable, ctx.account.rows("unscorable"), ctx.account.rows("dropped")
    for reason, rows in [pair for kind in kinds for pair in kind.items()] + [("an indicator is not finite", [*lost])]:
        if matched := sorted(lost.intersection(rows)):
            excluded[reason] = matched
            lost -= {*matched}
    return excluded


def _absolute(source: Any) -> Any:
    """A folder as its absolute path: rules are used from other working directories."""
    local = isinstance(source, str) and source != "model" and Path(source).is_dir()  # `encoder: model` is not a folder
    return str(Path(source).resolve()) if local else source


def _warn_of_poor_fit(rule: FittedRule) -> None:
    if rule.regressor == "linear" and rule.subsets < 10 * len(rule.columns):
        logger.warning(
            "%d subsets leave %d degrees of freedom beside %d coefficients and an intercept: R2 flatters the rule. "
            "Take ten `subsets` per indicator.",
            rule.subsets,
            rule.subsets - len(rule.columns) - 1,
            len(rule.columns),
        )
    if rule.left_out_r2 is None or not rule.left_out_r2 > 0:
        logger.warning(
            "The rule predicts the loss of subsets that it has not seen no better than the mean of the others does: "
            "it may have learnt noise. Fit more `subsets`, of more rows, or tune more (`tuning_learning_rate`)."
        )


def draw_subset(values: np.ndarray, usable: np.ndarray, k: int, lean: float, seed: Any) -> np.ndarray:
    """
    `k` different rows of `usable`, ascending, drawn with weights exp(`lean` x standardised indicators x a random
    direction), so that the means of subsets differ in all indicators.
    """
    rng = np.random.default_rng(seed)
    centre, scale = spread(values[usable])
    standard = (values[usable] - centre) / scale
    # Far outliers would otherwise be in half of the subsets.
    weights = np.clip(standard, -3, 3) @ rng.standard_normal(values.shape[1])
    order = np.argsort(-(lean * weights + rng.gumbel(size=len(usable))), kind="stable")
    return np.sort(usable[order[:k]])
