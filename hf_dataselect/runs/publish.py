"""A selected subset as a dataset, and the card that says how to reproduce it."""

import json
from typing import Any

from datasets import Dataset
from huggingface_hub import DatasetCard

from ..errors import printable
from ..selection import SHOWN_REASONS, Selection
from .files import plain
from .folder import recipe_text
from .secrets import without_secrets


def selected_dataset(dataset: Dataset, selection: Selection) -> Dataset:
    """Rows kept, best first, with all columns of the candidate dataset, `selection_row` and `selection_score`."""
    rows = selection.indices
    subset = dataset.with_format(None).select(rows)
    earlier = [name for name in ("selection_row", "selection_score") if name in subset.column_names]
    subset = subset.remove_columns(earlier).flatten_indices()  # of an earlier selection
    return subset.add_column("selection_row", rows).add_column("selection_score", selection.scores[rows])


def selection_card(selection: Selection, recipe: dict[str, Any]) -> str:
    """Model or dataset card, in Markdown: rows kept, cost, and the recipe that repeats the selection."""
    lines = [
        "## Data selection",
        "",
        f"Rows selected with the method `{selection.method}` of hf_dataselect.",
        "",
        "| | |",
        "|---|---|",
        f"| rows kept (SDF) | {len(selection.indices):,} of {selection.candidates:,} ({selection.sdf:.4f}) |",
        f"| selection time | {selection.seconds:.1f} s |",
        f"| options | `{json.dumps(without_secrets(plain(selection.options)))}` |",
    ]
    for kind in ("unscorable", "dropped", "truncated"):
        for reason, rows in list(getattr(selection, kind).items())[:SHOWN_REASONS]:
            lines.append(f"| {kind} | {len(rows):,} rows: {reason} |")
    facts = {name: value for name, value in selection.facts.items() if value is not None}
    lines += [f"| {name.replace('_', ' ')} | {value} |" for name, value in facts.items()]
    lines += ["", "To repeat it: `hf-dataselect select --config recipe.yaml` with"]
    lines += ["", "```yaml", recipe_text(recipe).rstrip(), "```", ""]
    return printable("\n".join(lines))


def push_selected(dataset: Dataset, selection: Selection, recipe: dict[str, Any], repo: str, private: bool = True):
    """
    Push the subset and its card to the Hub as a dataset repository.

    Args:
        repo (`str`):
            `user/name`.
        private (`bool`, *optional*, defaults to `True`):
            Private by default: the rows may not be yours to publish.
    """
    selected_dataset(dataset, selection).push_to_hub(repo, private=private)
    try:
        card = DatasetCard.load(repo)
    except OSError:  # no card yet
        card = DatasetCard("---\n{}\n---\n")
    card.data.tags = sorted({*(card.data.get("tags") or []), "hf_dataselect"})
    card.text = f"# Subset selected with {selection.method}\n\n" + selection_card(selection, recipe)
    card.push_to_hub(repo, repo_type="dataset")
