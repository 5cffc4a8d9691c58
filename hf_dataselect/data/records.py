"""
Rows of a Hugging Face dataset as [`Record`]s: who says what, and which turns are the answers.

[`Records`] is a lazy view over Arrow: a million rows stay on disk, and only the current batch becomes Python objects.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset, IterableDataset, List

from ..compat.datasets import stored_column
from ..engines.runtime.batching import main_process_first
from ..engines.store.identity import digest
from .images import as_image_lists, image_column, image_key, lacks_images, no_image, stored_images, undecodable
from .layouts import LAYOUTS, Record, RowParser, find_layout
from .rows_hash import rows_hash


#: Images and formatted texts that enter the hash of a dataset.
HASH_SAMPLE = 256


class Records(Sequence):
    """
    A lazy view of a dataset as [`Record`]s.

    Args:
        dataset ([`~datasets.Dataset`]):
            Candidate dataset in one of the layouts of `LAYOUTS`.
        text_field (`str`, *optional*, defaults to `"text"`):
            Column of plain text, as in [`~trl.SFTConfig`].
        formatting_func (`Callable`, *optional*):
            Row -> text, as in [`~trl.SFTTrainer`]; the text is then the whole record.
        name (`str`, *optional*, defaults to `"train_dataset"`):
            Name of the dataset in error messages.

    Raises:
        `TypeError`: not a [`~datasets.Dataset`] (rows of a streamed one can't be selected).
        `ValueError`: no rows, or an unknown layout.
    """

    def __init__(
        self,
        dataset: Dataset,
        text_field: str = "text",
        formatting_func: Callable | None = None,
        name: str = "train_dataset",
    ):
        if isinstance(dataset, IterableDataset):
            raise TypeError(
                f"`{name}` is an `IterableDataset`: rows of a stream can't be scored and selected. "
                "Load it without `streaming=True`, or write the rows that you need to disk first: "
                "`Dataset.from_generator(lambda: iter(stream.take(100_000)))`."
            )
        if not isinstance(dataset, Dataset):
            raise TypeError(f"`{name}` must be a `datasets.Dataset`, got `{type(dataset).__name__}`.")
        if len(dataset) == 0:
            raise ValueError(f"`{name}` has no rows.")
        if image_column(dataset.column_names) and no_image(dataset):  # all null
            dataset = dataset.remove_columns(image_column(dataset.column_names))
        self.dataset = dataset
        self.name = name
        self.text_field = text_field
        self.formatting_func = formatting_func
        columns = set(dataset.column_names)
        layout = find_layout(columns, text_field, formatting_func)
        if layout is None:
            known = "\n  ".join(LAYOUTS.values())
            raise ValueError(f"`{name}` has the columns {sorted(columns)}; expected one of these layouts:\n  {known}")
        self.layout = layout
        #: Image column, `image` or `images`; `None` without images.
        self.images = image_column(columns)
        self.parser = RowParser(self.layout, text_field, formatting_func, self.images is not None)
        #: Key and token rows of the last encoding, see [`encode`].
        self.encoded: tuple[str, Any] | None = None
        #: The dataset without its images, so that reading a row decodes none.
        self.texts = dataset.remove_columns([self.images]) if self.images else dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Record:  # type: ignore[override]  # no slices
        index = range(len(self))[index]
        return self.parser.parse(self.texts.with_format(None)[index : index + 1], [index])[0]

    def __iter__(self) -> Iterator[Record]:
        start = 0
        for batch in self.texts.with_format(None).iter(1000):
            size = len(next(iter(batch.values())))
            yield from self.parser.parse(batch, range(start, start + size))
            start += size

    def subset(self, rows: Sequence[int]) -> "Records":
        """A view of some rows, in this order, renumbered from 0."""
        return Records(self.dataset.select(rows), self.text_field, self.formatting_func, self.name)

    def unreadable(self) -> dict[str, np.ndarray]:
        """
        Rows that neither a selector nor the trainer can use, by reason: a missing value in a column of the layout, a
        chat without turns, or an image that can't be decoded. Arrow's own null counts and lengths tell most; only
        images and ShareGPT rows, of which each turn has to become a message, are read.
        """
        problems = self._unreadable_texts()
        if len(self.undecodable):
            problems["an image can't be decoded"] = self.undecodable
        return problems

    @cached_property
    def undecodable(self) -> np.ndarray:
        """Rows with an image that can't be decoded, int64; all images are decoded to find them, once."""
        return undecodable(self.dataset)

    def _unreadable_texts(self) -> dict[str, np.ndarray]:
        if self.layout == "sharegpt":
            problems: dict[str, list[int]] = {}
            for record in self:
                if record.problem is not None:
                    problems.setdefault(record.problem, []).append(record.index)
            return {reason: np.array(rows) for reason, rows in problems.items()}
        columns = {
            "tokens": ["input_ids"],
            "prompt-completion": ["prompt", "completion"],
            "messages": ["messages"],
            "text": [] if self.formatting_func is not None else [self.text_field],
            "alpaca": ["instruction", "output" if "output" in self.dataset.column_names else "response"],
        }[self.layout]
        unreadable = {}
        for column in columns:
            table = self.dataset.select_columns([column]).with_format("arrow")
            tests = {f"missing value in `{column}`": pc.is_null} if stored_column(table, column).null_count else {}
            if self.layout != "tokens" and isinstance(table.features[column], List):
                tests[f"no turns in `{column}`"] = _has_no_items
            if self.layout == "messages" and "tool_calls" not in _turn_columns(table.features[column]):
                tests["missing content in a turn"] = _has_no_content
            for reason, test in tests.items():
                failed = np.concatenate([test(part[column]).to_numpy() for part in table.iter(10_000)])
                if failed.any():
                    unreadable[reason] = np.flatnonzero(failed)
        return unreadable

    def for_training(self, indices: Sequence[int] | np.ndarray | None = None, num_proc: int | None = None) -> Dataset:
        """
        Rows in a layout that TRL trains on: Alpaca columns become chat prompt-completion, ShareGPT columns become
        messages; all others are returned unchanged. Images are not decoded; where some rows have none, the
        column becomes `images`, a list per row.

        Args:
            indices (`Sequence[int]`, *optional*):
                Rows, in this order; all by default (then no index mapping is added).
        """
        rows = self.dataset if indices is None else self.dataset.select(indices)
        if self.images and lacks_images(self.dataset):
            rows = as_image_lists(rows)  # TRL accepts a row without images only as an empty list
        if self.layout not in ("alpaca", "sharegpt"):
            return rows

        kept = ("tools", "chat_template_kwargs", "image", "images")
        dropped = [name for name in rows.column_names if name not in kept]
        read, parser = self.texts.column_names, self.parser

        def as_chats(*columns: list) -> dict[str, list]:
            return parser.as_chats(dict(zip(read, columns, strict=True)))

        options = {"batched": True, "remove_columns": dropped, "num_proc": num_proc, "desc": "Converting to chats"}
        with main_process_first(rows):
            return rows.map(as_chats, input_columns=read, **options)

    @cached_property
    def _content_hash(self) -> str:
        sample = np.unique(np.linspace(0, len(self) - 1, min(HASH_SAMPLE, len(self))).astype(np.int64))
        described = [rows_hash(self.texts), self.dataset.column_names if self.images else None]
        if self.images:
            described += [image_key(images).hex() for images in stored_images(self.dataset, sample)]
        if self.formatting_func is not None:
            described += [self[int(row)].messages for row in sample]
        return digest(described)

    def content_hash(self) -> str:
        """
        Hash of all rows and column names. Of images, and of the texts that `formatting_func` returns, 256 evenly
        spaced ones are hashed.
        """
        return self._content_hash


def _turn_columns(feature: Any) -> set[str]:
    """Fields of the turns of a chat column; `tool_calls` if its turns are not structs."""
    return set(feature.feature) if isinstance(feature, List) and isinstance(feature.feature, dict) else {"tool_calls"}


def _has_no_content(chats: pa.ChunkedArray) -> pa.ChunkedArray:
    """Whether the content of some turn of each chat is null."""
    chats = chats.combine_chunks()
    turns, missing = pc.list_flatten(chats), np.zeros(len(chats), bool)
    if turns.type.get_field_index("content") >= 0:
        null = pc.is_null(pc.struct_field(turns, "content")).to_numpy(zero_copy_only=False)
        missing[pc.list_parent_indices(chats).to_numpy()[null]] = True
    return pa.chunked_array([missing])


def _has_no_items(lists: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.equal(pc.list_value_length(lists), 0).fill_null(False)
