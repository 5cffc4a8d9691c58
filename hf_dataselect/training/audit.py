"""
An audit (`hf-dataselect audit`): how well selectors' scores predict what training on rows does.

The model is trained on random subsets of the pool as the recipe trains, each time from the same weights, and the loss
of every held-out row is kept; each selector scores the pool, and the model is trained on its top rows. All of it stays
in the run folder as it comes: a killed audit goes on, and more subsets or selectors can be added.
"""

import dataclasses
import logging
from typing import Any

import numpy as np
from trl import SFTConfig

from ..context import Context
from ..data.records import Records
from ..engines.store.files import check_writable
from ..engines.tuning.settings import TrainingSettings
from ..errors import explained
from ..evaluation.audit.findings import CONTROLS, Audit, Scored, audit
from ..evaluation.comparison.evaluated_runs import FREE
from ..features.tuned_loss import TunedLoss
from ..fitted.subset_losses import Measured, SubsetLosses
from ..plan import SelectionPlan
from ..registry import load_selector
from ..runs.begin import begin_run
from ..runs.folder import read_evaluation, read_selection, read_settings, write_recipe, write_settings
from ..selection import Selection
from .audit_arguments import Entry
from .audit_plan import AuditPlan, check_size
from .recipe import build_trainer
from .trainer import DataSelectingTrainer


logger = logging.getLogger(__name__)

#: Prefixes of arguments of [`~trl.SFTConfig`] that decide no weights, or that token rows already follow.
_BESIDE = (*FREE, "eval_", "do_", "load_best", "metric_for", "greater_is", "dataset_", "model_init", "chat_template")
_BESIDE += ("assistant_only", "completion_only", "truncation_mode")


def carry_out_audit(found: AuditPlan) -> tuple[Audit, dict[str, Any]]:
    """
    Score, train, compare.

    Returns:
        `tuple`: the audit; and what else is known of it: pool, model, methods left out, the cost of training.

    Raises:
        `ValueError`: too few rows of the pool can be trained on, or a selector that was asked for fails.
    """
    args, given = found.recipe.args, found.recipe.more
    check_writable(found.folder, "output_dir")
    trainer = build_trainer(found.recipe, load_selector("random"), rows=found.records.dataset, evaluation=False)
    trainer.accelerator.wait_for_everyone()
    ctx = trainer.context(cached=False)
    ctx.runtime.on_main(lambda: _begin(found))
    usable, excluded = _trainable(trainer.records, ctx)
    check_size(found.subset_rows, len(usable), given.subset_rows)
    subsets = [
        np.sort(np.random.default_rng([args.seed, number]).choice(usable, found.subset_rows, replace=False))
        for number in range(given.subsets)
    ]
    subsets = ctx.runtime.broadcast(subsets)

    selections = {entry.name: _selection(found, entry, trainer) for entry in list(found.entries)}
    selections = {name: selection for name, selection in selections.items() if selection is not None}
    losses = [_TrainedLosses(found, trainer, args.seed + number) for number in range(given.top_seeds)]
    untrained = losses[0].untrained()
    measured = losses[0].measure(subsets, "Random subset")
    tops = {name: np.intersect1d(selection.indices, usable) for name, selection in selections.items()}
    trained = [loss.measure(list(tops.values()), f"Top rows, seed {loss.seed}:") for loss in losses]

    full = _full_seconds(args, measured, len(usable) / found.subset_rows)
    scored = {
        name: Scored(
            selection.scores[usable],
            np.stack([of_seed[place].losses for of_seed in trained]),
            len(tops[name]),
            selection.seconds,
            {"method": selection.method, "options": selection.options, "excluded": _counted(selection)},
        )
        for place, (name, selection) in enumerate(selections.items())
    }
    by_row = np.stack([one.losses for one in measured])
    result = audit(np.searchsorted(usable, np.stack(subsets)), by_row, untrained.losses, scored, full)
    about = {
        "model": found.recipe.model.model_name_or_path,
        "pool": len(found.records),
        "excluded": {reason: len(rows) for reason, rows in excluded.items()},
        "held_out": len(found.held_out),
        "left_out": found.left_out,
        "training_seconds": [one.more["seconds"] for one in measured],
        "full_seconds": full,
        "full_seconds_measured": args.baseline_dir is not None,
    }
    return result, about


def finish(found: AuditPlan) -> None:
    """Note in the run folder that the audit is finished."""
    write_settings(found.folder, found.settings, finished=True)


def _begin(found: AuditPlan) -> None:
    """Begin in the run folder, or go on there."""
    recipe = found.recipe.sources | found.recipe.args.given | _own_options(found.recipe.more)
    if read_settings(found.folder)[0]:
        write_recipe(found.folder, recipe)
        write_settings(found.folder, found.settings, finished=False)
    else:
        begin_run(found.folder, recipe, found.settings)


