"""`full`, `random`, `length`, `perplexity`, `column`: small methods with one promise each."""

import numpy as np
from datasets import Dataset

from hf_dataselect.context import Context
from hf_dataselect.data.records import Records
from hf_dataselect.pipeline import select
from hf_dataselect.selectors.column import Column
from hf_dataselect.selectors.full import Full
from hf_dataselect.selectors.length import Length
from hf_dataselect.selectors.random import Random
from tests.rows import alpaca, layout
from tests.tiny import context_of, tiny_model, tiny_tokenizer


def context(**changes) -> Context:
    tokenizer = tiny_tokenizer()
    return context_of(tokenizer, tiny_model(tokenizer), dtype="float32", max_length=128, **changes)


def test_full_keeps_everything_in_order():
    assert select(alpaca(), Full(), 1.0, context()).indices.tolist() == list(range(24))


def test_random_draws_every_row_equally_often():
    drawn = np.zeros(24)
    for seed in range(200):
        drawn[select(alpaca(), Random(), 6, Context(None, seed=seed)).indices] += 1
    assert drawn.min() > 25 and drawn.max() < 80  # 50 expected, four standard deviations are 24


def test_length_counts_the_tokens_of_all_answers_beyond_the_window():
    tokenizer = tiny_tokenizer()
    for name in ("alpaca", "messages"):
        rows = layout(name)
        scores = select(rows, Length(), 1.0, Context(tokenizer, max_length=8)).scores
        answers = [[t["content"] for t in record.messages if t["role"] == "assistant"] for record in Records(rows)]
        counted = [sum(len(tokenizer(a, add_special_tokens=False)["input_ids"]) for a in turns) for turns in answers]
        assert scores.tolist() == counted


def test_a_column_ranks_and_thresholds():
    rows, ctx = alpaca(), Context(None)
    ratings = np.array(rows["rating"][:])
    for higher, order in ((True, -np.sort(-ratings)), (False, np.sort(ratings))):
        best = select(rows, Column(name="rating", higher_is_better=higher), 5, ctx).indices
        assert ratings[best].tolist() == order[:5].tolist()
    ctx = Context(None)
    selection = select(rows, Column(name="rating", threshold=7), 1.0, ctx)
    assert (ratings[selection.indices] >= 7).all() and len(selection.indices) == (ratings >= 7).sum()
    assert sum(map(len, selection.dropped.values())) == (ratings < 7).sum()


def test_what_is_no_number_in_a_column_is_unscorable():
    rows = Dataset.from_dict({"text": list("abcd"), "score": ["4.5", None, "good", "nan"]})
    selection = select(rows, Column(), 4, Context(None))
    assert selection.indices.tolist() == [0] and selection.unscorable == {"no number in `score`": [1, 2, 3]}
