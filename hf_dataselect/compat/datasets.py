"""What datasets does not document."""

from typing import Any

from .installed import attribute


def fingerprint(dataset: Any) -> str:
    """
    What datasets knows the content of a dataset by, its private `_fingerprint`. Seen on datasets 5.2.0; raises
    `ImportError` where it is missing.
    """
    return attribute("datasets", dataset, "_fingerprint")


def stored_column(dataset: Any, name: str) -> Any:
    """
    A column as the table behind the dataset stores it, a [`~pyarrow.ChunkedArray`], rows that the dataset leaves out
    included: `dataset.data.column`. Seen on datasets 5.2.0; raises `ImportError` where it is missing.
    """
    return attribute("datasets", attribute("datasets", dataset, "data"), "column")(name)


def progress_is_shown() -> bool:
    """
    Whether datasets shows progress bars, see [`~datasets.disable_progress_bars`]; it says so in `datasets.utils` only.
    Seen on datasets 5.2.0; raises `ImportError` where it is missing.
    """
    import datasets.utils

    return not attribute("datasets", datasets.utils, "are_progress_bars_disabled")()
