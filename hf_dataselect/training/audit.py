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

from ..engines.store.files import check_writable
from ..errors import explained
from ..evaluation.audit.findings import CONTROLS, Audit, Scored, audit
from ..plan import SelectionPlan
from ..registry import load_selector
from ..runs.begin import begin_run
from ..runs.folder import read_selection, read_settings, write_recipe, write_settings
from ..selection import Selection
from .audit_plan import AuditPlan, check_size
from .entries import Entry
from .recipe import build_trainer
from .trained_losses import TrainedLosses
from .trainer import DataSelectingTrainer
from .trials import drawn_subset, full_seconds, trainable


logger = logging.getLogger(__name__)


def carry_out_audit(planned: AuditPlan) -> tuple[Audit, dict[str, Any]]:
    """
    Score, train, compare.

    Returns:
        `tuple`: the audit; and what else is known of it: pool, model, methods left out, the cost of training.

    Raises:
        `ValueError`: too few rows of the pool can be trained on, or a selector that was asked for fails.
    """
    args, given = planned.recipe.args, planned.recipe.more
    check_writable(planned.folder, "output_dir")
    trainer = build_trainer(planned.recipe, load_selector("random"), rows=planned.records.dataset, evaluation=False)
    trainer.accelerator.wait_for_everyone()
    ctx = trainer.context(cached=False)
    ctx.runtime.on_main(lambda: _begin(planned))
    usable, excluded = trainable(trainer.records, ctx)
    check_size(planned.subset_rows, len(usable), given.subset_rows)
    subsets = [drawn_subset(usable, planned.subset_rows, args.seed, number) for number in range(given.subsets)]
    subsets = ctx.runtime.broadcast(subsets)

    selections = {entry.name: _selection(planned, entry, trainer) for entry in list(planned.entries)}
    selections = {name: selection for name, selection in selections.items() if selection is not None}
    losses = [
        TrainedLosses(trainer, planned.held_out, planned.folder, args.seed + number)
        for number in range(given.top_seeds)
    ]
    untrained = losses[0].untrained()
    measured = losses[0].measure(subsets, "Random subset")
    tops = {name: np.intersect1d(selection.indices, usable) for name, selection in selections.items()}
    trained = [loss.measure(list(tops.values()), f"Top rows, seed {loss.seed}:") for loss in losses]

    full = full_seconds(args, measured, len(usable) / planned.subset_rows)
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
        "model": planned.recipe.model.model_name_or_path,
        "pool": len(planned.records),
        "excluded": {reason: len(rows) for reason, rows in excluded.items()},
        "held_out": len(planned.held_out),
        "left_out": planned.left_out,
        "training_seconds": [one.more["seconds"] for one in measured],
        "full_seconds": full,
        "full_seconds_measured": args.baseline_dir is not None,
    }
    return result, about


def finish(planned: AuditPlan) -> None:
    """Note in the run folder that the audit is finished."""
    write_settings(planned.folder, planned.settings, finished=True)


def _begin(planned: AuditPlan) -> None:
    """Begin in the run folder, or go on there."""
    recipe = planned.recipe.sources | planned.recipe.args.given | _own_options(planned.recipe.more)
    if read_settings(planned.folder)[0]:
        write_recipe(planned.folder, recipe)
        write_settings(planned.folder, planned.settings, finished=False)
    else:
        begin_run(planned.folder, recipe, planned.settings)


def _selection(planned: AuditPlan, entry: Entry, trainer: DataSelectingTrainer) -> Selection | None:
    """The rows that a selector keeps, read back where they were chosen; `None` if it may fail and does."""
    folder, settings, ctx = planned.selection_folder(entry), planned.selection_settings(entry), trainer.context()
    if ctx.runtime.on_main(lambda: planned.selected(entry)):
        return read_selection(folder)
    selector = entry.load()
    given = planned.recipe.sources | trainer.args.given
    given |= {"selection_method": entry.method, "selection_kwargs": entry.kwargs or None}
    given |= {"selection_budget": planned.subset_rows, "output_dir": str(folder)}
    chosen: SelectionPlan = dataclasses.replace(trainer.plan, selector=selector, budget=planned.subset_rows)
    chosen.compared = settings
    try:
        selection = chosen.select(ctx, folder, given)
    except (ValueError, ImportError, OSError) as error:
        if planned.required and entry.name not in CONTROLS:
            raise
        logger.warning("`%s` is left out: %s", entry.name, explained(error))
        planned.left_out[entry.name] = explained(error)
        return None
    ctx.runtime.on_main(lambda: write_settings(folder, settings, finished=True))
    trainer.accelerator.print(selection.summary())
    return selection


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
