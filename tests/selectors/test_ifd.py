"""IFD and Superfiltering agree with their authors' code; IFD's own options do what they say."""

import json

import numpy as np
import pytest
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer

from hf_dataselect.preprocessing.records import Records
from hf_dataselect.selector import Context, select
from hf_dataselect.selectors.ifd import IFD
from hf_dataselect.selectors.superfiltering import Superfiltering
from tests.rows import alpaca, layout
from tests.shared_data import golden_path
from tests.tiny import tiny_model, tiny_tokenizer


def golden(name: str, window: int | None = None):
    """The reference's run with the tiny model, the rows, and that model's folder."""
    folder = str(golden_path("tiny_model"))
    content = json.loads(golden_path(name).read_text())
    run = next(r for r in content["runs"] if r["model"] == "tiny" and window in (None, r["window"]))
    return run, content["rows"], folder


def as_numbers(values: list) -> np.ndarray:
    return np.array([np.nan if value is None else value for value in values])


def test_ifd_equals_its_authors_code():
    run, rows, folder = golden("ifd_cherry.json")
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
    texts = []
    for row, scored in zip(rows, run["rows"], strict=True):
        text = tokenizer.decode(scored["conditional"]["input_ids"], skip_special_tokens=True)
        # The reference's own prompt, out of its tokens: what stands before the answer; if it fills the window, all.
        prompt, answer = text.removesuffix(row["output"]), row["output"]
        if not text.endswith(answer) or not answer:
            ids = scored["conditional"]["input_ids"][: scored["n_prompt"]]
            prompt = tokenizer.decode(ids, skip_special_tokens=True)
        texts.append({"prompt": prompt, "completion": answer})
    selector = IFD(warmup="none", response_header="### Response:", header_tokens=4, drop_overlong=True)
    ctx = Context(tokenizer, model, max_length=run["window"], dtype="float32")
    selection = select(Dataset.from_list(texts), selector, run["sample_number"], ctx)
    np.testing.assert_allclose(selection.scores, as_numbers([row["ratio"] for row in run["rows"]]), atol=1e-4)
    assert sorted(selection.indices.tolist()) == run["picked_rows"]
    left_out = {i for kind in (selection.dropped, selection.unscorable) for rows in kind.values() for i in rows}
    assert sorted(left_out) == run["dropped_rows"]


def test_superfiltering_equals_its_authors_code():
    run, rows, folder = golden("ifd_superfiltering.json")
    names = ("instruction", "input", "output")
    dataset = Dataset.from_list([{name: row.get(name, "") for name in names} for row in rows])
    ctx = Context(tiny_tokenizer(), max_length=run["window"], dtype="float32")
    selection = select(dataset, Superfiltering(model=folder), 8, ctx)
    np.testing.assert_allclose(selection.scores, as_numbers([row["ifd_ppl"] for row in run["rows"]]), rtol=2e-4)
    assert selection.indices.tolist() == run["picked_8"]
    everything = select(dataset, Superfiltering(model=folder), 1.0, ctx)
    assert everything.indices.tolist() == run["rows_below_1_best_first"]


def context(**changes) -> Context:
    tokenizer = tiny_tokenizer()
    return Context(tokenizer, tiny_model(tokenizer), **{"max_length": 512, "dtype": "float32", **changes})


def test_a_row_of_several_turns_is_one_ratio_of_means_over_all_answers():
    from hf_dataselect.preprocessing.model import answer_loss

    records, ctx = Records(layout("messages", 6)), context()
    both = answer_loss(records, ctx)
    single = answer_loss(Records(layout("chat prompt-completion", 6)), ctx)
    assert (both.tokens == 2 * single.tokens).all()
    alone = answer_loss(records, ctx, alone=True)
    once = answer_loss(Records(layout("chat prompt-completion", 6)), ctx, alone=True)
    np.testing.assert_allclose(alone.mean, once.mean, rtol=1e-6)  # the same answer twice


def test_the_ratio_of_perplexities_is_another_ranking():
    ctx = context()
    by_loss = select(alpaca(), IFD(warmup="none", drop_above_one=False), 1.0, ctx)
    by_perplexity = select(alpaca(), IFD(warmup="none", drop_above_one=False, ratio="perplexity"), 1.0, ctx)
    assert not np.allclose(by_loss.scores, by_perplexity.scores)
    assert ((by_loss.scores > 1) == (by_perplexity.scores > 1)).all()


def test_the_warmed_up_model_scores_and_the_own_one_comes_back():
    ctx = context()
    kwargs = {"warmup_clusters": 2, "warmup_learning_rate": 1e-2, "drop_above_one": False}
    cold = select(alpaca(), IFD(warmup="none", drop_above_one=False), 1.0, ctx).scores
    for method in ("lora", "full"):
        warm = select(alpaca(), IFD(warmup=method, **kwargs), 1.0, ctx).scores
        assert not np.allclose(cold, warm, atol=1e-3)
        again = select(alpaca(), IFD(warmup="none", drop_above_one=False), 1.0, ctx).scores
        np.testing.assert_array_equal(cold, again)


def test_warm_up_rows_are_diverse_and_of_middling_perplexity():
    records, ctx = Records(alpaca(60)), context()
    rows = IFD(warmup_clusters=3, warmup_rows_per_cluster=4)._warmup_rows(records, ctx)
    assert len(rows) == len(set(rows.tolist())) and 3 <= len(rows) <= 12 and (np.diff(rows) > 0).all()
    pooled = IFD(warmup_clusters=3, warmup_pool=10)._warmup_rows(records, ctx)
    assert len(pooled) <= 10


def test_superfiltering_needs_its_own_model_and_takes_no_other(tmp_path):
    with pytest.raises(ValueError, match="no-such-model"):
        select(alpaca(), Superfiltering(model=str(tmp_path / "no-such-model")), 3, context())


def test_superfiltering_spreads_out_by_facility_location(tmp_path, monkeypatch):
    tokenizer = tiny_tokenizer()
    tiny_model(tokenizer).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    vectors = np.random.default_rng(0).normal(size=(24, 8))
    seen = []

    def encode(texts, encoder, accelerator=None):
        seen.extend(texts)
        return vectors[: len(texts)]

    monkeypatch.setattr("hf_dataselect.selectors.superfiltering.sentence_embeddings", encode)
    plain = select(alpaca(), Superfiltering(model=str(tmp_path)), 4, context()).indices.tolist()
    selector = Superfiltering(model=str(tmp_path), diversity=True, diversity_pool=0.4)
    spread = select(alpaca(), selector, 4, context()).indices.tolist()
    assert len(spread) == 4 and len(seen) == 10 and spread != plain
