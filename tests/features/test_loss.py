"""What a model makes of rows, beside plain forwards one row at a time."""

import numpy as np
import torch
from datasets import Dataset

from hf_dataselect.context import Context
from hf_dataselect.data.records import Records
from hf_dataselect.data.text import encode
from hf_dataselect.features.hidden_states import prompt_embedding
from hf_dataselect.features.loss import prompt_features
from tests.rows import alpaca
from tests.tiny import tiny_model, tiny_tokenizer


def test_prompts_are_embedded_by_the_mean_of_their_states_and_kept(tmp_path):
    rows = alpaca(9).to_list()
    rows[5]["output"] = ""
    records, tokenizer = Records(Dataset.from_list(rows)), tiny_tokenizer()
    ctx, again = (Context(tokenizer, tiny_model(tokenizer), dtype="float32", cache_dir=tmp_path) for _ in range(2))
    expected = []
    for ids, spans in encode(records, ctx.text_format()).tokens.take(range(9)):
        prompt = torch.tensor(ids[: spans[0, 0]] if len(spans) else ids).long()[None]
        with torch.no_grad():
            hidden = ctx.model(input_ids=prompt, output_hidden_states=True).hidden_states[-1]
        expected.append(hidden[0].mean(0).numpy())
    features = prompt_features(records, ctx)
    np.testing.assert_allclose(features.embedding, expected, rtol=1e-4, atol=1e-5)
    assert np.flatnonzero(np.isnan(features.perplexity)).tolist() == [5]
    found = prompt_embedding(records, again)
    assert np.isnan(found[5]).all() and (np.delete(found, 5, 0) == np.delete(features.embedding, 5, 0)).all()
    assert again.account.passes == {"embedded_rows": 0, "cached_rows": 9} and again.account.cached_seconds > 0
