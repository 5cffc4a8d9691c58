"""What a model makes of rows, beside plain forwards one row at a time."""

import numpy as np
import pytest
import torch
from datasets import Dataset

from hf_dataselect.context import Context
from hf_dataselect.data.encoding import encode
from hf_dataselect.data.records import Records
from hf_dataselect.engines.forward.hidden_states import hidden_state
from hf_dataselect.engines.forward.likelihood import likelihood
from hf_dataselect.engines.runtime.runtime import Runtime
from hf_dataselect.features.hidden_states import prompt_vectors
from hf_dataselect.features.loss import prompt_features
from tests.rows import alpaca
from tests.tiny import tiny_model, tiny_tokenizer


def test_prompts_are_embedded_by_the_mean_of_their_states_and_kept(tmp_path):
    rows = alpaca(9).to_list()
    rows[5]["output"] = ""
    records, tokenizer = Records(Dataset.from_list(rows)), tiny_tokenizer()
    ctx, again = (
        Context(tokenizer, tiny_model(tokenizer), runtime=Runtime(dtype="float32", cache_dir=tmp_path))
        for _ in range(2)
    )
    expected = []
    for ids, spans in encode(records, ctx.text_format()).tokens.take(range(9)):
        prompt = torch.tensor(ids[: spans[0, 0]] if len(spans) else ids).long()[None]
        with torch.no_grad():
            hidden = ctx.model(input_ids=prompt, output_hidden_states=True).hidden_states[-1]
        expected.append(hidden[0].mean(0).numpy())
    states = prompt_vectors(records, ctx)
    found = states.vectors[:]
    np.testing.assert_allclose(np.delete(found, 5, 0), np.delete(expected, 5, 0), rtol=1e-4, atol=1e-5)
    assert np.flatnonzero(~states.usable).tolist() == [5], "it has no answer to train on"
    assert (prompt_vectors(records, again).vectors[:] == found).all()
    assert again.account.passes == {"embedded_rows": 0, "cached_rows": 9} and again.account.cached_seconds > 0


@pytest.mark.parametrize("kept", [False, True])
def test_states_and_perplexities_of_prompts_come_from_one_forward_a_row(kept, tmp_path):
    rows = alpaca(9).to_list()
    rows[5]["output"] = ""
    tokenizer = tiny_tokenizer(chat_template=False)
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    records = Records(Dataset.from_list([*rows, {"instruction": "a", "input": "", "output": "b"}]))
    runtime = Runtime(dtype="float32", cache_dir=tmp_path if kept else None)
    ctx, seen = Context(tokenizer, tiny_model(tokenizer), runtime), []
    ctx.model.model.embed_tokens.register_forward_pre_hook(lambda module, args: seen.append(args[0].shape[1]))
    places = np.array([9, 0, 5, 7, 3])
    found, passes = prompt_features(records, ctx, places), len(seen)
    assert passes <= len(places) + 3, "a few more to see that the fast way is right, and not twice as many"
    prompts = ctx.encode(records).prompts().select(places)
    loss = likelihood(ctx.model, prompts, Runtime(dtype="float32")).mean_loss
    assert np.isnan(found.perplexity[[0, 2]]).all(), "one token, and no answer"
    np.testing.assert_allclose(found.perplexity[[1, 3, 4]], np.exp(loss[[1, 3, 4]]), rtol=1e-5)
    states = hidden_state(ctx.model, prompts, Runtime(dtype="float32"), "mean")
    np.testing.assert_allclose(found.embedding, states, rtol=1e-4, atol=1e-5)


def test_a_model_without_finite_numbers_is_named_before_the_warm_up():
    tokenizer = tiny_tokenizer()
    model = tiny_model(tokenizer)
    with torch.no_grad():
        model.lm_head.weight[9] = float("inf")
    ctx = Context(tokenizer, model, runtime=Runtime(dtype="float32"))
    with pytest.raises(ValueError, match="None of 3 prompts .* finite hidden states and a finite loss"):
        prompt_features(Records(alpaca(4)), ctx, np.arange(3))
