"""
`hf-dataselect fit-rule`: fit the rule of `instruction_mining` or `instructiongpt4` for one's own model and rows.

The model is tuned for a while on each of many subsets, its loss on held-out rows is measured, and the logarithm of the
loss is fitted to the subsets' indicators: by least squares to their means (arXiv 2307.06290, which tuned 129 models),
or by a small network with self-attention (arXiv 2308.12067, which tuned 30). Each result is kept as it comes in
`subsets.jsonl`: a killed fit goes on, and more subsets can be added later.
"""

import json
import logging
import os
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
from ...runs.folder import plain
from .fitting import check_varied, fit_linear, fit_network, spread, standardised
from .rule import FittedRule, identities


logger = logging.getLogger(__name__)

_METHODS = {kind.method: kind.names for kind in (IndicatorSources, ImageTextSources)}


@dataclass
class FitRuleArguments:
    """
    How the rule is fitted.

    Args:
        indicators (`list[str]`, *optional*, defaults to all):
            What the rule weighs: len, mtld, rew, ppl, knn, nat, coh, und for `instruction_mining`, clip, len, rew,
            judge, pca for `instructiongpt4`.
        regressor (`str`, *optional*, defaults to `"linear"`):
            `"linear"`: a weighed sum that can be read. `"attention"`: a small network, which needs more subsets to be
            worth something; see `left_out_r2`.
        subsets (`int`, *optional*, defaults to `129`):
            Models that are tuned; more cost proportionally more and fit better.
        subset_rows (`int`, *optional*, defaults to `1000`):
            Rows of each.
        tuning (`str`, *optional*, defaults to `"lora"`):
            `"lora"` or `"full"`: what of the model is tuned. Epochs and batch are the training's.
        tuning_learning_rate (`float`, *optional*):
            By default 2e-4 for `"lora"` and the training's for `"full"`.
        lean (`float`, *optional*, defaults to `1.0`):
            How far subsets lean towards high or low indicators: 0 draws them evenly, and needs far more of them.
    """

    indicators: list[str] = field(
        default_factory=list,
        metadata={
            "help": "What the rule weighs, all by default. Each costs a pass over the rows. "
            + "; ".join(f"{method}: {', '.join(names)}" for method, names in _METHODS.items())
        },
    )
    regressor: Literal["linear", "attention"] = field(
        default="linear", metadata={"help": "A weighed sum, or a small network, which needs more subsets."}
    )
    subsets: int = field(
        default=129, metadata={"help": "Models that are tuned. More cost proportionally more time and fit better."}
    )
    subset_rows: int = field(default=1000, metadata={"help": "Rows of a subset. More cost more time a subset."})
    tuning: Literal["lora", "full"] = field(
        default="lora", metadata={"help": "Tune a temporary adapter, or all weights (slower, a copy in main memory)."}
    )
    tuning_learning_rate: float | None = field(
        default=None,
        metadata={
            "help": "Default: 2e-4 for an adapter, the training's for all weights. Too low, and all subsets end alike."
        },
    )
    lean: float = field(
        default=1.0, metadata={"help": "How far subsets lean towards high or low indicators; 0 draws evenly."}
    )

    def __post_init__(self):
        self.check(self.indicators, [name for names in _METHODS.values() for name in names])
        if self.subset_rows < 1 or not self.lean >= 0:
            raise ValueError(f"`subset_rows={self.subset_rows}` must be positive, `lean={self.lean}` not negative.")
        if self.tuning_learning_rate is not None and not self.tuning_learning_rate > 0:
            raise ValueError(f"`tuning_learning_rate={self.tuning_learning_rate}` must be positive.")

    def check(self, columns: list[str], known: list[str] | tuple[str, ...]) -> None:
        """
        Refuse what can't be fitted.

        Args:
            columns (`list[str]`):
                Numbers of a row that the rule weighs.
            known (`list[str]`):
                Indicators that can be measured.

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
            The rows that subsets are drawn from.
        held_out ([`Records`]):
            The rows whose loss is foretold.
        ctx ([`Context`]):
            The model, its tokenizer, ranks, cache.
        sources ([`IndicatorSources`] or [`ImageTextSources`]):
            What measures the indicators.
        arguments ([`FitRuleArguments`]):
            Indicators, number and size of the subsets.
        settings ([`WarmupSettings`]):
            How the model is tuned.
        folder (`Path`):
            Where results are kept.

    Returns:
        [`FittedRule`]

    Raises:
        `ValueError`: too few rows, or subsets that do not determine the coefficients.
    """
    arguments.check([], sources.names)
    folder, wanted = check_writable(folder), arguments.indicators or list(sources.names)
    names = sources.possible(wanted, records)
    if not names:
        raise ValueError(f"`indicators={wanted}` can't be had of rows without images.")
    if len(names) < len(wanted):
        logger.info("Left out, as no row has an image: %s.", ", ".join(name for name in wanted if name not in names))
    found, tensors = sources.measure(records, ctx, names)
    columns, values = list(found), np.column_stack(list(found.values()))
    arguments.check(columns, sources.names)
    left_out = _left_out(records, values, ctx)
    usable = np.setdiff1d(np.arange(len(records)), [row for rows in left_out.values() for row in rows])
    main = ctx.accelerator is None or ctx.accelerator.is_main_process
    log = logger.info if main else logger.debug
    for reason, rows in left_out.items():
        log("%d of %d rows are in no subset: %s.", len(rows), len(records), reason)
    if len(usable) < 2 * arguments.subset_rows:
        raise ValueError(
            f"`subset_rows={arguments.subset_rows}`: {len(usable)} rows of {len(records)} have all indicators, and it "
            "takes twice as many as a subset has, so that subsets differ."
        )
    drawn = ctx.agreed(
        [
            draw_subset(values, usable, arguments.subset_rows, arguments.lean, [ctx.seed, number])
            for number in range(arguments.subsets)
        ]
    )
    subsets = [values[rows] for rows in drawn]
    # What can't be fitted is known before a model is tuned.
    if arguments.regressor == "linear":
        standardised(np.array([subset.mean(0) for subset in subsets]), columns)
    else:
        check_varied(values[usable], columns, "rows")

    loss_of = TunedLoss(records, held_out, ctx, settings)
    store = _Store(folder / "subsets.jsonl", loss_of.key, ctx)
    known = sum(tuple(rows) in store.done for rows in drawn)
    if known:
        log("%d of %d subsets are known from %s.", known, arguments.subsets, store.path)
    losses = []
    for number, rows in enumerate(drawn):
        if tuple(rows) not in store.done:
            loss = loss_of(rows)
            if np.isnan(loss):
                raise ValueError("No held-out row has an answer within the window whose loss could be measured.")
            store.add(number, rows.tolist(), loss)
            log("Subset %d of %d: loss %.4f", number + 1, arguments.subsets, loss)
        losses.append(store.done[tuple(rows)])
    loss_of.close()
    for reason, rows in loss_of.unscorable.items():
        log("%d of %d held-out rows have no loss: %s.", len(rows), len(held_out), reason)
    fit = fit_linear if arguments.regressor == "linear" else fit_network
    rule = replace(
        fit(columns, subsets, np.log(losses), values[usable], ctx.seed),
        subsets=arguments.subsets,
        sources={name: _from_anywhere(value) for name, value in sources.used(names).items()},
        about={"method": sources.method, "model": ctx.model_id, "images": records.images is not None}
        | {key: plain(loss_of.described[key]) for key in ("rows", "held_out", "settings")}
        | {"identities": identities(ctx)}
        | {"lean": arguments.lean, "losses": [min(losses), max(losses)]}
        | {"rows left out": {reason: len(rows) for reason, rows in left_out.items()}},
    )
    rule = ctx.agreed(replace(rule, tensors=rule.tensors | tensors))
    if main:
        _warn_of_little(rule)
        rule.save(folder / "rule.json")
    return rule


