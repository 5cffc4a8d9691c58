"""Diverse filter: from best to worst, keep each row that is not too similar to a kept one (arXiv 2312.15685, 2.4)."""

from collections.abc import Callable, Sequence

import numpy as np
import torch

from ..runtime.model_state import has_fast_bfloat16
from . import target_similarity


#: Unit vectors whose float32 product is this close to the threshold are compared again in float64.
DOUBT = 1e-4
#: Largest error of a bfloat16 product of unit vectors: three roundings of 2^-8, and a margin for the sum.
COARSE = 3 * 2**-8 + 1e-3
#: Kept rows per matrix.
PART = 2048
#: Width of short vectors as a fraction of the full width, and the smallest full width that has them.
SHORT, NARROW = 1 / 4, 64


def diverse_filter(
    order: Sequence[int] | np.ndarray,
    vectors: np.ndarray | Callable[[np.ndarray], np.ndarray],
    k: int | None = None,
    threshold: float = 0.9,
    block: int = 1024,
    device: torch.device | str = "cpu",
) -> np.ndarray:
    """
    Walk rows from best to worst and keep each whose cosine to every row kept so far is at most `threshold`.

    A block of rows is compared with the kept ones by matrix products, then its rows one by one with those kept from
    it. Products of short vectors, which bound the cosine from above, decide most rows, bfloat16 products (on hardware
    with native support) most of the others, and float32 and float64 the rest. So the result is that of one row at a
    time, for any block size. Memory: the kept rows' unit vectors and a few blocks.

    Args:
        order (`Sequence[int]`):
            Rows, best first.
        vectors (`np.ndarray` or `Callable`):
            `(n, width)`, of any length, or a function from rows `(b,)` to their vectors `(b, width)`, called only for
            rows that are visited. A row whose vector is not finite, or zero, is never kept.
        k (`int`, *optional*):
            Rows to keep, after which the walk ends. By default it visits all rows.
        threshold (`float`, *optional*, defaults to `0.9`):
            A row is rejected if its cosine to a kept row is above this.
        block (`int`, *optional*, defaults to `1024`):
            Rows compared at a time.
        device (`torch.device`, *optional*, defaults to `"cpu"`):
            Device of the coarse products.

    Returns:
        `np.ndarray`: kept rows in order, int64, at most `k`.
    """
    order = np.asarray(order, np.int64)
    limit = len(order) if k is None else min(max(k, 0), len(order))
    rows, kept = [], None
    for start in range(0, len(order), block):
        if len(rows) == limit:
            break
        part = order[start : start + block]
        unit = _unit_rows(vectors(part) if callable(vectors) else vectors[part])
        usable = np.isfinite(unit).all(1)
        part, unit = part[usable], unit[usable]
        kept = kept or _Kept(unit, threshold, torch.device(device))
        dissimilar = ~kept.near(unit)
        part, unit = part[dissimilar], unit[dissimilar]
        near = _near(unit, unit, threshold)
        np.fill_diagonal(near, False)
        crowded, free, chosen = near.any(1), np.ones(len(part), bool), []
        for place in range(len(part)):
            if len(rows) + len(chosen) == limit:
                break
            if free[place]:
                chosen.append(place)
                if crowded[place]:
                    free &= ~near[place]
        rows += part[chosen].tolist()
        kept.add(unit[chosen])
    return np.array(rows, np.int64)


