"""One feature of the text as a selector."""

import numpy as np
import pytest
from datasets import Dataset

from hf_dataselect.cli.main import main
from hf_dataselect.context import Context
from hf_dataselect.features.text_statistics import FEATURES, TEXT_FEATURES, words
from hf_dataselect.pipeline import select
from hf_dataselect.registry import load_selector
from hf_dataselect.selectors.indicator import Indicator
from hf_dataselect.selectors.length import Length
from tests.rows import alpaca
from tests.tiny import tiny_tokenizer


def context() -> Context:
    return Context(tiny_tokenizer())


@pytest.mark.parametrize("name", TEXT_FEATURES)
@pytest.mark.parametrize("prefer", ["high", "low"])
def test_rows_are_ranked_by_the_feature(name, prefer):
    rows = alpaca(20)
    selection = select(rows, Indicator(name, prefer=prefer), 5, context())
    values = np.array([TEXT_FEATURES[name].of(text) for text in rows["output"]], np.float32)
    best = np.sort(-values if prefer == "high" else values)[:5]
    assert values[selection.indices].tolist() == (-best if prefer == "high" else best).tolist()


def test_tokens_are_those_of_length():
    ctx = context()
    by_tokens, by_length = (select(alpaca(20), s, 5, ctx).indices.tolist() for s in (Indicator("tokens"), Length()))
    assert by_tokens == by_length


def test_prompts_and_limits():
    rows = alpaca(20)
    selection = select(rows, Indicator("words", of="prompt", minimum=5, maximum=7), 1.0, context())
    counts = np.array([len(words(f"{row['instruction']} {row['input']}")) for row in rows])
    assert set(selection.indices) == set(np.flatnonzero((counts >= 5) & (counts <= 7))) and len(selection.indices) < 20
    assert set(selection.dropped) == {"words below 5", "words above 7"}


def test_chinese_rows_can_be_ranked_by_diversity():
    texts = ["好的好的好的好的好的好的", "春天来了,花儿开了,鸟儿唱歌。"]
    rows = Dataset.from_list([{"instruction": "写", "output": text} for text in texts])
    assert select(rows, Indicator("mtld"), 1.0, context()).indices.tolist() == [1, 0]


@pytest.mark.parametrize(
    "options, named",
    [
        ({"name": "mtlt"}, "did you mean 'mtld'"),
        ({"name": "tokens", "of": "prompt"}, "of='prompt'"),
        ({"minimum": 3, "maximum": 2}, "minimum=3"),
    ],
)
def test_wrong_options_are_refused(options, named):
    with pytest.raises(ValueError, match=named):
        load_selector("indicator", options)


def test_the_card_documents_every_feature_and_what_a_word_is(capsys):
    main(["methods", "indicator"])
    printed = capsys.readouterr().out
    for name, feature in FEATURES.items():
        (line,) = (line for line in printed.splitlines() if line.startswith(f"| `{name}` |"))
        assert all(part in line for part in (feature.formula, feature.range, feature.source, *feature.extras.values()))
    assert "A word is what stands between spaces" in printed


def test_a_row_with_a_missing_value_is_listed_once():
    rows = alpaca(6).to_list()
    rows[2]["output"] = None
    selection = select(Dataset.from_list(rows), Indicator("words"), 1.0, context())
    assert selection.dropped == {"missing value in `output`": [2]} and selection.unscorable == {}
