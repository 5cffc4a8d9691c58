"""Streamed rows, written to disk to be chosen from."""

import atexit
import logging
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
from accelerate import PartialState
from accelerate.utils import broadcast_object_list, gather_object
from datasets import Dataset, IterableDataset

from ..compat.accelerate import several_processes
from ..engines.runtime.batching import main_process_first
from ..engines.runtime.ranks import meeting
from .rows_hash import rows_hash


logger = logging.getLogger(__name__)


def on_disk(dataset: Any, rows: int | None, name: str = "train_dataset") -> Any:
    """
    The first rows of a stream, in Arrow on disk below `HF_DATASETS_CACHE`, on each node once; they are removed when
    the process ends. Whatever is no stream is returned as it is.

    Args:
        dataset (`Any`):
            A stream, or any other dataset.
        rows (`int`, *optional*):
            How many rows are read, at most.
        name (`str`, *optional*, defaults to `"train_dataset"`):
            Name of the dataset in error messages.

    Raises:
        `TypeError`: a stream, and no number of rows.
        `ValueError`: they can't be read or written, or nodes without a common folder have read other rows.
    """
    if not isinstance(dataset, IterableDataset):
        return dataset
    if rows is None:
        raise TypeError(
            f"`{name}` is an `IterableDataset`: rows of a stream can't be chosen from before they are read. Set "
            "`selection_stream_rows` (`stream_rows` of `select_dataset`) to the number of rows to write to disk and "
            "choose from, or load it without `streaming=True`."
        )
    number = [uuid.uuid4().hex]
    if several_processes():
        broadcast_object_list(number)
    folder = Path(datasets.config.HF_DATASETS_CACHE) / "streams" / number[0]
    if not several_processes() or PartialState().is_local_main_process:
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
    with main_process_first():
        try:
            # Named by chance: what datasets names it by does not tell whether the rows have changed since.
            written = Dataset.from_generator(
                _first,
                features=dataset.features,
                cache_dir=str(folder),
                gen_kwargs={"stream": dataset, "rows": rows},
                fingerprint=number[0],
            )
        except Exception as error:  # `datasets` raises a dozen kinds
            raise ValueError(f"`{name}`: its first {rows:,} rows can't be written to {folder}: {error}") from error
    with meeting():
        hashes = {*gather_object([rows_hash(written)])} if several_processes() else ()
    if len(hashes) > 1:
        raise ValueError(
            f"`{name}`: the nodes have read other rows of the stream. Seed what shuffles it, or set "
            "`HF_DATASETS_CACHE` to a folder that all nodes share."
        )
    logger.info("`%s`: %s rows of the stream are on disk.", name, f"{len(written):,}")
    return written


def _first(stream: IterableDataset, rows: int) -> Iterator[dict[str, Any]]:
    yield from stream.take(rows)
