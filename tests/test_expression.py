"""Expressions hold where Python's would, and nothing else than a comparison of columns is one."""

import numpy as np
import pytest

from hf_dataselect.expression import Expression


COLUMNS = {
    "loss_ratio": np.array([0.1, 0.4, 0.9, np.nan]),
    "tokens": np.array([100.0, 900.0, 799.0, 5.0]),
    "ifd.loss": np.array([1.0, -2.0, 3.0, 1.0]),
    "score": np.array([4.1, 4.0, 4.2, 4.1], np.float32),
}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("loss_ratio > 0.3 and tokens < 800", [False, False, True, False]),
        ("loss_ratio > 0.3 or tokens < 800", [True, True, True, False]),
        ("not loss_ratio > 0.3", [True, False, False, False]),
        ("0.2 < loss_ratio <= 0.9", [False, True, True, False]),
        ("ifd.loss * 2 - 1 >= tokens / 799", [True, False, True, True]),
        ("-ifd.loss == 2 or tokens != 799 and (tokens + 1) > 100", [True, True, False, False]),
        ("tokens / (tokens - tokens) > 1", [True, True, True, True]),
        ("score >= 4.1 and score != 4.2 and 1 / 0 > score", [True, False, False, True]),
        ("score >= 41 / 10 and score != -(21 / -5)", [True, False, False, True]),
    ],
)
def test_holds_where_it_should_and_not_without_a_value(text, expected):
    assert Expression(text, "where")(COLUMNS).tolist() == expected


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('touch x')",
        "tokens.__class__.__mro__ > 1",
        "(lambda: 1)() > tokens",
        "[x for x in tokens] > 1",
        "tokens[0] > 1",
        "tokens ** 99999999 > 1",
        "9 ** 9 ** 9 ** 9 < tokens",
        "tokens if tokens else tokens",
        "(tokens := 3) > 1",
        "f'{tokens}' > 1",
        "tokens > '1'",
        "tokens in loss_ratio",
        "tokens is loss_ratio",
        "tokens > True",
        "tokens",
        "1 > 0",
        "tokens > 3 and 1 < 2",
        "1 < 2 and tokens > 3",
        "1 < 2 < tokens",
        "",
        "tokens >",
        "tokens > 1; import os",
        "tokens > 1e999",
        "tokens > 1" + "0" * 400,
        "tokens > 10j",
        "not " * 500 + "tokens > 1",
        "(" * 900 + "tokens" + ")" * 900 + " > 1",
        "tokens" + " + 1" * 400 + " > 1",
        "x" * 3000 + " > 1",
    ],
)
def test_anything_else_is_refused_and_nothing_runs(text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="`where`") as refused:
        Expression(text, "where")
    assert not [*tmp_path.iterdir()] and len(str(refused.value)) < 500
