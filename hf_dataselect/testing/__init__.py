"""
[`check_selector`]: the contract of a selector as one test, for the methods of this package and for your own.

```python
from hf_dataselect.testing import check_selector

def test_my_selector():
    check_selector(MySelector(option=3))
```

It asserts, on a few rows: names and docstrings; what `needs()` does not name is not used; ranges of numeric options;
shape and dtype of scores, columns and masks; best rows first; same seed, same rows; permuted rows get permuted scores
and columns (unless scores depend on the seed); `by_row` rows get the same scores without the others; rows without a
score are named; equal scores are settled by the seed; options survive YAML; weights, features and random states are as
before; a dataset of one row and a budget of all rows work.

A method that needs a judge, another model or other rows gets them through `make_context` and `rows`. On several ranks,
the same call also asserts that all compute the same; a script for `accelerate launch --num_processes 2`:

```python
from accelerate import Accelerator
from hf_dataselect.testing import check_selector, tiny_context

check_selector(MySelector(), lambda: tiny_context(accelerator=Accelerator()))
```
"""

import copy
import dataclasses
import inspect
import random
from collections.abc import Callable
from typing import Any, get_args, get_type_hints

import numpy as np
import torch
import yaml
from datasets import Dataset

from ..budget import Budget
from ..context import Context
from ..data.records import Records
from ..engines.store.identity import model_identity
from ..errors import SelectionError
from ..options import declared, typed_options
from ..pipeline import select
from ..registry import load_selector, selector_class
from ..runs.files import plain
from ..selection import Selection
from ..selector import Card, Need, Scores, Selector, documentation, method_name
from .samples import sample_rows as sample_rows
from .samples import tiny_context as tiny_context


def check_selector(
    selector: Selector, make_context: Callable[[], Context] | None = None, rows: Dataset | None = None
) -> None:
    """
    Assert that a selector keeps the contract; see the module docstring.

    Args:
        selector ([`Selector`]):
            Its options must be small enough for a test, and exclude few rows.
        make_context (`Callable`, *optional*):
            Makes a new context at each call, with the same model, seed and window; by default [`tiny_context`].
        rows ([`~datasets.Dataset`], *optional*):
            A dozen rows or more that the method can score; by default [`sample_rows`].

    Raises:
        `AssertionError`: the first rule that is broken.
    """
    check = _Check(selector, make_context or tiny_context, sample_rows() if rows is None else rows)
    check.names()
    check.options()
    first = check.scores_and_rows()
    check.same_seed(first)
    check.all_rows(first)
    check.permuted_rows(first)
    check.part_of_rows(first)
    check.rows_without_score()
    check.ties(check.one_row())


@dataclasses.dataclass
class _Run:
    """What a selector returned in a run of the pipeline."""

    ctx: Context
    records: Records
    selection: Selection = dataclasses.field(init=False)
    features: Any = dataclasses.field(init=False)
    scores: np.ndarray = dataclasses.field(init=False)
    masks: dict[str, np.ndarray] = dataclasses.field(init=False)

    @property
    def usable(self) -> np.ndarray:
        """Scores as `select` got them."""
        scores = self.scores.copy()
        for rows in [*self.masks.values(), *self.records.unreadable().values()]:
            scores[rows] = np.nan
        return scores


def _arrays(features: Any) -> list[np.ndarray]:
    """Copies of the numeric arrays among features."""
    parts = features.values() if isinstance(features, dict) else [features]
    return [part.copy() for part in parts if isinstance(part, np.ndarray) and part.dtype.kind in "fiub"]


def _random_states() -> tuple:
    return torch.get_rng_state().numpy().tobytes(), str(np.random.get_state()), random.getstate()


