"""Rows by name: a file, a folder or a dataset on the Hub; one split of it, or a slice of one."""

import csv
import glob
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import fsspec
import pandas as pd
from datasets import (
    Dataset,
    DatasetDict,
    ReadInstruction,
    concatenate_datasets,
    load_dataset,
    load_dataset_builder,
    load_from_disk,
)

from ..errors import explained, without_credentials
from .streams import on_disk


_BUILDERS = {
    ".json": "json",
    ".jsonl": "json",
    ".ndjson": "json",
    ".parquet": "parquet",
    ".csv": "csv",
    ".tsv": "csv",
    ".txt": "text",
}
_COMPRESSIONS = (".gz", ".zst", ".bz2", ".xz")
#: Columns that hold text, which a CSV file gives as written: an answer `007` is no number, and `None` not missing.
TEXT_COLUMNS = frozenset(
    ("text", "prompt", "completion", "instruction", "input", "context", "output", "response", "system")
    + ("question", "answer", "target", "reference", "chosen", "rejected")
)


def load_rows(
    name: str,
    config: str | None = None,
    split: str = "train",
    file_split: str = "train",
    text_columns: Iterable[str] = (),
    stream_rows: int | None = None,
) -> Dataset:
    """
    Load a dataset by hub name, local folder (saved with `save_to_disk`, or of data files), or path of a .json, .jsonl,
    .parquet, .csv, .tsv or .txt file, also compressed (.gz, .zst, .bz2, .xz).

    Args:
        name (`str`):
            Hub name, folder or file.
        config (`str`, *optional*):
            Configuration of a dataset on the Hub.
        split (`str`, *optional*, defaults to `"train"`):
            Split, slice or sum of them, as in [`~datasets.load_dataset`]: `"train[:50%]"`, `"train+test"`. A single
            file, or a [`~datasets.Dataset`] that was saved, is the split `train`.
        file_split (`str`, *optional*, defaults to `"train"`):
            What that split may also be called.
        text_columns (`Iterable[str]`, *optional*):
            Columns of a CSV file that hold text, besides `TEXT_COLUMNS`.
        stream_rows (`int`, *optional*):
            Rows to take at most. Of the Hub or a folder, no others are read.

    Raises:
        `ValueError`: no such file, split or dataset, or a broken file; the message names the line.
    """
    path, text = Path(name).expanduser(), TEXT_COLUMNS | set(text_columns)
    try:
        if path.is_file() or (path / "state.json").is_file() or (path / "dataset_dict.json").is_file():
            if config is not None:
                raise ValueError(f"only a dataset on the Hub has configurations: remove {config!r}")
            rows = take_split(_local(path, file_split, text), split)
            return rows if stream_rows is None else rows.select(range(min(stream_rows, len(rows))))
        check_exists(name)
        if stream_rows is not None and "[" in split:
            raise ValueError(
                f"`dataset_train_split={split!r}` with `selection_stream_rows`: a stream can't be sliced. Name the "
                "split alone; `selection_stream_rows` takes its first rows."
            )
        given: dict[str, Any] = {"split": split, "streaming": stream_rows is not None}
        if not path.is_dir():
            return on_disk(load_dataset(name, config, **given), stream_rows, "dataset_name")
        given |= _csv_options(_data_files(str(path), config), text)
        return _valid(on_disk(load_dataset(str(path), config, **given), stream_rows, "dataset_name"))
    except Exception as error:  # `datasets` raises a dozen kinds
        said = (_fault(path, config) if path.exists() else None) or explained(error)
        told = without_credentials(f"Can't load the dataset {name!r} (split {split!r}): {said}")
        raise ValueError(told) from error


def check_exists(name: str) -> None:
    """
    Refuse a name that can only be that of a local file or folder, where there is none.

    Raises:
        `FileNotFoundError`: there is none.
    """
    local = name.startswith(("/", "./", "../", "~")) or name.count("/") > 1 or _kind(name) is not None
    if local and not Path(name).expanduser().exists():
        raise FileNotFoundError(f"there is no {'folder' if _kind(name) is None else 'file'} {name!r}")


def take_split(splits: dict[str, Dataset], split: str) -> Dataset:
    """
    The rows of a split of loaded datasets, by the rules of [`~datasets.ReadInstruction`]: `train[10%:20%]+test`.

    Raises:
        `ValueError`: no such split, or a slice without rows.
    """
    if split in splits:
        return splits[split]
    spans = ReadInstruction.from_spec(split).to_absolute({name: len(rows) for name, rows in splits.items()})
    if len({id(splits[span.splitname]) for span in spans}) < len({span.splitname for span in spans}):
        raise ValueError(f"{split!r} names the same rows twice")
    parts = [splits[span.splitname].select(range(span.from_, span.to)) for span in spans]
    rows = concatenate_datasets(parts)
    if len(rows) == 0:
        known = {id(rows): len(rows) for rows in splits.values()}
        raise ValueError(f"{split!r} holds none of the {sum(known.values()):,} rows")
    return rows


