"""
Keep the rows that are highest, or lowest, in one human-designed feature: length, lexical diversity, readability.

{table}

{words}

They cost almost nothing and are controls that a learned selector has to beat.

Relations: [`Length`] is `tokens` (arXiv 2402.04833); [`Column`] ranks by a column of the dataset.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from ..context import Context
from ..data.records import Records
from ..features import text_statistics as human
from ..features.text_statistics import FEATURES, answer_tokens, feature_table, text_feature
from ..options import Number, nearest
from ..selector import Card, Need, Selector, Split


__doc__ = __doc__.format(table=feature_table(), words=human.__doc__.partition("\n\n")[2].strip())


@dataclass
class Indicator(Selector):
    """
    Args:
        name (`str`, *optional*, defaults to `"words"`):
            The feature; see the table above.
        of (`str`, *optional*, defaults to `"answer"`):
            Of which text: the `"answer"` (all of them in a row of several turns) or the `"prompt"`.
        prefer (`str`, *optional*, defaults to `"high"`):
            `"high"` or `"low"` values.
        minimum, maximum (`float`, *optional*):
            Rows below or above are excluded.
    """

    name: str = "words"
    of: Literal["answer", "prompt"] = "answer"
    prefer: Literal["high", "low"] = "high"
    minimum: Number | None = None
    maximum: Number | None = None

    card: ClassVar[Card] = Card(
        title="highest or lowest in one feature of the text: length, lexical diversity, readability",
        features="human-designed",
        label_source="a number read off the text",
        steps=("measure the text", "keep the top k"),
        multi_turn="all assistant turns, one below the other",
    )
    by_row: ClassVar[bool] = True
    splits: ClassVar[Split | None] = "rows"
    columns: ClassVar[tuple[str, ...] | None] = ()

    def __post_init__(self):
        super().__post_init__()
        if self.name not in FEATURES:
            raise ValueError(f"`selection_kwargs`: name={self.name!r} is not a feature{nearest(self.name, FEATURES)}")
        if self.name == "tokens" and self.of == "prompt":
            raise ValueError("`selection_kwargs`: name='tokens' counts those of the answer; of='prompt' has 'words'.")
        if None not in (self.minimum, self.maximum) and self.minimum > self.maximum:
            raise ValueError(f"`selection_kwargs`: minimum={self.minimum} is above maximum={self.maximum}.")

    def needs(self) -> frozenset[Need]:
        return frozenset({"text"})

    def extras(self) -> dict[str, str]:
        return FEATURES[self.name].extras

    def featurize(self, records: Records, ctx: Context) -> np.ndarray:
        if self.name == "tokens":
            return answer_tokens(records, ctx)
        return text_feature(self.name, records, ctx, of_prompt=self.of == "prompt")

    def score(self, features: np.ndarray, ctx: Context) -> np.ndarray:
        return (features if self.prefer == "high" else -features).astype(np.float32)

    def exclude(self, scores: np.ndarray, features: np.ndarray, ctx: Context) -> dict[str, np.ndarray]:
        low = features < (-np.inf if self.minimum is None else self.minimum)
        high = features > (np.inf if self.maximum is None else self.maximum)
        return {f"{self.name} below {self.minimum}": low, f"{self.name} above {self.maximum}": high}
