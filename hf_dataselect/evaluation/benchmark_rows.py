"""Rows of a benchmark: dataset, split, filter and columns."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from datasets import ClassLabel, Dataset

from ..data.images import image_column, no_image
from ..data.load import load_rows, take_split
from ..options import nearest
from .benchmark import Benchmark


#: Column names by role, in order of preference, case-insensitive; `columns` overrides them.
COLUMNS = {
    "id": ("id", "question_id", "uid", "idx"),
    "question": ("question", "instruction", "prompt", "turns", "text", "input", "conversations", "messages"),
    "answer": ("answer", "answers", "target", "output", "response", "completion", "reference", "references"),
    "system": ("system", "system_prompt"),
    "choices": ("choices", "options"),
    "subject": ("subject", "task", "category"),
}


@dataclass(kw_only=True)
class RowsBenchmark(Benchmark):
    """
    A benchmark on the rows of a dataset.

    Args:
        dataset (`str`):
            Hub name, local folder, or .json, .jsonl, .parquet or .csv file.
        config (`str`, *optional*):
            Configuration of a dataset on the Hub.
        split (`str`, *optional*, defaults to `"test"`):
            Split, or a slice of it. In a file, the rows with this value in the column `split`; a file without such a
            column is all `test`.
        where (`dict`, *optional*):
            Only rows with this value, or one of these values, in a column: `{subject: [anatomy, virology]}`.
        limit (`int`, *optional*):
            Maximum number of rows, evenly spaced over the dataset, so that every subject of a sorted one is included.
        columns (`dict[str, str]`, *optional*):
            Column names by role, where they differ from the usual ones: `{question: stem, answer: key}`.
    """

    dataset: str
    config: str | None = None
    split: str = "test"
    where: dict[str, Any] = field(default_factory=dict)
    limit: int | None = None
    columns: dict[str, str] = field(default_factory=dict)
    #: Whether rows may have images.
    with_images: ClassVar[bool] = False

    def __post_init__(self):
        if self.limit is not None and self.limit < 1:
            raise ValueError(f"`limit={self.limit}` must be at least 1.")
        for role in self.columns:
            if role not in COLUMNS:
                raise ValueError(f"`columns`: unknown role {role!r}{nearest(role, COLUMNS)}")

    def default_name(self) -> str:
        return Path(self.dataset).name.split(".")[0] or "benchmark"

    def read(self, split: str | None = None) -> Dataset:
        """
        The rows of a split, by default `self.split`.

        Raises:
            `ValueError`: Unknown dataset, split, or column in `where`; no rows, or rows with images.
        """
        what, own = f"`benchmarks` ({self.name})", split is None
        split = self.split if split is None else split
        text, where = self.columns.values(), dict(self.where)
        if not Path(self.dataset).expanduser().is_file():
            rows = load_rows(self.dataset, self.config, split, "test", text)
        elif "split" in (rows := load_rows(self.dataset, self.config, text_columns=text)).column_names:
            where["split"] = where.get("split", split) if own else split
        elif not own:
            raise ValueError(f"{what}: {self.dataset!r} is a file without a column `split`, so without {split!r}.")
        else:
            rows = take_split({"train": rows, "test": rows}, split)
        rows = rows.with_format(None)
        for column, wanted in where.items():
            if column not in rows.column_names:
                raise ValueError(f"{what}: `where`: no column {column!r}{nearest(column, rows.column_names)}")
            wanted, values = wanted if isinstance(wanted, list) else [wanted], rows[column][:]
            if isinstance(rows.features[column], ClassLabel):
                wanted = [*wanted, *(i for i, name in enumerate(rows.features[column].names) if name in wanted)]
            rows = rows.select([i for i, value in enumerate(values) if value in wanted])
            if not len(rows):
                known = sorted({str(value) for value in values})
                raise ValueError(f"{what}: no row of {self.dataset!r} has {wanted} in `{column}`{nearest('', known)}")
        if not len(rows):
            raise ValueError(f"{what}: {self.dataset!r} has no rows.")
        if not self.with_images and image_column(rows.column_names) and not no_image(rows):
            raise ValueError(
                f"{what}: {self.dataset!r} has images, and only `kind: held_out` shows them to the model."
            )
        return rows

    def plain(self, rows: Dataset, coded: Collection[str | None] = ()) -> Iterator[dict[str, Any]]:
        """Rows in plain Python types, with the names of class labels, except in the columns `coded`."""
        names = {name: kind.names for name, kind in rows.features.items() if isinstance(kind, ClassLabel)}
        labels = {name: [*known, None] for name, known in names.items() if name not in coded}  # -1: no label
        for row in rows:
            given = {name: known[row[name]] for name, known in labels.items() if row[name] is not None}
            yield {**row, **given}

    def column(self, rows: Dataset, role: str, required: bool = True) -> str | None:
        """
        The column of `rows` with the `question`, the `answer`, ...; `None` if it is optional and missing.

        Raises:
            `ValueError`: A required column is missing.
        """
        names = {name.lower(): name for name in reversed(rows.column_names)}
        if role in self.columns:
            if self.columns[role] in rows.column_names:
                return self.columns[role]
            hint = nearest(self.columns[role], rows.column_names)
            raise ValueError(f"`benchmarks` ({self.name}): no column {self.columns[role]!r} for `{role}`{hint}")
        column = next((names[name] for name in COLUMNS[role] if name in names), None)
        if column is None and required:
            raise ValueError(
                f"`benchmarks` ({self.name}): {self.dataset!r} has the columns {', '.join(rows.column_names)}, not "
                f"{' or '.join(COLUMNS[role])}: name the column of the {role} with `columns: {{{role}: ...}}`."
            )
        return column

    def limited(self, items: Sequence[Any]) -> list[Any]:
        """`limit` of the items, evenly spaced."""
        if self.limit is None or self.limit >= len(items):
            return list(items)
        return [items[int(place)] for place in np.linspace(0, len(items) - 1, self.limit).round()]
