"""[`Part`]: the share of the rows that one of several runs computes, which have a cache folder in common."""

import re
from typing import NamedTuple, Self

import numpy as np


class Part(NamedTuple):
    """Part `number`, from 1, of so many."""

    number: int
    of: int

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """
        The part that `i/N` means.

        Raises:
            `ValueError`: not two whole numbers, or not one of the parts.
        """
        numbers = re.fullmatch(r"([0-9]+)/([0-9]+)", str(text).strip())
        part = cls(*map(int, numbers.groups())) if numbers else cls(0, 0)
        if not 1 <= part.number <= part.of:
            raise ValueError(f"`part={text!r}` must be i/N with i from 1 to N, such as 2/8.")
        return part

    def holds(self, keys: np.ndarray) -> np.ndarray:
        """
        Which rows are of this part, bool `(n,)`. Equal rows are in the same part; the numbers of distinct ones differ
        by one at most between parts.

        Args:
            keys (`np.ndarray`):
                Content keys of all rows, `(n,)`: the same in every part.
        """
        return np.unique(keys, return_inverse=True)[1].reshape(-1) % self.of == self.number - 1

    def turns(self) -> list[Self]:
        """All parts, this one first."""
        return [self._replace(number=(self.number - 1 + turn) % self.of + 1) for turn in range(self.of)]
