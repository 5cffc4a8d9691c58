"""What a command would do (`--dry_run`): checked as the command checks it, and nothing trained or asked."""

import copy
import dataclasses
from collections.abc import Sequence
from typing import Any

from trl import get_peft_config

from ..budget import Budget
from ..compat.sharding import sharding_by_args
from ..data.preferences import scored_columns
from ..data.records import Records
from ..data.targets import load_target
from ..engines.runtime.progress import in_words
from ..registry import load_selector
from ..selector import method_name
from .audit_plan import AuditPlan
from .callbacks import comparable_baseline
from .comparison import PlannedRun
from .forecast import Forecast
from .guard import guard_records
from .inputs import prepare_benchmarks, selection_plan
from .online.refusals import check_policy_rows
from .recipe import Recipe, load_held_out, load_sources, set_model_options
from .trial_plan import plan_trials


def forecast_run(recipe: Recipe, train: bool) -> list[str]:
    """What `train` or `select` would do."""
    args = recipe.args
    rows, held_out = load_sources(recipe, evaluation=train)
    records = Records(rows if train else scored_columns(rows, args.dataset_text_field), args.dataset_text_field)
    plan = selection_plan(args, records, load_target(args.selection_target, records))
    plan.check(recipe.model.model_name_or_path, args.runtime(None).cache_dir, sharding_by_args(args))
    set_model_options(args, recipe.model)
    benchmarks = prepare_benchmarks(args, held_out) if train else []
    if "training" in plan.needs and not train:
        held_out = load_held_out(recipe)
    trials = plan_trials(plan, held_out, recipe.model.model_name_or_path)
    if train:
        given = {"model": recipe.model.model_name_or_path, "peft_config": get_peft_config(recipe.model)}
        check_policy_rows(args, records, None, given)
    if train and args.baseline_dir:
        comparable_baseline(args.baseline_dir, benchmarks)
    forecast = Forecast(recipe, plan, len(records), benchmarks=benchmarks, models_kept=int(train))
    kept = plan.budget.rows(len(records))
    forecast.notes.append(f"rows kept: {'at most all' if kept is None else f'{kept:,}'} (budget: {plan.budget})")
    if trials is not None:
        forecast.notes += [f"left out: {name}: {why}" for name, why in trials.left_out.items()]
        if trials.seconds is not None:
            forecast.notes.append(f"trials: no more begins after {in_words(trials.seconds)} (`auto_budget`)")
    kept = len(records) if kept is None else kept
    forecast.select(plan.selector, kept)
    if train:
        forecast.train(plan.selector, kept)
        forecast.passes["forward_rows"] += 2 * sum(map(len, guard_records(args, records).values()))
    return forecast.lines()


def forecast_comparison(recipe: Recipe, records: Records, runs: Sequence[PlannedRun]) -> list[str]:
    """What `compare` would do; finished runs cost nothing."""
    args = copy.copy(recipe.args)
    set_model_options(args, recipe.model)
    left = [run for run in runs if run.state != "finished"]
    plan = selection_plan(args, records, load_target(args.selection_target, records))
    forecast = Forecast(dataclasses.replace(recipe, args=args), plan, len(records))
    forecast.notes.append(f"runs: {len(runs):,}, of which {len(runs) - len(left):,} are finished")
    scored: dict[tuple[str, Any], int] = {}
    for run in left:
        budget, seed = run.given["selection_budget"], run.given["seed"]
        kept = len(records) if budget is None else Budget.parse(budget).rows(len(records)) or len(records)
        selector = load_selector(run.given["selection_method"], run.given["selection_kwargs"])
        forecast.train(selector, len(records) if run.trains_alike else kept)
        # The scores of a method serve all budgets; those that a seed decides are each seed's own.
        by_seed = "warmup_rows" in selector.forecast(len(records), 0, kept)
        if (key := (method_name(selector), seed if by_seed else None)) not in scored:
            forecast.select(selector, kept)
        scored[key] = kept
    forecast.benchmarks = prepare_benchmarks(args, load_sources(recipe)[1])
    forecast.compared = sum(run.given["baseline_dir"] is not None for run in runs)
    forecast.models_kept = len(left) if recipe.more.save_models else 0
    return forecast.lines()


def forecast_audit(planned: AuditPlan) -> list[str]:
    """What `audit` would do, if nothing of it is done yet."""
    recipe, given = planned.recipe, planned.recipe.more
    set_model_options(recipe.args, recipe.model)
    plan = selection_plan(recipe.args, planned.records, load_target(recipe.args.selection_target, planned.records))
    forecast = Forecast(recipe, plan, len(planned.records))
    for entry in planned.entries:
        forecast.select(load_selector(entry.method, entry.kwargs), planned.subset_rows)
    trainings = given.subsets + len(planned.entries) * given.top_seeds
    forecast.trained_rows = [planned.subset_rows] * trainings
    forecast.notes.append(f"selectors: {', '.join(entry.name for entry in planned.entries)}")
    forecast.notes += [f"left out: {name}: {why}" for name, why in planned.left_out.items()]
    forecast.notes.append(f"held-out rows, scored after each training: {len(planned.held_out):,}")
    forecast.passes["forward_rows"] += len(planned.held_out) * (trainings + 1)
    return forecast.lines()
