"""What was compared: model, data, rows, updates and dates, from what the runs recorded."""

from collections.abc import Iterable

from ..comparison.comparison import Comparison
from ..comparison.evaluated_runs import Run
from .section import Section


#: Names of a fact that are listed.
_LISTED = 3


def header(comparison: Comparison) -> Section:
    """Facts about all runs; what no run recorded is left out."""
    groups, baseline = comparison.groups, comparison.baseline
    runs = [run for group in groups for run in group.runs]
    others = [group for group in groups if group is not baseline]
    kept = [len(group.selection.indices) for group in others]
    candidates = [run.selection.candidates for run in runs]
    updates = [group.trained("updates") for group in others]
    whole = baseline and baseline.trained("updates")
    settings = list(dict.fromkeys(name for run in runs for name in run.settings))
    said = {
        "model": _names(run.selection.facts.get("model") or run.recipe.get("model_name_or_path") for run in runs),
        "data": _names(run.recipe.get("dataset_name") for run in runs),
        "rows": f"{_between(candidates)} candidates" + (f", {_between(kept)} of them kept" if kept else ""),
        "evaluated on": "; ".join(filter(None, (_names(map(_held_out, runs)), _settings(settings)))),
        "updates": "; ".join(
            ([] if not whole else [f"{whole:,.0f} of the baseline"])
            + ([] if None in updates or not updates else [f"{_between(updates)} of the others"])
        ),
        "runs": _counted(comparison),
        "trained": _between_dates([run.date for run in runs]),
    }
    return Section("What was compared", facts={name: value for name, value in said.items() if value})


def _held_out(run: Run) -> str | None:
    name = run.recipe.get("eval_dataset_name")
    return f"{name} ({len(examples):,} examples)" if name and (examples := _examples(run)) else name


def _examples(run: Run) -> list[float]:
    return next((setting.examples for setting in run.settings.values() if setting.examples), [])


def _settings(names: list[str]) -> str:
    return f"settings: {_names(names, 8)}" if names else ""


def _names(given: Iterable[str | None], listed: int = _LISTED) -> str:
    names = list(dict.fromkeys(str(name) for name in given if name))
    return ", ".join(names[:listed]) + (f" and {len(names) - listed} more" if len(names) > listed else "")


def _between(values: list[float]) -> str:
    ends = [f"{end:,.0f}" for end in (min(values), max(values))]
    return " to ".join(dict.fromkeys(ends))


def _counted(comparison: Comparison) -> str:
    runs = [run for group in comparison.groups for run in group.runs]
    methods = {group.method for group in comparison.groups}
    seeds = {run.seed for run in runs} - {None}
    parts = [f"{len(methods)} methods"] + ([f"{len(seeds)} seed{'s' * (len(seeds) > 1)}"] if seeds else [])
    return f"{len(runs)}, of {' and '.join(parts)}" if len(runs) > 1 else "1"


def _between_dates(dates: list[str | None]) -> str:
    """Days, in UTC; empty where one is not known."""
    return "" if None in dates else " to ".join(dict.fromkeys(date[:10] for date in (min(dates), max(dates))))
