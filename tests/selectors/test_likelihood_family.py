"""Methods that read losses and ranks agree with their authors' numbers, or with the paper's formula written again."""

import dataclasses
import json
from functools import partial

import numpy as np
import pytest
import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer

from hf_dataselect.data.records import Records
from hf_dataselect.engines.forward.likelihood import likelihood
from hf_dataselect.engines.forward.noisy_losses import noisy_deltas
from hf_dataselect.engines.forward.shared_pass import token_values
from hf_dataselect.engines.llm.local_model import LocalModel
from hf_dataselect.engines.runtime.runtime import Runtime
from hf_dataselect.engines.runtime.token_rows import TokenRows
from hf_dataselect.engines.subset.clusters import even_rows
from hf_dataselect.features.hashed_ngrams import hashed_ngrams, log_weights
from hf_dataselect.features.loss import answer_loss
from hf_dataselect.pipeline import select
from hf_dataselect.registry import load_selector, method_names, selector_class
from hf_dataselect.selectors.conversation_ifd import ConversationIFD
from hf_dataselect.selectors.dsir import DSIR
from hf_dataselect.selectors.grape import GRAPE
from hf_dataselect.selectors.rsr import RSR
from hf_dataselect.selectors.s2l import S2L
from hf_dataselect.selectors.selectit import SelectIT, sentence_scores, token_scores
from hf_dataselect.selectors.t_shirt import TSHIRT, selective_ifd
from hf_dataselect.selectors.token_drop import TokenDrop
from hf_dataselect.testing import sample_rows, tiny_context
from tests.shared_data import golden, golden_path, smollm2_path
from tests.tiny import tiny_model, tiny_tokenizer


@pytest.fixture(scope="module")
def tiny():
    return AutoModelForCausalLM.from_pretrained(golden_path("tiny_model"))


def test_rsr_equals_its_authors_code(tiny):
    given = golden("rsr")
    spans = [[(place, place + 1) for place in row["positions"]] for row in given["rows"]]
    rows = TokenRows.from_lists([row["ids"] for row in given["rows"]], spans)
    ranks = token_values(tiny, rows, Runtime(dtype="float32"), "token ranks")
    losses = likelihood(tiny, rows, Runtime(dtype="float32"))
    expected = [row["ranks"] for row in given["rows"]]
    off = np.concatenate([np.minimum(found, 100) != own for found, own in zip(ranks, expected, strict=True)])
    assert off.mean() < 0.001, "single ranks may differ where two logits are nearly equal"
    np.testing.assert_allclose(losses.loss, [row["sum_surprisal"] for row in given["rows"]], atol=0.01)
    for clip, name in ((100, "rsr"), (20, "rsr_clip_20")):
        features = {
            "mean_rank": np.array([np.minimum(row, clip).mean(dtype=np.float64) for row in ranks]),
            "conditional_loss": losses.mean_loss,
        }
        ctx = tiny_context()
        scores = RSR(clip).score(features, ctx).values
        np.testing.assert_allclose(-scores, [row[name] for row in given["rows"]], rtol=1e-4)
        if clip == 100:
            assert np.argsort(-scores, kind="stable").tolist() == given["best_first"]
            said = float(ctx.account.figures["rank-surprisal ratio of the dataset"])
            assert said == pytest.approx(given["dataset"]["rsr"], rel=1e-3)


