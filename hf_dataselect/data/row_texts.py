"""A text of each row, read when it is asked for."""

from collections.abc import Callable, Iterator

import numpy as np

from .layouts import Record
from .records import Records


class RowTexts:
    """
    A text of each record: those of a million rows stay on disk.

    Args:
        records ([`Records`]):
            The rows.
        text_of (`Callable`):
            Record -> its text.
    """

    def __init__(self, records: Records, text_of: Callable[[Record], str]):
        self.records, self.text_of = records, text_of

    def __len__(self) -> int:
        return len(self.records)

    def __iter__(self) -> Iterator[str]:
        return map(self.text_of, self.records)

    def __getitem__(self, rows: np.ndarray) -> list[str]:
        numbers = rows.tolist()
        batch = self.records.texts.with_format(None)[numbers]
        return [*map(self.text_of, self.records.parser.parse(batch, numbers))]
