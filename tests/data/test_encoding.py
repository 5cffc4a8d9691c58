"""Token rows of records: where borders fall, answers without prompts, prompts, long rows; beside their naive twins."""

import numpy as np
import pytest
from datasets import Dataset

from hf_dataselect.context import Context
from hf_dataselect.data.encoding import encode, encode_batch
from hf_dataselect.data.records import Records
from hf_dataselect.data.text import TextFormat
from hf_dataselect.data.tokenized_texts import MARGIN, TokenizedTexts
from hf_dataselect.engines.runtime.token_rows import TokenRows
from tests.rows import alpaca
from tests.tiny import tiny_tokenizer


CHATS = [
    [("user", "Q?"), ("assistant", "A.")],
    [
        ("user", "one <|user|> two"),
        ("assistant", "  blank before\n\n"),
        ("user", "and?"),
        ("assistant", "写一首诗 🦊"),
    ],
    [("system", "s"), ("user", "x" * 40), ("assistant", "<|assistant|>\n twice <|assistant|>\n")],
    [("assistant", "first"), ("user", ""), ("assistant", "!")],
    [("user", "only")],
    [("user", "Q?"), ("assistant", "Q?")],
]


def chats(n: int = 30) -> Records:
    rows = [[{"role": role, "content": content} for role, content in CHATS[i % len(CHATS)]] for i in range(n)]
    return Records(Dataset.from_list([{"messages": row} for row in rows]))


@pytest.mark.parametrize("template", [True, False])
def test_tokens_before_a_place_are_those_of_the_text_before_it(template):
    tokenizer = tiny_tokenizer(chat_template=template)
    texts = ["<s><|user|>\nab  c</s>\n<|assistant|>\n d e</s>", "no special token", "<|user|><|user|>", "", " </s> "]
    places = [list(range(len(text) + 1)) for text in texts]
    tokens = TokenizedTexts(TextFormat(tokenizer, style="plain"), texts, special_tokens=False)
    expected = [
        [len(tokenizer(text[:end], add_special_tokens=False)["input_ids"]) for end in range(len(text) + 1)]
        for text in texts
    ]
    assert tokens.before(places) == expected
    assert tokens.specials(0) and not tokens.specials(1)


@pytest.mark.parametrize("bos", [False, True])
@pytest.mark.parametrize("window", [None, 9, 14])
def test_answers_without_prompts_come_from_the_rows_themselves(bos, window, monkeypatch):
    records, tokenizer = chats(), tiny_tokenizer(bos=bos)
    ctx = Context(tokenizer, max_length=window)
    expected = encode(chats(), ctx.text_format(), unconditional=True)
    found, rendered = ctx.encode(records, unconditional=True), []
    parts = []
    for encoded in (expected, found):
        taken = zip(encoded.row, encoded.tokens.take(range(len(encoded.row))), encoded.tokens.keys(), strict=True)
        parts.append(sorted((row, ids.tolist(), spans.tolist(), key) for row, (ids, spans), key in taken if len(ids)))
        assert encoded.tokens.lengths.tolist() == [len(ids) for ids, _ in encoded.tokens.take(range(len(encoded.row)))]
    assert parts[0] == parts[1], "the cache knows them by the same key"
    assert (expected.truncated == found.truncated).all()
    render = TextFormat.render
    monkeypatch.setattr(TextFormat, "render", lambda *given: (rendered.append(1), render(*given))[1])
    ctx.encode(records, unconditional=True)
    assert len(rendered) == (10 if window is None else 0), "those whose answer has white space behind it"


@pytest.mark.parametrize("options", [{"style": "plain"}, {"response_header": "### "}, {"header_tokens": 4}])
def test_other_answers_are_tokenized_with_their_own_header(options):
    ctx = Context(tiny_tokenizer(), max_length=30)
    found = ctx.encode(chats(), ctx.text_format(**options), unconditional=True)
    expected = encode(chats(), ctx.text_format(**options), unconditional=True)
    assert (found.tokens.keys() == expected.tokens.keys()).all()


def test_prompts_are_the_tokens_before_the_first_answer():
    encoded = Context(tiny_tokenizer()).encode(chats())
    taken = encoded.tokens.take(range(len(encoded.tokens)))
    ids = [ids[: spans[0, 0]].tolist() if len(spans) else ids.tolist() for ids, spans in taken]
    naive = TokenRows.from_lists(ids, [[(0, len(row))] for row in ids])
    prompts = encoded.prompts()
    assert (prompts.keys() == naive.keys()).all() and (prompts.lengths == naive.lengths).all()
    assert (prompts.select(np.array([7, 2])).keys() == naive.keys()[[7, 2]]).all()
    assert encoded.label_tokens().tolist() == [int((spans[:, 1] - spans[:, 0]).sum()) for _, spans in taken]


@pytest.mark.parametrize("style", ["chat", "plain"])
def test_of_a_long_row_hardly_more_than_the_window_is_tokenized(style, monkeypatch):
    rows = alpaca(3).to_list()
    rows[1]["output"] = "many words and some 漢字 here " * 4000
    rows[2]["output"] = "x" * 50_000  # of one word, which nothing cuts
    text_format, seen = TextFormat(tiny_tokenizer(), 64, style), []
    tokenize = TextFormat.tokenize

    def spy(self, texts, special_tokens):
        seen.extend(map(len, texts))
        return tokenize(self, texts, special_tokens)

    records = list(Records(Dataset.from_list(rows)))
    with monkeypatch.context() as patched:
        patched.setattr("hf_dataselect.data.tokenized_texts.CHARACTERS", 10**9)
        whole = encode_batch(text_format, records)
    monkeypatch.setattr(TextFormat, "tokenize", spy)
    assert encode_batch(text_format, records) == whole
    assert sorted(seen)[-2] < 16 * (64 + MARGIN) < 50_000 <= sorted(seen)[-1]
