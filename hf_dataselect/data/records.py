"""
Rows of a Hugging Face dataset as [`Record`]s: who says what, and which turns are the answers.

[`Records`] is a lazy view over Arrow: a million rows stay on disk, and only the current batch becomes Python objects.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow.compute as pc
from datasets import Dataset, Features, IterableDataset, LargeList, List, Value

from ..compat.datasets import fingerprint, stored_column
from ..engines.runtime.batching import main_process_first
from ..engines.store.arrow_files import checked_map
from ..engines.store.identity import digest
from .images import as_image_lists, image_column, image_key, lacks_images, no_image, stored_images, undecodable
from .layouts import Record, find_layout, unknown_layout
from .parser import RowParser
from .rows_hash import is_text, rows_hash
from .text import TextFormat


logger = logging.getLogger(__name__)

#: Raise it whenever rows are read or rendered differently, so that what was found of them is not reused.
VERSION = 1
#: Columns that TRL takes for the layout of a row.
TURN_COLUMNS = ("prompt", "completion", "chosen", "rejected", "messages", "conversations")
#: Columns of arguments of the chat template.
TEMPLATE_COLUMNS = {"tools", "chat_template_kwargs"}
#: Columns of part of the prompt, which become turns where rows are converted.
_PROMPT_COLUMNS = {"system", "history"}
#: Column of the turns in the layouts that TRL reads.
_CHATS = {"messages": "messages", "prompt-completion": "prompt"}
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
                f"`{name}` is an `IterableDataset`, whose rows can be read once only. Load it without "
                "`streaming=True`, or write the rows that you need to disk first: "
                "`Dataset.from_generator(lambda: iter(stream.take(100_000)))`."
            )
        if not isinstance(dataset, Dataset):
            raise TypeError(f"`{name}` must be a `datasets.Dataset`, got `{type(dataset).__name__}`.")
        if len(dataset) == 0:
            raise ValueError(f"`{name}` has no rows.")
        if dataset.format["type"] == "custom":
            raise ValueError(
                f"`{name}` has a transform (`with_transform`), through which rows can't be read: use `map`."
            )
        if image_column(dataset.column_names) and no_image(dataset):  # all null
            dataset = dataset.remove_columns(image_column(dataset.column_names))
        self.dataset = dataset
        self.name = name
        self.text_field = text_field
        self.formatting_func = formatting_func
        columns = set(dataset.column_names)
        layout = find_layout(columns, text_field, formatting_func)
        if layout is None:
            raise ValueError(unknown_layout(name, columns))
        self.layout = layout
        #: Image column, `image` or `images`; `None` without images.
        self.images = image_column(columns)
        template_kwargs = dataset.features.get("chat_template_kwargs")
        self.parser = RowParser(
            layout,
            text_field,
            formatting_func,
            images=self.images is not None,
            native=_is_native(dataset.features, layout, formatting_func),
            template_fields=tuple(template_kwargs) if isinstance(template_kwargs, dict) else (),
        )
        if self.parser.native and layout in _CHATS and (ignored := sorted(_PROMPT_COLUMNS & columns)):
            named = ", ".join(f"`{column}`" for column in ignored)
            logger.warning("`%s`: TRL does not read the column %s beside `%s`.", name, named, _CHATS[layout])
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

    def unreadable(self, text_format: TextFormat | None = None, num_proc: int | None = None) -> dict[str, np.ndarray]:
        """
        Rows that neither a selector nor the trainer can use, by reason: a missing value, a chat without turns, `tools`
        that are not JSON, turns that the chat template refuses, an image that can't be decoded.

        Args:
            text_format ([`TextFormat`], *optional*):
                Chat template; without one, rows are read but not rendered.
            num_proc (`int`, *optional*):
                Processes that read and render.
        """
        # The processor renders rows with images, not the tokenizer.
        text_format = None if self.images else text_format
        problems = {} if self._is_text else self._unreadable_texts(text_format, num_proc)
        if len(self.undecodable):
            problems["an image can't be decoded"] = self.undecodable
        return problems

    @cached_property
    def undecodable(self) -> np.ndarray:
        """Rows with an image that can't be decoded, int64; all images are decoded to find them, once."""
        return undecodable(self.dataset)

    @property
    def _is_text(self) -> bool:
        """Whether rows are plain texts without nulls, so that none has to be read."""
        columns = {"text": [self.text_field], "prompt-completion": ["prompt", "completion"]}.get(self.layout)
        if columns is None or self.formatting_func is not None or TEMPLATE_COLUMNS & {*self.dataset.column_names}:
            return False
        stored = [stored_column(self.dataset, column) for column in columns]
        return all(is_text(column.type) and not column.null_count for column in stored)

    def _unreadable_texts(self, text_format: TextFormat | None, num_proc: int | None) -> dict[str, np.ndarray]:
        if self.layout == "tokens":
            parts = self.dataset.select_columns(["input_ids"]).with_format("arrow").iter(10_000)
            missing = np.flatnonzero(np.concatenate([pc.is_null(part["input_ids"]).to_numpy() for part in parts]))
            return {"missing value in `input_ids`": missing} if len(missing) else {}
        text_format = text_format and replace(text_format)  # without cached properties

        def find(records: list[Record]) -> dict[str, list]:
            problems = [record.problem or (text_format and text_format.refusal(record)) for record in records]
            unusable = [(record.index, why) for record, why in zip(records, problems, strict=True) if why]
            return {"row": [index for index, _ in unusable], "problem": [why for _, why in unusable]}

        key = digest([VERSION, self.text_field, text_format and text_format.key])
        features = Features({"row": Value("int64"), "problem": Value("string")})
        unusable = self.map(find, key, features, num_proc, "Reading rows")
        rows, reasons = np.array(unusable["row"], np.int64), np.array(unusable["problem"], object)
        return {reason: rows[reasons == reason] for reason in dict.fromkeys(reasons)}

    def map(
        self,
        function: Callable[[list[Record]], dict[str, list]],
        key: str,
        features: Features,
        num_proc: int | None,
        label: str,
    ) -> Dataset:
        """
        Columns computed from the records, batch by batch; `datasets` caches those of a dataset on disk.

        Args:
            function (`Callable`):
                Records of a batch -> columns, of any number of rows.
            key (`str`):
                Hash of all that the columns depend on besides the rows.
            features ([`~datasets.Features`]):
                Types of the columns.
            num_proc (`int`, *optional*):
                Processes that compute them.
            label (`str`):
                Label of the progress bar.
        """
        parser = self.parser

        def compute(batch: dict[str, list], indices: list[int]) -> dict[str, list]:
            return function(parser.parse(batch, indices))

        with main_process_first(self.texts):
            return checked_map(
                self.texts.with_format(None),
                compute,
                batched=True,
                with_indices=True,
                remove_columns=self.texts.column_names,
                features=features,
                num_proc=num_proc,
                new_fingerprint=digest([fingerprint(self.texts), key]) if self.formatting_func is None else None,
                desc=label,
            )

    @property
    def trained_field(self) -> str:
        """Column of plain text of [`for_training`]."""
        return self.text_field if self.formatting_func is None else "text"

    def for_training(self, indices: Sequence[int] | np.ndarray | None = None, num_proc: int | None = None) -> Dataset:
        """
        Rows in a layout that TRL trains on. Alpaca rows become chat prompts and completions; ShareGPT rows, and turns
        that are JSON or a struct of lists, become `messages`; all others are returned unchanged, without the columns
        that TRL would take for another layout. Images are not decoded; where some rows have none, the column becomes
        `images`, a list per row.

        Args:
            indices (`Sequence[int]`, *optional*):
                Rows, in this order; all by default (then no index mapping is added).
        """
        rows = self.dataset if indices is None else self.dataset.select(indices)
        if self.images and lacks_images(self.dataset):
            rows = as_image_lists(rows)  # TRL accepts a row without images only as an empty list
        parser, options = self.parser, {"batched": True, "num_proc": num_proc, "desc": "Converting rows"}
        if not parser.native:
            read = self.texts.column_names

            def as_trained(*columns: list) -> dict[str, list]:
                return parser.as_trained(dict(zip(read, columns, strict=True)))

            dropped = [name for name in rows.column_names if name not in {*TEMPLATE_COLUMNS, "image", "images"}]
            with main_process_first(rows):
                return checked_map(rows, as_trained, input_columns=read, remove_columns=dropped, **options)
        own = {"prompt-completion": ("prompt", "completion"), "text": (self.text_field,)}.get(self.layout, self.layout)
        others = {*TURN_COLUMNS, self.text_field}.difference(own if isinstance(own, tuple) else [own])
        if self.layout != "tokens" and (mistaken := others & {*rows.column_names}):
            rows = rows.remove_columns(sorted(mistaken))
        if refused := [name for name in TEMPLATE_COLUMNS & {*rows.column_names} if _has_blanks(rows, name)]:

            def as_template_columns(*columns: list) -> dict[str, list]:
                return parser.template_columns(dict(zip(refused, columns, strict=True)))

            with main_process_first(rows):
                rows = checked_map(rows, as_template_columns, input_columns=refused, **options)
        return rows

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


def _has_blanks(dataset: Dataset, name: str) -> bool:
    """Whether a column of `TEMPLATE_COLUMNS` has values that TRL refuses: blank `tools`, a null mapping."""
    column = stored_column(dataset, name)
    if name != "tools":
        return bool(column.null_count)
    return is_text(column.type) and bool(pc.any(pc.equal(pc.utf8_trim_whitespace(column), "")).as_py())


def _is_native(features: Features, layout: str, formatting_func: Callable | None) -> bool:
    """Whether TRL reads the rows as they are."""
    chats = {"messages": ["messages"], "prompt-completion": ["prompt", "completion"]}.get(layout, [])
    lists = [features[name].feature for name in chats if isinstance(features[name], (List, LargeList))]
    if layout == "messages" and not lists and isinstance(features["messages"], (Value, dict)):
        return False  # JSON text, or a struct of lists
    named = all("role" in turn for turn in lists if isinstance(turn, dict))
    return named and layout not in ("alpaca", "sharegpt") and formatting_func is None