class _TrainedLosses:
    """Held-out losses of the model trained on rows with one seed, kept in `subsets.jsonl`."""

    def __init__(self, found: AuditPlan, trainer: DataSelectingTrainer, seed: int):
        args, self.seed = trainer.args, seed
        ctx = trainer.context(cached=False)
        fields = {item.name for item in dataclasses.fields(SFTConfig)}
        settings = TrainingSettings(
            method="lora" if hasattr(trainer.model, "peft_config") else "full",
            epochs=args.num_train_epochs,
            learning_rate=args.learning_rate,
            batch_size=args.per_device_train_batch_size,
            gradient_accumulation=args.gradient_accumulation_steps,
            seed=seed,
            given={name: args.given[name] for name in fields & args.given.keys() if not name.startswith(_BESIDE)},
        )
        self._loss = TunedLoss(trainer.records, found.held_out, ctx, settings)
        self._store = SubsetLosses(found.folder / "subsets.jsonl", self._loss.key, ctx.runtime)

    def untrained(self) -> Measured:
        """The losses before training: those of no rows."""
        (measured,) = self._store.measure([np.zeros(0, np.int64)], lambda _: (self._loss.untrained(), {}), "Untrained")
        for reason, rows in self._loss.unscorable.items():
            logger.warning("%d held-out rows have no loss: %s.", len(rows), reason)
        return measured

    def measure(self, subsets: list[np.ndarray], name: str) -> list[Measured]:
        def loss_of(rows: np.ndarray) -> tuple[np.ndarray, dict[str, float]]:
            return self._loss.by_row(rows), {"seconds": self._loss.seconds}

        return self._store.measure(subsets, loss_of, name)


def _selection(found: AuditPlan, entry: Entry, trainer: DataSelectingTrainer) -> Selection | None:
    """The rows that a selector keeps, read back where they were chosen; `None` if it may fail and does."""
    folder, settings, ctx = found.selection_folder(entry), found.selection_settings(entry), trainer.context()
    if ctx.runtime.on_main(lambda: found.selected(entry)):
        return read_selection(folder)
    selector = load_selector(entry.method, entry.kwargs)
    given = found.recipe.sources | trainer.args.given
    given |= {"selection_method": entry.method, "selection_kwargs": entry.kwargs or None}
    given |= {"selection_budget": found.subset_rows, "output_dir": str(folder)}
    chosen: SelectionPlan = dataclasses.replace(trainer.plan, selector=selector, budget=found.subset_rows)
    chosen.compared = settings
    try:
        selection = chosen.select(ctx, folder, given)
    except (ValueError, ImportError, OSError) as error:
        if found.required and entry.name not in CONTROLS:
            raise
        logger.warning("`%s` is left out: %s", entry.name, explained(error))
        found.left_out[entry.name] = explained(error)
        return None
    ctx.runtime.on_main(lambda: write_settings(folder, settings, finished=True))
    trainer.accelerator.print(selection.summary())
    return selection


def _trainable(records: Records, ctx: Context) -> tuple[np.ndarray, dict[str, list[int]]]:
    """Rows that can be trained on, int64, and the others by reason."""
    excluded = records.unreadable() if records.images else ctx.trained(records).problems
    lost = [row for rows in excluded.values() for row in np.asarray(rows).tolist()]
    for reason, rows in excluded.items():
        logger.info("%d of %d rows are excluded from all subsets: %s.", len(rows), len(records), reason)
    return np.setdiff1d(np.arange(len(records)), lost), excluded


def _full_seconds(args: Any, measured: list[Measured], ratio: float) -> float:
    """Seconds of training on the whole pool: those of the baseline, or those of the subsets, extrapolated."""
    if args.baseline_dir is not None:
        seconds = read_evaluation(args.baseline_dir).get("train_seconds")
        if not seconds:
            raise ValueError(f"`baseline_dir={args.baseline_dir!r}` does not say how long it was trained.")
        return seconds
    return float(np.mean([one.more["seconds"] for one in measured])) * (1 if args.max_steps > 0 else ratio)


def _counted(selection: Selection) -> dict[str, int]:
    return {reason: len(rows) for kind in (selection.unscorable, selection.dropped) for reason, rows in kind.items()}


def _own_options(given: Any) -> dict[str, Any]:
    return {
        "methods": [
            {"method": one.method, "name": one.name} | ({"selection_kwargs": one.kwargs} if one.kwargs else {})
            for one in given.entries
        ],
        "subsets": given.subsets,
        "subset_rows": given.subset_rows,
        "top_seeds": given.top_seeds,
    }
