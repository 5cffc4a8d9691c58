"""Preference pairs and prompts alone, as rows of a layout that is read."""

from typing import Any

from datasets import Dataset, Value

from .layouts import find_layout
from .records import Records


def scored_columns(dataset: Any, text_field: str) -> Any:
    """
    Preference rows as rows with the preferred answer, beside the column `rejected`; prompts alone as texts or
    messages; all others as they are.
    """
    columns = dataset.features if isinstance(dataset, Dataset) else {}
    if {"chosen", "rejected"} <= columns.keys():
        is_text = {name: _is_text(columns[name]) for name in ("prompt", "chosen") if name in columns}
        if is_text.get("prompt") == is_text["chosen"]:
            answer, dropped = "completion", {"completion"}
        else:  # both answers are whole conversations, as TRL reads them too
            answer = text_field if is_text["chosen"] else "messages"
            dropped = {"prompt", "completion", answer}
        return dataset.remove_columns([name for name in columns if name in dropped]).rename_column("chosen", answer)
    if "prompt" in columns and find_layout({*columns}, text_field) is None:
        return dataset.rename_column("prompt", text_field if _is_text(columns["prompt"]) else "messages")
    return dataset


def check_pairs(records: Records) -> None:
    """
    Refuse rows that have no second answer that can be read as the first one is.

    Raises:
        `ValueError`: no column `rejected`, one of another type than the preferred answer, or a `formatting_func`.
    """
    columns = records.dataset.features
    if records.formatting_func is not None:
        raise ValueError(
            "`formatting_func` makes one text of a row, and two answers are compared: remove it, and give the columns "
            "`prompt`, `chosen` and `rejected`."
        )
    if "rejected" not in columns:
        raise ValueError(
            f"`{records.name}` has {sorted(columns)}, and two answers are compared: give rows with `chosen` and "
            "`rejected` to `select_dataset` or `hf-dataselect select`."
        )
    preferred = columns[_answer_column(records)]
    if _is_text(preferred) != _is_text(columns["rejected"]):
        raise ValueError(
            f"`{records.name}`: `chosen` is {preferred} and `rejected` {columns['rejected']}: both must be strings, "
            "or both lists of messages."
        )


def rejected_answers(records: Records) -> Records:
    """The rows of [`scored_columns`] with the rejected answer in place of the preferred one."""
    answer = _answer_column(records)
    rows = records.dataset.remove_columns(answer).rename_column("rejected", answer)
    return Records(rows, records.text_field, name=records.name)


def _answer_column(records: Records) -> str:
    columns = records.dataset.column_names
    answers = {"prompt-completion": "completion", "messages": "messages", "text": records.text_field}
    answers |= {"sharegpt": "conversations", "alpaca": "output" if "output" in columns else "response"}
    return answers[records.layout]


def _is_text(feature: Any) -> bool:
    return feature in (Value("string"), Value("large_string"))  # the second one from CSV files
