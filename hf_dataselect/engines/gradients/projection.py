"""
Random projections of gradients that keep inner products, applied layer by layer.

The inner product of two projected vectors is an unbiased estimate of that of the originals, with variance
(|x|^2 |y|^2 + <x, y>^2 - 2 sum x_i^2 y_i^2) / dim for the dense projection, and at most that for the sketch,
where only coordinates in the same bucket interfere, and any two share one with probability 1 / dim at most.

All bits come from NumPy's Philox, a counter-based generator whose raw stream is the same on every machine, so that all
ranks, devices and batches use the same projection.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch.nn.functional import pad

from ...options import PositiveInt, check_declared


#: Elements of the dense matrix in memory at a time.
BLOCK = 2**23
#: Largest number of signs of the sketch, a byte each, that are kept between batches.
KEPT_SIGNS = 2**28


@dataclass(frozen=True)
class Projection:
    """
    How gradients are projected to a lower dimension.

    Args:
        kind (`str`, *optional*, defaults to `"sketch"`):
            `"sketch"`: each coordinate is added, with a random sign, to one of `dim` buckets (a sparse
            Johnson-Lindenstrauss transform); costs a few operations per coordinate. `"rademacher"`: a dense matrix of
            +-1 / sqrt(dim), generated block by block, as in LESS (arXiv 2402.04333); costs 2 x `dim` operations per
            coordinate, and as many random bits per batch. `"none"`: the full gradient.
        dim (`int`, *optional*, defaults to `8192`):
            Dimension of the result. The error of inner products decreases with its square root.
        seed (`int`, *optional*, defaults to `0`):
            Only vectors with the same seed are comparable.
        dtype (`str`, *optional*, defaults to `"float16"`):
            Dtype of the projected unit vectors, in memory and, at 16 bits, on disk.
        bits (`int`, *optional*, defaults to 16):
            Fewer: a vector is rounded to so many a number, on disk and before its scores, see [`Codes`].
    """

    kind: Literal["sketch", "rademacher", "none"] = "sketch"
    dim: PositiveInt = 8192
    seed: int = 0
    dtype: str = "float16"
    bits: Literal[16, 8, 4, 1] = 16

    def __post_init__(self):
        check_declared(self, "projection")

    @property
    def identity(self) -> dict[str, Any]:
        """What determines the vectors, for cache keys."""
        fields = asdict(self)
        if self.bits == 16:
            del fields["bits"]  # as in the keys of what was stored before there were others
        return {name: fields[name] for name in fields if self.kind != "none" or name not in ("dim", "seed")}

    def of(self, sizes: Sequence[int]) -> "Projector":
        """A projector of vectors that are given in pieces of these sizes."""
        return {"sketch": _Sketch, "rademacher": _Rademacher, "none": _Whole}[self.kind](self, sizes)


class Projector:
    """Projects vectors piece by piece."""

    def __init__(self, settings: Projection, sizes: Sequence[int]):
        self.settings, self.sizes = settings, list(sizes)
        #: Dimension of a projected vector.
        self.width = settings.dim
        #: Sums of squares that follow it.
        self.extra = 0

    def add(self, piece: int, values: torch.Tensor, out: torch.Tensor) -> None:
        """
        Add the projection of one piece of each vector.

        Args:
            piece (`int`):
                Index of the piece.
            values (`torch.Tensor`):
                Float32 `(vectors, sizes[piece])`.
            out (`torch.Tensor`):
                Float32 `(vectors, width + extra)`, modified in place.
        """
        raise NotImplementedError

    def _bits(self, *name: object, first: int = 0, count: int) -> np.ndarray:
        """`count` random words (uint64) of the named stream, starting at word `first`, a multiple of 4."""
        key = hashlib.blake2b(repr((self.settings.seed, *name)).encode(), digest_size=16).digest()
        stream = np.random.Philox(key=np.frombuffer(key, "<u8"))
        return stream.advance(first // 4).random_raw(count)


class _Whole(Projector):
    def __init__(self, settings: Projection, sizes: Sequence[int]):
        super().__init__(settings, sizes)
        self.starts = np.concatenate([[0], np.cumsum(self.sizes)]).tolist()
        self.width = self.starts[-1]

    def add(self, piece: int, values: torch.Tensor, out: torch.Tensor) -> None:
        out[:, self.starts[piece] : self.starts[piece + 1]] += values


class _Rademacher(Projector):
    def add(self, piece: int, values: torch.Tensor, out: torch.Tensor) -> None:
        words = -(-self.width // 64)
        step = max(4, BLOCK // (64 * words) // 4 * 4)
        for first in range(0, values.shape[1], step):
            part = values[:, first : first + step]
            raw = self._bits("dense", piece, first=first * words, count=part.shape[1] * words)
            signs = _signs(raw, values.device).view(part.shape[1], -1)[:, : self.width]
            out.addmm_(part, signs.to(part.dtype), alpha=self.width**-0.5)


class _Sketch(Projector):
    """
    Coordinates are processed in runs of `dim`, within which no two share a bucket. The bucket permutation of a
    run is the same for all pieces, rolled by a random shift per piece: so it needs little memory, and coordinates of
    different pieces collide no more often than they should.
    """

    def __init__(self, settings: Projection, sizes: Sequence[int]):
        super().__init__(settings, sizes)
        runs = -(-max(self.sizes, default=0) // self.width)
        orders = [np.argsort(self._bits("order", run, count=self.width), kind="stable") for run in range(runs)]
        indices = [run * self.width + order for run, order in enumerate(orders)]
        self.order = torch.from_numpy(np.concatenate(indices or [np.zeros(0)]).astype(np.int64))
        starts = [self._bits("turn", piece, count=1)[0] for piece in range(len(self.sizes))]
        self.shifts = [int(start % np.uint64(self.width)) for start in starts]
        self.kept = {}

    def add(self, piece: int, values: torch.Tensor, out: torch.Tensor) -> None:
        rows, size = values.shape
        width, device = self.width, values.device
        if self.order.device != device:
            self.order = self.order.to(device)
        signed = values * self._signs_of(piece, device)
        shift = self.shifts[piece]
        whole = size // width * width
        if whole:
            runs = signed[:, :whole].index_select(1, self.order[:whole]).view(rows, -1, width)
            out += runs.sum(1).roll(shift, 1)
        if whole < size:
            rest = pad(signed[:, whole:], (0, width - (size - whole)))
            out += rest.index_select(1, self.order[whole : whole + width] - whole).roll(shift, 1)

    def _signs_of(self, piece: int, device: torch.device) -> torch.Tensor:
        signs = self.kept.get((piece, device))
        if signs is None:
            size = self.sizes[piece]
            signs = _signs(self._bits("sign", piece, count=-(-size // 64)), device)[:size]
            if sum(self.sizes) <= KEPT_SIGNS:
                self.kept[piece, device] = signs
        return signs


def _signs(words: np.ndarray, device: torch.device) -> torch.Tensor:
    """The bits of random words as -1 and 1, int8 `(64 x words,)`."""
    packed = torch.from_numpy(words.astype("<u8").view(np.uint8)).to(device)
    bits = (packed[:, None] >> torch.arange(8, dtype=torch.uint8, device=device)) & 1
    return (bits.view(torch.int8) * 2 - 1).flatten()
