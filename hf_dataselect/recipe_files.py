"""The recipes that come with the package: YAML files, found by name (`ifd`, `scenarios/target`) in every command."""

from pathlib import Path
from typing import Any

from .options import nearest


_INSTALLED = Path(__file__).resolve().parent / "recipes"
#: Where they are: in the package once it is installed, at the top level of the repository otherwise.
FOLDER = _INSTALLED if _INSTALLED.is_dir() else _INSTALLED.parents[1] / "recipes"


def recipe_names(folder: str = "") -> list[str]:
    """Names of all recipes, or of those of a folder, as they are typed: without `.yaml`."""
    return sorted(
        path.relative_to(FOLDER / folder).with_suffix("").as_posix() for path in (FOLDER / folder).rglob("*.yaml")
    )


def recipe_file(name: str) -> Path:
    """
    The file that `--config` names: a path, or the name of a recipe.

    Raises:
        `ValueError`: there is neither; the message has the nearest right name.
    """
    path = Path(beside_recipes(name)).expanduser()
    if path.is_file() or path.suffix in (".yaml", ".yml") or name.startswith(("/", ".", "~")):
        return path
    packaged = FOLDER / f"{name}.yaml"
    if not packaged.is_file():
        raise ValueError(f"`{name}` is neither a file nor a recipe{nearest(name, recipe_names())}")
    return packaged


def beside_recipes(value: Any) -> Any:
    """
    A value of a recipe, or a mapping or list of them; a path `recipes/...` that is not in the working folder is that
    of the package.
    """
    if isinstance(value, dict):
        return {name: beside_recipes(item) for name, item in value.items()}
    if isinstance(value, list):
        return [beside_recipes(item) for item in value]
    if isinstance(value, str) and value.startswith("recipes/") and not Path(value).exists():
        packaged = FOLDER / value.removeprefix("recipes/")
        return str(packaged) if packaged.exists() else value
    return value


def summary_of(path: Path) -> str:
    """First sentence of the comment that a recipe begins with."""
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#") or line.startswith("#     ") or not line.strip("# "):
            break
        lines.append(line.strip("# "))
    text = " ".join(lines)
    return text.partition(". ")[0].rstrip(".:")
