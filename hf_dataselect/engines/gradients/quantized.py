"""Vectors of a few bits a number, with a scale for each row (QLESS, arXiv 2502.01703, has one for all rows)."""

import numpy as np
from scipy.stats import spearmanr

from ..store.vector_store import StoredVectors


class Codes:
    """
    Vectors as bytes. 8 and 4 bits: numbers are divided by the largest magnitude of their row and rounded to an integer
    of up to 127 or 7. 1 bit: whether a number is positive. Read back, a vector has length 1, so that its scale need
    not be kept.

    Args:
        width (`int`):
            Numbers of a vector.
        bits (`int`):
            8, 4 or 1. 2 bits send nearly all numbers to 0.
    """

    def __init__(self, width: int, bits: int):
        self.width, self.bits = width, bits
        #: Bytes of a vector; the first one is 0 for a vector of NaN.
        self.size = 1 + -(-width * bits // 8)

    def encode(self, vectors: np.ndarray) -> np.ndarray:
        """Float `(n, width)` -> uint8 `(n, size)`."""
        usable = np.isfinite(vectors).all(1)
        known = vectors[usable].astype(np.float32)
        codes = np.zeros((len(vectors), self.size), np.uint8)
        codes[usable, 0] = 1
        if self.bits == 1:
            codes[usable, 1:] = np.packbits(known > 0, 1)
            return codes
        most = 2 ** (self.bits - 1) - 1
        whole = np.rint(known * (most / np.abs(known).max(1, keepdims=True))).astype(np.int8)
        if self.bits == 4:
            even = np.pad(whole + 8, ((0, 0), (0, self.width % 2))).astype(np.uint8)
            whole = even[:, ::2] << 4 | even[:, 1::2]
        codes[usable, 1:] = whole.view(np.uint8)
        return codes

    def decode(self, codes: np.ndarray) -> np.ndarray:
        """Uint8 `(n, size)` -> float32 unit vectors `(n, width)`."""
        body = np.ascontiguousarray(codes[:, 1:])
        if self.bits == 1:
            vectors = np.unpackbits(body, 1, count=self.width).astype(np.float32) * 2 - 1
        elif self.bits == 4:
            pairs = np.stack([body >> 4, body & 15], 2).reshape(len(codes), 2 * body.shape[1])[:, : self.width]
            vectors = pairs.astype(np.float32) - 8
        else:
            vectors = body.view(np.int8).astype(np.float32)
        vectors[codes[:, 0] == 0] = np.nan
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


class DecodedVectors:
    """Stored [`Codes`] that read as vectors when indexed."""

    dtype = np.dtype(np.float32)

    def __init__(self, stored: StoredVectors, codes: Codes):
        self.stored, self.codes, self.shape = stored, codes, (len(stored), codes.width)

    def __len__(self) -> int:
        return len(self.stored)

    def __getitem__(self, rows: slice | np.ndarray) -> np.ndarray:
        return self.codes.decode(self.stored[rows])


def rank_correlation(scores: np.ndarray, others: np.ndarray) -> float:
    """Spearman's, of the rows that have both scores; NaN of fewer than three."""
    both = np.isfinite(scores) & np.isfinite(others)
    return float(spearmanr(scores[both], others[both])[0]) if both.sum() > 2 else float("nan")
