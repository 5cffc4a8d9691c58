"""Which rows serve which task, by hand."""

import numpy as np
import pytest

from hf_dataselect.data.records import Records
from hf_dataselect.features.served import note_served
from hf_dataselect.features.target_rows import Columns
from tests.rows import alpaca
from tests.tiny import context_of


SIMILARITY = np.array(
    [[0.9, 0.8, 0.0], [0.8, 0.1, 0.1], [0.1, 0.1, 0.9], [0.0, 0.2, 0.8], [0.7, 0.9, 0.7], [np.nan] * 3], np.float32
)


def noted(chosen, tasks, sources=None, names=("x", "y", "z")):
    rows, ctx = alpaca(6), context_of(None)
    rows = rows if sources is None else rows.add_column("source", list(sources))
    held = Columns(np.array([0, 1, 2, 2]), tasks, None, list(names))
    note_served(SIMILARITY, np.nanmax(SIMILARITY, 1, initial=-1), np.array(chosen), Records(rows), held, ctx)
    return ctx.account.figures


def test_a_matrix_of_sources_and_tasks():
    # Of two rows, `a` alone (columns x, y) would keep 0 and 4, `b` (column z) 2 and 3; of three, 0, 4, 1 and 2, 3, 4.
    figures = noted([0, 2], ["a", "a", "b"], "llrrlr")
    assert figures["rows kept of l that serve"] == {"a": 1, "b": 0, "none": 0}
    assert figures["rows kept of r that serve"] == {"a": 0, "b": 1, "none": 0}
    assert figures["of the rows that each task alone would keep"] == "a 50%, b 50%"
    assert figures["rows kept that serve several tasks"] == [] and figures["left unserved"] == "1 of 3: y"
    figures = noted([4, 1, 0], ["a", "a", "b"])
    assert figures["rows kept of candidates that serve"] == {"a": 3, "b": 1, "none": 0}
    assert figures["rows kept that serve several tasks"] == [4] and figures["left unserved"] == "1 of 3: z"
    assert noted([1], ["a", "a", "b"])["rows kept of candidates that serve"] == {"a": 0, "b": 0, "none": 1}


def test_subtasks_are_tasks_and_one_is_none():
    assert set(noted([0, 2], None)["rows kept of candidates that serve"]) == {"x", "y", "z", "none"}
    assert noted([0], ["a", "a", "a"]) == {} and noted([], ["a", "a", "b"]) == {}


def test_many_sources_are_summed(monkeypatch):
    monkeypatch.setattr("hf_dataselect.features.served.SHOWN", 1)
    figures = noted([0, 1, 2, 4], ["a", "a", "b"], "llrstu")
    assert sum(figures["rows kept of all other sources that serve"].values()) >= 2
    assert figures["rows kept of l that serve"]["a"] == pytest.approx(2)
