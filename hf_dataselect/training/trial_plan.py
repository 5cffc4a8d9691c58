"""What `auto` tries, and the rows that decide ([`TrialPlan`]): checked before a model loads."""

import dataclasses
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from datasets import Dataset

from ..data.load import load_rows
from ..data.records import Records
from ..data.targets import TASK
from ..errors import Checks, explained
from ..features.target_rows import columns
from ..plan import SelectionPlan
from ..selectors.auto import DEFAULTS, MOST_ROWS, Auto
from .entries import Entry, entries_of


#: Target rows from which on they decide, where nothing else is said.
ENOUGH_TARGET = 16
#: Rows below which two subsets of a pool are hardly different.
LEAST_POOL = 32


@dataclass
class TrialPlan:
    """
    Args:
        held_out ([`Records`]):
            The rows whose loss decides.
        source (`str`):
            What they are, in words.
        halved (`bool`):
            Whether they are the target: a method with a target sees one half of it, and is judged by the other.
        entries (`list[Entry]`):
            What is tried.
        required (`bool`):
            Whether the user asked for these: then one that fails ends the selection.
        rows (`int`):
            Rows that the run keeps.
        seconds (`float`, *optional*):
            What all trials may take; by default the time of training on the whole pool.
        left_out (`dict[str, str]`):
            Methods that are not tried, and why.
        weights (`np.ndarray`, *optional*):
            How much each of the rows counts, of mean 1, where they are those of several tasks; else all count alike.
    """

    held_out: Records
    source: str
    halved: bool
    entries: list[Entry]
    required: bool
    rows: int
    seconds: float | None = None
    left_out: dict[str, str] = field(default_factory=dict)
    weights: np.ndarray | None = None


def plan_trials(plan: SelectionPlan, eval_dataset: Any, model: Any) -> TrialPlan | None:
    """
    What `auto` tries, and by which rows it decides; `None` for a method that needs no trainer. Rows of their own are
    entered among those of which candidates are reported.

    Args:
        plan ([`SelectionPlan`]):
            That of the run; its selector is [`Auto`].
        eval_dataset ([`~datasets.Dataset`], *optional*):
            The rows that the run is evaluated on.
        model (`Any`):
            The model to be fine-tuned, or its name.

    Raises:
        `ValueError`: no rows to decide by, a pool that is too small, a budget of all rows, or a method that can't
            score these rows.
    """
    auto, rows = plan.selector, len(plan.records)
    if not isinstance(auto, Auto):
        return None
    if rows < LEAST_POOL:
        raise ValueError(f"`selection_method='auto'` compares subsets: {rows} rows are fewer than {LEAST_POOL}.")
    size = plan.budget.rows(rows) or rows
    if size >= rows:
        raise ValueError(f"`selection_budget={plan.budget}` keeps all rows, whatever the method: choose `full`.")
    given, required = entries_of(auto.methods), auto.methods != list(DEFAULTS)
    checks, entries, left_out = Checks(), [], {}
    held_out, source, halved = _deciding(auto.held_out, plan, eval_dataset)
    for entry in given:
        try:
            _check(entry, plan, size, model)
            entries.append(entry)
        except (ValueError, ImportError, OSError) as error:
            if required:
                checks.errors.append(error)
            left_out[entry.name] = explained(error)
    checks.finish()
    if held_out.name == "held_out":
        plan.held_out["held_out"] = held_out
    shares = columns(held_out, "examples").shares if halved else None
    weights = None if shares is None else shares / shares.mean()
    return TrialPlan(held_out, source, halved, entries, required, size, auto.auto_budget, left_out, weights)


def _check(entry: Entry, plan: SelectionPlan, size: int, model: Any) -> None:
    selector = entry.load()
    if "training" in selector.needs() or selector.fixed_budget:
        raise ValueError(f"`methods`: {entry.name!r} can't be tried: it keeps every row, or trains by itself.")
    chosen = dataclasses.replace(plan, selector=selector, budget=size)
    chosen.check(model)


def _deciding(named: str | None, plan: SelectionPlan, eval_dataset: Any) -> tuple[Records, str, bool]:
    """The rows that decide, what they are, and whether they are the target."""
    target, text_field = plan.target, plan.records.text_field
    evaluated = None
    if isinstance(eval_dataset, Dataset):
        evaluated = Records(eval_dataset, text_field, plan.records.formatting_func, name="eval_dataset")
    if named == "target" and target is None:
        raise ValueError("`selection_kwargs`: held_out='target' needs `selection_target`.")
    halved = named == "target" or named is None and target is not None and len(target) >= ENOUGH_TARGET
    if named not in (None, "target", "eval"):
        given, what = Records(load_rows(str(named)), text_field, name="held_out"), f"{named!r}"
    elif halved:
        given, what = target, "`selection_target`"
    else:
        given, what = evaluated, "`eval_dataset`"
    if given is None:
        raise ValueError(
            "`selection_method='auto'` decides by the loss of held-out rows: give one `eval_dataset` "
            f"(`eval_dataset_name`), a `selection_target` of {ENOUGH_TARGET} rows or more, or `selection_kwargs` "
            "{held_out: FILE}."
        )
    if given.layout == "tokens":
        raise ValueError(f"`selection_method='auto'` reads texts: give the rows of {what} untokenized.")
    if len(given) < 2:
        raise ValueError(f"`selection_method='auto'` can't decide by the single row of {what}.")
    also = ", on which the run is evaluated, too" if given.content_hash() == _content(evaluated) else ""
    drawn = np.random.default_rng(plan.seed).permutation(len(given))
    by_task = halved and TASK in given.dataset.column_names
    if by_task:  # in turn, so that none is left out
        place: Counter[str] = Counter()
        turn = [place.update([task]) or place[task] for task in np.array(given.dataset[TASK])[drawn].tolist()]
        drawn = drawn[np.argsort(turn, kind="stable")]
    kept = np.sort(drawn[:MOST_ROWS])
    some = Records(given.dataset.select(kept), text_field, given.formatting_func, name=given.name)
    counted = ", each task by its weight" if by_task else ""
    return some, f"{len(kept)} of {len(given)} rows of {what}{also}{counted}", halved


def _content(records: Records | None) -> str | None:
    return records and records.content_hash()
