"""Streamed rows, written to disk to be chosen from."""

import atexit
import logging
import shutil
import uuid
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import datasets
from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from datasets import Dataset, IterableDataset

from ..compat.accelerate import several_processes


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
        `ValueError`: they can't be read or written.
    """
    if not isinstance(dataset, IterableDataset):
        return dataset
    if rows is None:
        raise TypeError(
            f"`{name}` is an `IterableDataset`: rows of a stream can't be chosen from before they are read. Set "
            "`selection_stream_rows` (`stream_rows` of `select_dataset`) to the number of rows to write to disk and "
            "choose from, or load it without `streaming=True`."
        )
    number, first = [uuid.uuid4().hex], nullcontext()
    if several_processes():
        broadcast_object_list(number)
        first = PartialState().local_main_process_first()
    folder = Path(datasets.config.HF_DATASETS_CACHE) / "streams" / number[0]
    if not several_processes() or PartialState().is_local_main_process:
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
    try:
        with first:
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
    logger.info("`%s`: %s rows of the stream are on disk.", name, f"{len(written):,}")
    return written


def _first(stream: IterableDataset, rows: int) -> Iterator[dict[str, Any]]:
    yield from stream.take(rows)
