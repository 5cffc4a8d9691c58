"""A selected subset as a dataset, and the card that says how to reproduce it."""

import json
from pathlib import Path
from typing import Any

from datasets import Dataset
from huggingface_hub import DatasetCard, HfApi
from huggingface_hub.errors import EntryNotFoundError

from ..errors import printable
from ..selection import SHOWN_REASONS, Selection
from .files import plain
from .folder import recipe_text
from .hub import pushing
from .secrets import without_secrets


def selected_dataset(dataset: Dataset, selection: Selection) -> Dataset:
    """Rows kept, best first, with all columns of the candidate dataset, `selection_row` and `selection_score`."""
    return numbered(dataset.with_format(None).select(selection.indices), selection)


def numbered(subset: Dataset, selection: Selection) -> Dataset:
    """The rows of a selection with `selection_row` and `selection_score`."""
    rows = selection.indices
    earlier = [name for name in ("selection_row", "selection_score") if name in subset.column_names]
    subset = subset.remove_columns(earlier).flatten_indices()  # of an earlier selection
    return subset.add_column("selection_row", rows).add_column("selection_score", selection.scores[rows])


def selection_card(selection: Selection, recipe: dict[str, Any]) -> str:
    """Model or dataset card, in Markdown: rows kept, cost, and the recipe that repeats the selection."""
    first = " at first" if str(recipe.get("selection_schedule") or "once").lower() != "once" else ""
    lines = [
        "## Data selection",
        "",
        f"Rows selected with the method `{selection.method}` of hf_dataselect.",
        "",
        "| | |",
        "|---|---|",
        f"| rows kept{first} (SDF) | {len(selection.indices):,} of {selection.candidates:,} ({selection.sdf:.4f}) |",
        f"| selection time | {selection.seconds:.1f} s |",
        f"| options | `{json.dumps(without_secrets(plain(selection.options)))}` |",
    ]
    for kind in ("unscorable", "dropped", "truncated"):
        for reason, rows in list(getattr(selection, kind).items())[:SHOWN_REASONS]:
            lines.append(f"| {kind} | {len(rows):,} rows: {reason} |")
    facts = {name: value for name, value in selection.facts.items() if value is not None}
    lines += [f"| {name.replace('_', ' ')} | {value} |" for name, value in facts.items()]
    lines += ["", *_repeated(selection, recipe), "", "```yaml", recipe_text(recipe).rstrip(), "```", ""]
    return printable("\n".join(lines))


def _repeated(selection: Selection, recipe: dict[str, Any]) -> list[str]:
    """How to repeat the selection: what a script held has to be saved, since no recipe names it."""
    command, saved = "hf-dataselect select --config recipe.yaml", []
    for option, rows in {"dataset_name": "candidates", "selection_target": "target"}.items():
        if recipe.get(option) or (rows == "target" and not selection.facts.get("target")):
            continue
        command += f" --{option} {rows}.parquet"
        known = selection.facts.get({"candidates": "dataset"}.get(rows, rows))
        saved.append(f'`{rows}.to_parquet("{rows}.parquet")` (content {known})')
    if not recipe.get("model_name_or_path"):
        command += " --model_name_or_path MODEL"
    lines = [f"The script held rows: save them there by {' and '.join(saved)}.", ""] if saved else []
    return [*lines, "To repeat it, with this as `recipe.yaml`:", "", "```bash", command, "```"]


def push_selected(
    dataset: Dataset,
    selection: Selection,
    recipe: dict[str, Any],
    repo: str,
    private: bool = True,
    token: str | None = None,
    option: str = "hub_subset_id",
    kept: Path | None = None,
) -> None:
    """
    Push the subset and its card to the Hub as a dataset repository.

    Args:
        repo (`str`):
            `user/name`.
        private (`bool`, *optional*, defaults to `True`):
            Private by default: the rows may not be yours to publish.
        token (`str`, *optional*):
            That of the user; by default the one that is logged in.
        option (`str`, *optional*):
            The option that names the repository, for errors.
        kept (`Path`, *optional*):
            Where the rows are on this machine, for errors.

    Raises:
        [`HubError`]: The Hub is not reached, or refuses.
    """
    with pushing(option, repo, kept):
        selected_dataset(dataset, selection).push_to_hub(repo, private=private, token=token)
        try:
            card = DatasetCard.load(repo, token=token)
        except EntryNotFoundError:  # no card yet
            card = DatasetCard("---\n{}\n---\n")
        card.data.tags = sorted({*(card.data.get("tags") or []), "hf_dataselect"})
        card.text = f"# Subset selected with {selection.method}\n\n" + selection_card(selection, recipe)
        written = printable(str(card)).encode()  # as `push_to_hub` of the card asks another host than `HF_ENDPOINT`
        HfApi(token=token).upload_file(
            path_or_fileobj=written, path_in_repo="README.md", repo_id=repo, repo_type="dataset"
        )
