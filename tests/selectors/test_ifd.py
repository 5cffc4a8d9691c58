"""IFD and Superfiltering agree with their authors' code; IFD's own options do what they say."""

import json

import numpy as np
import pytest
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer

from hf_dataselect.context import Context
from hf_dataselect.data.records import Records
from hf_dataselect.engines.runtime.runtime import Runtime
from hf_dataselect.features.loss import answer_loss, prompt_features
from hf_dataselect.pipeline import select
from hf_dataselect.selectors.ifd import IFD
from hf_dataselect.selectors.superfiltering import Superfiltering
from tests.rows import alpaca, layout
from tests.shared_data import golden_path, smollm2_path
from tests.tiny import context_of, tiny_model, tiny_tokenizer
from tests.tiny_training import trained_rows, watch_training


RUNS = [("tiny", 512), ("smollm2", 512)]
SUPERFILTERING_RUNS = [("tiny", 512), ("smollm2", 128)]


def golden(name: str, model: str, window: int):
    """The reference's run, the rows, the model's folder, and the prompts of Cherry_LLM's texts."""
    folder = golden_path("tiny_model") if model == "tiny" else smollm2_path()
    content = json.loads(golden_path(name).read_text())
    runs = [run for run in content["runs"] if run["model"] == model]
    return next(run for run in runs if run["window"] == window), content["rows"], str(folder), runs


def prompts_of(runs: list[dict], rows: list[dict], tokenizer) -> list[str]:
    """The reference's own prompts, out of its tokens: what stands before the answer; if it fills the window, all."""
    prompts = []
    for row, scored in zip(rows, max(runs, key=lambda run: run["window"])["rows"], strict=True):
        ids, answer = scored["conditional"]["input_ids"], row["output"]
        text = tokenizer.decode(ids, skip_special_tokens=True)
        if not answer or not text.endswith(answer):
            text, answer = tokenizer.decode(ids[: scored["n_prompt"]], skip_special_tokens=True), ""
        prompts.append(text.removesuffix(answer))
    return prompts


def as_numbers(values: list) -> np.ndarray:
    return np.array([np.nan if value is None else value for value in values])


@pytest.mark.long
@pytest.mark.parametrize(("model", "window"), RUNS)
def test_ifd_equals_its_authors_code(model, window):
    run, rows, folder, runs = golden("ifd_cherry.json", model, window)
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
    prompts = prompts_of(runs, rows, tokenizer)
    texts = [{"prompt": p, "completion": row["output"]} for p, row in zip(prompts, rows, strict=True)]
    selector = IFD(warmup="none", response_header="### Response:", header_tokens=4, drop_overlong=True)
    ctx = Context(tokenizer, model, runtime=Runtime(dtype="float32"), max_length=run["window"])
    selection = select(Dataset.from_list(texts), selector, run["sample_number"], ctx)
    np.testing.assert_allclose(selection.scores, as_numbers([row["ratio"] for row in run["rows"]]), atol=1e-4)
    assert sorted(selection.indices.tolist()) == run["picked_rows"]
    left_out = {i for kind in (selection.dropped, selection.unscorable) for rows in kind.values() for i in rows}
    assert sorted(left_out) == run["dropped_rows"]


@pytest.mark.long
@pytest.mark.parametrize(("model", "window"), SUPERFILTERING_RUNS)
def test_superfiltering_equals_its_authors_code(model, window):
    run, rows, folder, _ = golden("ifd_superfiltering.json", model, window)
    names = ("instruction", "input", "output")
    dataset = Dataset.from_list([{name: row.get(name, "") for name in names} for row in rows])
    ctx = Context(tiny_tokenizer(), runtime=Runtime(dtype="float32"), max_length=run["window"])
    selection = select(dataset, Superfiltering(model=folder), 1.0, ctx)
    np.testing.assert_allclose(selection.scores, as_numbers([row["ifd_ppl"] for row in run["rows"]]), rtol=2e-4)
    assert selection.indices.tolist() == run["rows_below_1_best_first"]
    assert selection.indices[:8].tolist() == run["picked_8"]


def context(**changes) -> Context:
    tokenizer = tiny_tokenizer()
    return context_of(tokenizer, tiny_model(tokenizer), **{"max_length": 512, "dtype": "float32", **changes})


def test_a_row_of_several_turns_is_one_ratio_of_means_over_all_answers():
    records, ctx = Records(layout("messages", 6)), context()
    both = answer_loss(records, ctx)
    single = answer_loss(Records(layout("chat prompt-completion", 6)), ctx)
    assert (both.tokens == 2 * single.tokens).all()
    alone = answer_loss(records, ctx, unconditional=True)
    once = answer_loss(Records(layout("chat prompt-completion", 6)), ctx, unconditional=True)
    np.testing.assert_allclose(alone.mean, once.mean, rtol=1e-6)  # the same answer twice


def test_the_warmed_up_model_scores_and_the_own_one_comes_back():
    ctx = context()
    kwargs = {"warmup_clusters": 2, "warmup_learning_rate": 1e-2, "drop_above_one": False}
    cold = select(alpaca(), IFD(warmup="none", drop_above_one=False), 1.0, ctx).scores
    for method in ("lora", "full"):
        warm = select(alpaca(), IFD(warmup=method, **kwargs), 1.0, ctx).scores
        assert not np.allclose(cold, warm, atol=1e-3)
        again = select(alpaca(), IFD(warmup="none", drop_above_one=False), 1.0, ctx).scores
        np.testing.assert_array_equal(cold, again)


def test_rows_that_are_tuned_on_are_counted_where_they_are(tmp_path):
    selector = IFD(warmup_clusters=1, warmup_rows_per_cluster=3, warmup_epochs=2, drop_above_one=False)
    passes = [select(alpaca(), selector, 3, context(cache_dir=tmp_path)).passes for _ in range(2)]
    assert passes[0]["warmup_rows"] == 2 * 3 and "warmup_rows" not in passes[1]


@pytest.mark.parametrize("name", ["alpaca", "messages", "sharegpt", "prompt-completion"])
def test_the_warm_up_is_on_rows_of_the_training(name, monkeypatch):
    records, ctx, trained_on = Records(layout(name, 12)), context(max_length=48), watch_training(monkeypatch)
    select(records, IFD(warmup_clusters=1, warmup_rows_per_cluster=50), 3, ctx)
    assert 0 < len(trained_on) <= 12 and set(trained_on) <= set(trained_rows(records, ctx))


def test_prompts_are_embedded_and_scored_in_one_pass_and_once(tmp_path):
    records, rows = Records(alpaca(12)), np.arange(12)
    whole = prompt_features(Records(alpaca(12)), context(), rows)
    contexts = [context(cache_dir=tmp_path, batch_tokens=1) for _ in range(2)]
    for ctx in contexts:
        found = prompt_features(records, ctx, rows)
        np.testing.assert_allclose(found.embedding, whole.embedding, atol=1e-4)
        np.testing.assert_allclose(found.perplexity, whole.perplexity, rtol=1e-4)
    passes = [ctx.account.passes for ctx in contexts]
    assert [p["embedded_rows"] for p in passes] == [12, 0] and not any(p.get("forward_rows") for p in passes)


def test_superfiltering_needs_its_own_model_and_takes_no_other(tmp_path):
    with pytest.raises(ValueError, match="no-such-model"):
        select(alpaca(), Superfiltering(model=str(tmp_path / "no-such-model")), 3, context())
