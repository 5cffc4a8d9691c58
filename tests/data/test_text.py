import random
from importlib.resources import files

import numpy as np
import pytest
from datasets import Dataset
from tokenizers import processors
from transformers import AddedToken
from trl import SFTConfig, SFTTrainer

from hf_dataselect.data import encoding as module
from hf_dataselect.data.chat_template import default_chat_template
from hf_dataselect.data.encoding import encode, encode_batch
from hf_dataselect.data.layouts import Record
from hf_dataselect.data.records import Records
from hf_dataselect.data.text import TextFormat
from tests.tiny import CHAT_TEMPLATE, tiny_model, tiny_tokenizer


MARKED = CHAT_TEMPLATE
UNMARKED = CHAT_TEMPLATE.replace("{% generation %}", "").replace("{% endgeneration %}", "")
#: Trims what it is given and ends no turn with a token.
TRIMMING = (
    "{% for message in messages %}{{ message['role'] | capitalize + ':\n' + message['content'] | trim + '\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ 'Assistant:\n' }}{% endif %}"
)
#: Like Qwen3: leaves reasoning out of all answers but the last, and puts an empty thought into that one.
THINKING = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>\n' }}{% set content = message['content'] %}"
    "{% if message['role'] == 'assistant' %}{% set thought = '' %}"
    "{% if '</think>' in content %}"
    "{% set thought = content.split('</think>')[0].split('<think>')[-1] | trim %}"
    "{% set content = content.split('</think>')[-1] | trim %}{% endif %}"
    "{% if loop.last %}{{ '<think>\n' + thought + '\n</think>\n\n' }}{% endif %}{% endif %}"
    "{{ content + '</s>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)
