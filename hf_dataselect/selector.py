"""
The contract: what a selector is, and what it gets.

A selector is a dataclass in a file of its own in `hf_dataselect/selectors/`; the file's name is the method's name, its
fields are the hyper-parameters, with their ranges (see [`~hf_dataselect.options`]) and the paper's defaults. It is
written as if there were one process and one device. [`~hf_dataselect.testing.check_selector`] tests one's own.
"""

import dataclasses
import inspect
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import numpy as np

from .card import Card
from .context import Context
from .data.records import Records
from .data.targets import WEIGHT, check_target_text
from .engines.forward.wants import Want
from .options import check_declared


#: What several runs may compute in parts: `featurize`, of each part of the rows as if there were no others; or the
#: cached computations of `featurize`, which gets all rows; or those of `select`, too.
Split = Literal["rows", "features", "selection"]
#: What must be given: rows with a prompt apart from the answer, rows not tokenized yet, the pending fine-tune model,
#: one all of whose weights can be tuned, target-task examples, a judge that answers in words, the logits of a judge
#: loaded here, a trainer.
Need = Literal["prompt", "text", "model", "all weights", "target", "judge", "digit logits", "training"]


@dataclass(frozen=True)
class Scores:
    """
    Quality labels, and what they were computed from, for `scores.parquet`.

    Args:
        values (`np.ndarray`):
            Quality label of each row, `(n,)`, higher is better, NaN = unscorable.
        columns (`dict[str, np.ndarray]`, *optional*):
            More numbers of each row by name, `(n,)` each.
    """

    values: np.ndarray
    columns: dict[str, np.ndarray] = field(default_factory=dict)

    @classmethod
    def of(cls, given: "np.ndarray | Scores") -> "Scores":
        """What [`Selector.score`] gives, with columns or without."""
        return given if isinstance(given, Scores) else cls(given)


