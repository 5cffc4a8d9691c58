"""
BM25: how well the words of texts match those of queries, without a model.

A term is a word of two characters or more, in lower case; of scripts that are written without spaces (Chinese,
Japanese, Thai, Lao, Khmer, Burmese) it is two characters in a row.
"""

from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import regex
from scipy.sparse import csr_matrix, diags

from ..context import Context
from ..data.layouts import Record, content_text
from ..data.records import Records
from ..data.row_texts import RowTexts
from ..engines.store.vector_store import blocks
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


class TermScores:
    """
    BM25 with Lucene's inverse document frequency, in which each term of a query counts once:

        sum over terms of ln(1 + (N - df + 0.5) / (df + 0.5)) x tf (k1 + 1) / (tf + k1 (1 - b + b length / mean))

    Float64 `(texts, queries)`, computed when indexed by slices of texts: in memory are 8 bytes for each text and term
    of a query that it has.

    Args:
        texts (`Iterable[str]`):
            What is scored, and what frequencies are counted in; `None` scores NaN, and is not counted.
        queries (`list[str]`):
            Terms that no text has count nothing.
        terms_of (`Callable`, *optional*, defaults to [`terms`]):
            Text -> its terms.
    """

    def __init__(
        self,
        texts: Iterable[str | None],
        queries: Sequence[str],
        terms_of: Callable[[str], list[str]] = terms,
    ):
        asked = [Counter(terms_of(query)) for query in queries]
        place = {term: number for number, term in enumerate(sorted(set().union(*asked)))}
        numbers, columns, ends, lengths = array("f"), array("i"), array("q", [0]), array("d")
        for text in texts:
            found = Counter() if text is None else Counter(terms_of(text))
            lengths.append(np.nan if text is None else found.total())
            held = sorted((place[term], count) for term, count in found.items() if term in place)
            columns.extend(column for column, _ in held)
            numbers.extend(count for _, count in held)
            ends.append(len(columns))
        #: Terms of each text, NaN of a missing one.
        self.lengths, shape = np.array(lengths), (len(lengths), len(place))
        given = np.frombuffer(numbers, "f4"), np.frombuffer(columns, "i4"), np.array(ends)
        self._counts, known = csr_matrix(given, shape), ~np.isnan(self.lengths)
        frequency = self._counts.getnnz(0)
        self._weight = diags(np.log1p((known.sum() - frequency + 0.5) / (frequency + 0.5)))
        self._mean = (self.lengths[known].mean() if known.any() else 0.0) or 1.0
        entries = [(row, place[term], query[term]) for row, query in enumerate(asked) for term in query]
        row, column, count = np.array([entry for entry in entries if frequency[entry[1]]]).reshape(-1, 3).T
        counts = csr_matrix((count.astype(np.float64), (row, column)), (len(asked), shape[1]))
        self._distinct, self.shape = (counts > 0).astype(np.float64), (shape[0], len(asked))
        own = self._weighted(counts, np.asarray(counts.sum(1)).ravel())
        #: What each query scores itself, 0 where no text has any of its terms: scores grow with the number of a
        #: query's terms, so only their ratios to it compare between queries.
        self.own = np.asarray(own.multiply(self._distinct).sum(1)).ravel()

    def __getitem__(self, rows: slice) -> np.ndarray:
        lengths = self.lengths[rows]
        scores = (self._weighted(self._counts[rows].astype(np.float64), lengths) @ self._distinct.T).toarray()
        scores[np.isnan(lengths)] = np.nan
        return scores

    def _weighted(self, counts: csr_matrix, lengths: np.ndarray) -> csr_matrix:
        norm = K1 * (1 - B + B * lengths / self._mean)
        counts.data = counts.data * (K1 + 1) / (counts.data + np.repeat(norm, np.diff(counts.indptr)))
        return counts @ self._weight


def row_texts(records: Records) -> RowTexts:
    """Text of all turns of each row, one below the other; `None` for a row that can't be read or has no answer."""
    return RowTexts(records, _text)


def _text(record: Record) -> str | None:
    if record.problem is not None or not record.answer.strip():
        return None
    return "\n".join(content_text(message) for message in record.messages)


class TargetMatches:
    """
    [`TermScores`] of rows for groups of target rows, relative to what a target row scores itself: the mean over those
    of a group that have a term of a candidate. Float64 `(n, groups)`, computed when indexed by slices; NaN for groups
    without such a row, and for rows without an answer, which are entered in `ctx.account`.

    Args:
        records ([`Records`]):
            The rows.
        ctx ([`Context`]):
            Target and account.
        groups (`np.ndarray`):
            Group of each target row, consecutive integers from 0 `(targets,)`.
    """

    def __init__(self, records: Records, ctx: Context, groups: np.ndarray):
        self._scores = TermScores(row_texts(records), [text or "" for text in row_texts(ctx.target)])
        ctx.account.note("unscorable", "no answer", np.flatnonzero(np.isnan(self._scores.lengths)))
        usable = self._scores.own > 0
        self._members = [np.flatnonzero(usable & (groups == group)) for group in range(groups.max() + 1)]
        #: Whether a group has a row that can match, bool `(groups,)`.
        self.used = np.array([len(rows) > 0 for rows in self._members])
        self.shape = self._scores.shape[0], len(self._members)

    def __getitem__(self, rows: slice) -> np.ndarray:
        first, end, _ = rows.indices(self.shape[0])
        matches = np.full((max(0, end - first), self.shape[1]), np.nan)
        for part in blocks((len(matches), 4 * len(self._scores.own))):
            ratios = self._scores[first + part.start : min(end, first + part.stop)]
            ratios /= np.where(self._scores.own > 0, self._scores.own, np.nan)
            for group in np.flatnonzero(self.used):
                matches[part, group] = ratios[:, self._members[group]].mean(1)
        return matches
