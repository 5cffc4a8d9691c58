"""Rows of every form as questions: whole chats, and all right answers."""

import json

import pyarrow as pa
import pytest
from datasets import ClassLabel, Dataset, Features, Value

from hf_dataselect.evaluation.benchmark import load_benchmarks
from hf_dataselect.evaluation.question_rows import read_question, right_answers, transcript


SYSTEM = {"role": "system", "content": "Be brief."}
CHAT = [
    {"role": "user", "content": "One and two?"},
    {"role": "assistant", "content": "3"},
    {"role": "user", "content": "And four?"},
]
SHAREGPT = [
    {"from": name, "value": turn["content"]} for name, turn in zip(("human", "gpt", "human"), CHAT, strict=True)
]
PARTS = [{**turn, "content": [{"type": "text", "text": turn["content"]}]} for turn in CHAT]
SPOKEN = [(turn["role"], turn["content"]) for turn in CHAT]
NAMES = ("question", "prompt", "messages", "conversations", "turns")


def question(row: dict, column: str, **names: str):
    return read_question(row, 0, {"question": column, **names})


def spoken(messages) -> list[tuple[str, str]]:
    return [(turn["role"], turn["content"]) for turn in messages]


@pytest.mark.parametrize("column", NAMES)
@pytest.mark.parametrize("chat", [CHAT, SHAREGPT, PARTS], ids=["messages", "sharegpt", "parts"])
def test_a_chat_is_asked_with_all_its_turns(column, chat):
    asked = question({column: chat}, column)
    assert asked.turns == ["And four?"] and spoken(asked.messages()) == SPOKEN and asked.problem is None
    assert spoken(asked.messages(template="Q: {question}")) == [*SPOKEN[:2], ("user", "Q: And four?")]
    assert spoken(question({column: [SYSTEM, *chat]}, column).messages()) == [("system", "Be brief."), *SPOKEN]
    assert transcript(asked.whole) == "[user]\nOne and two?\n\n[assistant]\n3\n\n[user]\nAnd four?"


def test_strings_alternate_in_conversations_and_are_all_of_the_user_elsewhere():
    strings = [turn["content"] for turn in CHAT]
    assert spoken(question({"conversations": strings}, "conversations").messages()) == SPOKEN
    assert question({"conversations": json.dumps(CHAT)}, "conversations").messages() == CHAT
    asked = question({"turns": ["One?", "Two?"]}, "turns")
    assert asked.turns == ["One?", "Two?"]
    assert spoken(asked.messages(["1"])) == [("user", "One?"), ("assistant", "1"), ("user", "Two?")]
    users = [CHAT[0], CHAT[2]]
    asked = question({"prompt": users}, "prompt")
    assert asked.turns == ["One and two?", "And four?"] and asked.chat == () and asked.whole == users


def test_an_answer_at_the_end_is_not_asked_but_is_the_reference():
    asked = question({"messages": [*CHAT, {"role": "assistant", "content": "7"}]}, "messages")
    assert spoken(asked.messages()) == SPOKEN and asked.references == [["7"]]
    asked = question(
        {"messages": [*CHAT, {"role": "assistant", "content": "7"}], "answer": 8}, "messages", answer="answer"
    )
    assert asked.references == [["8"]]


def test_a_tool_result_may_be_the_last_turn():
    chat = [CHAT[0], {"role": "assistant", "content": "add(1, 2)"}, {"role": "tool", "content": "3", "name": "add"}]
    assert question({"prompt": chat}, "prompt").messages() == chat


@pytest.mark.parametrize(
    ("row", "column", "expected"),
    [
        ({"question": "Why?"}, "question", ["user"]),
        ({"prompt": CHAT}, "prompt", ["user", "assistant", "user"]),
        ({"turns": ["One?", "Two?"]}, "turns", ["user", "user"]),
        ({"instruction": "Sum", "input": "1 2"}, "instruction", ["user"]),
    ],
)
def test_a_system_column_comes_first(row, column, expected):
    asked = question({**row, "system": "Be brief."}, column, system="system")
    assert [turn["role"] for turn in asked.whole] == ["system", *expected]
    assert asked.messages()[0] == SYSTEM
    for missing in (None, " "):
        assert question({**row, "system": missing}, column, system="system") == question(row, column)


def test_a_system_turn_and_a_system_column_must_agree():
    row = {"prompt": [SYSTEM, *CHAT], "system": "Be brief."}
    assert spoken(question(row, "prompt", system="system").messages())[0] == ("system", "Be brief.")
    asked = question({**row, "system": "Be long."}, "prompt", system="system")
    assert asked.turns == [] and asked.problem == "a system turn, and another text in the system column"


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (None, "no question"),
        ("  ", "no question"),
        (float("nan"), "no question"),
        ([], "no question"),
        (["Why?", ""], "no question"),
        ([SYSTEM], "no turn of the user"),
        ([{"role": "user", "content": " "}], "no question"),
        ([{"role": "nobody", "content": "Why?"}], "no turn of the user"),
        ([{"role": "user", "content": [{"type": "image"}]}], "a turn that is not only text"),
        ({"stem": "Why?"}, "the question is not text"),
    ],
)
def test_what_can_not_be_asked_is_named(value, problem):
    asked = question({"prompt": value}, "prompt")
    assert (asked.turns, asked.problem) == ([], problem)


def test_a_zero_is_a_question_an_input_an_id_and_a_subject():
    assert question({"question": 0}, "question").turns == ["0"]
    assert question({"question": False}, "question").turns == ["False"]
    asked = question({"instruction": "Even?", "input": 0, "n": 0, "s": 0}, "instruction", id="n", subject="s")
    assert (asked.turns, asked.id, asked.subject) == (["Even?\n\n0"], "0", "0")
    assert question({"instruction": "Even?", "input": None, "context": 0}, "instruction").turns == ["Even?\n\n0"]


