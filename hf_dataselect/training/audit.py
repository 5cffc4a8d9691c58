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
    usable, excluded = trainable(trainer.records, ctx)
    check_size(found.subset_rows, len(usable), given.subset_rows)
    subsets = [drawn_subset(usable, found.subset_rows, args.seed, number) for number in range(given.subsets)]
    subsets = ctx.runtime.broadcast(subsets)

    selections = {entry.name: _selection(found, entry, trainer) for entry in list(found.entries)}
    selections = {name: selection for name, selection in selections.items() if selection is not None}
    losses = [
        TrainedLosses(trainer, found.held_out, found.folder, args.seed + number) for number in range(given.top_seeds)
    ]
    untrained = losses[0].untrained()
    measured = losses[0].measure(subsets, "Random subset")
    tops = {name: np.intersect1d(selection.indices, usable) for name, selection in selections.items()}
    trained = [loss.measure(list(tops.values()), f"Top rows, seed {loss.seed}:") for loss in losses]

    full = full_seconds(args, measured, len(usable) / found.subset_rows)
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


def _selection(found: AuditPlan, entry: Entry, trainer: DataSelectingTrainer) -> Selection | None:
    """The rows that a selector keeps, read back where they were chosen; `None` if it may fail and does."""
    folder, settings, ctx = found.selection_folder(entry), found.selection_settings(entry), trainer.context()
    if ctx.runtime.on_main(lambda: found.selected(entry)):
        return read_selection(folder)
    selector = entry.load()
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
