"""
A pool of several sources: rows drawn of datasets of any layout, in one layout, none of them twice.

A row is `prompt` (all turns before the last answer), `completion` (that answer), both lists of messages, `source` (the
name of where it comes from), `row` (its number there) and `fault` (what was planted in it, `none` in a row as drawn).
The last three are for people: no method reads them.
"""

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from datasets import Dataset

from ..engines.store.files import written_atomic
from ..options import Interval, PositiveInt, check_declared, nearest
from .layouts import Record
from .load import load_rows
from .records import Records


#: A row of a pool.
Row = dict[str, Any]


@dataclass
class Source:
    """
    Rows of one dataset.

    Args:
        dataset (`str`):
            Hub name, folder or file.
        rows (`int`):
            How many are drawn.
        config (`str`, *optional*):
            Configuration of a dataset on the Hub.
        split (`str`, *optional*, defaults to `"train"`):
            Its split.
        name (`str`, *optional*):
            What the column `source` says; by default the last part of the dataset's name.
        columns (`dict[str, str]`, *optional*):
            Where columns are called otherwise than in any layout: those of a layout, with their names in the dataset
            (`{instruction: question, output: answer}`). No other column is read then.
        min_turns (`int`, *optional*, defaults to `2`):
            Only rows of at least so many turns: 4 are two questions and their answers.
        max_characters (`int`, *optional*):
            Only rows of at most so many characters in all turns, such as those that fit the window.
    """

    dataset: str
    rows: PositiveInt
    config: str | None = None
    split: str = "train"
    name: str = ""
    columns: dict[str, str] = field(default_factory=dict)
    min_turns: Annotated[int, Interval(2)] = 2
    max_characters: PositiveInt | None = None

    def __post_init__(self):
        check_declared(self)
        self.name = self.name or Path(self.dataset).name

    def read(self) -> Records:
        """
        All rows of the dataset.

        Raises:
            `ValueError`: no such dataset, split or column, or an unknown layout.
        """
        rows = load_rows(self.dataset, self.config, self.split, "train", self.columns.values())
        for column in self.columns.values():
            if column not in rows.column_names:
                raise ValueError(
                    f"`columns`: {self.dataset!r} has no column {column!r}{nearest(column, rows.column_names)}"
                )
        if self.columns:
            rows = rows.select_columns(list(dict.fromkeys(self.columns.values())))
            rows = rows.rename_columns({theirs: ours for ours, theirs in self.columns.items() if ours != theirs})
        return Records(rows, name=self.dataset)


def located(source: Source, places: Mapping[str, Any]) -> Source:
    """
    The source, read from where a mapping says that its dataset lies, if it does.

    Args:
        source ([`Source`]):
            The source.
        places (`Mapping`):
            Dataset -> file or folder, or split -> file or folder where splits are files of their own.

    Raises:
        `ValueError`: the mapping has other splits.
    """
    place = places.get(source.dataset)
    if isinstance(place, Mapping):
        if source.split not in place:
            raise ValueError(
                f"`sources`: {source.dataset!r} has no split {source.split!r}{nearest(source.split, place)}"
            )
        place = place[source.split]
    if place is None:
        return source
    return dataclasses.replace(source, dataset=str(place), config=None, split="train", name=source.name)


def draw(sources: Sequence[Source], seed: int, taken: set[str]) -> list[Row]:
    """
    Draw rows of each source. They come in the order of a hash of the seed and their text, so that the same rows are
    drawn on every machine, in whatever order the dataset has them.

    Args:
        sources (`Sequence[Source]`):
            Where rows come from.
        seed (`int`):
            Another one draws other rows.
        taken (`set[str]`):
            Prompts, without whitespace, that are not drawn; those drawn are added.

    Raises:
        `ValueError`: a source can't be read, or has fewer rows than asked for.
    """
    drawn = []
    for source in sources:
        usable = {}
        for record in source.read():
            if _is_usable(record, source):
                text = "".join(record.prompt.split())
                if text not in usable or record.answer < usable[text].answer:  # whichever comes first
                    usable[text] = record
        rows = [usable[text] for text in sorted(usable.keys() - taken, key=lambda text: order_key(seed, text))]
        if len(rows) < source.rows:
            raise ValueError(
                f"`rows={source.rows}` of {source.dataset!r} (split {source.split!r}): it has {len(rows):,} that can "
                "be used and are not drawn elsewhere (a prompt and an answer of plain text, no prompt twice). Lower "
                "`rows`, or choose a larger dataset."
            )
        for record in rows[: source.rows]:
            taken.add("".join(record.prompt.split()))
            turns = [{"role": turn["role"], "content": turn["content"]} for turn in record.messages]
            end = record.answer_turns[-1]
            drawn.append(
                {
                    "prompt": turns[:end],
                    "completion": [turns[end]],
                    "source": source.name,
                    "row": record.index,
                    "fault": "none",
                }
            )
    return drawn


def _is_usable(record: Record, source: Source) -> bool:
    """Whether a row is turns of plain text with a prompt and an answer, of the wanted size."""
    if record.problem is not None or record.tools or not record.answer_turns or record.answer_turns[-1] == 0:
        return False
    turns = record.messages[: record.answer_turns[-1] + 1]
    if len(turns) < source.min_turns or not all(isinstance(turn["content"], str) for turn in turns):
        return False
    characters = sum(len(turn["content"]) for turn in turns)
    fits = source.max_characters is None or characters <= source.max_characters
    return fits and bool(record.prompt.strip()) and bool(record.answer.strip())


def order_key(seed: int, *texts: str) -> bytes:
    """A key that puts texts in an order that depends on the seed and on them alone."""
    return hashlib.blake2b("\0".join([str(seed), *texts]).encode("utf-8", "surrogatepass"), digest_size=16).digest()


def mixed(rows: Sequence[Row], seed: int) -> list[Row]:
    """The rows in an order that mixes sources."""
    return sorted(rows, key=lambda row: order_key(seed, row["prompt"][-1]["content"], answer_of(row), str(row["row"])))


def answer_of(row: Row) -> str:
    """The answer of a row."""
    return row["completion"][0]["content"]


def with_answer(row: Row, answer: str, fault: str) -> Row:
    """The row with another answer."""
    return row | {"completion": [{"role": "assistant", "content": answer}], "fault": fault}


def write_rows(rows: Sequence[Row], path: Path) -> None:
    """Write rows as JSON, one a line."""
    with written_atomic(path) as temporary:
        Dataset.from_list(list(rows)).to_json(temporary, force_ascii=False)
