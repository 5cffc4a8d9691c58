"""Windows, answers alone, and rows encoded in batches and kept."""

import random

import numpy as np
import pytest
from datasets import Dataset

from hf_dataselect.data import encoding as module
from hf_dataselect.data.encoding import encode, encode_batch
from hf_dataselect.data.layouts import Record
from hf_dataselect.data.records import Records
from hf_dataselect.data.text import TextFormat
from tests.data.test_text import (
    CHATS,
    DEFAULT,
    DEFAULT_BOS,
    MARKED,
    TEMPLATES,
    answers,
    chat,
    contents,
    encoded,
    plain,
    text_of,
    written,
)


@pytest.mark.parametrize("lines", [CHATS["many"], CHATS["single"], CHATS["the user last"]])
@pytest.mark.parametrize("end_of_turn", [False, True])
def test_the_window_cuts_tokens_and_spans_on_the_right_and_says_so(lines, end_of_turn):
    tokenizer, record = written(), chat(lines)
    ((ids, spans, _, _),) = encoded(TextFormat(tokenizer, end_of_turn=end_of_turn), record)
    for window in range(1, len(ids) + 3):
        ((cut, clipped, truncated, problem),) = encoded(TextFormat(tokenizer, window, end_of_turn=end_of_turn), record)
        assert cut == ids[:window]
        expected = [(start, min(end, window)) for start, end in spans if start < window]
        assert clipped == expected and all(start < end <= len(cut) for start, end in clipped)
        assert truncated == (spans[-1][1] > window)
        assert problem == ("" if expected else "the prompt fills the window")


def test_a_window_of_the_whole_row_cuts_nothing():
    record = plain("Q\n", "Paris is the capital.")
    ((ids, spans, _, _),) = encoded(TextFormat(written()), record)
    assert encoded(TextFormat(written(), len(ids)), record) == [(ids, spans, False, "")]
    assert encoded(TextFormat(written(), len(ids) - 1), record)[0][2]


@pytest.mark.parametrize("template", TEMPLATES.values(), ids=TEMPLATES)
def test_alone_each_answer_is_a_token_row_behind_the_header_that_the_template_gives_it(template):
    tokenizer, record = written(template), chat(CHATS["many"])
    text_format = TextFormat(tokenizer)
    columns = encode_batch(text_format, [Record(7, record.messages)], unconditional=True)
    assert columns["row"] == [7, 7, 7] and columns["problem"] == [""] * 3 and columns["truncated"] == [False] * 3
    prompt = tokenizer.apply_chat_template([{"role": "user", "content": "x"}], tokenize=False)
    asked = tokenizer.apply_chat_template(
        [{"role": "user", "content": "x"}], tokenize=False, add_generation_prompt=True
    )
    header = "<s>" * (template == DEFAULT_BOS) + asked[len(prompt) :]
    assert text_format.assistant_header == header
    for ids, (start, end), answer in zip(columns["input_ids"], columns["spans"], contents(record), strict=True):
        assert text_of(tokenizer, ids) == header + answer
        assert text_of(tokenizer, ids[start:end]) == answer and end == len(ids)


def test_a_header_of_one_s_own_takes_the_place_of_the_template_s():
    tokenizer = written(bos=True)
    text_format = TextFormat(tokenizer, response_header="### Response:\n")
    ((ids, ((start, _),), _, _),) = encoded(text_format, chat(CHATS["single"]), unconditional=True)
    assert text_of(tokenizer, ids[:start]) == "### Response:\n"
    ((ids, ((start, _),), _, _),) = encoded(text_format, plain("Q\n", "A"), unconditional=True)
    assert text_of(tokenizer, ids[:start]) == "<s>### Response:\n"


@pytest.mark.parametrize("template", [MARKED, DEFAULT_BOS])
def test_in_any_window_an_answer_alone_counts_the_tokens_that_it_counts_behind_its_prompt(template):
    tokenizer, record = written(template), chat(CHATS["many"])
    size = len(encoded(TextFormat(tokenizer), record)[0][0])
    for window in range(1, size + 2):
        text_format = TextFormat(tokenizer, window)
        behind = [answer for answer in answers(text_format, record) if answer]
        rows = encoded(text_format, record, unconditional=True)
        alone = [text_of(tokenizer, ids[start:end]) for ids, spans, _, _ in rows for start, end in spans]
        assert alone == behind
        assert any(row[2] for row in rows) == encoded(text_format, record)[0][2]


