"""
Several methods as one: a weighted mean, or product, of the ranks that they give the rows, after a condition.

    r_m   = (rank of the row by method m - 1/2) / rows, among rows that every method can keep; 1 is the best
    score = sum of w_m r_m / sum of |w_m| (`how: mean`), or product of r_m^(w_m / sum of |w_m|) (`how: product`)

A negative weight prefers what a method puts last (GRAPE and IFD contradict each other). Rows that a method excludes
or can't score are excluded. Methods that read losses and states of the same model share a forward pass.

`where` keeps the rows for which an expression over columns holds: `ifd > 0.3 and tokens < 800`. It may name a method
(its score), `method.column` (one of its columns in scores.parquet), `tokens` (of the row, in the window) and columns
of the dataset that are numbers; where several have a name, it means the first of these. With one method it is a
selection by threshold of any of its columns.

Columns of scores.parquet: for each method its score, by its name, and its columns as `method.column`.

Relations: [`DEITA`] multiplies two scores themselves; [`Cascade`] runs a cheap method before a costly one.
"""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import numpy as np
from datasets import ClassLabel, Value
from scipy.stats import rankdata

from ..context import Context
from ..data.records import Records
from ..expression import Expression
from ..options import nearest
from ..registry import load_member
from ..selector import Card, Need, Scores, Selector, Split, Want, split_of


#: How the types of columns begin that are numbers.
_NUMBERS = ("int", "uint", "float", "bool", "decimal")


