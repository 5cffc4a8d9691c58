"""
A cheap method before a costly one: the costly one scores only what the cheap one leaves.

    1. `prefilter` ranks all rows, and keeps the part `keep` of them.
    2. `method` scores these, and selects from them.

SDF counts all candidates, and the seconds of both methods are those of the selection, so that STR has both; what each
kept and took is among the figures. Column of scores.parquet besides those of `method`: `prefilter`, its score.

Relations: [`Blend`] runs several methods on all rows. Compute-constrained selection (arXiv 2410.16208) finds cheap
scores on the Pareto front of cost and gain, which this is a point of.
"""

import time
from collections import Counter
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, ClassVar

import numpy as np

from ..context import Context
from ..data.records import Records
from ..errors import SelectionError
from ..options import Fraction
from ..registry import load_member
from ..selector import Card, Need, Scores, Selector, Split, Want, split_of


@dataclass
class Cascade(Selector):
    """
    Args:
        method (`str`, *optional*, defaults to `"ifd"`):
            The costly method.
        kwargs (`dict`, *optional*):
            Its options.
        prefilter (`str`, *optional*, defaults to `"length"`):
            The cheap method. With a target, `"bm25"`.
        prefilter_kwargs (`dict`, *optional*):
            Its options.
        keep (`float`, *optional*, defaults to `0.3`):
            Part of the rows that it leaves. The budget can't be more.
    """

    method: str = "ifd"
    kwargs: dict[str, Any] = field(default_factory=dict)
    prefilter: str = "length"
    prefilter_kwargs: dict[str, Any] = field(default_factory=dict)
    keep: Fraction = 0.3

    card: ClassVar[Card] = Card(
        title="what a costly method keeps of the rows that a cheap one leaves",
        features="those of its methods",
        label_source="the costly method's",
        steps=("rank by the cheap method", "score what it leaves by the costly one", "keep the top k"),
        model_free=False,
        multi_turn="as its methods do",
        evidence="none of its own; see its methods",
    )

    def __post_init__(self):
        super().__post_init__()
        self._cheap = load_member("prefilter", self.prefilter, self.prefilter_kwargs)
        self._costly = load_member("method", self.method, self.kwargs)
        if isinstance(self._cheap, Cascade) or isinstance(self._costly, Cascade):
            raise ValueError("`selection_kwargs`: prefilter and method can't be a cascade themselves: name others.")

    @property
    def spreads_out(self) -> bool:
        """Whether the costly method does."""
        return self._costly.spreads_out

    @property
    def reads_kept(self) -> bool:
        """Whether the costly method does."""
        return self._costly.reads_kept

    @property
    def nested(self) -> bool:
        """Whether the costly method is."""
        return self._costly.nested

    @property
    def splits(self) -> Split | None:
        """As the costly method, where the other does too."""
        both = split_of([self._cheap, self._costly])
        return both and ("selection" if self._costly.splits == "selection" else "features")

    @property
    def compared_by(self) -> str | None:
        """As the costly method."""
        return self._costly.compared_by

    @property
    def largest_part(self) -> float:
        """What the cheap method leaves, and the costly one may keep of it."""
        return self.keep * self._costly.largest_part

    @property
    def takes_target(self) -> bool:
        """Whether one of its methods does."""
        return self._cheap.takes_target or self._costly.takes_target

    def needs(self) -> frozenset[Need]:
        return self._cheap.needs() | self._costly.needs()

    def wants(self) -> frozenset[Want]:
        return self._cheap.wants() | self._costly.wants()

    def extras(self) -> dict[str, str]:
        return self._cheap.extras() | self._costly.extras()

    def check(self, records: Records) -> None:
        self._cheap.check(records)
        self._costly.check(records)

    def check_target(self, target: Records) -> None:
        for selector in (self._cheap, self._costly):
            if selector.reads_target:
                selector.check_target(target)

    def check_model(self, config: Any) -> None:
        for selector in (self._cheap, self._costly):
            selector.check_model(config)

    def forecast(self, rows: int, target: int, kept: int) -> dict[str, int]:
        passes = Counter(self._cheap.forecast(rows, target, round(self.keep * rows)))
        passes.update(self._costly.forecast(max(1, round(self.keep * rows)), target, kept))
        return dict(passes)

    def featurize(self, records: Records, ctx: Context) -> dict[str, Any]:
        began = time.perf_counter()
        # What only the costly method wants is computed of the rows that are left, not of all.
        first = replace(ctx, wants=self._cheap.wants())
        features = first.of_all_parts(partial(self._cheap.featurize, records))
        scores, _ = _scored(self._cheap, features, first)
        usable = scores.copy()
        for mask in self._cheap.exclude(usable, features, first).values():
            usable[mask] = np.nan
        count = max(1, round(self.keep * len(records)))
        rows = np.sort(ctx.agreed(self._cheap.select(usable, records, features, count, first.whole)))
        if len(rows) == 0:
            raise SelectionError(f"`prefilter={self.prefilter!r}` leaves no row of {len(records)}.")
        seconds = time.perf_counter() - began
        left = records.subset(rows)
        part = ctx.of_rows(rows)
        costly = self._costly.featurize(left, part)
        figure = f"left {len(rows):,} of {len(records):,} rows to {self.method} in {seconds:.1f} s"
        ctx.account.figures[f"prefilter {self.prefilter}"] = figure
        return {"rows": rows, "prefilter": scores, "left": left, "features": costly}

    def score(self, features: dict[str, Any], ctx: Context) -> Scores:
        rows, n = features["rows"], len(features["prefilter"])
        values, columns = _scored(self._costly, features["features"], ctx.of_rows(rows))

        def whole(numbers: np.ndarray) -> np.ndarray:
            column = np.full(n, np.nan)
            column[rows] = numbers
            return column

        named = {name: whole(column) for name, column in columns.items()}
        return Scores(whole(values).astype(np.float32), {"prefilter": features["prefilter"], **named})

    def exclude(self, scores: np.ndarray, features: dict[str, Any], ctx: Context) -> dict[str, np.ndarray]:
        rows = features["rows"]
        filtered = np.isfinite(features["prefilter"])
        filtered[rows] = False
        masks = {f"not left by the prefilter {self.prefilter}": filtered}
        for reason, mask in self._costly.exclude(scores[rows], features["features"], ctx.of_rows(rows)).items():
            masks[reason] = np.zeros(len(scores), bool)
            masks[reason][rows] = mask
        return masks

    def select(
        self, scores: np.ndarray, records: Records, features: dict[str, Any], k: int, ctx: Context
    ) -> np.ndarray:
        rows = features["rows"]
        return rows[self._costly.select(scores[rows], features["left"], features["features"], k, ctx.of_rows(rows))]


def _scored(selector: Selector, features: Any, ctx: Context) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    given = Scores.of(selector.score(features, ctx))
    return np.asarray(given.values, np.float32), given.columns
