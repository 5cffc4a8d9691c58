"""[`Encoded`]: the token rows of records, and the records that have none."""

import copy
from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
from datasets import Dataset, Features, List, Value

from ..engines.runtime.token_rows import TOKEN_FEATURES, TokenRows


#: Token rows, and for each its record, whether answer tokens were cut off, why it has no label tokens, and the start
#: of the header of each answer.
COLUMNS = Features(
    {
        **TOKEN_FEATURES,
        "row": Value("int64"),
        "truncated": Value("bool"),
        "problem": Value("string"),
        "headers": List(Value("int32")),
    }
)


class Encoded:
    """
    Token rows of a dataset, and the records that could not be encoded. A record has one token row, or several where
    answers stand without their prompts or long rows are split.

    Args:
        dataset ([`~datasets.Dataset`]):
            The columns `COLUMNS`.
        records (`int`):
            Number of records that the token rows come from.
    """

    def __init__(self, dataset: Dataset, records: int):
        self.tokens = TokenRows(dataset)
        self._columns = dataset.select_columns(["spans", "headers"]).with_format("arrow")
        columns = dataset.select_columns(["row", "truncated", "problem"]).with_format("arrow")
        parts = {name: [] for name in ("row", "truncated")}
        #: Unscorable records, by reason.
        self.problems: dict[str, list[int]] = {}
        for table in columns.iter(10_000):
            for name, column in parts.items():
                column.append(table[name].to_numpy())
            if any(table["problem"].unique().to_pylist()):
                for row, problem in zip(table["row"].to_pylist(), table["problem"].to_pylist(), strict=True):
                    if problem:
                        self.problems.setdefault(problem, []).append(row)
        #: Record of each token row, int64.
        self.row = np.concatenate(parts["row"]).astype(np.int64)
        #: Whether answer tokens of a record were cut off, bool `(records,)`.
        self.truncated = np.zeros(records, bool)
        self.truncated[self.row[np.concatenate(parts["truncated"]).astype(bool)]] = True

    @property
    def problematic(self) -> np.ndarray:
        """Unscorable records, bool `(records,)`."""
        mask = np.zeros(len(self.truncated), bool)
        mask[[row for rows in self.problems.values() for row in rows]] = True
        return mask

    @property
    def leading(self) -> "Encoded":
        """One token row per record: of those that are split, the first part with label tokens, else the first."""
        if len(self.row) == len(self.truncated):
            return self
        labelled = self.label_tokens() > 0
        order = np.lexsort([np.arange(len(self.row)), ~labelled, self.row])
        first = order[np.unique(self.row[order], return_index=True)[1]]
        leading = copy.copy(self)
        leading.tokens, leading.row = self.tokens.select(first), self.row[first]
        leading._columns = self._columns.select(first)
        return leading

    def prompts(self) -> TokenRows:
        """The prompt of each token row, up to its first answer; all tokens are label tokens."""
        ends = self.tokens.lengths.copy()
        first = 0
        for spans in self._column("spans"):
            offsets = spans.offsets.to_numpy()
            filled = np.flatnonzero(np.diff(offsets))
            ends[first + filled] = spans.values.to_numpy()[offsets[filled]]
            first += len(spans)
        starts = np.zeros_like(ends)
        return self.tokens.cut(np.arange(len(ends)), starts, ends, starts)

    def label_tokens(self) -> np.ndarray:
        """Number of label tokens of each token row, int64."""
        counts = [np.zeros(0, np.int64)]
        for spans in self._column("spans"):
            edges, offsets = spans.flatten().to_numpy().reshape(-1, 2), spans.offsets.to_numpy()
            total = np.append(0, np.cumsum(edges[:, 1] - edges[:, 0], dtype=np.int64))
            counts.append(np.diff(total[(offsets - offsets[0]) // 2]))
        return np.concatenate(counts)

    def span_tokens(self) -> tuple[np.ndarray, np.ndarray]:
        """Label tokens of each span, without a token at position 0, and spans of each token row, int64."""
        parts = [*self._column("spans")]
        edges = np.concatenate([part.flatten().to_numpy() for part in parts]).reshape(-1, 2)
        sizes = np.concatenate([np.diff(part.offsets.to_numpy()) for part in parts])
        return np.diff(np.maximum(edges, 1)).ravel().astype(np.int64), sizes.astype(np.int64) // 2

    def _column(self, name: str) -> Iterator[pa.ListArray]:
        for table in self._columns.iter(10_000):
            yield table[name].combine_chunks()

    def answers(self, begin: Sequence[int]) -> "tuple[Encoded, np.ndarray]":
        """
        Each answer without its prompt, after the header that precedes it in its row.

        Args:
            begin (`Sequence[int]`):
                Token ids to put before the header.

        Returns:
            `tuple`: the answers, and the records, int64, that are excluded since a header differs from the template's.
        """
        spans = np.concatenate([part.flatten().to_numpy() for part in self._column("spans")]).reshape(-1, 2)
        headers = np.concatenate([part.flatten().to_numpy() for part in self._column("headers")]).astype(np.int64)
        counts = np.concatenate([np.diff(part.offsets.to_numpy()) for part in self._column("headers")])
        rows, (start, end) = np.repeat(np.arange(len(counts)), counts), spans.astype(np.int64).T
        excluded = np.unique(self.row[rows[headers < 0]])
        kept = ~np.isin(self.row[rows], excluded)
        rows, headers, start, end = (column[kept] for column in (rows, headers, start, end))
        answers = copy.copy(self)
        answers.tokens, answers.row = self.tokens.cut(rows, headers, end, start - headers, begin), self.row[rows]
        return answers, excluded
