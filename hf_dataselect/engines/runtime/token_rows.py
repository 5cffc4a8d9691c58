"""Token rows: the only thing the engines know of a dataset. A row is its token ids and the spans that count."""

import hashlib
from collections.abc import Iterable, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset, Features, List, Value


#: Arrow types of the two columns; `spans` holds start, end, start, end, ... (ends are exclusive).
TOKEN_FEATURES = Features({"input_ids": List(Value("int32")), "spans": List(Value("int32"))})


class TokenRows:
    """
    A view over an Arrow table of token ids and counted spans; ids stay on disk where the table is memory-mapped.

    Args:
        dataset ([`~datasets.Dataset`]):
            Columns `input_ids` (list of int32) and `spans` (list of int32: start, end, start, end, ...; the tokens at
            `start <= position < end` count, all others are context).
    """

    def __init__(self, dataset: Dataset):
        self.dataset = dataset.select_columns(["input_ids", "spans"]).with_format("arrow")
        #: Tokens of each row, int64 `(n,)`.
        self.lengths = np.concatenate(
            [np.zeros(0, np.int64)]
            + [pc.list_value_length(ids).to_numpy().astype(np.int64) for ids in self._column("input_ids")]
        )

    @classmethod
    def from_lists(cls, input_ids: Sequence[Sequence[int]], spans: Sequence[Sequence[tuple[int, int]]]) -> "TokenRows":
        """Token rows from Python lists: ids a row, and `(start, end)` pairs a row."""
        flat = [[border for span in row for border in span] for row in spans]
        return cls(Dataset.from_dict({"input_ids": input_ids, "spans": flat}, features=TOKEN_FEATURES))

    def __len__(self) -> int:
        return len(self.dataset)

    def _column(self, name: str, batch_size: int = 10_000) -> Iterable[pa.Array]:
        for table in self.dataset.iter(batch_size):
            yield table[name].combine_chunks()

    def take(self, rows: Sequence[int]) -> list[tuple[np.ndarray, np.ndarray]]:
        """`(ids (length,), spans (number of spans, 2))` of the given rows, int32."""
        table = self.dataset[list(map(int, rows))]
        pairs = zip(table["input_ids"].combine_chunks(), table["spans"].combine_chunks(), strict=True)
        return [(ids.values.to_numpy(), spans.values.to_numpy().reshape(-1, 2)) for ids, spans in pairs]

    def keys(self) -> np.ndarray:
        """Content key of each row, `(n,)` of 16 bytes (`V16`): equal ids and spans, equal key."""
        keys = bytearray()
        for ids, spans in zip(self._column("input_ids"), self._column("spans"), strict=True):
            columns = [(part.offsets.to_numpy(), part.values.to_numpy()) for part in (ids, spans)]
            (id_offsets, id_values), (span_offsets, span_values) = columns
            for row in range(len(ids)):
                digest = hashlib.blake2b(span_values[span_offsets[row] : span_offsets[row + 1]], digest_size=16)
                digest.update(b"|")
                digest.update(id_values[id_offsets[row] : id_offsets[row + 1]])
                keys += digest.digest()
        return np.frombuffer(bytes(keys), dtype="V16")
