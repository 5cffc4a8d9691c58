"""
Feasibility: how easily a method is put to use, and to another use (paper, section 6.2 and Table 3).

| penalty | is |
|---|---|
| simplicity | 2 a trained LLM (1.5 if small) + 1 a step + 1 without published code; just 200 above 100 LLMs |
| flexibility | 3 if not model-free + 2 if not dataset-free + 1 if it needs ChatGPT |

Each gives a dense rank, and the dense rank of the sum of the two is the feasibility. The weights are those of the
paper's site; the paper names only their order. They give its Table 3 but for the flexibility of DEITA (printed 3,
computed 2) and InstructionGPT-4 (5, 3), and the feasibility that follows from these two.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from scipy.stats import rankdata

from ...selector import Card


@dataclass(frozen=True)
class Facts:
    """
    What feasibility is judged by.

    Args:
        trained_llms (`int`):
            Language models trained to build the selector.
        small_llm (`bool`):
            Whether those are small ones, as Superfiltering's GPT-2.
        steps (`int`):
            Steps of the selection algorithm.
        code (`bool`):
            Whether the authors publish their code.
        model_free, dataset_free, chatgpt_free (`bool`):
            As in [`Card`].
    """

    trained_llms: int
    small_llm: bool
    steps: int
    code: bool
    model_free: bool
    dataset_free: bool
    chatgpt_free: bool

    @classmethod
    def of(cls, card: Card) -> "Facts":
        """The facts of a card."""
        facts = {name: getattr(card, name) for name in cls.__dataclass_fields__}
        return cls(**facts | {"steps": len(card.steps)})

    @property
    def simplicity_penalty(self) -> float:
        """See the module docstring; higher is less simple."""
        if self.trained_llms > 100:
            return 200.0
        return (1.5 if self.small_llm else 2.0) * self.trained_llms + self.steps + (not self.code)

    @property
    def flexibility_penalty(self) -> int:
        """See the module docstring; higher is less flexible."""
        return 3 * (not self.model_free) + 2 * (not self.dataset_free) + (not self.chatgpt_free)


class Feasibility(NamedTuple):
    """A method's dense ranks among the methods it was ranked with; 1 is the best."""

    simplicity: int
    flexibility: int
    feasibility: int


def rank_by_feasibility(methods: Mapping[str, Facts]) -> dict[str, Feasibility]:
    """
    Methods in the order of their feasibility, with their ranks.

    Args:
        methods (`Mapping[str, Facts]`):
            Facts by name. Ranks are relative: another method may move them.

    Returns:
        `dict[str, Feasibility]`: best first; equal ones by simplicity, flexibility, then name from Z to A (as on the
        paper's site).
    """
    penalties = [(facts.simplicity_penalty, facts.flexibility_penalty) for facts in methods.values()]
    if not penalties:
        return {}
    two = rankdata(penalties, method="dense", axis=0)
    total = rankdata(two.sum(1), method="dense")
    ranks = {n: Feasibility(int(s), int(f), int(t)) for n, (s, f), t in zip(methods, two, total, strict=True)}
    names = sorted(methods, reverse=True)
    return {name: ranks[name] for name in sorted(names, key=lambda n: (ranks[n].feasibility, *ranks[n]))}