def _local(path: Path, file_split: str, text: frozenset[str]) -> dict[str, Dataset]:
    """The splits of a file or a saved folder."""
    if path.is_dir():
        loaded = load_from_disk(str(path))
        if isinstance(loaded, DatasetDict):
            return dict(loaded)
        return dict.fromkeys(["train", file_split, str(loaded.split or "train").partition("[")[0]], loaded)
    kind = _kind(path)
    if kind is None:
        raise ValueError(f"the name of a file must end in {', '.join(_BUILDERS)}, or one of these and .gz")
    options = _csv_options([str(path)], text)
    if kind == "text":
        options["encoding"] = "utf-8-sig"  # without a byte order mark
    rows = _valid(load_dataset(kind, data_files=glob.escape(str(path)), split="train", **options))
    return dict.fromkeys(["train", file_split], rows)


def _valid(rows: Dataset) -> Dataset:
    """Checked to be UTF-8, at about 1 GB/s: the readers of JSON and Parquet take any bytes for text."""
    for batch in rows.with_format("arrow").iter(100_000):
        batch.validate(full=True)
    return rows


def _kind(path: Path | str) -> str | None:
    """The builder of a file, by its suffix."""
    suffixes = [suffix.lower() for suffix in Path(path).suffixes]
    return _BUILDERS.get(next((suffix for suffix in reversed(suffixes) if suffix not in _COMPRESSIONS), ""))


def _data_files(folder: str, config: str | None) -> list[str]:
    """The data files of a folder, of the kind that most of them are."""
    files = load_dataset_builder(folder, config).config.data_files or {}
    paths = [str(path) for split in files.values() for path in split]
    most = Counter(map(_kind, paths)).most_common(1)
    return [path for path in paths if _kind(path) == most[0][0]]


def _csv_options(files: Sequence[str], text: frozenset[str]) -> dict[str, Any]:
    """
    Options of the builder `csv`, none for files of another kind: text is read as written, and only an empty field of
    another column is missing.

    Raises:
        `ValueError`: rows with more fields than the header, of which pandas would make the first one an index.
    """
    if not files or _kind(files[0]) != "csv":
        return {}
    separator = "\t" if ".tsv" in files[0].lower() else ","
    head = pd.read_csv(files[0], sep=separator, nrows=1, dtype=str)
    if not isinstance(head.index, pd.RangeIndex):
        raise ValueError(f"{Path(files[0]).name}, line 2: more fields than the header, which has {len(head.columns)}")
    if head.empty:
        raise ValueError(f"{Path(files[0]).name} has no rows below the header")
    missing = {column: [""] for column in head.columns if column not in text}
    as_written = dict.fromkeys([column for column in head.columns if column in text], str)
    return {"sep": separator, "keep_default_na": False, "na_values": missing, "converters": as_written}


def _opened(file: str, mode: str, **options: Any) -> Any:
    return fsspec.open(file, mode, compression="infer", **options)


def _fault(path: Path, config: str | None) -> str | None:
    """File and line of what is wrong in broken data files, as far as it can be told."""
    try:
        files = [str(path)] if path.is_file() else _data_files(str(path), config)
        return next(filter(None, map(_fault_of, files)), None)
    except Exception:  # then the library's own words have to do
        return None


def _fault_of(file: str) -> str | None:
    kind, number = _kind(file), 0
    if kind not in ("json", "csv", "text"):
        return None
    with _opened(file, "rb") as lines:
        for number, line in enumerate(lines, 1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError as error:
                byte = f"byte {line[error.start]:#04x}"
                return f"{Path(file).name}, line {number}: {byte} is not UTF-8, in which the file must be saved"
    if number == 0:
        return f"{Path(file).name} is empty"
    with _opened(file, "rt", encoding="utf-8-sig", newline="") as lines:
        return {"json": _fault_of_json, "csv": _fault_of_csv}.get(kind, lambda *_: None)(file, lines)


def _fault_of_json(file: str, lines: Any) -> str | None:
    first = lines.readline().strip()
    whole = first.startswith("[") or first == "{"  # one list or object over many lines
    lines.seek(0)
    for place, line in enumerate([lines.read()] if whole else lines):
        if not line.strip():
            continue
        try:
            row = json.loads(line.rstrip())  # a line that is cut off ends there, not on the next one
        except json.JSONDecodeError as error:
            return f"{Path(file).name}, line {place + error.lineno}, column {error.colno}: not JSON: {error.msg}"
        if row == []:
            return f"{Path(file).name} holds an empty list"
        if not whole and not isinstance(row, dict):
            return f"{Path(file).name}, line {place + 1}: {type(row).__name__} in place of an object with columns"
    return None


def _fault_of_csv(file: str, lines: Any) -> str | None:
    records = csv.reader(lines, delimiter="\t" if ".tsv" in file.lower() else ",", strict=True)
    header, numbers = next(records, []), {}
    limit = csv.field_size_limit(2**31 - 1)
    try:
        for record in filter(None, records):
            if len(record) > len(header):
                return f"{_place(file, records)}: {len(record)} fields, and the header has {len(header)}"
            for column, field in zip(header, record, strict=False):
                number = not field or _is_number(field)
                if column not in TEXT_COLUMNS and numbers.setdefault(column, number) and not number:
                    return f"{_place(file, records)}: `{column}` is {field!r}, and a number in the rows before"
    except csv.Error as error:
        return f"{_place(file, records)}: {error}"
    finally:
        csv.field_size_limit(limit)
    return None


def _place(file: str, records: Any) -> str:
    return f"{Path(file).name}, line {records.line_num}"


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
