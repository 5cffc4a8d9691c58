"""
Random projections of gradients that keep inner products, applied layer by layer.

The inner product of two projected vectors is that of the originals on average, with variance
(|x|^2 |y|^2 + <x, y>^2 - 2 sum x_i^2 y_i^2) / dim for the dense projection, and no more than that for the sketch,
where only coordinates in one bucket disturb each other, and any two share one with probability 1 / dim at most.

All bits come from NumPy's Philox, a counter-based generator whose raw stream is the same on every machine; so no rank,
device or batch sees another projection.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch.nn.functional import pad


#: Elements of the dense matrix that are held at a time.
BLOCK = 2**23
#: Signs of the sketch are kept between batches, a byte each, up to this many.
KEPT_SIGNS = 2**28


@dataclass(frozen=True)
class Projection:
    """
    How gradients are made small.

    Args:
        kind (`str`, *optional*, defaults to `"sketch"`):
            `"sketch"`: each coordinate is added, with a random sign, to one of `dim` buckets (a sparse
            Johnson-Lindenstrauss transform); costs a few operations a coordinate. `"rademacher"`: a dense matrix of
            +-1 / sqrt(dim), generated block by block, as in LESS (arXiv 2402.04333); costs 2 x `dim` operations a
            coordinate, and as many random bits a batch. `"none"`: the whole gradient.
        dim (`int`, *optional*, defaults to `8192`):
            Width of the result. The error of an inner product falls with its root.
        seed (`int`, *optional*, defaults to `0`):
            Only what the same seed projected can be compared.
    """

    kind: Literal["sketch", "rademacher", "none"] = "sketch"
    dim: int = 8192
    seed: int = 0

    def __post_init__(self):
        if self.kind not in ("sketch", "rademacher", "none"):
            raise ValueError(f"`projection={self.kind!r}` must be 'sketch', 'rademacher' or 'none'.")
        if self.dim < 1:
            raise ValueError(f"`projection_dim={self.dim}` must be at least 1.")

    def of(self, sizes: Sequence[int]) -> "Projector":
        """A projector of vectors that come in pieces of these sizes."""
        return {"sketch": _Sketch, "rademacher": _Rademacher, "none": _Whole}[self.kind](self, sizes)


class Projector:
    """Projects vectors piece by piece, as the pieces come."""

    def __init__(self, settings: Projection, sizes: Sequence[int]):
        self.settings, self.sizes = settings, list(sizes)
        #: Numbers a projected vector has.
        self.width = settings.dim

    def add(self, piece: int, values: torch.Tensor, out: torch.Tensor) -> None:
        """
        Add the projection of one piece of each vector.

        Args:
            piece (`int`):
                Which of the pieces.
            values (`torch.Tensor`):
                Float32 `(vectors, sizes[piece])`.
            out (`torch.Tensor`):
                Float32 `(vectors, width)`, changed.
        """
        raise NotImplementedError

    def _bits(self, *name: object, first: int = 0, count: int) -> np.ndarray:
        """`count` random words (uint64) of the stream of that name, from word `first`, a multiple of 4, on."""
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
    Coordinates are taken in runs of `dim`; within a run no two share a bucket. The order of buckets of the first,
    second, ... run is the same for all pieces, turned by an amount of the piece's own: so it is small, and yet two
    coordinates of different pieces share a bucket as rarely as they should.
    """

    def __init__(self, settings: Projection, sizes: Sequence[int]):
        super().__init__(settings, sizes)
        runs = -(-max(self.sizes, default=0) // self.width)
        orders = [np.argsort(self._bits("order", run, count=self.width), kind="stable") for run in range(runs)]
        places = [run * self.width + order for run, order in enumerate(orders)]
        self.order = torch.from_numpy(np.concatenate(places or [np.zeros(0)]).astype(np.int64))
        self.kept = {}

    def add(self, piece: int, values: torch.Tensor, out: torch.Tensor) -> None:
        rows, size = values.shape
        width, device = self.width, values.device
        if self.order.device != device:
            self.order = self.order.to(device)
        signed = values * self._signs_of(piece, device)
        turn = int(self._bits("turn", piece, count=1)[0] % np.uint64(width))
        whole = size // width * width
        if whole:
            runs = signed[:, :whole].index_select(1, self.order[:whole]).view(rows, -1, width)
            out += runs.sum(1).roll(turn, 1)
        if whole < size:
            rest = pad(signed[:, whole:], (0, width - (size - whole)))
            out += rest.index_select(1, self.order[whole : whole + width] - whole).roll(turn, 1)

    def _signs_of(self, piece: int, device: torch.device) -> torch.Tensor:
        found = self.kept.get((piece, device))
        if found is None:
            size = self.sizes[piece]
            found = _signs(self._bits("sign", piece, count=-(-size // 64)), device)[:size]
            if sum(self.sizes) <= KEPT_SIGNS:
                self.kept[piece, device] = found
        return found


def _signs(words: np.ndarray, device: torch.device) -> torch.Tensor:
    """The bits of random words as -1 and 1, int8 `(64 x words,)`."""
    packed = torch.from_numpy(words.astype("<u8").view(np.uint8)).to(device)
    bits = (packed[:, None] >> torch.arange(8, dtype=torch.uint8, device=device)) & 1
    return (bits.view(torch.int8) * 2 - 1).flatten()
