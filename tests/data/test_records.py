import json
import tracemalloc

import numpy as np
import pytest
from datasets import Dataset

from hf_dataselect.data import parser as module
from hf_dataselect.data.layouts import LAYOUTS, Record, content_text
from hf_dataselect.data.records import Records


CHAT = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
TOOL = {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}


def turns(record):
    return [(message["role"], message["content"]) for message in record.messages]


def one(row, **options):
    """The record of a dataset of one row."""
    return Records(Dataset.from_list([row]), **options)[0]


SINGLE = [("user", "Hi"), ("assistant", "Hello")]
HUMAN = [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]

#: Layout, row, turns, and whether a chat template writes it.
ROWS = {
    "messages": ("messages", {"messages": CHAT}, SINGLE, True),
    "messages of many roles": (
        "messages",
        {
            "messages": [
                {"role": "system", "content": "Be brief."},
                *CHAT,
                {"role": "user", "content": "Add"},
                {"role": "assistant", "content": "..."},
                {"role": "tool", "content": "3"},
                {"role": "assistant", "content": "3"},
            ]
        },
        [("system", "Be brief."), *SINGLE, ("user", "Add"), ("assistant", "..."), ("tool", "3"), ("assistant", "3")],
        True,
    ),
    "plain prompt-completion": ("prompt-completion", {"prompt": "Hi\n", "completion": "Hello"}, None, False),
    "chat prompt-completion": ("prompt-completion", {"prompt": CHAT[:1], "completion": CHAT[1:]}, SINGLE, True),
    "text": ("text", {"text": "Hi Hello"}, [("assistant", "Hi Hello")], False),
    "alpaca": ("alpaca", {"instruction": "Hi", "output": "Hello"}, SINGLE, True),
    "alpaca, empty input": ("alpaca", {"instruction": "Hi", "input": "", "output": "Hello"}, SINGLE, True),
    "alpaca, no input": ("alpaca", {"instruction": "Hi", "input": None, "output": "Hello"}, SINGLE, True),
    "alpaca, input": (
        "alpaca",
        {"instruction": "Add", "input": "1, 2", "output": "3"},
        [("user", "Add\n1, 2"), ("assistant", "3")],
        True,
    ),
    "dolly": (
        "alpaca",
        {"instruction": "Add", "context": "1, 2", "response": "3", "category": "maths"},
        [("user", "Add\n1, 2"), ("assistant", "3")],
        True,
    ),
    "sharegpt": (
        "sharegpt",
        {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]},
        SINGLE,
        True,
    ),
    "sharegpt of many names": (
        "sharegpt",
        {
            "conversations": [
                {"from": "system", "value": "s"},
                {"from": "prompter", "value": "u"},
                {"from": "function_call", "value": "{}"},
                {"from": "observation", "value": "o"},
                {"from": "chatgpt", "value": "a"},
            ]
        },
        [("system", "s"), ("user", "u"), ("assistant", "{}"), ("tool", "o"), ("assistant", "a")],
        True,
    ),
    "sharegpt of role and content": ("sharegpt", {"conversations": CHAT}, SINGLE, True),
    "sharegpt as JSON": ("sharegpt", {"conversations": json.dumps(HUMAN)}, SINGLE, True),
    "messages as JSON": ("messages", {"messages": json.dumps(CHAT)}, SINGLE, True),
    "messages of from and value": ("messages", {"messages": HUMAN}, SINGLE, True),
    "a struct of lists": (
        "sharegpt",
        {"conversations": {"from": ["human", "gpt"], "value": ["Hi", "Hello"]}},
        SINGLE,
        True,
    ),
    "sharegpt and a system column": (
        "sharegpt",
        {"conversations": HUMAN, "system": "Be brief."},
        [("system", "Be brief."), *SINGLE],
        True,
    ),
    "a system turn and a system column": (
        "sharegpt",
        {"conversations": [{"from": "system", "value": "s"}, *HUMAN], "system": "Be brief."},
        [("system", "s"), *SINGLE],
        True,
    ),
    "alpaca with system and history": (
        "alpaca",
        {"instruction": "Hi", "output": "Hello", "system": "Be brief.", "history": [["a", "b"], ["c", "d"]]},
        [("system", "Be brief."), ("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d"), *SINGLE],
        True,
    ),
    "sharegpt with history": (
        "sharegpt",
        {"conversations": HUMAN, "history": [["a", "b"]]},
        [("user", "a"), ("assistant", "b"), *SINGLE],
        True,
    ),
    "alpaca with history as JSON": (
        "alpaca",
        {"instruction": "Hi", "output": "Hello", "history": '[["a", "b"]]', "system": " "},
        [("system", " "), ("user", "a"), ("assistant", "b"), *SINGLE],
        True,
    ),
    "alpaca, an input that is not a number": (
        "alpaca",
        {"instruction": "Hi", "input": float("nan"), "output": "Hello"},
        SINGLE,
        True,
    ),
    "alpaca, an input of 0": (
        "alpaca",
        {"instruction": "Even?", "input": 0, "output": "Yes"},
        [("user", "Even?\n0"), ("assistant", "Yes")],
        True,
    ),
    "strings taking turns": (
        "sharegpt",
        {"conversations": ["Hi", "Hello", "More?"]},
        [*SINGLE, ("user", "More?")],
        True,
    ),
}


