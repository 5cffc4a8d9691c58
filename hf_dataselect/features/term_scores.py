"""
BM25: how well the words of texts match those of queries, without a model.

A term is a word of two characters or more, in lower case; of scripts that are written without spaces (Chinese,
Japanese, Thai, Lao, Khmer, Burmese) it is two characters in a row.
"""

from collections.abc import Callable, Sequence

import numpy as np
import regex
from scipy.sparse import csr_matrix, diags
from sklearn.feature_extraction.text import CountVectorizer

from ..context import Context
from ..data.layouts import content_text
from ..data.records import Records
from .text_statistics import UNSPACED


K1, B = 1.5, 0.75
_TERM = regex.compile(rf"{UNSPACED}+|(?:(?!{UNSPACED})\w){{2,}}")
_UNSPACED_RUN = regex.compile(rf"{UNSPACED}+")


def terms(text: str) -> list[str]:
    """Terms of a text, see the module docstring."""
    in_order = []
    for run in _TERM.findall(text.lower()):
        pairs = len(run) > 2 and _UNSPACED_RUN.fullmatch(run)
        in_order += [run[i : i + 2] for i in range(len(run) - 1)] if pairs else [run]
    return in_order


def bm25(
    texts: Sequence[str], queries: Sequence[str], terms_of: Callable[[str], list[str]] = terms
) -> tuple[np.ndarray, np.ndarray]:
    """
    BM25 with Lucene's inverse document frequency, in which each term of a query counts once:

        sum over terms of ln(1 + (N - df + 0.5) / (df + 0.5)) x tf (k1 + 1) / (tf + k1 (1 - b + b length / mean))

    Args:
        texts (`list[str]`):
            What is scored, and what frequencies are counted in.
        queries (`list[str]`):
            Terms that no text has count nothing.
        terms_of (`Callable`, *optional*, defaults to [`terms`]):
            Text -> its terms.

    Returns:
        `tuple`: float64 `(texts, queries)`; and what each query scores itself `(queries,)`, 0 where no text has any of
        its terms: scores grow with the number of a query's terms, so only their ratios to it compare between queries.
    """
    vectorizer = CountVectorizer(analyzer=terms_of)
    try:
        counts = vectorizer.fit_transform(texts).astype(np.float64)
    except ValueError:  # no text has a term
        return np.zeros((len(texts), len(queries))), np.zeros(len(queries))
    frequency = np.bincount(counts.indices, minlength=counts.shape[1])
    weight = np.log1p((len(texts) - frequency + 0.5) / (frequency + 0.5))
    mean_length = counts.sum() / len(texts)
    asked = vectorizer.transform(queries).astype(np.float64)

    def weighted(counts: csr_matrix) -> csr_matrix:
        norm = K1 * (1 - B + B * np.asarray(counts.sum(1)).ravel() / mean_length)
        saturated = counts.tocsr(copy=True)
        saturated.data = saturated.data * (K1 + 1) / (saturated.data + np.repeat(norm, np.diff(saturated.indptr)))
        return saturated @ diags(weight)

    distinct = (asked > 0).astype(np.float64)
    own = np.asarray(weighted(asked).multiply(distinct).sum(1)).ravel()
    return (weighted(counts) @ distinct.T).toarray(), own


def row_texts(records: Records) -> list[str | None]:
    """Text of all turns of each row, one below the other; `None` for a row that can't be read or has no answer."""
    return [
        None
        if record.problem is not None or not record.answer.strip()
        else "\n".join(content_text(message) for message in record.messages)
        for record in records
    ]


def target_matches(records: Records, ctx: Context) -> np.ndarray:
    """
    [`bm25`] of each row for each target row, relative to what the target row scores itself, float64 `(n, targets)`;
    NaN for target rows without a term that a candidate has. Rows without an answer are NaN and entered in
    `ctx.account`.
    """
    texts, queries = row_texts(records), [text or "" for text in row_texts(ctx.target)]
    missing = np.array([text is None for text in texts])
    ctx.account.note("unscorable", "no answer", np.flatnonzero(missing))
    matches = np.full((len(texts), len(queries)), np.nan)
    scores, own = bm25([text for text in texts if text is not None], queries)
    with np.errstate(invalid="ignore", divide="ignore"):
        matches[~missing] = np.where(own > 0, scores / own, np.nan)
    return matches