class _Check:
    def __init__(self, selector: Any, make_context: Callable[[], Context], rows: Dataset):
        self.selector, self.make_context, self.rows = selector, make_context, rows
        self.name, self.kind = method_name(selector), type(selector)
        self.budget = max(2, len(rows) // 4)

    def run(self, rows: Dataset, budget: float | int, **changes: Any) -> _Run:
        """Select from rows, and record what the selector returns on the way."""
        made, needs = self.make_context(), self.selector.needs()
        if "model" not in needs:
            made = dataclasses.replace(made, model=None)
        if not needs & {"judge", "digit logits"}:
            made = dataclasses.replace(made, judge=None)
        run = _Run(dataclasses.replace(made, **changes), Records(rows))
        before = run.ctx.model and model_identity(run.ctx.model)
        own, recorded = self.selector, copy.copy(self.selector)

        def featurize(records: Records, ctx: Context) -> Any:
            run.features = own.featurize(records, ctx)
            return run.features

        def score(features: Any, ctx: Context) -> Any:
            given = _arrays(features)
            scores = own.score(features, ctx)
            same = all(
                np.array_equal(was, now, equal_nan=True) for was, now in zip(given, _arrays(features), strict=True)
            )
            assert same, f"`{self.name}`: score() changes the features in place"
            run.scores = np.asarray(scores.values if isinstance(scores, Scores) else scores)
            return scores

        def exclude(scores: np.ndarray, features: Any, ctx: Context) -> dict[str, np.ndarray]:
            run.masks = own.exclude(scores, features, ctx)
            return run.masks

        recorded.featurize, recorded.score, recorded.exclude = featurize, score, exclude
        run.selection = select(run.records, recorded, budget, run.ctx)
        after = run.ctx.model and model_identity(run.ctx.model)
        assert before == after, f"`{self.name}` changes the model's weights"
        return run

    def chosen(self, run: _Run, k: int, **changes: Any) -> list[int]:
        """Rows that `select` returns when called again with what it got in a run."""
        ctx = dataclasses.replace(run.ctx, **changes)
        return self.selector.select(run.usable, run.records, run.features, k, ctx).tolist()

    def names(self) -> None:
        assert dataclasses.is_dataclass(self.kind), f"`{self.name}` must be a dataclass: its fields are the options"
        assert isinstance(getattr(self.kind, "card", None), Card), f"`{self.name}` has no `card: ClassVar[Card]`"
        assert selector_class(self.name) is self.kind, f"`{self.name}` does not name the class {self.kind.__name__}"
        about = f"{inspect.getmodule(self.kind).__doc__ or ''}\n{documentation(self.kind)}"
        assert len(about.strip()) > 80, f"`{self.name}`: say in 80 characters or more, in a docstring, what it claims"
        paper = self.selector.card.paper
        assert paper is None or paper in about, f"`{self.name}`: the docstring does not name the paper"
        for field in dataclasses.fields(self.kind):
            assert field.name in about, f"`{self.name}`: the option {field.name!r} is not documented"
        needs = self.selector.needs()
        assert set(needs) <= set(get_args(Need)), f"`{self.name}`: needs() names {set(needs) - set(get_args(Need))}"
        Budget.parse(self.selector.default_budget)
        hints, ranges = get_type_hints(self.kind), declared(self.kind)
        for field in dataclasses.fields(self.kind):
            number = {int, float} & {hints[field.name], *get_args(hints[field.name])}
            assert not number or field.name in ranges, (
                f"`{self.name}`: the option {field.name!r} declares no range: see hf_dataselect.options"
            )

    def options(self) -> None:
        written = yaml.safe_load(yaml.safe_dump(plain(dataclasses.asdict(self.selector))))
        again = typed_options(self.kind, written, "selection_kwargs")
        assert again == self.selector, f"`{self.name}`: {self.selector} becomes {again} in a recipe"
        load_selector(self.selector)

    def scores_and_rows(self) -> _Run:
        states = _random_states()
        run = self.run(self.rows, self.budget)
        assert _random_states() == states, f"`{self.name}` changes a global random state"
        n, selection = len(self.rows), run.selection
        assert run.scores.dtype == np.float32 and run.scores.shape == (n,), f"`{self.name}`: scores are float32 (n,)"
        assert not np.isinf(run.scores).any(), f"`{self.name}`: a score is finite, or NaN with a reason"
        for reason, mask in run.masks.items():
            assert isinstance(reason, str) and reason, f"`{self.name}` must name a reason for what it excludes"
            assert mask.shape == (n,) and mask.dtype == bool, f"`{self.name}`: {reason!r} must have a bool mask (n,)"
            assert not mask[selection.indices].any(), f"`{self.name}` keeps rows that it excludes: {reason}"
        said = self.kind.columns
        assert said is None or set(said) == set(selection.columns), f"`{self.name}`: `columns` must name its columns"
        for name, column in selection.columns.items():
            assert column.shape == (n,), f"`{self.name}`: column {name!r} must be (n,)"
        at_most = n if self.selector.fixed_budget else self.budget
        assert len(selection.indices) <= at_most, f"`{self.name}` keeps more rows than the budget"
        kept = selection.scores[selection.indices]
        assert np.isfinite(kept).all(), f"`{self.name}` keeps rows without a score"
        if self.kind.select is Selector.select:
            assert (np.diff(kept) <= 0).all(), f"`{self.name}` must give the best rows first"
        outputs = [run.scores.tobytes(), selection.indices.tobytes(), *(mask.tobytes() for mask in run.masks.values())]
        assert run.ctx.runtime.agree(tuple(outputs)), f"`{self.name}`: the ranks compute different scores or masks"
        return run

    def same_seed(self, first: _Run) -> None:
        again = self.run(self.rows, self.budget)
        assert np.array_equal(again.scores, first.scores, equal_nan=True), f"`{self.name}`: same seed, other scores"
        rows = [run.selection.indices.tolist() for run in (first, again)]
        assert rows[0] == rows[1], f"`{self.name}`: same seed, other rows: {rows[0]} and {rows[1]}"

    def all_rows(self, first: _Run) -> None:
        n = len(self.rows)
        kept = self.chosen(first, n)
        assert len(kept) == len(set(kept)) <= n, f"`{self.name}` names a row twice for a budget of all rows"
        usable = set(np.flatnonzero(np.isfinite(first.usable)).tolist())
        assert set(kept) <= usable, f"`{self.name}` keeps rows that can't be kept"
        if not self.selector.spreads_out:
            assert set(kept) == usable, f"`{self.name}` loses rows without a reason: {sorted(usable - set(kept))}"

    def permuted_rows(self, first: _Run) -> None:
        order = np.random.default_rng(1).permutation(len(self.rows))
        seed = first.ctx.seed + 1
        run, close = self.run(self.rows.select(order), self.budget, seed=seed), {"rtol": 1e-3, "atol": 1e-3}
        if not np.allclose(run.scores, first.scores[order], **close, equal_nan=True):
            drawn = self.run(self.rows, self.budget, seed=seed).scores
            assert not np.array_equal(drawn, first.scores, equal_nan=True), (
                f"`{self.name}`: permuted rows must get permuted scores, as these do not depend on the seed"
            )
            return
        for name, column in run.selection.columns.items():
            same = np.allclose(column, first.selection.columns[name][order], **close, equal_nan=True)
            assert same, f"`{self.name}`: permuted rows must get permuted columns: {name!r}"
        counts = [{reason: int(mask.sum()) for reason, mask in which.masks.items()} for which in (first, run)]
        assert counts[0] == counts[1], f"`{self.name}` excludes {counts[0]}, and of permuted rows {counts[1]}"

    def part_of_rows(self, first: _Run) -> None:
        if not self.selector.by_row:
            return
        part = np.arange(len(self.rows) // 2, len(self.rows))
        found = self.run(self.rows.select(part), self.budget).usable
        assert np.allclose(found, first.usable[part], rtol=1e-3, atol=1e-3, equal_nan=True), (
            f"`{self.name}` declares `by_row`, and without other rows, a row gets another score or is excluded"
        )

    def rows_without_score(self) -> None:
        rows = self.rows.to_list()
        rows[2] = dict.fromkeys(rows[2])
        blank = {str: "", float: float("nan")}
        rows[5] = {name: blank.get(type(value), value) for name, value in rows[5].items()}
        run = self.run(Dataset.from_list(rows, features=self.rows.features), self.budget)
        selection = run.selection
        assert 2 not in selection.indices, f"`{self.name}` keeps a row without values"
        missing = set(np.flatnonzero(np.isnan(selection.scores)).tolist())
        named = {row for kind in (selection.unscorable, selection.dropped) for rows in kind.values() for row in rows}
        assert missing <= named, f"`{self.name}` gives no reason why rows {sorted(missing - named)} have no score"

    def one_row(self) -> Dataset:
        """A row that is kept when it is the only one."""
        for row in range(min(16, len(self.rows))):
            single = self.rows.select([row])
            try:
                kept = self.run(single, 1.0).selection.indices.tolist()
            except SelectionError:  # it may be excluded
                continue
            assert kept == [0], f"`{self.name}`: of one row, {kept} are kept"
            return single
        raise AssertionError(f"`{self.name}` keeps no row of a dataset of one row")

    def ties(self, single: Dataset) -> None:
        if self.selector.fixed_budget or self.selector.spreads_out:
            return
        try:
            run = self.run(single.select([0] * 12), 4)
        except SelectionError:
            return
        scores = run.scores[np.isfinite(run.usable)]
        if len(scores) < 12 or np.ptp(scores) > 0:
            return
        drawn = [self.chosen(run, 4, seed=seed) for seed in range(4)]
        assert drawn[0] == self.chosen(run, 4, seed=0), f"`{self.name}`: same seed, other rows of equal scores"
        assert len(set(map(tuple, drawn))) > 1, f"`{self.name}` settles equal scores by file order: use ctx.best"
        assert run.selection.facts["figures"]["rows tied at the cut"] == {"tied": 12, "kept": 4}
