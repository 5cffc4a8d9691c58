"""Hashed n-grams of texts, DSIR's features (arXiv 2302.03169): words, marks and pairs of them in buckets."""

import hashlib
from array import array
from collections.abc import Iterable
from functools import lru_cache

import numpy as np
import regex
from scipy.sparse import csr_matrix

from .text_statistics import UNSPACED


#: Texts that are weighed together.
BLOCK = 65_536
_TOKEN = regex.compile(rf"{UNSPACED}|(?:(?!{UNSPACED})\w)+|[^\w\s]+")
#: As the authors' tokenizer has it: what is written without spaces is one word.
_PLAIN = regex.compile(r"\w+|[^\w\s]+")


def hashed_ngrams(texts: Iterable[str], buckets: int, unspaced: bool = True) -> csr_matrix:
    """
    How often each bucket has a word or mark, or two in a row, of each text in lower case.

    Args:
        buckets (`int`):
            Number of buckets.
        unspaced (`bool`, *optional*, defaults to `True`):
            Whether a character of a script without spaces (Chinese, Japanese, Thai ...) is a word.

    Returns:
        [`~scipy.sparse.csr_matrix`]: int32 `(texts, buckets)`.
    """

    @lru_cache(2**20)
    def bucket(gram: str) -> int:
        return int.from_bytes(hashlib.sha256(gram.encode("utf-8", "replace")).digest(), "big") % buckets

    columns, ends = array("i" if buckets <= 2**31 else "q"), array("q", [0])  # a list takes several times the memory
    for text in texts:
        words = (_TOKEN if unspaced else _PLAIN).findall(text.lower())
        columns.extend(map(bucket, (*words, *map(" ".join, zip(words, words[1:], strict=False)))))
        ends.append(len(columns))
    given = np.ones(len(columns), np.int32), np.asarray(columns), np.asarray(ends)
    counts = csr_matrix(given, (len(ends) - 1, buckets))
    counts.sum_duplicates()
    return counts


def log_weights(counts: csr_matrix, target: csr_matrix, smoothing: float = 0.0) -> np.ndarray:
    """
    Log importance weight of each text, nats, float64 `(n,)`: counts . (log target share - log share among all).

    Args:
        counts, target ([`~scipy.sparse.csr_matrix`]):
            Of candidates and of the target, from [`hashed_ngrams`].
        smoothing (`float`, *optional*, defaults to `0.0`):
            Added to each count of the target.
    """
    wanted, given = (np.asarray(part.sum(0), np.float64).ravel() for part in (target, counts))
    wanted = wanted + smoothing
    with np.errstate(invalid="ignore"):
        shares = [np.nan_to_num(part / part.sum()) for part in (wanted, given)]
    weights = np.log(shares[0] + 1e-8) - np.log(shares[1] + 1e-8)
    parts = (counts[first : first + BLOCK] for first in range(0, counts.shape[0], BLOCK))
    return np.concatenate([np.zeros(0), *(part @ weights for part in parts)])
