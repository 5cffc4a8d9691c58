"""What is audited ([`plan_audit`]): checked before a model loads."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..compat.sharding import sharding_by_args
from ..data.records import Records
from ..data.targets import load_target
from ..errors import Checks, explained
from ..evaluation.audit.findings import CONTROLS
from ..pipeline import needs_of
from ..registry import load_selector, method_names
from ..runs.files import plain
from ..runs.folder import read_settings
from ..runs.secrets import without_secrets
from .entries import Entry
from .inputs import prepare_benchmarks, selection_plan
from .recipe import Recipe, load_sources
from .run_settings import refuse_options_of_one_run, refuse_other_settings, shared_settings


_INSTEAD = {
    "selection_method": "`methods`",
    "selection_kwargs": "`methods` with options",
    "selection_budget": "`subset_rows`",
    "selection_budget_by": "`subset_rows`",
    "selection_policy": "none",
    "selection_schedule": "none",
    "guard_dataset": "none",
}
#: Methods that are audited where they are named, and why.
_BY_NAME = {"nuggets": "it takes a pass for each pair of a row and a task, which costs more than all trainings"}


@dataclass
class AuditPlan:
    """
    An audit, checked before a model loads.

    Args:
        recipe ([`Recipe`]):
            Its options.
        records, held_out ([`Records`]):
            The pool, and the evaluation rows.
        subset_rows (`int`):
            Rows of a subset.
        entries (`list[Entry]`):
            The selectors.
        required (`bool`):
            Whether the user asked for these: then one that fails ends the audit.
        left_out (`dict[str, str]`):
            Methods that are not audited, and why.
        settings (`dict`):
            What decides the results.
    """

    recipe: Recipe
    records: Records
    held_out: Records
    subset_rows: int
    entries: list[Entry]
    required: bool
    left_out: dict[str, str]
    settings: dict[str, Any]

    @property
    def folder(self) -> Path:
        """The run folder."""
        return Path(self.recipe.args.output_dir)

    def selection_folder(self, entry: Entry) -> Path:
        """Where the rows that a selector keeps are written to."""
        return self.folder / "selections" / entry.name

    def selection_settings(self, entry: Entry) -> dict[str, Any]:
        """What decides which these are."""
        options = dataclasses.asdict(entry.load())
        return self.settings | without_secrets(plain({"selection_method": entry.method, "selection_kwargs": options}))

    def selected(self, entry: Entry) -> bool:
        """
        Whether these are known.

        Raises:
            `ValueError`: the folder holds those of other settings.
        """
        held, finished = read_settings(self.selection_folder(entry))
        if held:
            refuse_other_settings(self.selection_folder(entry), held, self.selection_settings(entry))
        return finished


def plan_audit(recipe: Recipe) -> AuditPlan:
    """
    The audit of a recipe.

    Raises:
        `ValueError`: a wrong option, a selector that can't score these rows, no held-out rows, a pool too small for
            different subsets, or a folder that holds another audit; all selectors' errors at once.
    """
    args, given = recipe.args, recipe.more
    refuse_options_of_one_run(args, _INSTEAD, "an audit")
    if sharding := sharding_by_args(args):
        raise ValueError(
            f"An audit trains one model again and again, which has not been run under {sharding}: launch it without "
            "sharding."
        )
    rows, held_out = load_sources(recipe)
    if held_out is None:
        raise ValueError("`eval_dataset_name` is required: the rows whose loss scores are to predict.")
    records = Records(rows, args.dataset_text_field)
    if records.layout == "tokens":
        raise ValueError("`dataset_name` holds token ids: give its rows untokenized.")
    held_out = Records(held_out, args.dataset_text_field, name="eval_dataset")
    size = given.subset_rows or max(8, round(0.025 * len(records)))
    check_size(size, len(records), given.subset_rows)
    target = load_target(args.selection_target, records)

    def check(entry: Entry) -> None:
        selector = entry.load()
        if selector.fixed_budget:
            raise ValueError(f"`{entry.method}` keeps every row: it has nothing to predict.")
        if "training" in selector.needs():
            raise ValueError(f"`{entry.method}` chooses among others by trainings of its own: audit those.")
        chosen = dataclasses.replace(selection_plan(args, records, target, selector), budget=size)
        chosen.check(recipe.model.model_name_or_path, args.runtime(None).cache_dir)

    checks, left_out, entries = Checks(), {}, list(given.entries)
    for entry in entries:
        checks(check, entry)
    checks.finish()
    named = {entry.name for entry in entries}
    optional = [name for name in CONTROLS if name not in named]
    optional += [] if entries else [name for name in method_names() if name not in CONTROLS]
    for name in optional:
        try:
            entry = Entry(name, name, {})
            reason = "it asks a judge" if "judge" in needs_of(load_selector(name), None) else _BY_NAME.get(name)
            if reason:
                raise ValueError(f"{reason}: name it in `methods` to have it audited.")
            check(entry)
            entries.append(entry)
        except (ValueError, ImportError, OSError) as error:
            left_out[name] = explained(error)
    settings = shared_settings(recipe, records, held_out.dataset, target, prepare_benchmarks(args, None))
    settings = without_secrets(plain(settings | {"subset_rows": size, "seed": args.seed}))
    planned = AuditPlan(recipe, records, held_out, size, entries, bool(given.entries), left_out, settings)
    held, _ = read_settings(planned.folder)
    if held:
        refuse_other_settings(planned.folder, held, settings)
        for entry in entries:
            planned.selected(entry)
    elif any((planned.folder / name).exists() for name in ("selection.json", "subsets.jsonl")):
        raise ValueError(f"`output_dir`: {planned.folder} holds another run: choose another folder.")
    return planned


def check_size(size: int, rows: int, given: int | None) -> None:
    """Raise `ValueError` for subsets of more than half of the rows, which hardly differ."""
    if 2 * size > rows:
        raise ValueError(
            f"`subset_rows={given or size}`: {rows} rows can be trained on, and different subsets need twice "
            "`subset_rows`."
        )
