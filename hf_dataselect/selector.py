"""
The contract: what a selector is, what it gets, and `select()`, the paper (arXiv 2406.14115) on one screen.

A selector is a dataclass in a file of its own in `hf_dataselect/selectors/`; the file's name is the method's name, its
fields are the hyper-parameters. It is written as if there were one process and one device.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from .context import Context
from .data.records import Records


#: Part of the rows kept where no `selection_budget` is given (IFD, Superfiltering and LESS report 5 %).
DEFAULT_BUDGET = 0.05


@dataclass(frozen=True)
class Card:
    """
    Facts about a method, for `hf-dataselect methods`, the README table and the feasibility ranks (paper, Table 3).

    Args:
        title (`str`):
            One line: what is kept.
        paper (`str`, *optional*):
            arXiv id.
        features (`str`):
            Kind of feature (paper, section 3): none, human-designed or model-oriented.
        label_source (`str`):
            Where the quality label comes from.
        trained_llms (`int`):
            Language models trained to build the selector.
        small_llm (`bool`):
            Whether those are small ones, as GPT-2 is beside the pending fine-tune model.
        steps (`tuple[str]`):
            Steps of the selection algorithm.
        llm_uses (`int`):
            Steps that run a language model.
        code (`bool`):
            Whether the authors publish their code.
        model_free, dataset_free, chatgpt_free (`bool`):
            Whether it works on unchanged for another pending fine-tune model, another dataset, without ChatGPT/GPT-4.
        multi_turn (`str`):
            What is done with rows of several turns.
        images (`str`, *optional*):
            What is done with images of rows; nothing if empty, and then a method that reads texts says so.
        needs (`frozenset[str]`):
            What must be given: `"prompt"` (rows with a prompt apart from the answer), `"text"` (rows not tokenized
            yet), `"model"`, `"target"`, `"judge"` (one that writes), `"digit logits"` (of a judge loaded here).
        deviations (`tuple[str]`):
            Where this differs from the authors' code or paper.
    """

    title: str
    paper: str | None = None
    features: str = "none"
    label_source: str = "none"
    trained_llms: int = 0
    small_llm: bool = False
    steps: tuple[str, ...] = ("rank", "keep the top k")
    llm_uses: int = 0
    code: bool = True
    model_free: bool = True
    dataset_free: bool = True
    chatgpt_free: bool = True
    multi_turn: str = "rows are taken whole"
    images: str = ""
    needs: frozenset[str] = frozenset()
    deviations: tuple[str, ...] = ()


class Selector(ABC):
    """
    A selection method; see the module docstring. Subclasses are dataclasses.

    | call | gives |
    |---|---|
    | `featurize(records, ctx)` | stage 1: records, an array or memmap `(n, d)`, or a dict of these |
    | `score(features, ctx)` | stage 2a: float32 `(n,)`, higher is better, NaN = unscorable |
    | `select(scores, features, k, ctx)` | stage 2b: unique int64 row numbers, at most `k`, best first |
    """

    card: ClassVar[Card]
    #: A budget that the method insists on; the baseline keeps everything.
    fixed_budget: ClassVar[float | None] = None
    #: Whether `select()` already keeps rows apart; `selection_diversity` is refused then.
    spreads_out: ClassVar[bool] = False

    def refuse_unless_positive(self, *options: str) -> None:
        """Refuse, with a `ValueError`, an option that is not positive and finite; one left at `None` has no number."""
        for name in options:
            value = getattr(self, name)
            if value is not None and not 0 < value < float("inf"):
                raise ValueError(f"`selection_kwargs`: {name}={value} must be positive and finite.")

    def extras(self) -> dict[str, str]:
        """Packages that these options need, and the extra of this package that brings each."""
        return {}

    def check(self, records: Records) -> None:  # noqa: B027 (optional)
        """Refuse, with a `ValueError`, rows that the options don't fit; called before any model loads."""

    def featurize(self, records: Records, ctx: Context) -> Any:
        """Stage 1; by default the records themselves."""
        return records

    @abstractmethod
    def score(self, features: Any, ctx: Context) -> np.ndarray:
        """Stage 2a: one quality label a row."""

    def select(self, scores: np.ndarray, features: Any, k: int, ctx: Context) -> np.ndarray:
        """Stage 2b; by default the `k` highest finite scores."""
        from .engines.subset.choose import top_k

        return top_k(scores, k)


def method_name(selector: Selector | type[Selector]) -> str:
    """The name users type: the file's for selectors of this package, `package.module:Class` for others."""
    kind = selector if isinstance(selector, type) else type(selector)
    package, _, module = kind.__module__.rpartition(".")
    return module if package == f"{__package__}.selectors" else f"{kind.__module__}:{kind.__qualname__}"
