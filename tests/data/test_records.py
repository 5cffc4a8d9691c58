import json
import tracemalloc
from datetime import datetime

import numpy as np
import pyarrow as pa
import pytest
from datasets import Dataset, DatasetDict, IterableDataset, concatenate_datasets
from trl.data_utils import is_conversational

from hf_dataselect.data import parser as module
from hf_dataselect.data import rows_hash as arrow_hash
from hf_dataselect.data.layouts import LAYOUTS, Record, content_text
from hf_dataselect.data.records import Records
from hf_dataselect.data.text import TextFormat
from tests.tiny import CHAT_TEMPLATE, tiny_tokenizer


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


# --- errors ---


def test_a_streamed_dataset_is_refused_with_the_way_out():
    with pytest.raises(TypeError, match="`eval_dataset` is an `IterableDataset`.*without `streaming=True`"):
        Records(IterableDataset.from_generator(lambda: iter([])), name="eval_dataset")


def test_what_is_no_dataset_is_refused_by_type():
    with pytest.raises(TypeError, match="`train_dataset` must be a `datasets.Dataset`, got `list`"):
        Records([{"text": "t"}])
    with pytest.raises(TypeError, match="got `DatasetDict`"):
        Records(DatasetDict({"train": Dataset.from_dict({"text": ["t"]})}))


def test_an_empty_dataset_is_refused():
    with pytest.raises(ValueError, match="`train_dataset` has no rows"):
        Records(Dataset.from_dict({"text": []}))


def test_unknown_columns_are_named_beside_all_layouts():
    with pytest.raises(ValueError) as error:
        one({"question": "q", "reply": "r"}, name="selection_target")
    assert "`selection_target` has the columns ['question', 'reply']" in str(error.value)
    assert all(layout in str(error.value) for layout in LAYOUTS.values())


# --- what the trainer gets ---


@pytest.mark.parametrize("name", ["messages", "plain prompt-completion", "chat prompt-completion", "text"])
def test_rows_that_trl_knows_are_handed_on_untouched(name):
    row = {**ROWS[name][1], "extra": 1}
    rows = Dataset.from_list([row] * 5)
    assert Records(rows).for_training() is rows
    assert Records(rows).for_training([3, 1]).to_list() == [row, row]
    assert is_conversational(row) == ROWS[name][3]


CONVERTED = [name for name, row in ROWS.items() if row[0] in ("alpaca", "sharegpt")]


@pytest.mark.parametrize("name", [*CONVERTED, "messages as JSON", "messages of from and value"])
def test_other_chats_become_what_trl_takes_for_one(name):
    _, row, expected, _ = ROWS[name]
    rows = Records(Dataset.from_list([row] * 3)).for_training()
    for given in rows:
        assert is_conversational(given)
        messages = given["messages"] if "messages" in given else given["prompt"] + given["completion"]
        assert [(message["role"], message["content"]) for message in messages] == expected
    assert set(rows.column_names) in ({"messages"}, {"prompt", "completion"})


def test_rows_for_training_are_the_chosen_ones_in_the_order_given():
    rows = Dataset.from_list([{"instruction": str(row), "output": "o", "input": ""} for row in range(9)])
    chosen = Records(rows).for_training(np.array([7, 0, 3]))
    assert [row["prompt"][0]["content"] for row in chosen] == ["7", "0", "3"]


def test_tools_and_template_arguments_go_along_to_the_trainer():
    row = {"conversations": CHAT, "tools": json.dumps([TOOL]), "chat_template_kwargs": {"a": 1}, "id": 3}
    (given,) = Records(Dataset.from_list([row])).for_training()
    assert given == {"messages": CHAT, "tools": row["tools"], "chat_template_kwargs": {"a": 1}}


def test_columns_that_trl_would_take_for_another_layout_are_left_out():
    extra = {"prompt": "p", "chosen": CHAT, "conversations": HUMAN, "id": 1}
    (given,) = Records(Dataset.from_list([{"messages": CHAT, **extra}])).for_training()
    assert given == {"messages": CHAT, "id": 1}
    rows = Dataset.from_list([{"prompt": "p", "completion": "c", "messages": CHAT, "text": None}])
    (given,) = Records(rows).for_training()
    assert given == {"prompt": "p", "completion": "c"}
    (given,) = Records(Dataset.from_list([{"text": "t", "prompt": "p"}])).for_training()
    assert given == {"text": "t"}
    rows = Dataset.from_list([{"messages": CHAT}])
    assert Records(rows, formatting_func=lambda row: row["messages"][0]["content"]).for_training().to_list() == [
        {"text": "Hi"}
    ]


def test_empty_arguments_of_the_template_are_what_trl_takes_for_none():
    rows = [
        {"messages": CHAT, "tools": "", "chat_template_kwargs": {"a": 1}},
        {"messages": CHAT, "tools": "[]", "chat_template_kwargs": None},
    ]
    first, second = Records(Dataset.from_list(rows)).for_training()
    assert (first["tools"], second["tools"]) == (None, "[]")
    assert (first["chat_template_kwargs"], second["chat_template_kwargs"]) == ({"a": 1}, {"a": None})
    records = list(Records(Dataset.from_list(rows)))
    assert [record.template_kwargs for record in records] == [{"a": 1}, {"a": None}]


