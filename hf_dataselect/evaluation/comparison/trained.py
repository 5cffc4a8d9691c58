"""What training did, as `eval.json` records it under `trained`, compared between runs."""

import math
from typing import Any, NamedTuple


class Figure(NamedTuple):
    """
    A figure of training.

    Args:
        label (`str`):
            What the report calls it.
        said_by (`tuple[str, ...]`, *optional*):
            Options that, where they differ, say that it differs.
    """

    label: str
    said_by: tuple[str, ...] = ()


_LENGTH = ("max_steps", "equal", "num_train_epochs")
_BATCH = ("per_device_train_batch_size", "gradient_accumulation_steps")
#: The figures that are compared, by their names in `eval.json`; tokens follow from the rows.
TRAINED = {
    "updates": Figure("optimizer updates", _LENGTH + _BATCH),
    "epochs": Figure("epochs trained", _LENGTH),
    "ranks": Figure("ranks"),
    "batch_size": Figure("effective batch size", _BATCH),
    "learning_rate": Figure("peak learning rate", ("learning_rate",)),
    "max_length": Figure("`max_length`", ("max_length",)),
}


def recorded(trained: list[dict[str, Any]], figure: str) -> list[Any]:
    """The distinct values of a figure in the runs that record it; no maximum (`None`) is one too."""
    known = [run[figure] for run in trained if figure in run]
    return list({str(value): value for value in known if value is not None or figure == "max_length"}.values())


def difference(figure: str, mine: list[Any], its: list[Any]) -> str | None:
    """
    The name of a figure and both values, if they differ.

    Args:
        figure (`str`):
            One of [`TRAINED`].
        mine, its (`list`):
            Its values in the runs of either side; a list among them are those of a run that was resumed with others.
    """
    if not mine or not its or sorted(map(str, mine)) == sorted(map(str, its)) or _alike(mine + its):
        return None
    return f"{TRAINED[figure].label} ({_listed(mine)} against {_listed(its)})"


def _alike(values: list[Any]) -> bool:
    if all(isinstance(value, (int, float)) for value in values):
        return math.isclose(min(values), max(values), rel_tol=1e-6)
    return all(value == values[0] for value in values)


def _listed(values: list[Any]) -> str:
    parts = [value if isinstance(value, list) else [value] for value in values]
    return " or ".join(", then ".join("none" if part is None else f"{part:,.6g}" for part in run) for run in parts)
