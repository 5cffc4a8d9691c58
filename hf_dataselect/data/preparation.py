"""Rows as TRL trains on them: its own preparation, for warm-ups and gradients, and to see early what it refuses."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from datasets import Dataset, concatenate_datasets

from ..compat.trl import prepare_dataset, training_template
from ..engines.runtime.batching import main_process_first
from ..engines.store.arrow_files import checked_map
from ..errors import explained
from .encoded import COLUMNS, Encoded
from .encoding import encode, windows_of
from .records import TEMPLATE_COLUMNS, TURN_COLUMNS, Records
from .text import TextFormat


logger = logging.getLogger(__name__)

#: Rows on which TRL's preparation is tried.
SAMPLE = 16
#: Columns that TRL takes for tokens' labels or masks.
_TOKEN_COLUMNS = {"labels", "assistant_masks", "completion_mask"}


@dataclass(frozen=True)
class Preparation:
    """
    How TRL makes tokens and labels of rows: the options of [`~trl.SFTConfig`] that decide them, besides the window.

    Args:
        truncation_mode (`str`, *optional*, defaults to `"keep_start"`):
            What is kept of a longer row.
        packing (`bool`, *optional*, defaults to `False`):
            Whether rows are packed.
        packing_strategy (`str`, *optional*, defaults to `"bfd"`):
            `"bfd"` truncates longer rows; `"bfd_split"` and `"wrapped"` split them.
        assistant_only_loss (`bool`, *optional*, defaults to `False`):
            Whether only the tokens that the chat template marks are labels.
        completion_only_loss (`bool`, *optional*):
            Whether only completions are labels; by default where rows have prompts and completions.
        chat_template (`str`, *optional*):
            The template that TRL trains with in place of the tokenizer's own, see [`for_tokenizer`].
    """

    truncation_mode: str = "keep_start"
    packing: bool = False
    packing_strategy: str = "bfd"
    assistant_only_loss: bool = False
    completion_only_loss: bool | None = None
    chat_template: str | None = None

    @classmethod
    def of(cls, args: Any) -> "Preparation":
        """That of an [`~trl.SFTConfig`]."""
        names = ("truncation_mode", "packing", "packing_strategy", "assistant_only_loss", "completion_only_loss")
        return cls(**{name: getattr(args, name) for name in names})

    @property
    def truncation(self) -> str:
        """What of a longer row is trained on: `"keep_start"`, `"keep_end"`, or, in several parts, all (`"split"`)."""
        if not self.packing:
            return self.truncation_mode
        return "split" if self.packing_strategy in ("bfd_split", "wrapped") else "keep_start"

    def for_tokenizer(self, processing_class: Any) -> "Preparation":
        """
        With TRL's training template, where only the assistant's tokens are labels and the tokenizer's own template
        does not mark them.

        Raises:
            `ValueError`: TRL has no such template for this tokenizer.
        """
        try:
            template = training_template(processing_class) if self.assistant_only_loss else None
        except ValueError as error:
            raise ValueError(
                f"`assistant_only_loss=True`: {error} Set `chat_template_path` to a template that marks the turns of "
                "the assistant by `{% generation %}`, or remove the option."
            ) from error
        return replace(self, chat_template=template)

    def prepare(self, rows: Dataset, text_format: TextFormat, processing_class: Any, **options: Any) -> Dataset:
        """TRL's tokens and labels of rows from [`~Records.for_training`]; other columns are kept."""
        completion_only = self.completion_only_loss
        if completion_only is None:
            completion_only = {"prompt", "completion"} <= {*rows.column_names}
        options = {"packing": False} | options
        return prepare_dataset(
            rows,
            processing_class,
            chat_template=self.chat_template,
            completion_only_loss=completion_only,
            assistant_only_loss=self.assistant_only_loss,
            packing_strategy=self.packing_strategy,
            truncation_mode="keep_end" if self.truncation == "keep_end" else "keep_start",
            max_length=text_format.max_length if self.truncation != "split" or options["packing"] else None,
            **options,
        )