class Selector(ABC):
    """
    A selection method; see the module docstring. Subclasses are dataclasses.

    | call | gives |
    |---|---|
    | `needs()` | what must be given for these options |
    | `wants()` | what is wanted of passes of the model over the rows: one pass serves all methods |
    | `check(records)`, `check_target(target)`, `check_model(config)` | nothing; raises before any weights load |
    | `featurize(records, ctx)` | stage 1: records, an array or memmap `(n, d)`, or a dict of these |
    | `score(features, ctx)` | stage 2a: float32 `(n,)`, higher is better, NaN = unscorable; or [`Scores`] |
    | `exclude(scores, features, ctx)` | stage 2b: why scored rows may not be kept, a mask `(n,)` by reason |
    | `select(scores, records, features, k, ctx)` | stage 2c: unique int64 row numbers, at most `k`, best first |
    | `describe(chosen, scores, records, features, ctx)` | nothing; enters figures of the rows kept in `ctx.account` |

    `exclude` and `select` get NaN as the score of a row that can't be kept.
    """

    card: ClassVar[Card]
    #: The budget where none is given: the paper's own. 5 % is what IFD, Superfiltering and LESS report.
    default_budget: ClassVar[float | int | str] = 0.05
    #: Whether it keeps to its default budget; the baseline keeps everything.
    fixed_budget: ClassVar[bool] = False
    #: Whether `select()` already keeps rows apart; `selection_diversity` is refused then.
    spreads_out: ClassVar[bool] = False
    #: Whether it also keeps them apart from those of `ctx.kept`; without, a schedule by which rows grow is refused.
    reads_kept: ClassVar[bool] = False
    #: Whether it takes target-task examples where they are given, though it needs none.
    takes_target: ClassVar[bool] = False
    #: Whether weights of the target's tasks count.
    weighs_tasks: ClassVar[bool] = False
    #: Names of the columns that `score` gives beside the scores; `None` where these depend on options or rows.
    columns: ClassVar[tuple[str, ...] | None] = None
    #: Whether the best `k` rows are always the first `k` of more; a budget of tokens, a threshold or groups needs it.
    nested: ClassVar[bool] = True
    #: What `--part` may split. What it needs of all rows, `ctx.of_all_parts` computes.
    splits: ClassVar[Split | None] = None
    #: Whether a row's score, and whether it may be kept, depend on no other row, and the highest scores are kept: then
    #: a stream can be scored in blocks.
    by_row: ClassVar[bool] = False
    #: The part of the rows that it can keep at most; a larger budget is refused.
    largest_part: ClassVar[float] = 1.0

    def __post_init__(self):
        """Refuse, with a `ValueError`, options out of range. A subclass that checks more calls this first."""
        check_declared(self, "selection_kwargs")

    def needs(self) -> frozenset[Need]:
        """What must be given for these options."""
        return frozenset()

    @property
    def reads_target(self) -> bool:
        """Whether target-task examples that are given count."""
        return self.takes_target or "target" in self.needs()

    @property
    def compared_by(self) -> str | None:
        """Encoder of the rows that `select` embeds as it reaches them, of which `--part` embeds all; mostly `None`."""
        return None

    def forecast(self, rows: int, target: int, kept: int) -> dict[str, int]:
        """
        What these options cost at most, by the names that an account counts by (`passes` of a [`Selection`]).

        Args:
            rows, target, kept (`int`):
                Candidate rows, target-task examples, and rows to keep.
        """
        passes = {"model": "forward_rows", "judge": "judge_calls"}
        return {name: rows for need, name in passes.items() if need in self.needs()}

    def wants(self) -> frozenset[Want]:
        """
        What these options want of passes of the pending fine-tune model, as it is, over the rows. Declared, it comes
        from one pass with what other methods want; undeclared, from a pass of its own.
        """
        return frozenset()

    def extras(self) -> dict[str, str]:
        """Packages that these options need, and the extra of this package that brings each."""
        return {}

    def check(self, records: Records) -> None:  # noqa: B027 (optional)
        """Refuse, with a `ValueError`, rows that the options don't fit; called before any model loads."""

    def check_target(self, target: Records) -> None:
        """
        Refuse, with a `ValueError`, target-task examples that the options don't fit; called with `check`. A subclass
        that checks more calls this first.
        """
        check_target_text(target)
        if not self.weighs_tasks and WEIGHT in target.dataset.column_names:
            weights = target.dataset.unique(WEIGHT)
            if len(weights) > 1:
                raise ValueError(
                    f"`selection_target`: weights of tasks have no effect on `{method_name(self)}`, which takes all "
                    "examples alike. Remove them, or select with `less`, `gist`, `bids`, `rds`, `crds`, `tsds` or "
                    "`bm25`."
                )

    def check_model(self, config: Any) -> None:  # noqa: B027 (optional)
        """
        Refuse, with a `ValueError`, a pending fine-tune model that the options don't fit, by its configuration; called
        with `check`, where that can be read without the model.
        """

    def featurize(self, records: Records, ctx: Context) -> Any:
        """Stage 1; by default the records themselves."""
        return records

    @abstractmethod
    def score(self, features: Any, ctx: Context) -> np.ndarray | Scores:
        """Stage 2a: one quality label a row."""

    def exclude(self, scores: np.ndarray, features: Any, ctx: Context) -> dict[str, np.ndarray]:
        """Stage 2b; by default every row that has a score may be kept. The first reason for a row is the one named."""
        return {}

    def select(self, scores: np.ndarray, records: Records, features: Any, k: int, ctx: Context) -> np.ndarray:
        """Stage 2c; by default the `k` highest scores, of equal ones those that the seed draws."""
        return ctx.best(scores, k)

    def describe(  # noqa: B027 (optional)
        self, chosen: np.ndarray, scores: np.ndarray, records: Records, features: Any, ctx: Context
    ) -> None:
        """Enter in `ctx.account` figures of the rows that are kept."""


def documentation(kind: type) -> str:
    """The docstring of a method's class, and those of the classes that it inherits options from."""
    own = [base for base in kind.__mro__ if dataclasses.is_dataclass(base) and base.__doc__]
    return "\n\n".join(inspect.cleandoc(base.__doc__ or "") for base in own)


def split_of(selectors: Iterable[Selector]) -> Split | None:
    """What may be computed in parts where `featurize` is that of several methods; those without a model have none."""
    given = [*selectors]
    models = [each for each in given if each.splits or each.card.llm_uses or each.needs() & {"model", "judge"}]
    kinds = {each.splits for each in models}
    return None if not kinds or None in kinds else "rows" if kinds == {"rows"} else "features"


def method_name(selector: Selector | type[Selector]) -> str:
    """The name users type: the file's for selectors of this package, `package.module:Class` for others."""
    kind = selector if isinstance(selector, type) else type(selector)
    package, _, module = kind.__module__.rpartition(".")
    return module if package == f"{__package__}.selectors" else f"{kind.__module__}:{kind.__qualname__}"
