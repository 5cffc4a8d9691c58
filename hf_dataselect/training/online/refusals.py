"""What a policy can't be used with, refused before any weights load."""

import logging
from typing import Any

from ...budget import Budget
from ...compat.peft import learns_prompt
from ...compat.sharding import sharding_by_args
from ...compat.trl import check_token_losses, is_default_collator
from ...data.records import Records
from ...data.targets import tasks_of
from ...policy import Policy
from ...sharding_refusals import check_trained
from .schedule import Schedule


logger = logging.getLogger(__name__)


def check_policy_options(args: Any) -> None:
    """
    Refuse arguments under which the losses of rows can't be told apart, or a step isn't the sum of its rows'.

    Raises:
        `ValueError`: an option, by its name.
        `ImportError`: a version of TRL that does not tell the losses of tokens.
    """
    if str(args.selection_policy).lower() == "none":
        args.selection_policy = None
    schedule, said = Schedule.parse(args.selection_schedule), f"`selection_policy={args.selection_policy!r}`"
    if args.selection_policy is None and args.selection_policy_kwargs:
        raise ValueError("`selection_policy_kwargs` are options of a policy: give `selection_policy`, too.")
    if args.selection_policy is None and schedule is None:
        return
    args.policy  # noqa: B018  # its name and options
    if schedule is not None:
        if args.selection_policy is not None:
            raise ValueError(f"{said} can't be used together with `selection_schedule`: remove one of the two.")
        said = f"`selection_schedule={args.selection_schedule!r}`"
        if args.selector.fixed_budget:
            raise ValueError(f"{said}: `{args.selection_method}` keeps every row each time. Choose another method.")
        if schedule.grow:
            _check_grow(args, said)
        if schedule.exclude_seen:
            _check_count(args, said)
    if "training" in args.selector.needs():
        raise ValueError(
            f"{said} with `selection_method={args.selection_method!r}`, whose trials train by themselves: choose "
            "another method."
        )
    check_token_losses()
    smoothing, sharding = args.label_smoothing_factor, sharding_by_args(args)
    refused = {
        "loss_type": (args.loss_type != "nll", args.loss_type, "weights can't be put into this loss: use 'nll'"),
        "label_smoothing_factor": (smoothing > 0, smoothing, "the smoothed loss can't be told row by row: use 0"),
        "use_liger_kernel": (args.use_liger_kernel, True, "its fused loss can't be told row by row: leave it out"),
        "auto_find_batch_size": (
            args.auto_find_batch_size,
            True,
            "steps would begin again with other rows: use False",
        ),
        "train_sampling_strategy": (
            args.train_sampling_strategy in ("group_by_length", "batch_rebalance"),
            args.train_sampling_strategy,
            "it orders lines by their lengths: use 'random'",
        ),
        "ignore_data_skip": (args.ignore_data_skip, True, "a resumed run would draw other rows: use False"),
        "parallelism_config": (
            args.parallelism_config is not None,
            args.parallelism_config,
            "lines are split over ranks: leave it out",
        ),
    }
    for name, (is_given, value, why) in refused.items():
        if is_given:
            raise ValueError(f"{said} with `{name}={value}`: {why}.")
    check_trained(sharding, said)
    if args.policy is not None and args.policy.reads_gradients and sharding is not None:
        raise ValueError(
            f"{said} takes rows out of the gradients of a step, which {sharding} has summed over ranks by then: train "
            "without sharding, or choose another policy."
        )


def _check_grow(args: Any, said: str) -> None:
    """Refuse what the rows that are added one selection after the other would not keep to."""
    if args.selection_budget_by is not None:
        raise ValueError(f"{said} with `selection_budget_by`: grow adds rows of all groups alike. Remove one.")
    if (budget := _budget(args)).unit == "score":
        raise ValueError(
            f"{said} with `selection_budget={str(budget)!r}`: grow adds so many rows, whatever their score. Give a "
            "fraction, a count or tokens, or remove grow."
        )
    spread = "selection_diversity" if args.selection_diversity is not None else None
    if args.selector.spreads_out and not args.selector.reads_kept:
        spread = f"selection_method={args.selection_method!r}"
    if spread is not None:
        raise ValueError(
            f"{said} with `{spread}`, which keeps rows apart from one another, not from those that were kept before: "
            "the rows that grow adds may be near copies of them. Use `selection_method: k_center`, or remove grow."
        )


