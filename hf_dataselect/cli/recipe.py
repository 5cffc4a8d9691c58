"""`hf-dataselect recipe`: the recipes that come with the package."""

from collections.abc import Sequence

from ..recipe_files import FOLDER, recipe_file, recipe_names, summary_of
from .console import checked, say
from .parsers import recipe_parser


def run(argv: Sequence[str]) -> None:
    """Run the command."""
    name = recipe_parser().parse_args(argv).name
    if name is not None:
        print(checked(recipe_file, name).read_text(encoding="utf-8"), end="")
        return
    for recipe in recipe_names():
        say(f"{recipe:24} {summary_of(FOLDER / f'{recipe}.yaml')}")
