"""`hf-dataselect select`: select without training; writes `selection.json`, `scores.parquet`, `selected.parquet`."""

from collections.abc import Sequence
from pathlib import Path

from ..engines.runtime.part import Part
from ..engines.store.files import written_atomic
from ..runs.files import SELECTED
from ..runs.publish import push_selected, selected_dataset
from ..training.dry_run import forecast_run
from ..training.recipe import check_hub, check_without_training, parse_recipe, prepare_selection, subset_repo
from .console import alone_in, checked, log_to_console, refuse, say, without_dry_run, without_part


def run(argv: Sequence[str]) -> None:
    """Run the command."""
    log_to_console()
    argv, dry_run = without_dry_run(argv)
    argv, given = without_part(argv)
    part = None if given is None else checked(Part.parse, given)
    if dry_run and part is not None:
        refuse(
            f"`--part {part}` with `--dry_run`: the forecast is that of all parts together. Leave out one of the two."
        )
    recipe = checked(parse_recipe, argv, "select")
    checked(check_without_training, recipe.args)
    if dry_run:
        say("\n".join(checked(forecast_run, recipe, train=False)))
        return
    if part is not None:
        _, _, compute, is_main = checked(prepare_selection, recipe, part)
        passes = compute()
        if is_main:
            computed = {name.replace("_", " "): count for name, count in passes.items() if count}
            computed.pop("cached rows", None)
            counts = ", ".join(f"{count:,} {name}" for name, count in computed.items())
            say(f"Part {part} is computed: {counts or 'nothing was left'}.")
        return
    checked(check_hub, recipe.args, train=False)
    with alone_in(recipe.args.output_dir):
        rows, _, choose, is_main = checked(prepare_selection, recipe)
        selection = choose()
        if not is_main:
            return
        folder = Path(recipe.args.output_dir)
        with written_atomic(folder / SELECTED) as temporary:
            selected_dataset(rows, selection).to_parquet(temporary)
        print(selection.summary())
        say(f"Rows: {folder / SELECTED}")
        if repo := subset_repo(recipe.args, train=False):
            args, resolved = recipe.args, recipe.sources | recipe.args.given
            private, (option, name) = args.hub_private_repo is not False, repo
            push_selected(rows, selection, resolved, name, private, args.hub_token, option, folder / SELECTED)