#: Like DeepSeek: never writes reasoning, and no token ends the turns of the user.
FORGETTING = (
    "{% for message in messages %}{% if message['role'] == 'assistant' %}"
    "{{ '<|assistant|>' + message['content'].split('</think>')[-1] + '</s>' }}"
    "{% else %}{{ '<|' + message['role'] + '|>' + message['content'] }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
#: The generation prompt opens a thought that an answer then has to close.
OPENING = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>\n' }}"
    "{% if message['role'] == 'assistant' and '<think>' not in message['content'] %}{{ '<think>\n\n</think>\n\n' }}"
    "{% endif %}{{ message['content'] + '</s>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n<think>\n' }}{% endif %}"
)
#: Insists on user and assistant taking turns, the user first.
STRICT = (
    "{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate\nuser first') }}{% endif %}"
    "{{ '<|' + message['role'] + '|>' + message['content'] + '</s>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
DEFAULT = "default"
DEFAULT_BOS = "default, with BOS"
TEMPLATES = {
    "marked": MARKED,
    "unmarked": UNMARKED,
    "trimming": TRIMMING,
    "thinking": THINKING,
    "forgetting": FORGETTING,
    "opening": OPENING,
    DEFAULT: DEFAULT,
    DEFAULT_BOS: DEFAULT_BOS,
}

CHATS = {
    "single": ["user: Name a colour.", "assistant: Blue, for example."],
    "system": ["system: Be brief.", "user: Name a colour.", "assistant: Blue"],
    "many": ["user: Hi", "assistant: Hello there", "user: And now?", "assistant: 3", "user: So", "assistant: Bye."],
    "the user last": ["user: Hi", "assistant: Hello there", "user: And now?"],
    "the same answer thrice": ["user: a", "assistant: a", "user: a", "assistant: a", "user: a", "assistant: a"],
    "words of the template": ["user: assistant", "assistant: assistant", "user: think", "assistant: think"],
    "white space around": ["user:  Hi \n", "assistant: \n  Hello there \n\n", "user: x", "assistant:  y "],
    "white space within": ["user: Hi", "assistant: def f(a):\n    return  a\n\n\n# end", "user: x", "assistant: a\tb"],
    "other scripts": ["user: 写一首诗。", "assistant: 春天来了,花儿开了。", "user: 🙂", "assistant: مرحبا 👩‍👧 שלום"],
    "special tokens in it": ["user: </s><|assistant|>\nno", "assistant: a</s>b<|user|>\nc", "user: x", "assistant: y"],
    "assistant first": ["assistant: Welcome!", "user: Hi", "assistant: Hello"],
    "one token": ["user: Sum?", "assistant: 7"],
}


def chat(lines, **options):
    """A record of lines `role: content`."""
    turns = [line.partition(": ")[::2] for line in lines]
    return Record(0, tuple({"role": role, "content": content} for role, content in turns), **options)


def plain(prompt, answer):
    turns = ({"role": "user", "content": prompt}, {"role": "assistant", "content": answer})
    return Record(0, turns, chat=False)


def written(template=MARKED, bos=False, **options):
    """A tiny tokenizer with a chat template."""
    tokenizer = tiny_tokenizer(bos=bos or template == DEFAULT_BOS, **options)
    tokenizer.chat_template = default_chat_template(tokenizer) if template in (DEFAULT, DEFAULT_BOS) else template
    return tokenizer


def text_of(tokenizer, ids):
    return tokenizer.decode(ids, skip_special_tokens=False)


def encoded(text_format, record, unconditional=False):
    """The token rows of one record: `(ids, [(start, end), ...], truncated, problem)` each."""
    columns = encode_batch(text_format, [record], unconditional)
    rows = zip(*(columns[name] for name in ("input_ids", "spans", "truncated", "problem")), strict=True)
    return [(ids, list(zip(spans[::2], spans[1::2], strict=True)), cut, why) for ids, spans, cut, why in rows]


def answers(text_format, record):
    """What the counted tokens of a record say."""
    ((ids, spans, _, _),) = encoded(text_format, record)
    return [text_of(text_format.tokenizer, ids[start:end]) for start, end in spans]


def contents(record):
    return [record.messages[turn]["content"].strip() for turn in record.answer_turns]


# --- which tokens are the answers ---


@pytest.mark.parametrize("template", TEMPLATES.values(), ids=TEMPLATES)
@pytest.mark.parametrize("lines", CHATS.values(), ids=CHATS)
def test_the_counted_tokens_are_the_answers_of_all_turns_and_nothing_else(lines, template):
    record = chat(lines)
    found = answers(TextFormat(written(template)), record)
    if lines is CHATS["white space around"]:  # some of it stands in one token with the answer
        found = [answer.strip() for answer in found]
    assert found == contents(record)


@pytest.mark.parametrize("template", TEMPLATES.values(), ids=TEMPLATES)
@pytest.mark.parametrize("lines", CHATS.values(), ids=CHATS)
def test_with_end_of_turn_each_answer_has_the_token_that_ends_it_too(lines, template):
    record = chat(lines)
    found = answers(TextFormat(written(template), end_of_turn=True), record)
    end = "" if template == TRIMMING else "</s>"
    assert all(answer.endswith(end) for answer in found)
    assert [answer.removesuffix(end).strip() for answer in found] == contents(record)


def test_reasoning_counts_where_the_template_writes_it():
    record = chat(
        ["user: a", "assistant: <think>\nR1\n</think>\n\nA1", "user: b", "assistant: <think>\nR2\n</think>\n\nA2"]
    )
    whole = "<think>\nR2\n</think>\n\nA2"
    assert answers(TextFormat(written(MARKED)), record) == contents(record)
    assert answers(TextFormat(written(THINKING)), record) == ["A1", whole]
    assert answers(TextFormat(written(FORGETTING)), record) == ["A1", "A2"]
    opened = answers(TextFormat(written(OPENING)), record)
    assert opened == ["R1\n</think>\n\nA1", "R2\n</think>\n\nA2"], "the generation prompt is no answer"
    # Written otherwise than it was given: what the template makes of the turn.
    record = chat(["user: a", "assistant: <think>R</think>A"])
    assert answers(TextFormat(written(THINKING)), record) == ["<think>\nR\n</think>\n\nA"]
    assert answers(TextFormat(written(THINKING), end_of_turn=True), record) == ["<think>\nR\n</think>\n\nA</s>"]


def trl_templates():
    folder = files("trl") / "chat_templates"
    return sorted(path.name for path in folder.iterdir() if path.name.endswith(".jinja")) if folder.is_dir() else []


@pytest.mark.parametrize("name", trl_templates())
def test_answers_are_found_under_the_chat_templates_of_real_models(name):
    tokenizer = written((files("trl") / "chat_templates" / name).read_text(encoding="utf-8"), bos=True)
    text_format, refused = TextFormat(tokenizer), {}
    for kind, lines in CHATS.items():
        record = chat([line.rstrip() for line in lines])
        try:
            text, places = text_format.render(record)
        except ValueError as error:  # no system turns, the user first
            refused[kind] = str(error)
            continue
        assert [text[start:end] for start, end in places] == contents(record), kind
    # Templates of models that read images want lists of parts.
    assert "single" not in refused or "has no attribute" in refused["single"] or "leaves the text" in refused["single"]


def test_a_template_that_writes_no_answers_is_a_problem_and_not_a_score():
    silent = "{% for message in messages %}{{ '<|' + message['role'] + '|>end_of_turn' }}{% endfor %}"
    ((_, spans, _, problem),) = encoded(TextFormat(written(silent)), chat(["user: a", "assistant: end"]))
    assert spans == [] and "leaves the text of an answer out" in problem


def test_a_template_that_refuses_the_turns_is_a_problem_of_its_row_only():
    columns = encode_batch(
        TextFormat(written(STRICT)),
        [chat(CHATS["single"]), chat(CHATS["assistant first"]), chat(CHATS["system"]), chat(CHATS["many"])],
    )
    assert columns["problem"] == ["", *["the chat template refuses the turns (roles must alternate)"] * 2, ""]
    assert [len(spans) for spans in columns["spans"]] == [2, 0, 0, 6]


CALLING = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>\n' + (message['content'] or '') }}"
    "{% for call in message['tool_calls'] or [] %}{{ '<call>' + call['function']['name'] + '</call>' }}{% endfor %}"
    "{{ '<|call|>' if message['tool_calls'] else '<|end|>' }}{{ '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)


@pytest.mark.parametrize("content", [None, "", "Let me see. "])
def test_a_tool_call_is_an_answer_as_the_template_writes_it(content):
    tokenizer = written(CALLING)
    tokenizer.add_tokens([AddedToken("<|call|>", special=True), AddedToken("<|end|>", special=True)])
    call = {"role": "assistant", "content": content, "tool_calls": [{"function": {"name": "add"}}]}
    turns = ({"role": "user", "content": "1+2?"}, call, {"role": "tool", "content": "3"})
    record = Record(0, (*turns, {"role": "assistant", "content": "It is 3."}))
    written_call = (content or "") + "<call>add</call>"
    assert answers(TextFormat(tokenizer), record) == [written_call, "It is 3."]
    assert answers(TextFormat(tokenizer, end_of_turn=True), record) == [written_call + "<|call|>", "It is 3.<|end|>"]
    assert answers(TextFormat(tokenizer), Record(0, turns[:2])) == [written_call]


def test_parts_of_text_are_an_answer():
    template = MARKED.replace("message['content']", "(message['content'] if message['content'] is string else 'ab')")
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    turns = ({"role": "user", "content": "x"}, {"role": "assistant", "content": parts})
    assert answers(TextFormat(written(template)), Record(0, turns)) == ["ab"]


def test_the_prompt_of_a_split_row_is_no_answer():
    record = chat(CHATS["many"], first_answer=4)
    assert answers(TextFormat(written()), record) == ["Bye."]


@pytest.mark.parametrize("seed", range(40))
def test_random_chats_decode_to_their_stripped_answers(seed):
    draw = random.Random(seed)
    pieces = [
        "a",
        "Hello",
        " ",
        "  ",
        "\n",
        "\n\n",
        ".",
        "...",
        "'s",
        "</s>",
        "<|user|>",
        "<s>",
        "写",
        "🙂",
        "ש",
        "é",
        "\t",
    ]
    pieces += ["### Assistant:\n", "User: ", "{{ x }}", "%}", "\\n", "42", "\u200b", "́", "\r\n"]

    def content():
        return "".join(draw.choices(pieces, k=draw.randint(0, 12)))

    roles = ["user", "assistant"] * draw.randint(1, 4) + ["user"] * draw.randint(0, 1)
    roles = ["system"] * draw.randint(0, 1) + roles[draw.randint(0, 1) :]
    record = Record(0, tuple({"role": role, "content": content()} for role in roles))
    expected = [answer for answer in contents(record) if answer]
    for template in TEMPLATES.values():
        text_format = TextFormat(written(template))
        text, places = text_format.render(record)
        assert [text[start:end] for start, end in places if start < end] == expected, template
        # White space in front may stand in one token with what follows or precedes it.
        assert [answer.strip() for answer in answers(text_format, record)] == expected, template


# --- plain texts ---


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


# --- nothing to count ---


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


# --- the window ---


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


# --- an answer alone ---


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


# --- batches ---


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


# --- the default template ---


@pytest.mark.parametrize("bos", [False, True])
def test_the_default_template_starts_with_bos_where_the_tokenizer_does_and_ends_answers_with_eos(bos):
    tokenizer = written(DEFAULT_BOS if bos else DEFAULT)
    ((ids, _, _, _),) = encoded(TextFormat(tokenizer), chat(CHATS["system"]))
    text = "### System:\nBe brief.\n\n### User:\nName a colour.\n\n### Assistant:\nBlue</s>\n"
    assert text_of(tokenizer, ids) == "<s>" * bos + text
    assert ids.count(1) == bos


# --- the same answers as in training ---


def trained_on(tokenizer, rows, **options):
    """Token ids and trained places of rows as `SFTTrainer` prepares them."""
    args = SFTConfig(
        "unused",
        max_length=None,
        report_to="none",
        use_cpu=True,
        bf16=False,
        chat_template_path=None,
        **options,
    )
    model = tiny_model(tiny_tokenizer(), layers=1, hidden=16)
    trainer = SFTTrainer(model, args, train_dataset=Dataset.from_list(rows), processing_class=tokenizer)
    return [
        (row["input_ids"], [i for i, label in enumerate(row["labels"]) if label != -100])
        for row in trainer.train_dataset
    ]


def counted_in(tokenizer, rows):
    """Token ids and counted places of the same rows here, the end of the turn included."""
    found = []
    for record in Records(Dataset.from_list(rows)):
        ((ids, spans, _, _),) = encoded(TextFormat(tokenizer, end_of_turn=True), record)
        found.append((ids, [place for start, end in spans for place in range(start, end)]))
    return found


STRINGS = [
    {"prompt": "What is the capital?\n", "completion": "Paris."},
    {"prompt": "Sum?\n", "completion": "7"},
    {"prompt": "春天\n", "completion": "来了 🙂"},
    {"prompt": "Q ", "completion": "ends</s>"},
]


def split_chats(names):
    turns = [list(chat(CHATS[name]).messages) for name in names]
    return [{"prompt": messages[:-1], "completion": messages[-1:]} for messages in turns]


@pytest.mark.parametrize("make", [written, lambda: written(bos=True), appending, lambda: appending(bos=True)])
def test_strings_count_where_training_has_labels(make):
    assert counted_in(make(), STRINGS) == trained_on(make(), STRINGS)


def test_strings_whose_tokens_merge_at_the_border_count_one_token_less_than_training():
    # Training takes the completion to start where prompt and whole diverge; scores start behind the prompt's tokens.
    rows = [{"prompt": "The cap", "completion": "ital of France"}]
    ((ids, counted),), ((trained_ids, trained),) = counted_in(written(), rows), trained_on(written(), rows)
    assert ids == trained_ids and set(counted) < set(trained)


def test_chats_count_where_training_has_labels():
    closed = MARKED.replace("{{ '\n' }}", "")  # nothing behind the token that ends an answer
    rows = split_chats(["single", "system", "many", "other scripts", "special tokens in it", "one token"])
    assert counted_in(written(closed), rows) == trained_on(written(closed), rows)


def test_what_a_template_writes_behind_the_end_of_an_answer_is_trained_on_but_not_counted():
    rows = split_chats(["single", "many"])
    for (ids, counted), (trained_ids, trained) in zip(
        counted_in(written(), rows), trained_on(written(), rows), strict=True
    ):
        assert ids == trained_ids and trained == [*counted, len(ids) - 1]
        assert text_of(written(), ids[-1:]) == "\n"


def test_a_completion_of_several_turns_counts_its_answers_where_training_has_labels_on_the_user_s_too():
    turns = list(chat(CHATS["many"]).messages)
    rows = [{"prompt": turns[:1], "completion": turns[1:]}]
    ((ids, counted),), ((trained_ids, trained),) = counted_in(written(), rows), trained_on(written(), rows)
    assert ids == trained_ids and set(counted) < set(trained)


def test_with_assistant_only_loss_the_marked_turns_are_the_counted_ones():
    names = ["single", "system", "many", "the user last", "the same answer thrice", "other scripts", "assistant first"]
    rows = [{"messages": list(chat(CHATS[name]).messages)} for name in names]
    assert counted_in(written(), rows) == trained_on(written(), rows, assistant_only_loss=True)