def _left_out(records: Records, values: np.ndarray, ctx: Context) -> dict[str, list[int]]:
    """Rows that are in no subset, each by the first reason known."""
    lost, found = set(np.flatnonzero(~np.isfinite(values).all(1)).tolist()), {}
    unreadable = records.unreadable()
    lost.update(*(rows.tolist() for rows in unreadable.values()))
    kinds = unreadable, ctx.account.rows("unscorable"), ctx.account.rows("dropped")
    for reason, rows in [pair for kind in kinds for pair in kind.items()] + [("an indicator is no number", [*lost])]:
        if here := sorted(lost.intersection(rows)):
            found[reason] = here
            lost -= {*here}
    return found


def _from_anywhere(source: Any) -> Any:
    """A folder by its whole path, since a rule is used elsewhere than it was fitted."""
    local = isinstance(source, str) and source != "model" and Path(source).is_dir()  # `encoder: model` is no folder
    return str(Path(source).resolve()) if local else source


def _warn_of_little(rule: FittedRule) -> None:
    if rule.regressor == "linear" and rule.subsets < 10 * len(rule.columns):
        logger.warning(
            "%d subsets leave %d degrees of freedom beside %d coefficients and an intercept: R2 flatters the rule. "
            "Ten `subsets` an indicator are a fair number.",
            rule.subsets,
            rule.subsets - len(rule.columns) - 1,
            len(rule.columns),
        )
    if rule.left_out_r2 is None or not rule.left_out_r2 > 0:
        logger.warning(
            "The rule foretells the loss of subsets that it has not seen no better than the mean of the others does: "
            "it may have learnt noise. Fit more `subsets`, of more rows, or tune more (`tuning_learning_rate`)."
        )