def test_rows_that_the_chat_template_refuses_are_unreadable_with_it(tmp_path):
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = (
        "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system turns') }}{% endif %}" + CHAT_TEMPLATE
    )
    system = [{"role": "system", "content": "s"}, *CHAT]
    Dataset.from_list([{"messages": CHAT}, {"messages": system}, {"messages": []}]).save_to_disk(tmp_path)
    for _ in range(2):  # found, then read back
        records = Records(Dataset.load_from_disk(str(tmp_path)))
        found = {reason: rows.tolist() for reason, rows in records.unreadable(TextFormat(tokenizer)).items()}
        assert found == {"the chat template refuses the turns (no system turns)": [1], "no turns": [2]}
    assert [*records.unreadable()] == ["no turns"]


def test_rows_with_images_are_not_rendered_without_their_processor():
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = "{{ raise_exception('a list of parts is wanted') }}"
    picture = {"path": None, "bytes": b""}
    rows = Dataset.from_list([{"messages": CHAT, "images": [picture]}])
    assert [*Records(rows).unreadable(TextFormat(tokenizer))] == ["an image can't be decoded"]
    assert [*Records(rows.remove_columns("images")).unreadable(TextFormat(tokenizer))] == [
        "the chat template refuses the turns (a list of parts is wanted)"
    ]


def test_a_column_of_the_prompt_that_trl_does_not_read_is_named(caplog):
    Records(Dataset.from_list([{"messages": CHAT, "system": "s"}]))
    assert "does not read the column `system` beside `messages`" in caplog.text
    Records(Dataset.from_list([{"prompt": CHAT[:1], "completion": CHAT[1:], "history": [], "system": "s"}]))
    assert "does not read the column `history`, `system` beside `prompt`" in caplog.text


def test_a_dataset_with_a_transform_is_refused():
    rows = Dataset.from_list([{"messages": CHAT}]).with_transform(lambda batch: batch)
    with pytest.raises(ValueError, match="`train_dataset` has a transform"):
        Records(rows)


@pytest.mark.parametrize("list_of", [pa.list_, pa.large_list])
def test_large_lists_are_read_as_lists(list_of):
    turn = pa.struct([("role", pa.large_string()), ("content", pa.large_string())])
    chats = pa.array([CHAT, [{"role": "user", "content": None}], []], list_of(turn))
    records = Records(Dataset(pa.table({"messages": chats})))
    found = {reason: rows.tolist() for reason, rows in records.unreadable().items()}
    assert found == {"missing content in a turn": [1], "no turns": [2]} and turns(records[0]) == SINGLE
    assert records.for_training([0])[0]["messages"] == CHAT


# --- identity of a dataset ---


def rows_of_all_kinds(n: int) -> list[dict]:
    return [
        {
            "text": None if row % 7 == 3 else f"row {row} 行",
            "n": row,
            "share": None if row % 5 == 4 else row / 3,
            "chat": None if row % 9 == 8 else [{"role": "user", "content": f"{row}" * (row % 4)}] * (row % 3),
            "flag": row % 2 == 0,
            "when": datetime(2026, 1, 1 + row % 28),
            "nothing": None,
        }
        for row in range(n)
    ]


def test_the_content_hash_is_that_of_the_rows_and_not_of_the_object(tmp_path, monkeypatch):
    rows = rows_of_all_kinds(600)
    dataset = Dataset.from_list(rows)
    dataset.save_to_disk(tmp_path)
    same = [
        dataset,
        Dataset.load_from_disk(str(tmp_path)),
        dataset.select(range(600)),
        Dataset.from_list(rows[::-1]).select(range(599, -1, -1)),
        dataset.add_column("x", [0] * 600).remove_columns("x"),
        concatenate_datasets([Dataset.from_list(rows[:250]), Dataset.from_list(rows[250:], dataset.features)]),
        dataset.select_columns(dataset.column_names[::-1]),
        Dataset(pa.table({name: column.cast(pa.large_string()) if name == "text" else column for name, column in
                          zip(dataset.column_names, dataset.data.columns, strict=True)})),
    ]  # fmt: skip
    assert len({Records(one).content_hash() for one in same}) == 1
    monkeypatch.setattr(arrow_hash, "ROWS", 7)
    assert len({Records(one).content_hash() for one in same}) == 1


@pytest.mark.parametrize("row", [0, 1, 257, 599])
def test_the_content_hash_changes_with_each_value_of_each_row(row):
    rows = rows_of_all_kinds(600)
    hashes = [Records(Dataset.from_list(rows)).content_hash()]
    for column, value in {
        "text": "other",
        "n": -1,
        "share": 0.123,
        "chat": [{"role": "system", "content": "x"}],
        "flag": row % 2 == 1,
        "when": datetime(2025, 1, 1),
    }.items():
        changed = [*rows[:row], {**rows[row], column: value}, *rows[row + 1 :]]
        hashes.append(Records(Dataset.from_list(changed)).content_hash())
    assert len(set(hashes)) == 7


def test_the_content_hash_changes_with_columns_order_number_and_formatting():
    rows = [{"text": f"row {row}", "n": row} for row in range(200)]
    changed = [rows, rows[:-1], rows[::-1], [{**row, "more": 1} for row in rows], [{"text": r["text"]} for r in rows]]
    changed += [[{"text": "ab", "n": 0}, {"text": "c", "n": 0}], [{"text": "a", "n": 0}, {"text": "bc", "n": 0}]]
    hashes = [Records(Dataset.from_list(rows)).content_hash() for rows in changed]
    hashes += [Records(Dataset.from_list(rows), formatting_func=lambda row: f"{row['n']}").content_hash()]
    assert len(set(hashes)) == len(hashes)