@pytest.mark.parametrize(
    ("value", "right"),
    [
        ("42", ["42"]),
        ("", [""]),
        (0, ["0"]),
        (0.0, ["0.0"]),
        (False, ["False"]),
        (["a", "b", "a"], ["a", "b"]),
        ([0, 1], ["0", "1"]),
        ([None, "a"], ["a"]),
        ({"text": ["a", "b"], "answer_start": [1, 2]}, ["a", "b"]),
        ({"value": "a", "aliases": ["b", "a"], "normalized_value": "x"}, ["a", "b"]),
        ({"spans": ["a"], "types": ["span"]}, ["a"]),
        ([{"text": "a"}, {"text": "b"}], ["a", "b"]),
        (None, []),
        (float("nan"), []),
        ([], []),
        ({"text": [], "answer_start": []}, []),
        ({"other": "a"}, []),
    ],
)
def test_all_right_answers_are_read(value, right):
    assert right_answers(value) == right


def test_references_of_several_turns_are_by_turn():
    row = {"turns": ["One?", "Two?"], "reference": ["1", ["2", "two"]]}
    assert question(row, "turns", answer="reference").references == [["1"], ["2", "two"]]
    assert question({**row, "reference": "2"}, "turns", answer="reference").references == [[], ["2"]]
    asked = question({**row, "reference": ["1", "2", "3"]}, "turns", answer="reference")
    assert asked.turns == [] and asked.problem == "more reference answers than turns"


def prepared(kind: str, rows: Dataset, folder, **options):
    rows.save_to_disk(folder)
    (benchmark,) = load_benchmarks([{"kind": kind, "dataset": str(folder), **options}])
    benchmark.prepare()
    return benchmark


def arrow_rows(form: str, values: dict[str, list]) -> Dataset:
    text, of = {
        "plain": (pa.string(), pa.list_),
        "large": (pa.large_string(), pa.large_list),
        "fixed": (pa.string(), lambda kind: pa.list_(kind, 3)),
        "view": (pa.string_view(), pa.list_),
        "categories": (pa.dictionary(pa.int8(), pa.string()), pa.list_),
    }[form]
    turn = pa.struct([("role", pa.string() if form == "categories" else text), ("content", text)])
    kinds = {"prompt": of(turn), "question": text, "choices": of(text), "answers": of(text), "subject": text}
    return Dataset(pa.table({name: pa.array(column, kinds[name]) for name, column in values.items()}))


@pytest.mark.parametrize("form", ["large", "fixed", "view", "categories"])
def test_other_arrow_forms_are_read_as_plain_ones(tmp_path, form):
    chats = {"prompt": [CHAT, CHAT], "answers": [["7", "seven", "VII"], ["8", "eight", "7"]], "subject": ["a", "b"]}
    choices = {"question": ["Which?", "What?"], "choices": [["x", "y", "z"]] * 2, "answers": [["y"] * 3, ["z"] * 3]}
    found = []
    for kind in ("plain", form):
        asked = prepared("generation", arrow_rows(kind, chats), tmp_path / f"{kind} chats", name="a").questions
        items = prepared("multiple_choice", arrow_rows(kind, choices), tmp_path / f"{kind} choices", name="a").items
        found.append((asked, items))
    assert found[0] == found[1]
    assert [asked.references for asked in found[1][0]] == [[["7", "seven", "VII"]], [["8", "eight", "7"]]]
    assert spoken(found[1][0][0].messages()) == SPOKEN and [item.right for item in found[1][1]] == [1, 2]


def test_class_labels_are_read_by_name(tmp_path):
    names = {"answer": ClassLabel(names=["no", "yes"]), "subject": ClassLabel(names=["art", "law"])}
    features = Features({"question": Value("string"), **names})
    columns = {"question": ["A?", "B?", "C?"], "answer": [0, 1, -1], "subject": [0, 1, 1]}
    rows = Dataset.from_dict(columns, features=features)
    asked = prepared("generation", rows, tmp_path / "a", name="a").questions
    assert [(one.references, one.subject) for one in asked] == [([["no"]], "art"), ([["yes"]], "law"), ([[]], "law")]
    for wanted in ("art", 0):
        few = prepared("generation", rows, tmp_path / f"b{wanted}", name="a", where={"subject": wanted})
        assert [one.turns for one in few.questions] == [["A?"]]
    items = prepared("multiple_choice", rows.remove_columns("subject"), tmp_path / "c", name="a").items
    assert [(item.choices, item.right) for item in items[:2]] == [(("no", "yes"), 0), (("no", "yes"), 1)]
    assert items[2].problem == "no correct choice"


def test_rows_with_a_format_of_their_own_are_read_as_plain_ones(tmp_path):
    rows = Dataset.from_dict({"question": ["A?", "B?"], "answer": [[0, 1], [2, 0]], "n": [0, 1]}).with_format("numpy")
    asked = prepared("generation", rows, tmp_path / "a", name="a", where={"n": 0}).questions
    assert [one.references for one in asked] == [[["0", "1"]]]


def test_rows_with_images_are_refused_where_the_model_would_not_see_them(tmp_path):
    from tests.tiny_vision import image_rows

    rows = image_rows(2).remove_columns("completion").add_column("answer", ["a", "b"])
    for kind in ("generation", "instructions"):
        with pytest.raises(ValueError, match="has images, and only `kind: held_out` shows them"):
            prepared(kind, rows, tmp_path / kind, name="a")
