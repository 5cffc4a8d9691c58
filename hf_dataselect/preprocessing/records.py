"""
Any row of a Hugging Face dataset as a [`Record`]: who said what, and which turns are the answers.

[`Records`] is a lazy view over Arrow: a million rows stay on disk, and only the batch at hand becomes Python objects.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset, DatasetDict, IterableDataset, List, load_dataset, load_from_disk


#: Layouts in the order they are looked for; those that TRL knows come first, so that a dataset trains as TRL would.
LAYOUTS = {
    "tokens": "`input_ids` (already tokenized, with `labels`)",
    "prompt-completion": "`prompt` and `completion` (both strings or both lists of messages)",
    "messages": "`messages` (list of role and content)",
    "sharegpt": "`conversations` (list of from and value, of role and content, or of strings taking turns)",
    "text": "`text` (or the column named in `dataset_text_field`)",
    "alpaca": "`instruction`, `output` (or `response`), and `input` (or `context`) if there is one",
}

_ROLES = {
    **dict.fromkeys(("system",), "system"),
    **dict.fromkeys(("human", "user", "prompter"), "user"),
    **dict.fromkeys(("gpt", "assistant", "chatgpt", "model", "bot", "function_call"), "assistant"),
    **dict.fromkeys(("tool", "observation", "function", "function_response", "ipython"), "tool"),
}


@dataclass(frozen=True)
class Record:
    """
    One row, whatever its columns were.

    Args:
        index (`int`):
            Row of the candidate dataset.
        messages (`tuple[dict]`):
            Turns as `{"role": ..., "content": ...}`, roles system, user, assistant or tool.
        first_answer (`int`, *optional*, defaults to `0`):
            Assistant turns before this one are context (the prompt of a prompt-completion row).
        chat (`bool`, *optional*, defaults to `True`):
            `False` where the columns were plain strings: they are joined as they are, without a chat template.
        tools (`list`, *optional*):
            Tool descriptions for the chat template.
        problem (`str`, *optional*):
            Why the row can't be read; such a row is never scored nor kept.
    """

    index: int
    messages: tuple[dict[str, Any], ...] = ()
    first_answer: int = 0
    chat: bool = True
    tools: list | None = None
    problem: str | None = None

    @property
    def answer_turns(self) -> list[int]:
        """Places in `messages` of the turns that the model learns to give: all assistant turns, of all rounds."""
        turns = range(self.first_answer, len(self.messages))
        return [i for i in turns if self.messages[i]["role"] == "assistant"]

    @property
    def answer(self) -> str:
        """The last answer; empty where there is none."""
        turns = self.answer_turns
        return content_text(self.messages[turns[-1]]) if turns else ""

    @property
    def prompt(self) -> str:
        """All that comes before the last answer, one turn a line."""
        turns = self.answer_turns
        before = self.messages[: turns[-1]] if turns else self.messages
        return "\n".join(content_text(message) for message in before)


def content_text(message: dict[str, Any]) -> str:
    """Text of a turn; of a list of parts, the texts. `None` (a pure tool call) is empty."""
    content = message.get("content")
    if isinstance(content, list):
        return "".join(part.get("text") or "" for part in content if isinstance(part, dict))
    return content or ""


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
            What errors call the dataset.

    Raises:
        `TypeError`: not a [`~datasets.Dataset`] (a streamed one has no rows to choose from).
        `ValueError`: no rows, or columns of no known layout.
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
                f"`{name}` is an `IterableDataset`: rows that are only streamed past can't be scored and chosen "
                "from. Load it without `streaming=True`, or write what you need of it to disk first: "
                "`Dataset.from_generator(lambda: iter(stream.take(100_000)))`."
            )
        if not isinstance(dataset, Dataset):
            raise TypeError(f"`{name}` must be a `datasets.Dataset`, got `{type(dataset).__name__}`.")
        if len(dataset) == 0:
            raise ValueError(f"`{name}` has no rows.")
        self.dataset = dataset
        self.name = name
        self.text_field = text_field
        self.formatting_func = formatting_func
        self.layout = self._find_layout()

    def _find_layout(self) -> str:
        columns = set(self.dataset.column_names)
        if "input_ids" in columns:
            return "tokens"
        if self.formatting_func is not None:
            return "text"
        if {"prompt", "completion"} <= columns:
            return "prompt-completion"
        if "messages" in columns:
            return "messages"
        if "conversations" in columns:
            return "sharegpt"
        if self.text_field in columns:
            return "text"
        if "instruction" in columns and {"output", "response"} & columns:
            return "alpaca"
        known = "\n  ".join(LAYOUTS.values())
        raise ValueError(f"`{self.name}` has the columns {sorted(columns)}; expected one of these layouts:\n  {known}")

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Record:
        index = range(len(self))[index]
        return self.parse(self.dataset.with_format(None)[index : index + 1], [index])[0]

    def __iter__(self) -> Iterator[Record]:
        start = 0
        for batch in self.dataset.with_format(None).iter(1000):
            size = len(next(iter(batch.values())))
            yield from self.parse(batch, range(start, start + size))
            start += size

    def parse(self, batch: dict[str, list], indices: Sequence[int]) -> list[Record]:
        """Records of a batch of columns, as [`~datasets.Dataset.map`] hands it over."""
        rows = (dict(zip(batch, values, strict=True)) for values in zip(*batch.values(), strict=True))
        return [self._parse_row(row, int(index)) for row, index in zip(rows, indices, strict=True)]

    def _parse_row(self, row: dict[str, Any], index: int) -> Record:
        try:
            return _PARSERS[self.layout](self, row, index)
        except (_Unreadable, AttributeError, TypeError, KeyError) as error:
            if self.layout == "text" and not isinstance(error, _Unreadable):
                raise  # a fault in the user's `formatting_func`
            reason = str(error) if isinstance(error, _Unreadable) else f"malformed {self.layout} row"
            return Record(index, problem=reason)

    def _parse_tokens(self, row, index):
        return Record(index, problem="already tokenized: no text to read")

    def _parse_prompt_completion(self, row, index):
        prompt, completion = row["prompt"], row["completion"]
        for column in ("prompt", "completion"):
            if row[column] is None:
                raise _Unreadable(f"missing value in `{column}`")
        if isinstance(prompt, list) and isinstance(completion, list):
            messages = _messages(prompt) + _messages(completion)
            return Record(index, messages, len(prompt), tools=_tools(row))
        return Record(
            index,
            (
                {"role": "user", "content": _text(prompt, "prompt")},
                {"role": "assistant", "content": _text(completion, "completion")},
            ),
            chat=False,
        )

    def _parse_messages(self, row, index):
        return Record(index, _messages(row["messages"]), tools=_tools(row))

    def _parse_sharegpt(self, row, index):
        turns = row["conversations"]
        if turns and all(isinstance(turn, str) for turn in turns):
            turns = [{"role": ("user", "assistant")[i % 2], "content": turn} for i, turn in enumerate(turns)]
        return Record(index, _messages(turns), tools=_tools(row))

    def _parse_text(self, row, index):
        text = self.formatting_func(row) if self.formatting_func is not None else row[self.text_field]
        return Record(index, ({"role": "assistant", "content": _text(text, self.text_field)},), chat=False)

    def _parse_alpaca(self, row, index):
        answer = "output" if "output" in row else "response"
        prompt = _text(row["instruction"], "instruction")
        extra = row.get("input") or row.get("context")
        return Record(
            index,
            (
                {"role": "user", "content": f"{prompt}\n{extra}" if extra else prompt},
                {"role": "assistant", "content": _text(row[answer], answer)},
            ),
            first_answer=1,
        )

    def unreadable(self) -> dict[str, np.ndarray]:
        """
        Rows that neither a selector nor the trainer can use, by reason: a missing value in a column of the layout, or
        a chat without turns. Found from Arrow's own null counts and lengths, without reading the rows; only ShareGPT
        rows are read, as each of their turns has to become a message.
        """
        if self.layout == "sharegpt":
            problems = {}
            for record in self:
                if record.problem is not None:
                    problems.setdefault(record.problem, []).append(record.index)
            return {reason: np.array(rows) for reason, rows in problems.items()}
        columns = {
            "tokens": ["input_ids"],
            "prompt-completion": ["prompt", "completion"],
            "messages": ["messages"],
            "sharegpt": ["conversations"],
            "text": [] if self.formatting_func is not None else [self.text_field],
            "alpaca": ["instruction", "output" if "output" in self.dataset.column_names else "response"],
        }[self.layout]
        found = {}
        for column in columns:
            table = self.dataset.select_columns([column]).with_format("arrow")
            tests = {f"missing value in `{column}`": pc.is_null} if table.data.column(column).null_count else {}
            if self.layout != "tokens" and isinstance(table.features[column], List):
                tests[f"no turns in `{column}`"] = _has_no_items
            for reason, test in tests.items():
                failed = np.concatenate([test(part[column]).to_numpy() for part in table.iter(10_000)])
                if failed.any():
                    found[reason] = np.flatnonzero(failed)
        return found

    def for_training(self, indices: Sequence[int] | None = None, num_proc: int | None = None) -> Dataset:
        """
        Rows in a layout that TRL trains on: Alpaca columns become chat prompt-completion, ShareGPT columns become
        messages; all others are handed on untouched.

        Args:
            indices (`Sequence[int]`, *optional*):
                Rows, in this order; all by default (then no index mapping is added).
        """
        rows = self.dataset if indices is None else self.dataset.select(indices)
        if self.layout not in ("alpaca", "sharegpt"):
            return rows

        def convert(batch: dict[str, list]) -> dict[str, list]:
            records = self.parse(batch, range(len(next(iter(batch.values())))))
            if self.layout == "alpaca":
                parts = {"prompt": slice(0, 1), "completion": slice(1, 2)}
                return {name: [list(record.messages[part]) for record in records] for name, part in parts.items()}
            return {"messages": [list(record.messages) for record in records]}

        dropped = [name for name in rows.column_names if name not in ("tools", "chat_template_kwargs")]
        return rows.map(convert, batched=True, remove_columns=dropped, num_proc=num_proc, desc="Reading rows as chats")

    def content_hash(self, indices: Sequence[int] | None = None, sample: int = 256) -> str:
        """Hash of the number of rows, the columns and up to `sample` evenly spaced rows (of `indices`, if given)."""
        chosen = np.arange(len(self)) if indices is None else np.asarray(indices)
        places = np.unique(np.linspace(0, len(chosen) - 1, min(sample, len(chosen))).astype(np.int64))
        rows = [self.dataset.with_format(None)[int(chosen[place])] for place in places]
        described = json.dumps([len(self), sorted(self.dataset.column_names), len(chosen), rows], default=str)
        return hashlib.blake2b(described.encode(), digest_size=12).hexdigest()


_PARSERS = {
    "tokens": Records._parse_tokens,
    "prompt-completion": Records._parse_prompt_completion,
    "messages": Records._parse_messages,
    "sharegpt": Records._parse_sharegpt,
    "text": Records._parse_text,
    "alpaca": Records._parse_alpaca,
}


class _Unreadable(Exception):
    pass


def _has_no_items(lists: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.equal(pc.list_value_length(lists), 0).fill_null(False)


def _text(value: Any, column: str) -> str:
    if value is None:
        raise _Unreadable(f"missing value in `{column}`")
    if not isinstance(value, str):
        raise _Unreadable(f"`{column}` is not text")
    return value


def _messages(turns: list[dict] | None) -> tuple[dict[str, Any], ...]:
    if not turns:
        raise _Unreadable("no turns")
    messages = []
    for turn in turns:
        name = turn.get("role") or turn.get("from")
        if name not in _ROLES:
            raise _Unreadable(f"unknown role {name!r}")
        content = turn.get("content", turn.get("value"))
        if content is None and not turn.get("tool_calls"):
            raise _Unreadable("missing content in a turn")
        if not isinstance(content, (str, list, type(None))):
            raise _Unreadable("the content of a turn is not text")
        rest = {k: v for k, v in turn.items() if k not in ("role", "from", "content", "value") and v is not None}
        messages.append({"role": _ROLES[name], "content": content, **rest})
    return tuple(messages)


def _tools(row: dict[str, Any]) -> list | None:
    tools = row.get("tools") or None
    try:
        return (json.loads(tools) if isinstance(tools, str) else tools) or None
    except json.JSONDecodeError as error:
        raise _Unreadable("`tools` is no JSON") from error


_BUILDERS = {".json": "json", ".jsonl": "json", ".parquet": "parquet", ".csv": "csv", ".tsv": "csv", ".txt": "text"}


def load_rows(name: str, config: str | None = None, split: str = "train") -> Dataset:
    """
    A dataset by hub name, local folder (saved with `save_to_disk`, or of data files), or path of a .json, .jsonl,
    .parquet, .csv or .txt file, also with .gz behind.

    Raises:
        `ValueError`: no such file, split, or dataset; the message says what was tried.
    """
    path = Path(name).expanduser()
    suffix = next((suffix for suffix in reversed(path.suffixes) if suffix not in (".gz", ".zst", ".bz2", ".xz")), "")
    try:
        if path.is_file() and suffix in _BUILDERS:
            options = {"sep": "\t"} if suffix == ".tsv" else {}
            return load_dataset(_BUILDERS[suffix], data_files=str(path), split="train", **options)
        if (path / "state.json").is_file() or (path / "dataset_dict.json").is_file():
            loaded = load_from_disk(str(path))
            if isinstance(loaded, DatasetDict) and split not in loaded:
                raise KeyError(f"it has the splits {', '.join(loaded)}")
            return loaded[split] if isinstance(loaded, DatasetDict) else loaded
        if suffix in _BUILDERS:
            raise FileNotFoundError(f"there is no file {name!r}")
        return load_dataset(name, config, split=split)
    except Exception as error:  # the libraries below raise a dozen kinds
        raise ValueError(f"Can't load the dataset {name!r} (split {split!r}): {error}") from error
