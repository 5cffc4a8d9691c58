"""Datasets that are refused, and rows as they are handed on to training."""

import json

import numpy as np
import pyarrow as pa
import pytest
from datasets import Dataset, DatasetDict, IterableDataset
from trl.data_utils import is_conversational

from hf_dataselect.data.layouts import LAYOUTS
from hf_dataselect.data.records import Records
from hf_dataselect.data.text import TextFormat
from tests.data.test_records import CHAT, HUMAN, ROWS, SINGLE, TOOL, one, turns
from tests.tiny import CHAT_TEMPLATE, tiny_tokenizer


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