@pytest.mark.parametrize("layout, row, expected, chat", ROWS.values(), ids=ROWS)
def test_every_layout_is_read(layout, row, expected, chat):
    records = Records(Dataset.from_list([row]))
    record = records[0]
    assert records.layout == layout in LAYOUTS
    assert record.problem is None and record.index == 0 and record.chat == chat
    assert turns(record) == (expected or [("user", "Hi\n"), ("assistant", "Hello")])
    assert records.unreadable() == {}


def test_a_formatting_func_makes_the_whole_record_of_any_columns():
    rows = Dataset.from_list([{"a": "x", "b": "y"}, {"a": "z", "b": "w"}])
    records = Records(rows, formatting_func=lambda row: f"{row['a']}: {row['b']}")
    assert records.layout == "text"
    assert [turns(record) for record in records] == [[("assistant", "x: y")], [("assistant", "z: w")]]


def test_tokenized_rows_are_known_as_such_and_hold_no_text():
    records = Records(Dataset.from_list([{"input_ids": [1, 2], "labels": [-100, 2]}]))
    assert records.layout == "tokens"
    assert "tokenized" in records[0].problem and records[0].messages == ()


def test_another_text_column_can_be_named():
    assert one({"story": "Once"}, text_field="story").answer == "Once"


def test_of_several_layouts_the_first_in_the_order_of_layouts_wins():
    columns = {
        "tokens": {"input_ids": [1]},
        "prompt-completion": {"prompt": "p", "completion": "c"},
        "messages": {"messages": CHAT},
        "sharegpt": {"conversations": CHAT},
        "text": {"text": "t"},
        "alpaca": {"instruction": "i", "output": "o"},
    }
    assert list(columns) == list(LAYOUTS)
    left = dict(columns)
    for name in columns:
        row = {column: value for part in left.values() for column, value in part.items()}
        assert Records(Dataset.from_list([row])).layout == name
        # A formatting function beats all but token ids, as in TRL.
        formatted = Records(Dataset.from_list([row]), formatting_func=str)
        assert formatted.layout == ("tokens" if name == "tokens" else "text")
        del left[name]


def test_half_a_layout_is_none():
    with pytest.raises(ValueError, match="expected one of these layouts"):
        one({"prompt": "p", "instruction": "i", "response_text": "x"})
    assert one({"prompt": "p", "text": "t"}).answer == "t"


