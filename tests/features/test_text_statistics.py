"""Features of the text agree with the package they are known from, and languages without spaces have words too."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import regex
import torch

from hf_dataselect.context import Context
from hf_dataselect.data.records import Records
from hf_dataselect.engines.runtime.runtime import Runtime
from hf_dataselect.features import text_statistics as human
from hf_dataselect.features.text_statistics import (
    TEXT_FEATURES,
    compression,
    lix,
    mtld,
    sentences,
    split_sentences,
    text_feature,
    words,
)
from tests.rows import alpaca, layout
from tests.shared_data import golden
from tests.tiny import tiny_tokenizer


@pytest.fixture(scope="module")
def known() -> tuple[list[dict], list[dict]]:
    found = golden("human")
    return found["rows"], found["values"]


def test_diversity_equals_the_packages(known):
    rows, values = known
    for row, value in zip(rows, values, strict=True):
        found = mtld(value["word_list"])
        assert math.isnan(found) if value["mtld"] is None else found == pytest.approx(value["mtld"], rel=1e-6)
        spaced = value["row"] != 31
        if spaced and value["mtld"] is not None:
            assert TEXT_FEATURES["mtld"].of(row["output"]) == pytest.approx(value["mtld"], rel=1e-6)


def test_words_are_the_packages_where_there_are_spaces(known):
    rows, values = known
    for row, value in zip(rows[:31], values[:31], strict=True):
        assert words(row["output"]) == value["word_list"]
        for name in ("characters", "words", "terms"):
            assert TEXT_FEATURES[name].of(row["output"]) == value[name]


def test_the_rule_of_words_is_the_packages_on_any_text():
    from lexicalrichness.lexicalrichness import tokenize

    draw = np.random.default_rng(0)
    letters = list("aB3-\u2013\u2014 '\t\n.,_\u00e9\u0416\u201d!/")
    for _ in range(300):
        text = "".join(draw.choice(letters, 30))
        assert words(text) == tokenize(text), text


@pytest.mark.parametrize(
    "text, expected",
    [
        ("春天来了,花儿开了。", 8),
        ("我用 Python 写代码！", 6),
        ("これはペンです", 7),
        ("ภาษาไทย", 7),
        ("ที่นี่", 2),
        ("한국어 문장입니다", 2),
        ("", 0),
        ("123 - !", 0),
    ],
)
def test_characters_are_words_in_scripts_without_spaces(text, expected):
    assert len(words(text)) == expected


def test_diversity_of_chinese_tells_repetition_from_variety(known):
    varied = known[0][31]["output"]
    assert TEXT_FEATURES["mtld"].of(varied) > 3 * TEXT_FEATURES["mtld"].of("好的好的" * 20)


def test_sentences_and_readability_by_hand():
    assert sentences("One. Two! Three?") == 3 and sentences("第一。第二！第三") == 3 and sentences("...") == 0
    assert lix("The cat sat. Extraordinary weather!") == pytest.approx(5 / 2 + 100 * 2 / 5)
    expected = 4.71 * (3 + 3 + 3) / 3 + 0.5 * 3 / 1 - 21.43
    assert TEXT_FEATURES["ari"].of("The cat sat.") == pytest.approx(expected)
    assert compression("ab" * 500) > 20 > 1 > compression("ab")


def test_sentences_are_the_longest_stretches_with_a_letter_between_ends_of_sentences():
    draw, ends = np.random.default_rng(0), ".!?\u2026\u3002\uff01\uff1f"
    for _ in range(500):
        text = "".join(draw.choice(list("ab7_\u00e9\u597d \n-\u2500" + ends), 25))
        assert split_sentences(text) == regex.findall(rf"[^{ends}]*\w[^{ends}]*", text), text


def test_a_stretch_without_letters_is_walked_through_once(monkeypatch):
    steps = []
    monkeypatch.setattr(human, "_WORD_CHARACTER", SimpleNamespace(search=lambda part: steps.append(len(part))))
    assert sentences("\u2500" * 10_000 + ". " + "= " * 10_000 + "!") == 0 and sum(steps) < 31_000


@pytest.mark.parametrize("name", TEXT_FEATURES)
def test_every_feature_is_documented_and_takes_any_text(name):
    feature = TEXT_FEATURES[name]
    assert feature.formula and feature.range
    for text in ("", "?", "a", "好", "\ud800", "word " * 5000):
        assert isinstance(float(feature.of(text)), float)


@pytest.mark.parametrize("kind", ["alpaca", "messages", "text"])
def test_all_answers_of_a_row_count_and_rows_without_one_are_named(kind):
    rows = layout(kind, 4).to_list()
    if kind == "alpaca":
        rows[1]["output"], rows[2]["output"] = "  ", "..."
    ctx = Context(tiny_tokenizer())
    found = text_feature("word_length", Records(type(alpaca(1)).from_list(rows)), ctx)
    if kind == "alpaca":
        assert np.isnan(found[[1, 2]]).all() and np.isfinite(found[[0, 3]]).all()
        assert ctx.account.rows("unscorable") == {"no answer": [1], "the text has no word_length": [2]}
    if kind == "messages":
        answers = "\n".join(turn["content"] for turn in rows[0]["messages"] if turn["role"] == "assistant")
        assert found[0] == TEXT_FEATURES["word_length"].of(answers)


def test_rows_are_dealt_over_the_ranks(monkeypatch):
    monkeypatch.setattr(human, "ROWS", 3)
    rows = alpaca(20).to_list()
    rows[7]["output"], rows[8]["output"] = "", "..."
    records, parts, own = Records(type(alpaca(1)).from_list(rows)), [], {"num_processes": 2, "is_main_process": True}
    for rank in range(2):
        accelerator = SimpleNamespace(
            **own, process_index=rank, device=torch.device("cpu"), reduce=lambda part, how: parts.append(part) or part
        )
        text_feature("words", records, Context(tiny_tokenizer(), runtime=Runtime(accelerator=accelerator)))
    assert not (parts[0].any(1) & parts[1].any(1)).any() and 6 < parts[0].any(1).sum() < 13
    found = text_feature("words", records, Context(tiny_tokenizer()))
    expected = [len(words(row["output"])) if row["output"] else np.nan for row in rows]
    np.testing.assert_array_equal(found, expected)
    summed = (parts[0] + parts[1]).numpy()
    np.testing.assert_array_equal(np.where(summed[:, 0] == 1, summed[:, 1], np.nan), expected)