def trained_rows(
    records: Records,
    text_format: TextFormat,
    preparation: Preparation,
    processing_class: Any,
    num_proc: int | None = None,
) -> Encoded:
    """
    Token rows with the tokens and labels that TRL trains on, by its own preparation. Rows that [`encode`] finds
    unscorable, and those that TRL leaves out, have no tokens and a reason.

    Args:
        records ([`Records`]):
            The rows.
        text_format ([`TextFormat`]):
            Tokenizer and window.
        preparation ([`Preparation`]):
            TRL's options.
        processing_class ([`~transformers.PreTrainedTokenizerBase`] or [`~transformers.ProcessorMixin`]):
            What TRL tokenizes with.
        num_proc (`int`, *optional*):
            Processes that tokenize.
    """
    encoded = encode(records, text_format, num_proc=num_proc)
    problems = {row: reason for reason, rows in encoded.problems.items() for row in rows}
    usable = np.setdiff1d(np.arange(len(records)), list(problems))
    window, truncation, truncated = text_format.max_length, preparation.truncation, encoded.truncated

    def with_spans(batch: dict[str, list]) -> dict[str, list]:
        columns = {name: [] for name in COLUMNS}
        for row, ids, labels in zip(batch["row"], batch["input_ids"], batch["labels"], strict=True):
            for start, stop in windows_of(len(ids), window, truncation):
                spans = _spans(np.array(labels[start:stop]) != -100)
                values = ids[start:stop], spans, row, bool(truncated[row]), "", [-1] * (len(spans) // 2)
                for name, value in zip(columns, values, strict=True):
                    columns[name].append(value)
        return columns

    parts = []
    if len(usable):
        rows = records.for_training(usable, num_proc)
        read = {*TURN_COLUMNS, *TEMPLATE_COLUMNS, records.trained_field}
        rows = rows.select_columns([name for name in rows.column_names if name in read]).add_column("row", usable)
        options = {"text_field": records.trained_field, "num_proc": num_proc}
        prepared = preparation.prepare(rows, text_format, processing_class, **options)
        with main_process_first(prepared):
            options = {"batched": True, "remove_columns": prepared.column_names, "features": COLUMNS}
            parts.append(checked_map(prepared, with_spans, num_proc=num_proc, desc="Finding label tokens", **options))
        problems |= dict.fromkeys(np.setdiff1d(usable, parts[0]["row"]).tolist(), "no label token in the window")
    if problems:
        empty = {"input_ids": [], "spans": [], "headers": []}
        rest = [
            empty | {"row": row, "truncated": bool(encoded.truncated[row]), "problem": reason}
            for row, reason in problems.items()
        ]
        parts.append(Dataset.from_list(rest, features=COLUMNS))
    rows = concatenate_datasets(parts)
    return Encoded(rows.select(np.argsort(rows["row"], kind="stable")), len(records))


def _spans(mask: np.ndarray) -> list[int]:
    """Start, end, start, end, ... of the runs of true values."""
    return np.flatnonzero(np.diff(np.concatenate([[0], mask, [0]]))).tolist()


def try_preparation(
    records: Records, text_format: TextFormat, preparation: Preparation, processing_class: Any
) -> None:
    """
    Try TRL's preparation on some rows, before anything is scored; a warning names a row that would be scored with
    other tokens than TRL trains on.

    Raises:
        `ValueError`: TRL refuses them, or would take a column for labels.
    """
    columns, is_text = records.dataset.column_names, records.layout != "tokens"
    if is_text and (taken := sorted(_TOKEN_COLUMNS.intersection(columns))):
        raise ValueError(
            f"`{records.name}` has a column `{taken[0]}`, which TRL takes for that of tokens: rename or remove it."
        )
    rows = np.unique(np.linspace(0, len(records) - 1, min(SAMPLE, len(records))).astype(np.int64))
    if is_text:
        tried = [records[int(row)] for row in rows]
        if preparation.assistant_only_loss and not all(record.chat for record in tried if record.problem is None):
            raise ValueError(f"`assistant_only_loss=True`: the rows of `{records.name}` are not chats. Remove it.")
        rows = [record.index for record in tried if record.problem is None and text_format.refusal(record) is None]
    else:
        rows = np.setdiff1d(rows, [row for lost in records.unreadable().values() for row in lost])
    if len(rows) == 0:
        return
    sample = records.subset(rows)
    scored = encode(sample, replace(text_format, end_of_turn=True)) if is_text else None
    if preparation.packing or scored is None or scored.problematic.all():
        options = {"packing": preparation.packing, "text_field": sample.trained_field}
        with _by_trl(records.name):
            preparation.prepare(sample.for_training(), text_format, processing_class, **options)
    if scored is None:
        return
    with _by_trl(records.name):
        trained = trained_rows(sample, text_format, preparation, processing_class)
    if other := _other_tokens(scored, trained):
        logger.warning(
            "`%s`: rows %s are scored with other tokens than TRL trains on, as the chat template or the tokenizer "
            "gives them: scores may not be those of the training.",
            records.name,
            ", ".join(str(rows[row]) for row in other),
        )


@contextmanager
def _by_trl(name: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # TRL raises many kinds
        raise ValueError(f"TRL can't prepare the rows of `{name}`: {explained(error)}") from error


def _other_tokens(scored: Encoded, trained: Encoded) -> list[int]:
    """Rows whose scored tokens are not those that TRL makes of them."""
    ids: list[dict[int, list]] = []
    for encoded in (scored, trained):
        rows = np.flatnonzero(~(scored.problematic | trained.problematic)[encoded.row])
        ids.append({})
        for row, (tokens, _) in zip(encoded.row[rows], encoded.tokens.take(rows), strict=True):
            ids[-1].setdefault(int(row), []).append(tokens.tolist())
    return [row for row in ids[0] if ids[0][row] != ids[1][row]]
