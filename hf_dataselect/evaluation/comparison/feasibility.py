"""
Feasibility: how simple a method is to use and to transfer (paper, section 6.2 and Table 3).

| penalty | is |
|---|---|
| simplicity | 2 per trained LLM (1.5 if small) + 1 per step + 1 without published code; 200 above 100 LLMs |
| flexibility | 3 if not model-free + 2 if not dataset-free + 1 if it needs ChatGPT |

Each penalty gives a dense rank; feasibility is the dense rank of the sum of the two ranks. The weights are those of
the paper's site; the paper states only their order. They reproduce its Table 3 except the flexibility of DEITA
(printed 3, computed 2) and InstructionGPT-4 (5, 3), and the feasibility that follows from these two.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ...card import Card


@dataclass(frozen=True)
class Facts:
    """
    Facts that determine feasibility.

    Args:
        trained_llms (`int`):
            Number of language models trained to build the selector.
        small_llm (`bool`):
            Whether they are small, like Superfiltering's GPT-2.
        steps (`int`):
            Number of steps of the selection algorithm.
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
    """Dense ranks of a method among the methods it is ranked with; 1 is the best."""

    simplicity: int
    flexibility: int
    feasibility: int


def rank_by_feasibility(methods: Mapping[str, Facts]) -> dict[str, Feasibility]:
    """
    Rank methods by feasibility.

    Args:
        methods (`Mapping[str, Facts]`):
            Facts by name. Ranks are relative to the methods given.

    Returns:
        `dict[str, Feasibility]`: Best first; ties by simplicity, flexibility, then name from Z to A (as on the paper's
        site).
    """
    penalties = [(facts.simplicity_penalty, facts.flexibility_penalty) for facts in methods.values()]
    if not penalties:
        return {}
    two = np.stack([_dense_ranks(part) for part in np.transpose(penalties)], 1)
    total = _dense_ranks(two.sum(1))
    ranks = {n: Feasibility(int(s), int(f), int(t)) for n, (s, f), t in zip(methods, two, total, strict=True)}
    names = sorted(methods, reverse=True)
    return {name: ranks[name] for name in sorted(names, key=lambda n: (ranks[n].feasibility, *ranks[n]))}


def _dense_ranks(values: np.ndarray) -> np.ndarray:
    # As `scipy.stats.rankdata` with `method="dense"`, whose import takes half a second.
    return np.unique(values, return_inverse=True)[1] + 1
