"""
`hf-dataselect fit-rule`: fit the rule of `instruction_mining` for one's own model and rows.

The model is tuned for a while on each of many subsets, its loss on held-out rows is measured, and the logarithm of the
loss is fitted by least squares to the subsets' mean indicators (arXiv 2307.06290, which tuned 129 models). Each result
is kept as it comes in `subsets.jsonl`: a killed fit goes on, and more subsets can be added later.
"""

import json
import logging
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from .engines.cache import check_writable, digest, model_identity
from .engines.warmup import WarmupSettings, warmed_up
from .preprocessing.indicators import NAMES, IndicatorSources, indicator_values
from .preprocessing.model import answer_loss, tuning_rows
from .preprocessing.records import Records
from .preprocessing.rules import Rule, least_squares
from .run_folder import plain
from .selector import Context


logger = logging.getLogger(__name__)


@dataclass
class FitRuleArguments:
    """
    How the rule is fitted.

    Args:
        indicators (`list[str]`, *optional*, defaults to all):
            What the rule weighs: len, mtld, rew, ppl, knn, nat, coh, und.
        subsets (`int`, *optional*, defaults to `129`):
            Models that are tuned; more cost proportionally more and fit better.
        subset_rows (`int`, *optional*, defaults to `1000`):
            Rows of each.
        tuning (`str`, *optional*, defaults to `"lora"`):
            `"lora"` or `"full"`: what of the model is tuned. Epochs, learning rate and batch are the training's.
        lean (`float`, *optional*, defaults to `1.0`):
            How far subsets lean towards high or low indicators: 0 draws them evenly, and needs far more of them.
    """

    indicators: list[str] = field(
        default_factory=lambda: list(NAMES),
        metadata={"help": f"What the rule weighs, some of {', '.join(NAMES)}. Each costs a pass over the rows."},
    )
    subsets: int = field(
        default=129, metadata={"help": "Models that are tuned. More cost proportionally more time and fit better."}
    )
    subset_rows: int = field(default=1000, metadata={"help": "Rows of a subset. More cost more time a subset."})
    tuning: Literal["lora", "full"] = field(
        default="lora", metadata={"help": "Tune a temporary adapter, or all weights (slower, a copy in main memory)."}
    )
    lean: float = field(
        default=1.0, metadata={"help": "How far subsets lean towards high or low indicators; 0 draws evenly."}
    )

    def __post_init__(self):
        unknown = set(self.indicators) - set(NAMES)
        if unknown or not self.indicators or len(set(self.indicators)) < len(self.indicators):
            raise ValueError(f"`indicators={self.indicators}` must be different names of {', '.join(NAMES)}.")
        if self.subsets < len(self.indicators) + 2:
            raise ValueError(
                f"`subsets={self.subsets}` can't determine {len(self.indicators)} coefficients and an intercept: it "
                f"takes {len(self.indicators) + 2} at least, or fewer `indicators`."
            )
        if self.subset_rows < 1 or self.lean < 0:
            raise ValueError(f"`subset_rows={self.subset_rows}` must be positive, `lean={self.lean}` not negative.")


def fit_rule(
    records: Records,
    held_out: Records,
    ctx: Context,
    sources: IndicatorSources,
    arguments: FitRuleArguments,
    settings: WarmupSettings,
    folder: Path,
) -> Rule:
    """
    Fit a rule and write it to `folder/rule.json`.

    Args:
        records ([`Records`]):
            The rows that subsets are drawn from.
        held_out ([`Records`]):
            The rows whose loss is foretold.
        ctx ([`Context`]):
            The model, its tokenizer, ranks, cache.
        sources ([`IndicatorSources`]):
            What measures the indicators.
        arguments ([`FitRuleArguments`]):
            Indicators, number and size of the subsets.
        settings ([`WarmupSettings`]):
            How the model is tuned.
        folder (`Path`):
            Where results are kept.

    Returns:
        [`Rule`]

    Raises:
        `ValueError`: too few rows, or subsets that do not determine the coefficients.
    """
    folder, names = check_writable(folder), arguments.indicators
    found = indicator_values(records, ctx, names, sources)
    values = np.column_stack([found[name] for name in names])
    usable = np.isfinite(values).all(1)
    for rows in records.unreadable().values():
        usable[rows] = False
    usable = np.flatnonzero(usable)
    if len(usable) < 2 * arguments.subset_rows:
        raise ValueError(
            f"`subset_rows={arguments.subset_rows}`: {len(usable)} rows of {len(records)} have all indicators, and it "
            "takes twice as many as a subset has, so that subsets differ."
        )
    described = {
        "model": model_identity(ctx.model),
        "rows": records.content_hash(),
        "held_out": held_out.content_hash(),
        "sources": sources.used(names),
        "settings": plain(asdict(settings)),
        "max_length": ctx.max_length,
        "subset_rows": arguments.subset_rows,
        "lean": arguments.lean,
        "indicators": names,
    }
    store = _Store(folder / "subsets.jsonl", digest(described), ctx)
    main = ctx.accelerator is None or ctx.accelerator.is_main_process
    for number in range(arguments.subsets):
        if number in store.done:
            continue
        rows = ctx.agreed(draw_subset(values, usable, arguments.subset_rows, arguments.lean, [ctx.seed, number]))
        with warmed_up(
            ctx.model, ctx.tokenizer, tuning_rows(records, rows, ctx), settings, ctx.accelerator, ctx.cache_dir
        ) as tuned:
            losses = answer_loss(held_out, ctx.using(tuned), ctx.text_format(end_of_turn=True)).mean
        if not np.isfinite(losses).any():
            raise ValueError("No held-out row has an answer within the window whose loss could be measured.")
        store.add(number, values[rows].mean(0).tolist(), float(np.nanmean(losses)))
        if main:
            logger.info("Subset %d of %d: loss %.4f", number + 1, arguments.subsets, store.done[number]["loss"])
    means = np.array([store.done[number]["indicators"] for number in range(arguments.subsets)])
    losses = np.array([store.done[number]["loss"] for number in range(arguments.subsets)])
    intercept, coefficients, r2 = least_squares(means, np.log(losses))
    rule = Rule(
        intercept,
        dict(zip(names, map(float, coefficients), strict=True)),
        r2=r2,
        subsets=arguments.subsets,
        sources=sources.used(names),
        about={"model": ctx.model_id, **{key: described[key] for key in ("rows", "held_out", "settings", "lean")}},
    )
    if main:
        rule.save(folder / "rule.json")
    return rule