class _Kept:
    """
    Unit vectors of the kept rows, in parts, with coarser versions:

    - short: projections on a few directions that explain much of the first block, and the length of the residual as
      one more number. Their product is never below the cosine (Cauchy-Schwarz), so that a low one rules it out;
    - whole, in bfloat16.
    """

    def __init__(self, first: np.ndarray, threshold: float, device: torch.device):
        self.threshold, self.device, self.fast = threshold, device, has_fast_bfloat16(device)
        self.parts: list[tuple[np.ndarray, dict[str, torch.Tensor]]] = []
        self.count = 0
        self.directions, width = None, first.shape[1]
        if width >= NARROW:
            random = np.random.default_rng(0).normal(size=(width, int(SHORT * width) - 1)).astype(np.float32)
            self.directions = np.linalg.qr(first.T @ (first @ random))[0]
            if len(first) == 0 or (self._shortened(first)[:, -1] ** 2).mean() > threshold:
                self.directions = None  # the residual would dominate the bound

    def near(self, unit: np.ndarray) -> np.ndarray:
        """Whether each of these has a cosine above the threshold with any kept row, `(len(unit),)`."""
        near, coarse = np.zeros(len(unit), bool), self._coarse(unit)
        for number, (exact, coarse_kept) in enumerate(self.parts):
            remaining = ~near
            if "short" in coarse:
                bound = _highest(coarse["short"], coarse_kept["short"])
                remaining &= bound > self.threshold - (COARSE if self.fast else DOUBT)
            remaining = np.flatnonzero(remaining)
            if "whole" in coarse and len(remaining):
                padded = np.resize(remaining, -(-len(remaining) // 64) * 64)
                highest = _highest(coarse["whole"][padded], coarse_kept["whole"])[: len(remaining)]
                near[remaining] = highest > self.threshold
                remaining = remaining[np.abs(highest - self.threshold) <= COARSE]
            near[remaining] = _near_any(unit[remaining], exact[: self.count - number * PART], self.threshold)
        return near

    def add(self, unit: np.ndarray) -> None:
        """Add these to the kept rows."""
        while len(unit):
            place = self.count % PART
            chunk = unit[: PART - place]
            coarse = self._coarse(chunk)
            if place == 0:
                # Parts of one size, since oneDNN takes milliseconds for each new size and caches it forever. Unused
                # rows repeat the first one, which has no effect.
                tensors = {name: tensor[:1].repeat(PART, 1) for name, tensor in coarse.items()}
                self.parts.append((np.empty((PART, unit.shape[1]), np.float32), tensors))
            exact, coarse_kept = self.parts[-1]
            exact[place : place + len(chunk)] = chunk
            for name, tensor in coarse.items():
                coarse_kept[name][place : place + len(chunk)] = tensor
            self.count += len(chunk)
            unit = unit[len(chunk) :]

    def _coarse(self, unit: np.ndarray) -> dict[str, torch.Tensor]:
        tensors = {}
        if self.directions is not None:
            tensors["short"] = torch.from_numpy(self._shortened(unit))
        if self.fast:
            tensors["whole"] = torch.from_numpy(unit)
        dtype = torch.bfloat16 if self.fast else torch.float32
        return {name: tensor.to(self.device, dtype) for name, tensor in tensors.items()}

    def _shortened(self, unit: np.ndarray) -> np.ndarray:
        projected = unit @ self.directions
        # Slightly more than the residual, so that rounding never makes the bound less than the cosine.
        residual = np.sqrt(np.maximum(1 - np.einsum("ij,ij->i", projected, projected), 0) + 1e-5)
        return np.column_stack([projected, residual]).astype(np.float32)


def _highest(a: torch.Tensor, b: torch.Tensor) -> np.ndarray:
    """Highest product of each of `a` with any of `b`, float32 `(a,)`."""
    return (a @ b.T).amax(1).float().cpu().numpy()


def _unit_rows(vectors: np.ndarray) -> np.ndarray:
    """Float32 vectors of length 1; NaN for zero vectors."""
    return target_similarity.unit(np.asarray(vectors, np.float64)).astype(np.float32)


def _near(a: np.ndarray, b: np.ndarray, threshold: float) -> np.ndarray:
    """Whether the cosine of unit vectors is above the threshold, `(a, b)`."""
    product = a @ b.T
    near = product > threshold
    rows, columns = np.nonzero(np.abs(product - threshold) < DOUBT)
    for first in range(0, len(rows), 2**14):  # products of blocks and of two rows round differently
        i, j = rows[first : first + 2**14], columns[first : first + 2**14]
        near[i, j] = np.einsum("ij,ij->i", a[i], b[j], dtype=np.float64) > threshold
    return near


def _near_any(a: np.ndarray, b: np.ndarray, threshold: float) -> np.ndarray:
    """Whether each of `a` has a cosine above the threshold with any of `b`, `(a,)`."""
    highest = (a @ b.T).max(1)
    near = highest > threshold
    doubtful = np.flatnonzero(np.abs(highest - threshold) < DOUBT)
    if len(doubtful):
        near[doubtful] = _near(a[doubtful], b, threshold).any(1)
    return near