def _budget(args: Any) -> Budget:
    return Budget.parse(args.selector.default_budget if args.selection_budget is None else args.selection_budget)


def _check_count(args: Any, said: str) -> None:
    """Refuse budgets that don't mean the same number of rows of those that are left."""
    if args.selection_budget_by is not None:
        raise ValueError(
            f"{said} with `selection_budget_by={args.selection_budget_by!r}`: a group may have no rows left. Remove "
            "one, or exclude_seen."
        )
    if (budget := _budget(args)).unit not in ("fraction", "rows"):
        raise ValueError(
            f"{said} with `selection_budget={str(budget)!r}`: exclude_seen keeps as many rows each time. Give a "
            "fraction or a count, or remove exclude_seen."
        )


def check_policy_rows(args: Any, records: Records, collator: Any, more: dict[str, Any]) -> None:
    """
    Refuse rows and arguments of a trainer that a policy can't be used with.

    Raises:
        `ValueError`: one, by its name.
    """
    policy = args.policy
    if policy is None and Schedule.parse(args.selection_schedule) is None:
        return
    name = "selection_schedule" if policy is None else "selection_policy"
    said = f"`{name}={getattr(args, name)!r}`"
    if records.images:
        raise ValueError(f"{said}: rows with images ({records.images!r}) are not supported. Remove it.")
    if (args.dataset_kwargs or {}).get("skip_prepare_dataset"):
        raise ValueError(f"{said} with `dataset_kwargs={{skip_prepare_dataset: true}}`: TRL has to prepare the rows.")
    if collator is not None and not is_default_collator(collator):
        raise ValueError(f"{said} with a `data_collator` of your own, which may lay out tokens in another way.")
    if more.get("compute_loss_func") is not None:
        raise ValueError(f"{said} with `compute_loss_func`, into which weights can't be put.")
    if learns_prompt(more.get("peft_config")):
        raise ValueError(f"{said} with an adapter that learns a prompt, which adds tokens to lines: use LoRA.")
    if policy is not None:
        if policy.reads_texts and records.layout == "tokens":
            raise ValueError(f"{said} scores the rows before training: give them untokenized.")
        if policy.reads_gradients:
            _check_gradients(args, said, more)
        policy.check(records)
        policy.check_guard(records, args.guard_dataset or ())
        if args.guard_dataset and args.eval_strategy == "no" and type(policy).guard is not Policy.guard:
            logger.warning("%s follows `guard_dataset` at evaluations, and `eval_strategy='no'` has none.", said)


def _check_gradients(args: Any, said: str, more: dict[str, Any]) -> None:
    """Refuse what has no gradients of rows, or no examples that they are compared with."""
    if args.selection_target is None:
        raise ValueError(f"{said} needs `selection_target`: target-task examples.")
    if len({task.weight for task in tasks_of(args.selection_target).values()}) > 1:
        raise ValueError(f"`selection_target`: {said} draws examples alike. Remove the weights of tasks.")
    adapter = more.get("peft_config")
    if isinstance(more.get("model"), str) and adapter is None:
        raise ValueError(
            f"{said} keeps the gradients of the rows of a step, which are too large without LoRA: give a "
            "`peft_config` (`--use_peft`)."
        )
    for option in ("use_dora", "modules_to_save"):
        if getattr(adapter, option, None):
            raise ValueError(
                f"{said} with `{option}` of the adapter: rows can't be dropped from the gradients of what is not "
                "LoRA's factors. Leave it out."
            )
