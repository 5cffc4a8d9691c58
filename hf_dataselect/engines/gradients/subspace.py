"""The subspace that the gradients of a few examples span (GIST, arXiv 2602.18584), and gradients within it."""

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from ...errors import SelectionError
from ..runtime.memory import free_memory
from .projection import Projection, Projector


#: Directions whose singular value is below this part of the largest are rounding: a gradient in bfloat16 errs by more.
LEAST = 1e-3
#: Coordinates that are read at a time, in float64.
COORDINATES = 2**20


class Subspace:
    """
    The directions in which the gradients of examples differ most from 0: their right singular vectors for the largest
    singular values, not centred. It stands in for a [`Projection`] of other rows.

    Repeated examples, and more dimensions than examples, give singular values of 0: no more directions are used than
    have one of at least a thousandth of the largest.

    Args:
        gradients (`np.ndarray`):
            Whole gradients of the examples, float32 `(m, size)`; rows that are not finite are excluded.
        dim (`int`):
            Directions at most.
        agreed (`Callable`, *optional*):
            Gives all ranks the same decomposition.
    """

    kind, dtype, bits = "subspace", "float32", 16

    def __init__(self, gradients: np.ndarray, dim: int, agreed: Callable[[Any], Any] = lambda value: value):
        usable = np.isfinite(gradients).all(1)
        parts = [slice(first, first + COORDINATES) for first in range(0, gradients.shape[1], COORDINATES)]
        gram = sum(part @ part.T for part in (gradients[usable, part].astype(np.float64) for part in parts))
        squares, vectors = agreed(np.linalg.eigh(gram))
        values, vectors = np.sqrt(np.maximum(squares, 0))[::-1], vectors[:, ::-1]
        #: Directions of the examples' gradients that are more than rounding.
        self.spanned = int((values > LEAST * values[0]).sum())
        self.dim = min(dim, self.spanned)
        kept, left = values[: self.dim], vectors[:, : self.dim]
        #: Part of the examples' squared norms that lies in the subspace.
        self.share = float(np.square(kept).sum() / np.square(values).sum()) if self.spanned else 0.0
        #: The examples within it, float64 `(m, dim)`; NaN for those that are excluded.
        self.examples = np.full((len(gradients), self.dim), np.nan)
        self.examples[usable] = left * kept
        self.basis = np.empty((self.dim, gradients.shape[1]), np.float32)
        for part in parts:
            self.basis[:, part] = (left / kept).T @ gradients[usable, part].astype(np.float64)
        self._digest = agreed(hashlib.blake2b(self.basis, digest_size=16).hexdigest())

    @property
    def identity(self) -> dict[str, Any]:
        """What determines the vectors, for cache keys."""
        return {"kind": self.kind, "basis": self._digest}

    def of(self, sizes: Sequence[int]) -> Projector:
        """A projector of vectors that are given in pieces of these sizes."""
        return _Within(self, sizes)


class _Within(Projector):
    """Coordinates in the subspace, and the squared norm of the whole vector after them."""

    def __init__(self, subspace: Subspace, sizes: Sequence[int]):
        super().__init__(Projection("none"), sizes)
        self.width, self.extra = subspace.dim, 1
        self.pieces = [part.T for part in torch.from_numpy(subspace.basis).split(list(sizes), 1)]

    def add(self, piece: int, values: torch.Tensor, out: torch.Tensor) -> None:
        basis = self.pieces[piece] = self.pieces[piece].to(values.device)
        out[:, : self.width] += values @ basis
        out[:, self.width] += values.square().sum(1)


def check_memory(numbers: int, examples: int, dim: int) -> None:
    """
    Refuse gradients of so many numbers whose examples, and the subspace of these, do not fit in memory.

    Raises:
        [`SelectionError`]: they take more than is free.
    """
    needed, free = 4 * numbers * (2 * examples + min(dim, examples)), free_memory()
    if needed > free:
        raise SelectionError(
            f"`selection_target`: whole gradients of {numbers:,} numbers of its {examples:,} rows, and the directions "
            f"among them, take {needed / 1e9:.1f} GB, and {free / 1e9:.1f} GB of memory are free. Give fewer rows, or "
            "a smaller adapter (`lora_r`)."
        )
