"""A selected subset as a dataset of its own, with a card that says how to get it again."""

import json
from typing import Any

import yaml
from datasets import Dataset
from huggingface_hub import DatasetCard

from ..data.records import Records
from ..selection import SHOWN_REASONS, Selection
from .folder import plain


def selected_dataset(records: Records, selection: Selection) -> Dataset:
    """
    Rows kept, best first, in the columns they came with, and `selection_row` (place in the candidate dataset) and
    `selection_score`.
    """
    rows = selection.indices
    subset = records.dataset.with_format(None).select(rows)
    earlier = [name for name in ("selection_row", "selection_score") if name in subset.column_names]
    subset = subset.remove_columns(earlier).flatten_indices()  # of a selection that these rows came from
    return subset.add_column("selection_row", rows).add_column("selection_score", selection.scores[rows])


def selection_card(selection: Selection, recipe: dict[str, Any]) -> str:
    """Markdown: what was kept, of what, at what cost, and the recipe that repeats it."""
    lines = [
        "## Data selection",
        "",
        f"Rows chosen by the method `{selection.method}` of hf_dataselect.",
        "",
        "| | |",
        "|---|---|",
        f"| rows kept (SDF) | {len(selection.indices):,} of {selection.candidates:,} ({selection.sdf:.4f}) |",
        f"| selection time | {selection.seconds:.1f} s |",
        f"| options | `{json.dumps(plain(selection.options))}` |",
    ]
    for kind in ("unscorable", "dropped", "truncated"):
        for reason, rows in list(getattr(selection, kind).items())[:SHOWN_REASONS]:
            lines.append(f"| {kind} | {len(rows):,} rows: {reason} |")
    facts = {name: value for name, value in selection.facts.items() if value is not None}
    lines += [f"| {name.replace('_', ' ')} | {value} |" for name, value in facts.items()]
    recipe = yaml.safe_dump(plain(recipe), sort_keys=False, allow_unicode=True)
    lines += ["", "To repeat it: `hf-dataselect select --config recipe.yaml` with"]
    lines += ["", "```yaml", recipe.rstrip(), "```", ""]
    return "\n".join(lines)


def push_selected(records: Records, selection: Selection, recipe: dict[str, Any], repo: str, private: bool = True):
    """
    Push the subset and its card to the hub as a dataset repository.

    Args:
        repo (`str`):
            `user/name`.
        private (`bool`, *optional*, defaults to `True`):
            Whether others may not see it: the rows may not be yours to publish.
    """
    selected_dataset(records, selection).push_to_hub(repo, private=private)
    try:
        card = DatasetCard.load(repo)
    except OSError:  # no card yet
        card = DatasetCard("---\n{}\n---\n")
    card.data.tags = sorted({*(card.data.get("tags") or []), "hf_dataselect"})
    card.text = f"# Subset chosen by {selection.method}\n\n" + selection_card(selection, recipe)
    card.push_to_hub(repo, repo_type="dataset")
