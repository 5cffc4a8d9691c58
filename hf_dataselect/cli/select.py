"""`hf-dataselect select`: select without training; writes `selection.json`, `scores.parquet`, `selected.parquet`."""

from collections.abc import Sequence
from pathlib import Path

from ..runs.publish import push_selected, selected_dataset
from ..training.recipe import parse_recipe, prepare_selection
from .console import checked, log_to_console


def run(argv: Sequence[str]) -> None:
    """Run the command."""
    log_to_console()
    recipe = checked(parse_recipe, argv, "select")
    plan, choose, is_main = checked(prepare_selection, recipe)
    selection = choose()
    if not is_main:
        return
    rows, folder = plan.records.dataset, Path(recipe.args.output_dir)
    selected_dataset(rows, selection).to_parquet(folder / "selected.parquet")
    print(selection.summary())
    print(f"Rows: {folder / 'selected.parquet'}")
    if recipe.args.push_to_hub:
        resolved = recipe.sources | recipe.args.given
        push_selected(rows, selection, resolved, recipe.args.hub_model_id or folder.name)
