"""Diverse filter: from the best row on, keep each that is not near to a kept one (arXiv 2312.15685, section 2.4)."""

from collections.abc import Callable, Sequence

import numpy as np
import torch

from ..runtime.model_state import has_fast_bfloat16


#: Two unit vectors whose float32 product is this near to the threshold are compared again in float64.
DOUBT = 1e-4
#: What the product of two unit vectors in bfloat16 is off at most: three roundings of 2^-8, and a little for the sum.
COARSE = 3 * 2**-8 + 1e-3
#: Kept rows that stand together in one matrix.
PART = 2048
#: Short vectors have this part of the numbers of whole ones; narrower vectors than this get none.
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

    A block of rows is compared with the kept ones by matrix products, and then its rows one by one with those kept out
    of it. Products of short vectors that bound the cosine from above clear most rows, products in bfloat16 most of the
    others where the hardware multiplies in it, and what these are too coarse for goes to float32 and float64. So the
    result is that of one row at a time, whatever the block. Memory: the kept rows' unit vectors and a few blocks.

    Args:
        order (`Sequence[int]`):
            Rows, best first.
        vectors (`np.ndarray` or `Callable`):
            `(n, width)`, of any length, or a function from rows `(b,)` to their vectors `(b, width)`: only rows that
            the walk comes to are asked for. A row with a vector that is not finite, or all zeros, is never kept.
        k (`int`, *optional*):
            Rows wanted; the walk ends when it has them. By default it goes to the end.
        threshold (`float`, *optional*, defaults to `0.9`):
            A row is rejected if some kept row's cosine with it is above this.
        block (`int`, *optional*, defaults to `1024`):
            Rows compared at a time.
        device (`torch.device`, *optional*, defaults to `"cpu"`):
            Where the coarse products are made.

    Returns:
        `np.ndarray`: rows in the order kept, int64, at most `k`.
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
        far = ~kept.near(unit)
        part, unit = part[far], unit[far]
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
    Unit vectors of the kept rows, in parts, and coarser ones beside them:

    - short ones: projections on a few directions that hold much of the first block, and the length of what these leave
      as one number more. Their product is never below the cosine (Cauchy-Schwarz), and so tells what is surely far;
    - whole ones in bfloat16.
    """

    def __init__(self, first: np.ndarray, threshold: float, device: torch.device):
        self.threshold, self.device, self.fast = threshold, device, has_fast_bfloat16(device)
        self.parts: list[tuple[np.ndarray, dict[str, torch.Tensor]]] = []
        self.count = 0
        self.directions, width = None, first.shape[1]
        if width >= NARROW:
            draw = np.random.default_rng(0).normal(size=(width, int(SHORT * width) - 1)).astype(np.float32)
            self.directions = np.linalg.qr(first.T @ (first @ draw))[0]
            if len(first) == 0 or (self._shortened(first)[:, -1] ** 2).mean() > threshold:
                self.directions = None  # the length of what they leave out would hide all that they tell

    def near(self, unit: np.ndarray) -> np.ndarray:
        """Whether any kept row has a cosine above the threshold with each of these, `(len(unit),)`."""
        near, coarse = np.zeros(len(unit), bool), self._coarse(unit)
        for number, (exact, others) in enumerate(self.parts):
            left = ~near
            if "short" in coarse:
                bound = _highest(coarse["short"], others["short"])
                left &= bound > self.threshold - (COARSE if self.fast else DOUBT)
            left = np.flatnonzero(left)
            if "whole" in coarse and len(left):
                padded = np.resize(left, -(-len(left) // 64) * 64)
                highest = _highest(coarse["whole"][padded], others["whole"])[: len(left)]
                near[left] = highest > self.threshold
                left = left[np.abs(highest - self.threshold) <= COARSE]
            near[left] = _near_any(unit[left], exact[: self.count - number * PART], self.threshold)
        return near

    def add(self, unit: np.ndarray) -> None:
        """Keep these as well."""
        while len(unit):
            place = self.count % PART
            now = unit[: PART - place]
            coarse = self._coarse(now)
            if place == 0:
                # Parts of one size, as each new one costs some milliseconds and is remembered for ever by oneDNN; what
                # is not taken yet repeats the first row, which changes nothing.
                tensors = {name: tensor[:1].repeat(PART, 1) for name, tensor in coarse.items()}
                self.parts.append((np.empty((PART, unit.shape[1]), np.float32), tensors))
            exact, others = self.parts[-1]
            exact[place : place + len(now)] = now
            for name, tensor in coarse.items():
                others[name][place : place + len(now)] = tensor
            self.count += len(now)
            unit = unit[len(now) :]

    def _coarse(self, unit: np.ndarray) -> dict[str, torch.Tensor]:
        found = {}
        if self.directions is not None:
            found["short"] = torch.from_numpy(self._shortened(unit))
        if self.fast:
            found["whole"] = torch.from_numpy(unit)
        dtype = torch.bfloat16 if self.fast else torch.float32
        return {name: tensor.to(self.device, dtype) for name, tensor in found.items()}

    def _shortened(self, unit: np.ndarray) -> np.ndarray:
        inside = unit @ self.directions
        # A little more than what is left, so that rounding never makes a bound of less than the cosine.
        left = np.sqrt(np.maximum(1 - np.einsum("ij,ij->i", inside, inside), 0) + 1e-5)
        return np.column_stack([inside, left]).astype(np.float32)


def _highest(a: torch.Tensor, b: torch.Tensor) -> np.ndarray:
    """Highest product of each of `a` with any of `b`, float32 `(a,)`."""
    return (a @ b.T).amax(1).float().cpu().numpy()


def _unit_rows(vectors: np.ndarray) -> np.ndarray:
    """Float32 vectors of length 1; NaN where there is no direction."""
    vectors = np.asarray(vectors, np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def _near(a: np.ndarray, b: np.ndarray, threshold: float) -> np.ndarray:
    """Whether unit vectors have a cosine above the threshold, `(a, b)`."""
    product = a @ b.T
    near = product > threshold
    rows, columns = np.nonzero(np.abs(product - threshold) < DOUBT)
    for first in range(0, len(rows), 2**14):  # a product in blocks rounds otherwise than one of two rows
        i, j = rows[first : first + 2**14], columns[first : first + 2**14]
        near[i, j] = np.einsum("ij,ij->i", a[i], b[j], dtype=np.float64) > threshold
    return near


def _near_any(a: np.ndarray, b: np.ndarray, threshold: float) -> np.ndarray:
    """Whether any of `b` has a cosine above the threshold with each of `a`, `(a,)`."""
    highest = (a @ b.T).max(1)
    near = highest > threshold
    doubtful = np.flatnonzero(np.abs(highest - threshold) < DOUBT)
    if len(doubtful):
        near[doubtful] = _near(a[doubtful], b, threshold).any(1)
    return near
