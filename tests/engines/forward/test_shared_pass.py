"""One pass gives what each pass of its own gives, once, and only what was wanted."""

import dataclasses

import numpy as np
import pytest
import torch

from hf_dataselect.data.records import Records
from hf_dataselect.engines.forward.likelihood import likelihood
from hf_dataselect.engines.forward.shared_pass import _store, compute_together, token_values
from hf_dataselect.engines.forward.wants import ONE_PASS
from hf_dataselect.engines.runtime.runtime import Runtime
from hf_dataselect.engines.runtime.token_rows import TokenRows
from hf_dataselect.features.hidden_states import text_vectors
from hf_dataselect.features.loss import answer_loss
from hf_dataselect.features.token_values import answer_token_values
from hf_dataselect.pipeline import select
from hf_dataselect.selectors.perplexity import Perplexity
from hf_dataselect.selectors.rds import RDS
from hf_dataselect.testing import sample_rows, tiny_context
from tests.tiny import tiny_model, tiny_tokenizer


@pytest.fixture(scope="module")
def model():
    return tiny_model(tiny_tokenizer())


def token_rows(n: int = 13, start: int = 12) -> TokenRows:
    """Rows with a common start, of one or two answers; the last has none."""
    rng = np.random.default_rng(0)
    ids = [[*range(5, 5 + start), *rng.integers(3, 200, 6 + row).tolist()] for row in range(n)]
    spans = [[(start + 2, start + 4), (start + 5, len(row))] for row in ids]
    return TokenRows.from_lists(ids, [*spans[:-1], []])


def naive(model, ids, spans):
    """Losses and ranks of the label tokens, and the states, of one row by the model's own forward."""
    with torch.no_grad():
        out = model(input_ids=torch.tensor(ids[None].astype(np.int64)), output_hidden_states=True)
    logits, states = out.logits[0].double().numpy(), out.hidden_states[-1][0].double().numpy()
    places = [place for first, end in spans for place in range(first, end)]
    logprobs = logits - np.logaddexp.reduce(logits, 1, keepdims=True)
    losses = [-logprobs[place - 1, ids[place]] for place in places]
    ranks = [1 + int((logits[place - 1] > logits[place - 1, ids[place]]).sum()) for place in places]
    weighted = (np.arange(1, len(ids) + 1)[:, None] * states).sum(0)
    return losses, ranks, states.mean(0), weighted / np.linalg.norm(weighted)


@pytest.mark.parametrize("start", [0, 12])
def test_equals_the_naive_twin_and_each_pass_of_its_own(model, start, tmp_path):
    rows, runtime = token_rows(start=start), Runtime(cache_dir=tmp_path, dtype="float32", batch_tokens=64)
    compute_together(model, rows, runtime, ONE_PASS)
    assert runtime.account.passes["forward_rows"] == len(rows)
    together = likelihood(model, rows, runtime)
    alone = likelihood(model, rows, Runtime(dtype="float32", batch_tokens=64))
    np.testing.assert_array_equal(together, alone)
    losses, ranks = (token_values(model, rows, runtime, want) for want in ("token losses", "token ranks"))
    assert runtime.account.passes["forward_rows"] == len(rows), "nothing is computed again"
    for row, (ids, spans) in enumerate(rows.take(range(len(rows)))):
        expected = naive(model, ids, spans)
        np.testing.assert_allclose(losses[row], expected[0], atol=1e-5)
        np.testing.assert_array_equal(ranks[row], expected[1])
        assert losses[row].sum(dtype=np.float64) == together.loss[row]
    for want, place in (("mean state", 2), ("position state", 3)):
        vectors = _store(model, runtime, want).find(rows.keys()).values[:]
        expected = np.stack([naive(model, *row)[place] for row in rows.take(range(len(rows)))])
        np.testing.assert_allclose(vectors, expected, atol=1e-5)


@pytest.mark.parametrize("cached", [True, False])
def test_methods_share_a_pass_and_get_what_they_get_alone(cached, tmp_path):
    records = Records(sample_rows())

    def context(wants, folder):
        ctx = tiny_context(cache_dir=tmp_path / folder if cached else None)
        return dataclasses.replace(ctx, wants=frozenset(wants))

    ctx, alone = context(ONE_PASS, "a"), context((), "b")
    loss, own = answer_loss(records, ctx), answer_loss(records, alone)
    np.testing.assert_array_equal(loss, own)
    encoded = ctx.encode(records)
    np.testing.assert_allclose(
        text_vectors(encoded, ctx, "x").vectors[:], text_vectors(encoded, alone, "x").vectors[:], atol=1e-6
    )
    values = answer_token_values(records, ctx, "token losses")
    np.testing.assert_allclose(np.divide(*values.sums()), loss.mean, rtol=1e-12)
    assert values.usable.all()
    if cached:
        assert ctx.account.passes["forward_rows"] == len(records) and not ctx.account.passes["embedded_rows"]


def test_a_selection_passes_once_for_its_own_wants_and_for_what_the_cache_keeps_for_others(tmp_path):
    both = frozenset({"loss", "position state"})
    without = dataclasses.replace(tiny_context(), wants=both)
    assert select(sample_rows(), Perplexity(), 4, without).passes["forward_rows"] == 24
    assert without.runtime.cache_dir is None
    kept = dataclasses.replace(tiny_context(cache_dir=tmp_path), wants=both)
    first = select(sample_rows(), RDS(), 4, kept)
    assert first.passes["forward_rows"] == 24
    second = select(sample_rows(), Perplexity(), 4, tiny_context(cache_dir=tmp_path))
    assert "forward_rows" not in {name for name, count in second.passes.items() if count}
    assert second.cached_seconds > 0
    alone = select(sample_rows(), RDS(), 4, tiny_context())
    np.testing.assert_allclose(first.scores, alone.scores, atol=1e-6)
    assert first.indices.tolist() == alone.indices.tolist()


def test_a_tuned_model_is_not_asked_for_what_others_want_of_the_pending_one():
    ctx = dataclasses.replace(tiny_context(), wants=ONE_PASS)
    assert not ctx.using(ctx.model).wants
