"""Indicators of rows: what the evaluator is asked, to the letter, and distances of what the encoder gives."""

import numpy as np
import pytest
from datasets import Dataset

from hf_dataselect.context import Context
from hf_dataselect.data.records import Records
from hf_dataselect.engines.forward.seq2seq import load_evaluator, yes_probability
from hf_dataselect.engines.runtime.runtime import Runtime
from hf_dataselect.features.indicators import IndicatorSources
from tests.rows import alpaca
from tests.tiny import tiny_evaluator, tiny_model, tiny_tokenizer
from tests.tiny_training import answer_ends


ASKED = {
    "nat": "question: Does this response sound natural in a dialogue? </s> response: {answer}",
    "coh": "question: Does this response follow coherently from the dialogue history? </s> response: {answer} </s> "
    "dialogue history: {prompt}",
    "und": "question: Can this response be understood in the dialogue? </s> response: {answer}",
}


@pytest.mark.parametrize("name", ASKED)
def test_the_evaluator_is_asked_in_the_layout_it_is_trained_on(name, tmp_path):
    tokenizer = tiny_tokenizer()
    tiny_evaluator(tokenizer).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    records = Records(alpaca(6))
    texts = [ASKED[name].format(answer=record.answer, prompt=record.prompt) for record in records]
    expected = yes_probability(*load_evaluator(str(tmp_path), Runtime()), texts, Runtime(dtype="float32")).probability
    sources = IndicatorSources(evaluator=str(tmp_path))
    found = sources.measure(records, Context(tokenizer, runtime=Runtime(dtype="float32")), [name]).columns
    np.testing.assert_array_equal(found[name], expected)


def test_distances_are_between_rows_that_have_a_vector_and_are_kept(tmp_path):
    rows = alpaca(12).to_list()
    rows[4]["output"] = None
    records, tokenizer = Records(Dataset.from_list(rows)), tiny_tokenizer()
    contexts = [
        Context(tokenizer, tiny_model(tokenizer), runtime=Runtime(dtype="float32", cache_dir=tmp_path))
        for _ in range(2)
    ]
    sources = IndicatorSources(encoder="model", neighbour=3)
    first, again = (sources.measure(records, ctx, ["knn"]).columns["knn"] for ctx in contexts)
    usable = np.arange(12) != 4
    vectors = answer_ends(contexts[0], records.subset(np.flatnonzero(usable))).astype(float)
    every = np.linalg.norm(vectors[:, None] - vectors, axis=-1)
    np.testing.assert_allclose(first[usable], np.sort(every, axis=1)[:, 3], rtol=1e-4)
    assert np.isnan(first[4]) and contexts[0].account.rows("dropped").popitem()[1] == [4]
    np.testing.assert_array_equal(first, again)
    assert contexts[1].account.passes["cached_rows"] == 11 + 11 and contexts[1].account.cached_seconds > 0
