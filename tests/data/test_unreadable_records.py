"""Rows that can't be read: each says why, and spoils no other."""

import pytest
from datasets import Dataset

from hf_dataselect.data.records import Records
from tests.data.test_records import CHAT, ROWS, one


BAD = {
    "missing prompt": ({"prompt": None, "completion": "c"}, "missing value in `prompt`"),
    "missing completion": ({"prompt": CHAT, "completion": None}, "missing value in `completion`"),
    "text and turns": ({"prompt": "p", "completion": CHAT}, "`completion` is not text"),
    "turns and text": ({"prompt": CHAT, "completion": "c"}, "`prompt` is not text"),
    "missing messages": ({"messages": None}, "no turns"),
    "no turns": ({"messages": []}, "no turns"),
    "no role": ({"messages": [{"role": None, "content": "x"}]}, "no role in a turn"),
    "missing content": ({"messages": [{"role": "user", "content": None}]}, "missing content in a turn"),
    "content that is a number": ({"messages": [{"role": "user", "content": 5}]}, "the content of a turn is not text"),
    "messages that are text": ({"messages": "Hi"}, "`messages` is not a list of turns, nor JSON of one"),
    "messages that are a JSON number": ({"messages": "5"}, "`messages` is not a list of turns, nor JSON of one"),
    "broken JSON": ({"conversations": '[{"from": '}, "`conversations` is not a list of turns, nor JSON of one"),
    "blank JSON": ({"conversations": " "}, "no turns"),
    "lists of two lengths": (
        {"conversations": {"from": ["human"], "value": ["a", "b"]}},
        "`conversations` has lists of different lengths",
    ),
    "history of single turns": (
        {"instruction": "i", "output": "o", "history": [["a"]]},
        "`history` is not a list of pairs: [[prompt, answer], ...]",
    ),
    "arguments that are text": (
        {"messages": CHAT, "chat_template_kwargs": "x"},
        "`chat_template_kwargs` is not a mapping",
    ),
    "a missing turn": ({"conversations": ["a", None]}, "malformed sharegpt row"),
    "missing text": ({"text": None}, "missing value in `text`"),
    "text that is a number": ({"text": 5}, "`text` is not text"),
    "missing instruction": ({"instruction": None, "output": "o"}, "missing value in `instruction`"),
    "missing output": ({"instruction": "i", "output": None}, "missing value in `output`"),
    "missing response": ({"instruction": "i", "response": None}, "missing value in `response`"),
    "output that is a list": ({"instruction": "i", "output": ["o"]}, "`output` is not text"),
}


@pytest.mark.parametrize("row, problem", BAD.values(), ids=BAD)
def test_a_row_that_cannot_be_read_says_why_and_is_no_error(row, problem):
    record = one(row)
    assert record.problem == problem
    assert record.messages == () and record.answer_turns == [] and record.answer == ""


def test_one_bad_row_spoils_no_other():
    rows = Dataset.from_list([{"messages": CHAT}, {"messages": None}, {"messages": []}, {"messages": CHAT}])
    assert [record.problem for record in Records(rows)] == [None, "no turns", "no turns", None]


def test_a_formatting_func_that_fails_is_not_hidden():
    with pytest.raises(KeyError):
        one({"a": "x"}, formatting_func=lambda row: row["b"])
    assert one({"a": "x"}, formatting_func=lambda row: None).problem is not None


def test_rows_with_a_missing_or_empty_column_are_unreadable_for_selector_and_trainer():
    rows = [{"messages": CHAT}, {"messages": None}, {"messages": []}, {"messages": CHAT}]
    found = Records(Dataset.from_list(rows)).unreadable()
    assert sorted(row for rows in found.values() for row in rows) == [1, 2]
    alpaca = [{"instruction": "i", "output": "o"}, {"instruction": None, "output": None}, {"instruction": "i"}]
    found = Records(Dataset.from_list(alpaca)).unreadable()
    assert {reason: rows.tolist() for reason, rows in found.items()} == {
        "missing value in `instruction`": [1],
        "missing value in `output`": [2],
    }


def test_a_sharegpt_row_that_cannot_become_messages_is_unreadable_and_the_others_are_converted():
    good, human = ROWS["sharegpt"][1], {"from": "human", "value": "Hi"}
    bad = [[{"from": None, "value": "x"}], [human, {"from": "gpt", "value": None}], [], None, [human, None]]
    rows = Dataset.from_list([good, *({"conversations": turns} for turns in bad), good])
    records = Records(rows)
    found = {reason: rows.tolist() for reason, rows in records.unreadable().items()}
    assert found == {
        "no role in a turn": [1],
        "missing content in a turn": [2],
        "no turns": [3, 4],
        "malformed sharegpt row": [5],
    }
    assert records.for_training([0, 6])["messages"] == [CHAT, CHAT]


def test_unreadable_rows_are_found_through_an_index_mapping_and_in_every_batch():
    rows = Dataset.from_dict({"text": [None if row % 7 == 3 else "t" for row in range(25_000)]})
    found = Records(rows.select(range(24_999, -1, -1))).unreadable()["missing value in `text`"]
    assert found.tolist() == [row for row in range(25_000) if (24_999 - row) % 7 == 3]
    assert Records(rows.select([0, 1, 2])).unreadable() == {}
