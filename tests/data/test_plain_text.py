"""Texts without a chat template, end tokens, and rows without answers."""

import pytest
from tokenizers import processors

from hf_dataselect.data.encoding import encode_batch
from hf_dataselect.data.layouts import Record
from hf_dataselect.data.text import TextFormat
from tests.data.test_text import CHATS, UNMARKED, answers, chat, contents, encoded, plain, text_of, written


@pytest.mark.parametrize("bos", [False, True])
@pytest.mark.parametrize("answer", ["Paris.", "7", "春天来了", "🙂", " Paris, leading space", "a</s>b", "x\ny\n"])
def test_strings_are_joined_as_they_are(answer, bos):
    tokenizer = written(bos=bos)
    for prompt in ("What is the capital?\n", "Q: ?\nA:\n\n"):
        ((ids, ((start, end),), _, _),) = encoded(TextFormat(tokenizer), plain(prompt, answer))
        assert text_of(tokenizer, ids) == "<s>" * bos + prompt + answer
        assert text_of(tokenizer, ids[start:end]) == answer and end == len(ids)


def test_a_token_that_merges_across_the_border_counts_as_prompt():
    tokenizer = written()
    whole, prompt = tokenizer("The capital").input_ids, tokenizer("The cap").input_ids
    assert whole[: len(prompt)] != prompt, "nothing merges in the test data"
    ((ids, ((start, end),), _, _),) = encoded(TextFormat(tokenizer), plain("The cap", "ital of France"))
    assert (ids, start, end) == (tokenizer("The capital of France").input_ids, len(prompt), len(ids))


@pytest.mark.parametrize("bos", [False, True])
def test_in_plain_style_the_turns_of_a_chat_stand_one_below_the_other(bos):
    tokenizer = written(bos=bos)
    record = chat(["system: Be brief.", "user: Hi", "assistant: Hello", "user: More", "assistant: Bye"])
    ((ids, _, _, _),) = encoded(TextFormat(tokenizer, style="plain"), record)
    assert text_of(tokenizer, ids) == "<s>" * bos + "Be brief.\nHi\nHello\nMore\nBye"
    assert answers(TextFormat(tokenizer, style="plain"), record) == ["Hello", "Bye"]
    tokenizer.chat_template = None  # nor is one needed
    assert answers(TextFormat(tokenizer, style="plain"), record) == ["Hello", "Bye"]


def test_in_plain_style_the_end_token_follows_a_last_answer_only():
    tokenizer = written()
    ends = TextFormat(tokenizer, style="plain", end_of_turn=True)
    assert answers(ends, chat(CHATS["many"])) == ["Hello there", "3", "Bye.</s>"]
    assert answers(ends, chat(CHATS["the user last"])) == ["Hello there"]
    assert answers(TextFormat(tokenizer, end_of_turn=True), plain("a\n", "b")) == ["b</s>"]
    assert answers(TextFormat(tokenizer, end_of_turn=True), plain("a\n", "b</s>")) == ["b</s>"], "not twice"


def appending(bos=False):
    """A tokenizer that ends every text with EOS by itself."""
    tokenizer = written(bos=bos)
    pieces = [*(["<s>"] if bos else []), "$A", "</s>"]
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=" ".join(pieces), special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    assert tokenizer("a").input_ids[-1] == 2
    return tokenizer


@pytest.mark.parametrize("bos", [False, True])
def test_an_end_token_that_the_tokenizer_adds_by_itself_is_taken_off(bos):
    tokenizer = appending(bos)
    ((ids, ((start, end),), _, _),) = encoded(TextFormat(tokenizer), plain("Q\n", "Paris."))
    assert text_of(tokenizer, ids) == "<s>" * bos + "Q\nParis." and text_of(tokenizer, ids[start:end]) == "Paris."
    alone = encoded(TextFormat(tokenizer), plain("Q\n", "Paris."), unconditional=True)
    assert text_of(tokenizer, alone[0][0]) == "<s>" * bos + "Paris."
    assert answers(TextFormat(tokenizer), chat(CHATS["many"])) == contents(chat(CHATS["many"]))


@pytest.mark.parametrize("style", ["chat", "plain"])
def test_a_tokenizer_without_an_end_token_is_no_error(style):
    tokenizer = written(UNMARKED.replace("</s>", ""), eos=False)
    assert tokenizer.eos_token is None
    text_format = TextFormat(tokenizer, style=style, end_of_turn=True)
    assert answers(text_format, plain("a\n", "b")) == ["b"]
    assert answers(text_format, chat(CHATS["single"])) == contents(chat(CHATS["single"]))


def test_where_tokens_merge_an_answer_may_be_left_without_tokens_but_never_with_fewer_than_none():
    tokenizer = written("{% for message in messages %}{{ message['content'] }}{% endfor %}")
    prompt, whole = tokenizer("The capit").input_ids, tokenizer("The capital").input_ids
    assert len(prompt) > len(whole), "nothing merges in the test data"
    record = chat(["user: The capit", "assistant: al", "user: of the\n", "assistant: France"])
    ((ids, spans, _, _),) = encoded(TextFormat(tokenizer), record)
    assert all(0 <= start <= end <= len(ids) for start, end in spans)
    assert [text_of(tokenizer, ids[start:end]) for start, end in spans] == ["", "France"]


@pytest.mark.parametrize("content", ["", " ", "\n\t"])
def test_an_empty_answer_of_a_chat_is_no_answer(content):
    text_format, turns = (
        TextFormat(written()),
        ({"role": "user", "content": "Hi"}, {"role": "assistant", "content": content}),
    )
    ((_, spans, truncated, problem),) = encoded(text_format, Record(0, turns))
    assert (spans, truncated, problem) == ([], False, "no answer")
    more = ({"role": "user", "content": "Say"}, {"role": "assistant", "content": "Yes"})
    assert answers(text_format, Record(0, turns + more)) == ["Yes"]
    assert [problem for *_, problem in encoded(text_format, Record(0, turns), unconditional=True)] == ["no answer"]


def test_a_chat_that_nobody_answers_has_no_answer():
    assert encoded(TextFormat(written()), chat(["user: Hi"]))[0][1:] == ([], False, "no answer")
    assert encoded(TextFormat(written()), plain("Hi", ""))[0][1:] == ([], False, "no answer")


def test_an_answer_of_white_space_counts_in_a_plain_text_as_training_has_it():
    assert answers(TextFormat(written()), plain("Hi", "  \n")) == ["  \n"]


def test_a_row_that_cannot_be_read_keeps_its_reason_and_takes_no_tokens():
    for alone in (False, True):
        columns = encode_batch(TextFormat(written()), [Record(3, problem="because"), chat(CHATS["single"])], alone)
        assert columns["problem"] == ["because", ""] and columns["row"] == [3, 0]
        assert columns["input_ids"][0] == [] and columns["spans"][0] == [] and not columns["truncated"][0]


@pytest.mark.parametrize("bos", [False, True])
def test_a_one_token_answer_without_anything_before_it_can_only_be_scored_behind_bos(bos):
    tokenizer = written(bos=bos)
    ((ids, spans, _, problem),) = encoded(TextFormat(tokenizer), plain("", "7"))
    assert problem == ("" if bos else "nothing to score") and len(ids) == 1 + bos
    assert spans == ([(1, 2)] if bos else [])
    # Alone it is one token row all the same; the engine never counts the token at position 0.
    ((ids, spans, _, _),) = encoded(TextFormat(tokenizer), plain("Sum?\n", "7"), unconditional=True)
    assert (ids, spans) == (tokenizer("7").input_ids, [(int(bos), 1 + bos)])
