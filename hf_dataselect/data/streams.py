"""Streamed rows, written to disk to be chosen from."""

import atexit
import logging
import platform
import shutil
import uuid
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Any

import datasets
from accelerate import PartialState
from accelerate.utils import broadcast_object_list, gather_object
from datasets import Dataset, IterableDataset

from ..compat.accelerate import several_processes
from ..engines.runtime.batching import main_process_first
from ..engines.runtime.ranks import meeting
from ..errors import explained
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
    if rows is not None and rows < 1:
        raise ValueError(f"`selection_stream_rows` (`stream_rows`) must be at least 1, got {rows}.")
    if rows is None:
        raise TypeError(
            f"`{name}` is an `IterableDataset`: rows of a stream can't be chosen from before they are read. Set "
            "`selection_stream_rows` (`stream_rows` of `select_dataset`) to the number of rows to write to disk and "
            "choose from, give `select_dataset` a `stream_block`, or load it without `streaming=True`."
        )
    folder = _folder()
    with main_process_first():
        try:
            # Named by chance: what datasets names it by does not tell whether the rows have changed since.
            written = Dataset.from_generator(
                _first,
                features=dataset.features,
                cache_dir=str(folder),
                gen_kwargs={"stream": dataset, "rows": rows},
                fingerprint=folder.name,
            )
        except Exception as error:  # `datasets` raises a dozen kinds
            raise ValueError(f"`{name}`: its first {rows:,} rows can't be written to {folder}: {error}") from error
    _check_same(written, name)
    logger.info("`%s`: %s rows of the stream are on disk.", name, f"{len(written):,}")
    return written


def blocks_on_disk(stream: Any, rows: int, name: str = "train_dataset") -> Iterator[Dataset]:
    """
    The rows of a stream in blocks, on disk as in [`on_disk`]; a block is removed when the next one is asked for.

    Args:
        stream ([`~datasets.IterableDataset`]):
            The stream.
        rows (`int`):
            Rows of a block.
        name (`str`, *optional*, defaults to `"train_dataset"`):
            Name of the dataset in error messages.

    Raises:
        `ValueError`: no stream, or one without rows, rows of other types than those of the first block, or as in
            [`on_disk`].
    """
    if not isinstance(stream, IterableDataset):
        raise ValueError(f"`stream_block`: `{name}` is no stream: remove it, or load it with `streaming=True`.")
    folder = _folder() / platform.node()  # nodes may have the one above in common
    lines, features, first = iter(stream), None, 0
    while True:
        own, block = folder / str(first), None
        with main_process_first():
            try:
                if not several_processes() or PartialState().is_local_main_process:
                    shutil.rmtree(folder, ignore_errors=True)
                    own.mkdir(parents=True)
                    given = [*islice(lines, 1)]
                    (own / str(len(given))).touch()
                else:
                    given = []
                if (own / "1").exists():
                    block = Dataset.from_generator(
                        _each,
                        features=stream.features,
                        cache_dir=str(own),
                        gen_kwargs={"rows": chain(given, islice(lines, rows - 1))},
                        fingerprint=f"{folder.parent.name}-{first}",
                    )
                    if block.features != (features := features or block.features):
                        block = block.cast(features)
            except Exception as error:  # `datasets` raises a dozen kinds
                raise ValueError(
                    f"`{name}`: its rows from {first:,} on can't be written: {explained(error)}. If types differ "
                    "between rows, give the stream one for each column: `stream.cast(Features(...))`."
                ) from error
        _check_same(block, name)
        if block is None:
            shutil.rmtree(folder, ignore_errors=True)
            break
        first += len(block)
        yield block
        if several_processes():
            PartialState().wait_for_everyone()
    if first == 0:
        raise ValueError(f"`{name}`: the stream has no rows.")


def _folder() -> Path:
    """A folder of this process for rows of a stream, the same on all ranks; removed when the process ends."""
    number = [uuid.uuid4().hex]
    if several_processes():
        broadcast_object_list(number)
    folder = Path(datasets.config.HF_DATASETS_CACHE) / "streams" / number[0]
    if not several_processes() or PartialState().is_local_main_process:
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _check_same(written: Dataset | None, name: str) -> None:
    """Refuse, with a `ValueError`, rows that nodes without a common folder have read otherwise."""
    with meeting():
        own = written and rows_hash(written)
        hashes = {*gather_object([own])} if several_processes() else ()
    if len(hashes) > 1:
        raise ValueError(
            f"`{name}`: the nodes have read other rows of the stream. Seed what shuffles it, or set "
            "`HF_DATASETS_CACHE` to a folder that all nodes share."
        )


def _first(stream: IterableDataset, rows: int) -> Iterator[dict[str, Any]]:
    yield from stream.take(rows)


def _each(rows: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    yield from rows