def test_the_answers_are_all_assistant_turns_but_those_of_a_prompt():
    chat = [*CHAT, {"role": "user", "content": "More"}, {"role": "assistant", "content": "Bye"}]
    whole = one({"messages": chat})
    assert whole.answer_turns == [1, 3] and whole.answer == "Bye" and whole.prompt == "Hi\nHello\nMore"
    split = one({"prompt": chat[:3], "completion": chat[3:]})
    assert split.messages == whole.messages and split.answer_turns == [3]
    assert one({"text": "t"}).prompt == "" and one({"text": "t"}).answer == "t"
    asked = one({"messages": CHAT[:1]})
    assert asked.answer_turns == [] and asked.answer == "" and asked.prompt == "Hi"


def test_the_text_of_a_turn_is_that_of_its_parts():
    parts = [{"type": "text", "text": "a"}, {"type": "image"}, {"type": "text", "text": None}, {"text": "b"}]
    assert content_text({"content": parts}) == "ab"
    assert content_text({"content": None}) == content_text({}) == ""
    assert one({"messages": [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}]}).prompt == "Hi"


@pytest.mark.parametrize("tools", [[TOOL], json.dumps([TOOL])], ids=["a list", "JSON"])
@pytest.mark.parametrize(
    "row", [{"messages": CHAT}, {"conversations": CHAT}, {"prompt": CHAT[:1], "completion": CHAT[1:]}]
)
def test_tools_are_read(row, tools):
    assert one({**row, "tools": tools}).tools == [TOOL]


def test_a_row_without_tools_has_none_and_tools_that_are_no_json_are_a_problem():
    for given, tools in ((None, None), ([], []), ("[]", []), ("", None), (" \n", None)):  # an empty list is one to TRL
        record = Records(Dataset.from_list([{"messages": CHAT, "tools": given}] * 2))[0]
        assert record.tools == tools and record.problem is None
    assert one({"messages": CHAT, "tools": "[{"}).problem == "`tools` is not valid JSON"
    assert one({"messages": CHAT, "tools": '{"name": "add"}'}).problem == "`tools` is not a list"


def test_tool_calls_need_no_content_and_keep_their_arguments():
    calls = [{"type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}]
    chat = [CHAT[0], {"role": "assistant", "content": None, "tool_calls": calls}]
    record = one({"messages": chat})
    assert record.problem is None and record.answer_turns == [1] and record.answer == ""
    assert record.messages[1]["tool_calls"] == calls
    assert record.messages[0]["tool_calls"] is None, "as TRL hands it to the chat template"
    assert "tool_calls" not in one({"conversations": chat}).messages[0]


def test_records_are_a_sequence():
    records = Records(Dataset.from_dict({"text": [str(row) for row in range(2500)]}))
    assert len(records) == 2500 and records[-1].answer == "2499" and records[np.int64(7)].index == 7
    assert [record.index for record in records] == list(range(2500))
    assert [record.answer for record in records][1234] == "1234"
    with pytest.raises(IndexError):
        records[2500]


def test_the_dataset_s_own_format_does_not_matter():
    rows = Dataset.from_list([{"messages": CHAT}] * 2)
    assert [turns(record) for record in Records(rows.with_format("numpy"))] == [SINGLE] * 2
    assert turns(Records(rows.with_format("arrow"))[1]) == SINGLE
    assert Records(rows.with_format("torch")).content_hash() == Records(rows).content_hash()


def test_a_large_dataset_is_read_row_by_row_and_stays_on_disk(tmp_path, monkeypatch):
    n = 50_000
    Dataset.from_dict({"text": [f"row {row} " + "x" * 200 for row in range(n)]}).save_to_disk(tmp_path)
    rows = Dataset.load_from_disk(str(tmp_path))
    made = []

    def make(index, *arguments, **options):
        if index == 0:
            made.append(index)
        return Record(index, *arguments, **options)

    monkeypatch.setattr(module, "Record", make)
    tracemalloc.start()
    try:
        records = Records(rows)
        assert len(records) == n and records.unreadable() == {} and records.content_hash()
        records.for_training(np.arange(0, n, 1000))
        assert not made, "a record was made before one was asked for"
        assert sum(record.index == i for i, record in enumerate(records)) == n and made
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 5e6, "of some 12 MB of text"