def draw_subset(values: np.ndarray, usable: np.ndarray, k: int, lean: float, seed: Any) -> np.ndarray:
    """
    `k` different rows of `usable`, ascending, drawn with weights exp(`lean` x standardised indicators x a random
    direction), so that the means of subsets differ in all indicators.
    """
    draw = np.random.default_rng(seed)
    scale = values[usable].std(0)
    standard = (values[usable] - values[usable].mean(0)) / np.where(scale > 0, scale, 1)
    # Far outliers would otherwise be in every second subset.
    weights = np.clip(standard, -3, 3) @ draw.standard_normal(values.shape[1])
    order = np.argsort(-(lean * weights + draw.gumbel(size=len(usable))), kind="stable")
    return np.sort(usable[order[:k]])


class _Store:
    """Results of subsets, one line of JSON each, kept as they come; those of other settings are passed over."""

    def __init__(self, path: Path, settings: str, ctx: Context):
        self.path, self.settings, self.done = path, settings, {}
        self._main = ctx.accelerator is None or ctx.accelerator.is_main_process
        for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
            try:
                record = json.loads(line)
            except json.JSONDecodeError:  # torn by a kill
                continue
            if isinstance(record, dict) and record.get("settings") == settings:
                self.done[record["subset"]] = record
        self.done = ctx.agreed(self.done)

    def add(self, number: int, indicators: list[float], loss: float) -> None:
        record = {"settings": self.settings, "subset": number, "indicators": indicators, "loss": loss}
        self.done[number] = record
        if self._main:
            with open(self.path, "ab", buffering=0) as file:
                file.write(f"\n{json.dumps(record)}\n".encode())
                os.fsync(file.fileno())


def fit_rule_command(recipe: Any) -> tuple[Rule, Path]:
    """The rule of a recipe with `selection_method: instruction_mining`, and the file that holds it."""
    from .preprocessing.records import load_rows
    from .recipe import build_trainer
    from .registry import require_extras
    from .selectors.instruction_mining import InstructionMining, check_sources, extras_of

    args, data, arguments = recipe.args, recipe.data, recipe.more
    if not isinstance(args.selector, InstructionMining):
        raise ValueError(f"`selection_method={args.selection_method!r}`: `fit-rule` fits 'instruction_mining'.")
    if not data.eval_dataset_name:
        raise ValueError("`eval_dataset_name` is required: the rows whose loss the rule is to foretell.")
    sources = args.selector.sources()
    require_extras("fit-rule", extras_of(arguments.indicators, sources))

    class Fitting(InstructionMining):
        """Needs what measures the indicators to be fitted, and not those of a rule at hand."""

        def check(self, records: Records) -> None:
            check_sources(arguments.indicators, sources)

    fitting = Fitting(**asdict(args.selector) | {"search_trials": 0})
    fitting.card = InstructionMining.card
    args.use(fitting)
    held_out = Records(load_rows(data.eval_dataset_name, split=data.dataset_test_split), name="eval_dataset")
    args.baseline_dir, args.eval_strategy, args.named_benchmarks = None, "no", []
    trainer = build_trainer(recipe)
    settings = WarmupSettings(
        method=arguments.tuning,
        epochs=args.num_train_epochs,
        learning_rate=args.learning_rate,
        batch_size=args.per_device_train_batch_size,
        gradient_accumulation=args.gradient_accumulation_steps,
        gradient_checkpointing=args.gradient_checkpointing,
        seed=args.seed,
    )
    folder = Path(args.output_dir)
    rule = fit_rule(trainer.records, held_out, trainer.context(), sources, arguments, settings, folder)
    return rule, folder / "rule.json"
