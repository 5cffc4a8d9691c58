"""`hf-dataselect fit-rule`: fit the rule of `instruction_mining` or `instructiongpt4` for your own model."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ..data.records import Records
from ..engines.tuning.warm_up import WarmupSettings
from ..fitted.rules.fit_rule import METHODS, FitRuleArguments, fit_rule
from ..fitted.rules.rule import FittedRule
from ..options import require_extras
from ..selector import method_name
from ..training.recipe import Recipe, build_trainer, load_held_out, parse_recipe
from .console import alone_in, checked, log_to_console, say


def run(argv: Sequence[str]) -> None:
    """Run the command; finished subsets are kept."""
    log_to_console()
    recipe = checked(parse_recipe, argv, "fit-rule", FitRuleArguments)
    with alone_in(recipe.args.output_dir):
        rule, path = checked(fit_rule_command, recipe)
    say(f"{rule.summary()}\nRule: {path}")


def fit_rule_command(recipe: Recipe) -> tuple[FittedRule, Path]:
    """Fit the rule of a recipe with one of `METHODS`; gives it and its file."""
    args, data, arguments = recipe.args, recipe.data, recipe.more
    if method_name(args.selector) not in METHODS:
        known = " and ".join(map(repr, METHODS))
        raise ValueError(f"`selection_method={args.selection_method!r}`: `fit-rule` fits {known}.")
    if not data.eval_dataset_name:
        raise ValueError("`eval_dataset_name` is required: the rows whose loss the rule is to predict.")
    # The recipe's own rule may not be written yet, and its sources do not matter here.
    fitting = replace(args.selector, rule=type(args.selector).rule)
    sources = fitting.sources()
    arguments.check(arguments.indicators, sources.names)
    names = arguments.indicators or list(sources.names)
    require_extras("fit-rule", sources.extras(names))
    # Fitting needs what computes the indicators.
    fitting.check = lambda records: sources.check(sources.possible(names, records))
    fitting.needs = lambda: frozenset({"text", "prompt", "model"} | ({"judge"} if "judge" in names else set()))
    held_out = Records(load_held_out(recipe), args.dataset_text_field, name="eval_dataset")
    trainer = build_trainer(recipe, selector=fitting, evaluation=False)
    settings = WarmupSettings(
        method=arguments.tuning,
        epochs=args.num_train_epochs,
        learning_rate=arguments.tuning_learning_rate or (2e-4 if arguments.tuning == "lora" else args.learning_rate),
        batch_size=args.per_device_train_batch_size,
        gradient_accumulation=args.gradient_accumulation_steps,
        seed=args.seed,
    )
    folder = Path(args.output_dir)
    rule = fit_rule(trainer.records, held_out, trainer.context(), sources, arguments, settings, folder)
    return rule, folder / "rule.json"