def test_t_shirt_equals_its_authors_code(tiny):
    given = golden("tshirt")
    rows, copies = given["rows"], given["noise_copies"] - 1
    whole = TokenRows.from_lists([row["ids"] for row in rows], [[(row["n_prompt"], len(row["ids"]))] for row in rows])
    alone = [TokenRows.from_lists([row["ids_alone"]], [[(0, len(row["ids_alone"]))]]) for row in rows]
    width = tiny.get_input_embeddings().weight.shape[1]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(given["seed"])
        drawn = {
            key.tobytes(): torch.empty(copies + 1, len(row["ids"]), width).uniform_(-1, 1)[:copies]
            for key, row in zip(whole.keys(), rows, strict=True)
        }
    runtime = Runtime(dtype="float32")
    deltas = noisy_deltas(tiny, whole, alone, runtime, copies, given["alpha"], noise=lambda key, *_: drawn[key])
    deltas = [np.reshape(row, (copies, -1)) if len(row) else np.zeros((0, 1)) for row in deltas]
    scored = np.array([len(row) > 0 for row in deltas])
    assert [row["row"] for row, known in zip(rows, scored, strict=True) if not known] == [28], "a one-token answer"
    for ratio in (50, 75):
        found = selective_ifd(deltas, ratio / 100)
        for name, own in (("sifd_mean", f"sifd_mean_{ratio}"), ("sifd_std", f"sifd_std_{ratio}")):
            expected = np.array([row[own] for row in rows])
            np.testing.assert_allclose(found[name][scored], expected[scored], rtol=1e-3, atol=1e-3)
        scores, ctx = found["sifd_mean"].astype(np.float32), tiny_context()
        excluded = np.concatenate([*TSHIRT().exclude(scores, found, ctx).values()])
        for k, picked in given[f"ratio_{ratio}"]["picked_by_k"].items():
            usable = np.where(excluded, np.nan, scores)
            assert TSHIRT().select(usable, None, found, int(k), ctx).tolist() == picked
    plain = noisy_deltas(tiny, whole, alone, runtime, 1, 0.0)
    expected = [row["ifd"] for row in rows if row["ifd"] is not None]
    np.testing.assert_allclose([np.exp(row[0]) for row in plain if len(row)], expected, rtol=2e-4)


def test_noise_leaves_the_padding_of_bfloat16_alone():
    tokenizer = tiny_tokenizer()
    lists = [([list(range(5, 5 + length))], [[(start, start + 9)]]) for length, start in ((13, 4), (9, 0))]
    rows = [TokenRows.from_lists(*given) for given in lists]
    found = [
        noisy_deltas(tiny_model(tokenizer, hidden=32), rows[0], [rows[1]], Runtime(dtype=dtype), 2, 5.0)[0]
        for dtype in ("float32", "bfloat16")
    ]
    np.testing.assert_allclose(*found, atol=0.2)
    assert len(found[0]) == 2 * 9


@pytest.mark.parametrize("name", ["tiny", "smollm2"])
def test_selectit_equals_its_authors_code(name):
    run = next(run for run in golden("selectit")["runs"] if run["model"] == name)
    folder = golden_path("tiny_model") if name == "tiny" else smollm2_path()
    model = AutoModelForCausalLM.from_pretrained(folder, dtype="float32")

    class Given(LocalModel):
        def prompt_ids(self, question, reply=True):
            return json.loads(question)

    scorer = Given(model, AutoTokenizer.from_pretrained(folder))
    prompts = [json.dumps(ids) for row in run["rows"] for ids in row["prompt_ids"]]
    logits = scorer.digit_logits(prompts, ("1", "2", "3", "4", "5"), Runtime(dtype="float32")).values
    logits = logits.reshape(len(run["rows"]), 5, 5)
    expected = np.array([row["token_scores"] for row in run["rows"]])
    given = token_scores(np.array([row["digit_probabilities"] for row in run["rows"]]))
    np.testing.assert_allclose(given, expected, atol=1e-5)
    found = SelectIT().score(logits, tiny_context())
    np.testing.assert_allclose(found.values, [row["sentence_score"] for row in run["rows"]], atol=1e-5)
    np.testing.assert_allclose(sentence_scores(expected, 0.2), found.values, atol=1e-5)
    assert np.argsort(-found.values, kind="stable").tolist() == run["order"]
    first = SelectIT(prompts=1).score(logits[:, :1], tiny_context())
    np.testing.assert_allclose(first.values, expected[:, 0], atol=1e-5)


