"""
Keep the rows that score highest in a column of the dataset: ratings of people, of a judge, or of another tool.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ..context import Context
from ..data.columns import check_column, number_of
from ..data.records import Records
from ..options import Number
from ..selector import Card, Selector


@dataclass
class Column(Selector):
    """
    Args:
        name (`str`, *optional*, defaults to `"score"`):
            The column: numbers, or text that is a number. Missing and unparsable values are unscorable.
        higher_is_better (`bool`, *optional*, defaults to `True`):
            `False` keeps the lowest.
        threshold (`float`, *optional*):
            Value of the column that a row must reach (that it must not exceed, with `higher_is_better: false`); the
            budget still caps how many are kept.
    """

    name: str = "score"
    higher_is_better: bool = True
    threshold: Number | None = None

    card: ClassVar[Card] = Card(
        title="best rows by an existing score column",
        features="human-designed",
        label_source="a column of the dataset",
        steps=("read the column", "keep the top k"),
    )
    by_row: ClassVar[bool] = True
    columns: ClassVar[tuple[str, ...] | None] = ()

    def check(self, records: Records) -> None:
        check_column("name", self.name, records.dataset)

    def featurize(self, records: Records, ctx: Context) -> np.ndarray:
        values = np.array([number_of(value) for value in records.dataset.with_format(None)[self.name][:]], np.float32)
        ctx.account.note("unscorable", f"no number in `{self.name}`", np.flatnonzero(~np.isfinite(values)))
        return np.where(np.isfinite(values), values, np.nan).astype(np.float32)

    def score(self, features: np.ndarray, ctx: Context) -> np.ndarray:
        return features if self.higher_is_better else -features

    def exclude(self, scores: np.ndarray, features: np.ndarray, ctx: Context) -> dict[str, np.ndarray]:
        if self.threshold is None:
            return {}
        limit = self.threshold if self.higher_is_better else -self.threshold
        return {f"worse than the threshold {self.threshold:g}": scores < limit}