@pytest.mark.parametrize("extra", [0, 1, 4, 9])
def test_header_tokens_say_how_much_larger_the_window_of_an_answer_alone_is(extra):
    tokenizer, window = written(), 24
    record = chat(["user: Name a colour.", "assistant: " + "Paris is the capital of France. " * 9])
    ((_, ((first, _),), _, _),) = encoded(TextFormat(tokenizer), record)
    assert 0 < first < window
    ((ids, spans, truncated, _),) = encoded(
        TextFormat(tokenizer, window, header_tokens=extra), record, unconditional=True
    )
    assert len(ids) == window - first + extra and truncated
    begin = len(tokenizer("<|assistant|>\n").input_ids)
    assert spans == ([(begin, len(ids))] if len(ids) > begin else [])


def test_an_answer_whose_prompt_fills_the_window_is_left_empty_alone():
    ((ids, spans, truncated, problem),) = encoded(TextFormat(written(), 3), chat(CHATS["single"]), unconditional=True)
    assert (ids, spans, truncated) == ([], [], True)


def mixed_records():
    records = [chat(lines) for lines in CHATS.values()]
    records += [plain("Q\n", "A"), plain("", ""), Record(0, problem="because"), chat(["user: only"])]
    records = [Record(i, r.messages, r.first_answer, r.chat, r.tools, r.problem) for i, r in enumerate(records)]
    random.Random(0).shuffle(records)
    return records


@pytest.mark.parametrize("alone", [False, True])
@pytest.mark.parametrize("options", [{}, {"max_length": 12}, {"style": "plain", "end_of_turn": True}])
@pytest.mark.parametrize("bos", [False, True])
def test_a_batch_is_encoded_as_its_rows_are_one_by_one(alone, options, bos):
    text_format = TextFormat(written(bos=bos), **options)
    singly = [encode_batch(text_format, [record], alone) for record in mixed_records()]
    joined = {name: [value for columns in singly for value in columns[name]] for name in singly[0]}
    assert encode_batch(text_format, mixed_records(), alone) == joined


def dataset(n=30):
    turns = [[("user", f"Q {i}"), ("assistant", f"A {i} " * (i % 7))] for i in range(n)]
    rows = [{"messages": [{"role": role, "content": content} for role, content in row]} for row in turns]
    rows[4] = {"messages": None}
    return Dataset.from_list(rows)


@pytest.mark.parametrize("alone", [False, True])
@pytest.mark.parametrize("num_proc", [None, 2])
def test_a_dataset_is_encoded_as_its_records_are(alone, num_proc):
    records, text_format = Records(dataset()), TextFormat(written(), max_length=16)
    columns, found = encode_batch(text_format, list(records), alone), encode(records, text_format, alone, num_proc)
    assert found.row.tolist() == columns["row"] and len(found.tokens) == len(columns["row"])
    for (ids, spans), *expected in zip(
        found.tokens.take(range(len(found.tokens))), columns["input_ids"], columns["spans"], strict=True
    ):
        assert [ids.tolist(), spans.ravel().tolist()] == expected
    assert found.problems["no turns"] == [4] and found.problems["no answer"] == [0, 7, 14, 21, 28]
    cut = {row for row, truncated in zip(columns["row"], columns["truncated"], strict=True) if truncated}
    assert set(np.flatnonzero(found.truncated)) == cut and cut


@pytest.mark.usefixtures("fingerprints")
def test_an_encoding_is_kept_beside_the_dataset_and_made_anew_when_anything_changes(tmp_path, monkeypatch):
    dataset().save_to_disk(tmp_path)
    calls = []
    monkeypatch.setattr(module, "encode_batch", lambda *arguments: (calls.append(1), encode_batch(*arguments))[1])

    def again(unconditional=False, **options):
        template = options.pop("template", MARKED)
        before = len(calls)
        encode(Records(Dataset.load_from_disk(str(tmp_path))), TextFormat(written(template), **options), unconditional)
        return len(calls) > before

    assert again() and not again()
    assert again(unconditional=True) and not again(unconditional=True)
    assert again(max_length=9) and again(template=DEFAULT) and again(end_of_turn=True) and again(style="plain")
    assert not again() and not again(max_length=9)
    monkeypatch.setattr(module, "VERSION", module.VERSION + 1)
    assert again()


def test_the_key_tells_all_apart_that_decides_the_tokens():
    changes = [{}, {"max_length": 5}, {"style": "plain"}, {"end_of_turn": True}]
    changes += [{"response_header": ""}, {"response_header": "x"}, {"header_tokens": 4}]
    keys = [TextFormat(written(), **change).key for change in changes]
    keys += [TextFormat(written(DEFAULT)).key, TextFormat(written(bos=True)).key, TextFormat(written(eos=False)).key]
    bigger = written()
    bigger.add_tokens(["colour"])
    keys.append(TextFormat(bigger).key)
    assert len(set(keys)) == len(keys)
    assert TextFormat(written()).key == keys[0]
    used = written()
    used("a text", truncation=True, max_length=2, padding="max_length")  # which the backend remembers
    assert TextFormat(used).key == keys[0]
