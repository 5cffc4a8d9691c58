import random
from importlib.resources import files

import pytest
from transformers import AddedToken

from hf_dataselect.data.chat_template import default_chat_template
from hf_dataselect.data.encoding import encode_batch
from hf_dataselect.data.layouts import Record
from hf_dataselect.data.text import TextFormat
from tests.tiny import CHAT_TEMPLATE, tiny_tokenizer


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


# --- the default template ---


@pytest.mark.parametrize("bos", [False, True])
def test_the_default_template_starts_with_bos_where_the_tokenizer_does_and_ends_answers_with_eos(bos):
    tokenizer = written(DEFAULT_BOS if bos else DEFAULT)
    ((ids, _, _, _),) = encoded(TextFormat(tokenizer), chat(CHATS["system"]))
    text = "### System:\nBe brief.\n\n### User:\nName a colour.\n\n### Assistant:\nBlue</s>\n"
    assert text_of(tokenizer, ids) == "<s>" * bos + text
    assert ids.count(1) == bos