@pytest.mark.parametrize("case", [0, 1])
def test_dsir_equals_its_authors_code(case):
    given = golden("dsir")
    counts, target = (hashed_ngrams(given[name], 10_000, unspaced=False) for name in ("raw", "target"))
    np.testing.assert_array_equal((np.asarray(counts.sum(1)).ravel() + 1) // 2, given["length"])
    expected = given["cases"][case]
    found = log_weights(counts, target, expected["target_laplace_smoothing"])
    np.testing.assert_allclose(found, expected["log_weights"], rtol=1e-7, atol=1e-5)


def test_dsir_draws_rows_in_proportion_to_their_weights():
    scores, kept = np.log(np.array([1.0, 2.0, 4.0, np.nan], np.float32)), []
    for seed in range(400):
        kept += DSIR().select(scores, None, None, 1, tiny_context_of(seed)).tolist()
    share = np.bincount(kept, minlength=4) / len(kept)
    np.testing.assert_allclose(share, [1 / 7, 2 / 7, 4 / 7, 0], atol=0.08)
    assert DSIR(draw=False).select(scores, None, None, 2, tiny_context_of(0)).tolist() == [2, 1]
    assert hashed_ngrams(["春天来了"], 1000).sum() == 7, "four characters and three pairs"


CONTEXT = tiny_context()


def tiny_context_of(seed: int):
    return dataclasses.replace(CONTEXT, seed=seed)


@pytest.mark.parametrize("case", [0, 1])
def test_s2l_shares_the_budget_out_as_its_authors_code(case):
    given = golden("s2l")["cases"][case]
    sources, labels = np.array(given["source"]), np.zeros(len(given["source"]), np.int64)
    order = [stage["source"] for stage in given["stages"]]
    for stage in given["stages"]:
        if stage["clusters"]:
            # Of clusters of one size the code visits any first: numbered as it did.
            visited = {entry["cluster"]: place for place, entry in enumerate(stage["clusters"])}
            numbered = [visited.get(label, len(visited) + label) for label in stage["labels"]]
            labels[np.flatnonzero(sources == stage["source"])] = numbered
    numbers = np.random.RandomState(given["seed"])
    places = np.array([order.index(source) for source in sources])
    found = even_rows(labels, places, given["budget"], partial(numbers.choice, replace=False))
    assert sorted(found.tolist()) == given["picked"]


# The paper's formula written again, and bad input --------------------------------------------------------------------


def mean_loss(ctx, messages, start_at: int, bare: bool = False) -> tuple[float, int]:
    """Mean loss of the last message's text, by the model's own forward over the whole text."""
    text = ctx.tokenizer.apply_chat_template(messages[:-1], tokenize=False, add_generation_prompt=True)
    if bare:
        text = text[start_at:]
    before = ctx.tokenizer(text, add_special_tokens=False)["input_ids"]
    ids = before + ctx.tokenizer(messages[-1]["content"], add_special_tokens=False)["input_ids"]
    with torch.no_grad():
        logprobs = ctx.model(torch.tensor([ids])).logits[0].double().log_softmax(-1)
    losses = [-logprobs[place - 1, ids[place]].item() for place in range(len(before), len(ids))]
    return float(np.mean(losses)), len(losses)


def chats(n: int = 5) -> list[list[dict]]:
    rows = sample_rows(3 * n, seed=4).to_list()
    made = []
    for row in range(n):
        turns = []
        for part in rows[3 * row : 3 * row + 2 + row % 2]:
            turns += [
                {"role": "user", "content": part["instruction"]},
                {"role": "assistant", "content": part["output"]},
            ]
        made.append(turns)
    return made


def test_conversation_ifd_equals_its_formula_turn_by_turn():
    rows, ctx = chats(), tiny_context(max_length=800)
    header = ctx.text_format().generation_prompt
    for aggregate in ("mean", "min", "max"):
        found = select(Dataset.from_dict({"messages": rows}), ConversationIFD(aggregate), 2, ctx)
        for row, turns in enumerate(rows):
            ratios, ifd, tokens = [], [], []
            for answer in range(3, len(turns), 2):
                everything, size = mean_loss(ctx, turns[: answer + 1], 0)
                own, _ = mean_loss(ctx, turns[answer - 1 : answer + 1], 0)
                before = ctx.tokenizer.apply_chat_template(
                    turns[answer - 1 : answer], tokenize=False, add_generation_prompt=True
                )
                nothing, _ = mean_loss(ctx, turns[answer - 1 : answer + 1], len(before) - len(header), bare=True)
                ratios.append(everything / own)
                ifd.append(everything / nothing)
                tokens.append(size)
            expected = {"mean": np.average(ratios, weights=tokens), "min": max(ratios), "max": min(ratios)}
            assert found.scores[row] == pytest.approx(1 - expected[aggregate], abs=1e-4)
            assert found.columns["turn_ifd"][row] == pytest.approx(np.average(ifd, weights=tokens), abs=1e-4)


def test_conversation_ifd_names_rows_without_a_score_and_refuses_a_dataset_of_them():
    rows = [*chats(3), chats(1)[0][:2], [*chats(1)[0][:2], {"role": "user", "content": "x"}]]
    rows[1] = [*rows[1][:2], {"role": "user", "content": "red " * 400}, rows[1][3]]
    found = select(Dataset.from_dict({"messages": rows}), ConversationIFD(), 2, tiny_context(max_length=400))
    assert found.unscorable["a single answer: no earlier turn to help it"] == [3, 4]
    assert 1 in found.unscorable["an answer is not in the window, or the chat is split"]
    with pytest.raises(ValueError, match="at most one: give rows of several turns"):
        ConversationIFD().check(Records(sample_rows()))


def test_grape_keeps_the_likeliest_answer_to_each_prompt():
    answers, prompts = ["Red.", "A quick fox.", "Seven stones."], ["Name one.", "Say it.", "Only once."]
    rows = [{"instruction": prompts[i], "input": "", "output": text} for i in (0, 1) for text in answers]
    rows.append({"instruction": prompts[2], "input": "", "output": "Blue."})
    ctx, data = tiny_context(), Dataset.from_list(rows)
    losses = answer_loss(Records(data), tiny_context()).mean
    found = select(data, GRAPE(), None, ctx)
    expected = {int(losses[:3].argmin()), 3 + int(losses[3:6].argmin()), 6}
    assert set(found.indices.tolist()) == expected
    assert len(found.dropped["another answer to the prompt is more likely"]) == 4
    with pytest.raises(ValueError, match="every prompt here has one: add rows with the same prompt"):
        GRAPE().check(Records(sample_rows(4).select([0])))


def test_rsr_equals_its_formula():
    data, ctx = sample_rows(8), tiny_context()
    found = select(data, RSR(rank_clip=50), 3, ctx)
    for row, record in enumerate(Records(data)):
        before = ctx.tokenizer(
            ctx.tokenizer.apply_chat_template(
                [dict(message) for message in record.messages[:-1]], tokenize=False, add_generation_prompt=True
            )
        )["input_ids"]
        ids = before + ctx.tokenizer(record.answer)["input_ids"]
        with torch.no_grad():
            logits = ctx.model(torch.tensor([ids])).logits[0].double()
        places = range(len(before), len(ids))
        ranks = [1 + int((logits[place - 1] > logits[place - 1, ids[place]]).sum()) for place in places]
        losses = [-logits[place - 1].log_softmax(-1)[ids[place]].item() for place in places]
        assert -found.scores[row] == pytest.approx(np.minimum(ranks, 50).sum() / sum(losses), rel=1e-4)
    assert found.passes["forward_rows"] == 8, "ranks and losses come from one pass"


def test_token_drop_prefers_the_target_and_leaves_the_model_as_it_is():
    rows = sample_rows(12).to_list()
    for row in (2, 7):
        rows[row] |= {"instruction": "Count.", "input": "", "output": "one two three four five six"}
    target = Records(Dataset.from_list([rows[2]] * 4), name="selection_target")
    method = TokenDrop(warmup_epochs=8, warmup_learning_rate=1e-2)
    found = select(Dataset.from_list(rows), method, 2, tiny_context(target=target))
    assert sorted(found.indices.tolist()) == [2, 7]
    before, after = found.columns["loss_before"], found.columns["loss_after"]
    np.testing.assert_allclose(found.scores, (before - after) / before, rtol=1e-4)
    np.testing.assert_allclose(before, answer_loss(Records(Dataset.from_list(rows)), tiny_context()).mean, rtol=1e-5)


def test_options_and_columns_are_checked_before_anything_loads():
    with pytest.raises(ValueError, match="source: the dataset has no column 'kind'"):
        S2L(source="kind").check(Records(sample_rows()))
    with pytest.raises(ValueError, match="model='./nowhere' can't be found"):
        TSHIRT(model="./nowhere").check(Records(sample_rows()))
    with pytest.raises(ValueError, match="prompts=6 must be"):
        load_selector("selectit", {"prompts": 6})


def test_each_method_of_the_family_says_what_evidence_there_is():
    family = ("selectit", "t_shirt", "rsr", "grape", "s2l", "token_drop", "dsir", "conversation_ifd")
    assert set(family) <= set(method_names())
    assert all(selector_class(name).card.evidence for name in family)
    assert selector_class("conversation_ifd").card.evidence.startswith("none published")