def draw_subset(values: np.ndarray, usable: np.ndarray, k: int, lean: float, seed: Any) -> np.ndarray:
    """
    `k` different rows of `usable`, ascending, drawn with weights exp(`lean` x standardised indicators x a random
    direction), so that the means of subsets differ in all indicators.
    """
    draw = np.random.default_rng(seed)
    centre, scale = spread(values[usable])
    standard = (values[usable] - centre) / scale
    # Far outliers would otherwise be in every second subset.
    weights = np.clip(standard, -3, 3) @ draw.standard_normal(values.shape[1])
    order = np.argsort(-(lean * weights + draw.gumbel(size=len(usable))), kind="stable")
    return np.sort(usable[order[:k]])


class _Store:
    """Losses by the rows tuned on, a line of JSON each, kept as they come; those of other settings are passed over."""

    def __init__(self, path: Path, settings: str, ctx: Context):
        self.path, self.settings, self.done = path, settings, {}
        self._main = ctx.accelerator is None or ctx.accelerator.is_main_process
        for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
            try:
                record = json.loads(line)
            except json.JSONDecodeError:  # torn by a kill
                continue
            if isinstance(record, dict) and record.get("settings") == settings and "rows" in record:
                self.done[tuple(record["rows"])] = record["loss"]
        self.done = ctx.agreed(self.done)

    def add(self, number: int, rows: list[int], loss: float) -> None:
        self.done[tuple(rows)] = loss
        if self._main:
            record = {"settings": self.settings, "subset": number, "loss": loss, "rows": rows}
            with open(self.path, "ab", buffering=0) as file:
                file.write(f"\n{json.dumps(record)}\n".encode())
                os.fsync(file.fileno())


def fit_rule_command(recipe: Any) -> tuple[FittedRule, Path]:
    """The rule of a recipe with one of `_METHODS`, and the file that holds it."""
    from ...data.records import load_rows
    from ...options import require_extras
    from ...selector import method_name
    from ...training.recipe import build_trainer

    args, data, arguments = recipe.args, recipe.data, recipe.more
    if method_name(args.selector) not in _METHODS:
        known = " and ".join(map(repr, _METHODS))
        raise ValueError(f"`selection_method={args.selection_method!r}`: `fit-rule` fits {known}.")
    if not data.eval_dataset_name:
        raise ValueError("`eval_dataset_name` is required: the rows whose loss the rule is to foretell.")
    # A rule of the recipe may not be written yet, and what it was fitted with is no matter of this one.
    fitting = replace(args.selector, rule=type(args.selector).rule)
    sources = fitting.sources()
    arguments.check(arguments.indicators, sources.names)
    names = arguments.indicators or list(sources.names)
    require_extras("fit-rule", sources.extras(names))
    # It needs what measures the indicators to be fitted.
    fitting.check = lambda records: sources.check(sources.possible(names, records))
    fitting.card = replace(
        fitting.card, needs=frozenset({"text", "prompt", "model"} | ({"judge"} if "judge" in names else set()))
    )
    args.use(fitting)
    held_out = Records(load_rows(data.eval_dataset_name, split=data.dataset_test_split), name="eval_dataset")
    args.baseline_dir, args.eval_strategy, args.named_benchmarks = None, "no", []
    trainer = build_trainer(recipe)
    settings = WarmupSettings(
        method=arguments.tuning,
        epochs=args.num_train_epochs,
        learning_rate=arguments.tuning_learning_rate or (2e-4 if arguments.tuning == "lora" else args.learning_rate),
        batch_size=args.per_device_train_batch_size,
        gradient_accumulation=args.gradient_accumulation_steps,
        gradient_checkpointing=args.gradient_checkpointing,
        seed=args.seed,
    )
    folder = Path(args.output_dir)
    rule = fit_rule(trainer.records, held_out, trainer.context(), sources, arguments, settings, folder)
    return rule, folder / "rule.json"
