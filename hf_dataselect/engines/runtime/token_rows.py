"""Token rows, the engines' only view of a dataset: the token ids of each row, and the spans of its label tokens."""

import hashlib
from collections.abc import Iterable, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset, Features, List, Value, concatenate_datasets


#: Arrow types of the two columns; `spans` holds start, end, start, end, ... (ends are exclusive).
TOKEN_FEATURES = Features({"input_ids": List(Value("int32")), "spans": List(Value("int32"))})


def token_counts(dataset: Dataset) -> np.ndarray:
    """Number of `input_ids` of each row, int64 `(n,)`; 0 for a row without any."""
    batches = dataset.select_columns(["input_ids"]).with_format("arrow").iter(10_000)
    counts = [pc.list_value_length(batch["input_ids"]).fill_null(0).to_numpy().astype(np.int64) for batch in batches]
    return np.concatenate([np.zeros(0, np.int64), *counts])


class TokenRows:
    """
    A view over an Arrow table of token ids and label spans; ids stay on disk where the table is memory-mapped.

    Args:
        dataset ([`~datasets.Dataset`]):
            Columns `input_ids` (list of int32) and `spans` (list of int32: start, end, start, end, ...; the tokens at
            `start <= position < end` are label tokens, all others context).
    """

    def __init__(self, dataset: Dataset):
        # The parts of rows in a view: (row, start, end, first label token, tokens of `begin`) each, and `begin`.
        self._parts: tuple[np.ndarray, np.ndarray] | None = None
        self.dataset = dataset.select_columns(["input_ids", "spans"]).with_format("arrow")
        #: Number of tokens of each row, int64 `(n,)`.
        self.lengths = token_counts(self.dataset)

    @classmethod
    def from_lists(cls, input_ids: Sequence[Sequence[int]], spans: Sequence[Sequence[tuple[int, int]]]) -> "TokenRows":
        """Token rows from Python lists: per row, its ids and its `(start, end)` pairs."""
        flat = [[border for span in row for border in span] for row in spans]
        return cls(Dataset.from_dict({"input_ids": input_ids, "spans": flat}, features=TOKEN_FEATURES))

    def __len__(self) -> int:
        return len(self.lengths)

    def cut(
        self, rows: np.ndarray, starts: np.ndarray, ends: np.ndarray, firsts: np.ndarray, begin: Sequence[int] = ()
    ) -> "TokenRows":
        """
        A view of parts of rows.

        Args:
            rows, starts, ends (`np.ndarray`):
                Row of each part, and its tokens `[start, end)`, int64 `(m,)`.
            firsts (`np.ndarray`):
                First label token of each part, from its start on; all later ones are label tokens, too. Int64 `(m,)`.
            begin (`Sequence[int]`, *optional*):
                Token ids to put before each part.
        """
        view = object.__new__(TokenRows)
        view.dataset, view.lengths = self.dataset, ends - starts + len(begin)
        columns = [rows, starts, ends, firsts + len(begin), np.full(len(rows), len(begin))]
        view._parts = np.column_stack(columns), np.array(begin, np.int32)
        return view

    def join(self, rows: "TokenRows") -> "TokenRows":
        """This view followed by other rows, which are not a view and have at most one span each."""
        spans = [spans for _, spans in rows.take(range(len(rows)))]
        firsts = [row[0, 0] if len(row) else length for row, length in zip(spans, rows.lengths, strict=True)]
        places, zeros = len(self.dataset) + np.arange(len(rows)), np.zeros(len(rows), np.int64)
        joined = object.__new__(TokenRows)
        joined.dataset = concatenate_datasets([self.dataset, rows.dataset]).with_format("arrow")
        joined.lengths = np.concatenate([self.lengths, rows.lengths])
        parts = np.column_stack([places, zeros, rows.lengths, np.array(firsts, np.int64), zeros])
        joined._parts = np.concatenate([self._parts[0], parts]), self._parts[1]
        return joined

    def select(self, rows: np.ndarray) -> "TokenRows":
        """Some rows, in this order."""
        if self._parts is None:
            return TokenRows(self.dataset.select(rows))
        view = object.__new__(TokenRows)
        view.dataset, view.lengths = self.dataset, self.lengths[rows]
        view._parts = self._parts[0][rows], self._parts[1]
        return view

    def _column(self, name: str, batch_size: int = 10_000) -> Iterable[pa.Array]:
        for table in self.dataset.iter(batch_size):
            yield table[name].combine_chunks()

    def take(self, rows: Sequence[int]) -> list[tuple[np.ndarray, np.ndarray]]:
        """`(ids (length,), spans (number of spans, 2))` of the given rows, int32."""
        if self._parts is not None:
            parts, begin = self._parts[0][rows], self._parts[1]
            table = self.dataset.select_columns(["input_ids"])[parts[:, 0].tolist()]["input_ids"].combine_chunks()
            taken = []
            for ids, (_, start, end, first, size) in zip(table, parts.tolist(), strict=True):
                ids = np.concatenate([begin[:size], ids.values.to_numpy()[start:end]])
                taken.append((ids, np.array([[first, len(ids)]] if first < len(ids) else [], np.int32).reshape(-1, 2)))
            return taken
        table = self.dataset[list(map(int, rows))]
        pairs = zip(table["input_ids"].combine_chunks(), table["spans"].combine_chunks(), strict=True)
        return [(ids.values.to_numpy(), spans.values.to_numpy().reshape(-1, 2)) for ids, spans in pairs]

    def keys(self) -> np.ndarray:
        """Content key of each row, `(n,)` of 16 bytes (`V16`): equal for equal ids and spans."""
        keys = bytearray()
        for first in range(0, len(self), 10_000):
            for ids, spans in self.take(range(first, min(first + 10_000, len(self)))):
                digest = hashlib.blake2b(np.ascontiguousarray(spans), digest_size=16)
                digest.update(b"|")
                digest.update(ids)
                keys += digest.digest()
        return np.frombuffer(bytes(keys), dtype="V16")


def labelled(rows: TokenRows) -> Dataset:
    """Rows with `labels` as [`~trl.SFTTrainer`] takes them; rows without label tokens are excluded."""
    columns = {"input_ids": [], "labels": []}
    for ids, spans in rows.take(range(len(rows))):
        labels = np.full(len(ids), -100, np.int32)
        for start, end in spans:
            labels[max(start, 1) : end] = ids[max(start, 1) : end]  # no token predicts the first one
        if (labels != -100).any():
            columns["input_ids"].append(ids)
            columns["labels"].append(labels)
    return Dataset.from_dict(columns, features=Features(dict.fromkeys(columns, List(Value("int32")))))