@dataclass
class Blend(Selector):
    """
    Args:
        members (`dict`):
            Weight of each method, `{ifd: 0.5, length: 0.5}`; or, by any name, a mapping of `method` (by default the
            name), `weight` (by default 1) and `kwargs`, its options.
        how (`str`, *optional*, defaults to `"mean"`):
            `"mean"` of ranks, or `"product"`, which a row that one method puts last can't win.
        where (`str`, *optional*):
            Condition that a row must meet, see above.
    """

    members: dict[str, Any] = field(default_factory=dict)
    how: Literal["mean", "product"] = "mean"
    where: str | None = None

    card: ClassVar[Card] = Card(
        title="rows that several methods rank high together, or for which a condition on their scores holds",
        features="those of its methods",
        label_source="weighted ranks of several methods",
        steps=("score by each method", "exclude what one excludes", "weigh the ranks", "keep the top k"),
        model_free=False,
        multi_turn="as its methods do",
        evidence="none of its own; a blend of methods that each lose to random rows has no reason to win",
    )

    def __post_init__(self):
        super().__post_init__()
        if not self.members:
            raise ValueError("`selection_kwargs`: members is empty: give weights, as in {ifd: 1, length: 1}.")
        self._weights, self._selectors = {}, {}
        for name, given in self.members.items():
            self._weights[name], self._selectors[name] = _member(name, given)
        if not any(self._weights.values()):
            raise ValueError(
                f"`selection_kwargs`: all weights of members are 0: {self._weights}. Give one another value."
            )
        self._condition = None if self.where is None else Expression(self.where, "selection_kwargs: where")

    @property
    def largest_part(self) -> float:
        """That of the method that leaves least."""
        return min(member.largest_part for member in self._selectors.values())

    @property
    def splits(self) -> Split | None:
        """Where all of its methods do."""
        return split_of(self._selectors.values())

    @property
    def takes_target(self) -> bool:
        """Whether one of its methods does."""
        return any(member.takes_target for member in self._selectors.values())

    def needs(self) -> frozenset[Need]:
        return frozenset().union(*(member.needs() for member in self._selectors.values()))

    def wants(self) -> frozenset[Want]:
        return frozenset().union(*(member.wants() for member in self._selectors.values()))

    def extras(self) -> dict[str, str]:
        return {name: extra for member in self._selectors.values() for name, extra in member.extras().items()}

    def check_target(self, target: Records) -> None:
        for member in self._selectors.values():
            if member.reads_target:
                member.check_target(target)

    def check_model(self, config: Any) -> None:
        for member in self._selectors.values():
            member.check_model(config)

    def check(self, records: Records) -> None:
        for member in self._selectors.values():
            member.check(records)
        known = {"tokens", *self._selectors, *records.dataset.column_names}
        for name in sorted(self._condition.names if self._condition else ()):
            member, _, column = name.partition(".")
            columns = self._selectors[member].columns if column and member in self._selectors else ()
            if name not in known and columns is not None and column not in columns:
                names = [*sorted(known), *(f"{member}.{other}" for other in columns)]
                near = nearest(name, names)
                raise ValueError(f"`selection_kwargs`: where={self.where!r} names {name!r}, which is no column{near}")
        for name in self._of_dataset(records):
            kind = records.dataset.features[name]
            if not (isinstance(kind, (Value, ClassLabel)) and kind.dtype.startswith(_NUMBERS)):
                raise ValueError(
                    f"`selection_kwargs`: where={self.where!r} names the column {name!r}, which holds no numbers but "
                    f"{getattr(kind, 'dtype', kind)}: name another, or cast it (`Dataset.cast_column`)."
                )

    def forecast(self, rows: int, target: int, kept: int) -> dict[str, int]:
        passes: Counter[str] = Counter()
        for member in self._selectors.values():
            passes.update(member.forecast(rows, target, kept))
        return dict(passes)

    def featurize(self, records: Records, ctx: Context) -> dict[str, Any]:
        features = {name: member.featurize(records, ctx) for name, member in self._selectors.items()}
        return {"members": features, "columns": self._columns(records, ctx)}

    def score(self, features: dict[str, Any], ctx: Context) -> Scores:
        columns, masks = self._scored(features, ctx)
        values = {name: columns[name] for name in self._selectors}
        usable = np.isfinite([*values.values()]).all(0)
        for mask in masks.values():
            usable &= ~mask
        total, score = sum(map(abs, self._weights.values())), np.full(len(usable), np.nan)
        if usable.any():
            ranks = {name: (rankdata(given[usable]) - 0.5) / usable.sum() for name, given in values.items()}
            parts = [
                self._weights[name] / total * (given if self.how == "mean" else np.log(given))
                for name, given in ranks.items()
            ]
            score[usable] = sum(parts) if self.how == "mean" else np.exp(sum(parts))
        return Scores(score.astype(np.float32), columns)

    def exclude(self, scores: np.ndarray, features: dict[str, Any], ctx: Context) -> dict[str, np.ndarray]:
        columns, masks = self._scored(features, ctx)
        if self._condition is None:
            return masks
        columns = features["columns"] | columns
        if unknown := sorted(self._condition.names - columns.keys()):
            near = nearest(unknown[0], columns)
            raise ValueError(f"`selection_kwargs`: where names {unknown[0]!r}, which is no column{near}")
        return masks | {f"not {self.where}": ~self._condition(columns) & np.isfinite(scores)}

    def _scored(self, features: dict[str, Any], ctx: Context) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """Scores and columns of all methods, and what each excludes."""
        columns, masks = {}, {}
        for name, member in self._selectors.items():
            given = Scores.of(member.score(features["members"][name], ctx))
            # As the method gets them by itself: a threshold of 4.1 is another number in float64.
            columns[name] = values = np.asarray(given.values, np.float32)
            columns |= {f"{name}.{column}": np.asarray(numbers) for column, numbers in given.columns.items()}
            excluded = member.exclude(values, features["members"][name], ctx)
            masks |= {f"{name}: {reason}": mask for reason, mask in excluded.items()}
        return columns, masks

    def _columns(self, records: Records, ctx: Context) -> dict[str, np.ndarray]:
        """Columns of the dataset that the condition names, as numbers, and the tokens of rows."""
        rows = records.dataset.with_format(None)
        columns = {name: np.array(rows[name][:], np.float64) for name in self._of_dataset(records)}
        if self._condition and "tokens" in self._condition.names - self._selectors.keys():
            encoded = ctx.encode(records, parts=True)
            columns["tokens"] = np.bincount(encoded.row, encoded.tokens.lengths, len(records)).astype(np.float64)
        return columns

    def _of_dataset(self, records: Records) -> list[str]:
        """Names in the condition that mean columns of the dataset, as no method has one and it isn't `tokens`."""
        names = self._condition.names - {"tokens", *self._selectors} if self._condition else set()
        for member, selector in self._selectors.items():
            names -= {f"{member}.{column}" for column in selector.columns or ()}
        return sorted(names & set(records.dataset.column_names))


def _member(name: str, given: Any) -> tuple[float, Selector]:
    options = dict(given) if isinstance(given, dict) else {"weight": given}
    weight, method, kwargs = options.pop("weight", 1), options.pop("method", name), options.pop("kwargs", None)
    if options:
        wrong = ", ".join(map(repr, options))
        raise ValueError(f"`selection_kwargs`: members: {name!r} has {wrong}: give `method`, `weight` and `kwargs`.")
    if isinstance(weight, bool) or not isinstance(weight, (int, float)) or not np.isfinite(weight):
        raise ValueError(f"`selection_kwargs`: members: the weight of {name!r} must be a number, got {weight!r}.")
    selector = load_member(f"members: {name}", method, kwargs)
    if isinstance(selector, Blend):
        raise ValueError(f"`selection_kwargs`: members: {name!r} is a blend itself: name its methods instead.")
    return float(weight), selector
