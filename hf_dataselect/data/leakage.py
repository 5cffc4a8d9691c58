"""Candidates that are also held-out rows, questions of a benchmark, or target-task examples."""

import logging
from collections.abc import Iterable, Mapping

import numpy as np

from .layouts import Record, content_text
from .records import Records


logger = logging.getLogger(__name__)

#: Rows that a warning and `selection.json` name.
SHOWN = 5


def overlap(records: Records, others: Mapping[str, Records | Iterable[str]]) -> dict[str, np.ndarray]:
    """
    Candidates that are in other sets, by text without whitespace. One pass over the candidates, at about 50,000 rows a
    second, reads a batch at a time; the texts of the other sets are held.

    Args:
        records ([`Records`]):
            Candidate dataset.
        others (`Mapping[str, Records | Iterable[str]]`):
            Other sets by name: rows, of which prompt and answer are compared, or questions, of which a candidate asks
            one in a user turn.

    Returns:
        `dict[str, np.ndarray]`: of each set that shares some, the rows of `records`, int64, in order.
    """
    known = {name: _texts(other) for name, other in others.items()}
    shared: dict[str, list[int]] = {name: [] for name, texts in known.items() if texts}
    if not shared or records.layout == "tokens":
        return {}
    for record in records:
        if record.problem is not None:
            continue
        whole = _whole(record)
        for name, rows in shared.items():
            if isinstance(others[name], Records):
                known_too = whole in known[name]
            else:
                known_too = not known[name].isdisjoint(_questions(record))
            if known_too:
                rows.append(record.index)
    return {name: np.array(rows, np.int64) for name, rows in shared.items() if rows}


def reported_overlap(records: Records, others: Mapping[str, Records | Iterable[str]]) -> dict[str, np.ndarray]:
    """[`overlap`], with a warning for each set that says which rows are shared, and how many."""
    shared = overlap(records, others)
    for name, rows in shared.items():
        shown = ", ".join(map(str, rows[:SHOWN])) + (", ..." if len(rows) > SHOWN else "")
        logger.warning(
            f"{len(rows):,} of {len(records):,} rows of `{records.name}` are also in `{name}` (rows {shown}) and may "
            "be selected: remove them, or a model trained on them has seen what it is compared on."
        )
    return shared


def described(shared: Mapping[str, np.ndarray], kept: np.ndarray) -> dict[str, dict]:
    """An [`overlap`] as `selection.json` holds it: rows of each set, how many of them are kept, and the first ones."""
    return {
        name: {"rows": len(rows), "kept": int(np.isin(rows, kept).sum()), "first": rows[:SHOWN].tolist()}
        for name, rows in shared.items()
    }


def _texts(other: Records | Iterable[str]) -> set[str]:
    if not isinstance(other, Records):
        return {_plain(text) for text in other} - {""}
    return set() if other.layout == "tokens" else {_whole(record) for record in other if record.problem is None} - {""}


def _whole(record: Record) -> str:
    return _plain(record.prompt + record.answer)


def _questions(record: Record) -> set[str]:
    return {_plain(content_text(message)) for message in record.messages if message["role"] == "user"}


def _plain(text: str) -> str:
    return "".join(text.split())
