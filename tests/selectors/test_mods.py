"""MoDS: quality by reward, coverage by k-center, necessity by what the tuned model answers."""

import json

import numpy as np
import pytest
import torch
from datasets import Dataset
from transformers import BertConfig, BertForSequenceClassification, BertModel, PreTrainedTokenizerFast

from hf_dataselect.engines.generation import generate
from hf_dataselect.engines.subset import k_center
from hf_dataselect.preprocessing.model import prompt_embedding
from hf_dataselect.preprocessing.records import Records
from hf_dataselect.preprocessing.rewards import answer_rewards
from hf_dataselect.registry import load_selector
from hf_dataselect.selector import Context, SelectionError, select
from hf_dataselect.selectors.mods import MoDS, _encoder
from tests.engines.test_judge_model import reward_model
from tests.rows import alpaca, layout
from tests.shared_data import golden, golden_arrays
from tests.test_ranks import run, selection
from tests.tiny import tiny_model, tiny_tokenizer
from tests.training import tiny_trainer, write_recipe


def context(**changes) -> Context:
    tokenizer = tiny_tokenizer()
    return Context(tokenizer, tiny_model(tokenizer), **{"max_length": 128, "dtype": "float32", **changes})


def bert_tokenizer() -> PreTrainedTokenizerFast:
    """One without chat template that joins pairs as BERT does."""
    from tokenizers import processors

    tokenizer = tiny_tokenizer(chat_template=False)
    ids = dict(zip(["<s>", "</s>"], tokenizer.convert_tokens_to_ids(["<s>", "</s>"]), strict=True))
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> $B:1 </s>:1", special_tokens=list(ids.items())
    )
    tokenizer.sep_token, tokenizer.cls_token = "</s>", "<s>"
    return tokenizer


def bert(kind, tokenizer, positions: int = 512, **options):
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=positions,
        pad_token_id=tokenizer.pad_token_id,
        initializer_range=0.3,
        **options,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return kind(config).eval()


@pytest.fixture(scope="module")
def rewards(tmp_path_factory) -> dict[str, str]:
    """Folders of a reward model that reads chats and of one that reads pairs."""
    folders = {}
    for name in ("chat", "pair"):
        tokenizer = tiny_tokenizer() if name == "chat" else bert_tokenizer()
        model = (
            reward_model(tokenizer) if name == "chat" else bert(BertForSequenceClassification, tokenizer, num_labels=1)
        )
        folders[name] = str(tmp_path_factory.mktemp(name))
        model.save_pretrained(folders[name])
        tokenizer.save_pretrained(folders[name])
    return folders


def mods(rewards, **options) -> MoDS:
    small = {"encoder": "model", "warmup": "none", "max_new_tokens": 6}
    return MoDS(**{"reward_model": rewards["chat"], **small, **options})


def medians(rows, rewards) -> float:
    return float(np.median(answer_rewards(Records(rows), context(), rewards["chat"])))


# Rewards -------------------------------------------------------------------------------------------------------------


def test_a_reward_model_without_chat_template_reads_pairs(rewards, tmp_path):
    tokenizer = bert_tokenizer()
    model = BertForSequenceClassification.from_pretrained(rewards["pair"]).eval()
    records = Records(alpaca(12))
    found = answer_rewards(records, context(cache_dir=tmp_path), rewards["pair"])
    for record, reward in zip(records, found, strict=True):
        inputs = tokenizer(record.prompt, record.answer, return_tensors="pt", return_token_type_ids=True)
        assert set(inputs["token_type_ids"][0].tolist()) == {0, 1}
        with torch.no_grad():
            assert float(model(**inputs).logits) == pytest.approx(reward, abs=2e-5)
    assert len(set(found.round(3))) > 6
    again = context(cache_dir=tmp_path)
    np.testing.assert_array_equal(answer_rewards(records, again, rewards["pair"]), found)
    assert again.account.passes["cached_rows"] == 12


def test_rows_without_an_answer_or_too_long_for_the_reward_model_are_named(rewards, tmp_path):
    tokenizer = bert_tokenizer()
    bert(BertForSequenceClassification, tokenizer, positions=150, num_labels=1).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    rows = alpaca(5).to_list()
    rows[1]["output"], rows[3]["output"] = " ", "red " * 400
    ctx = context()
    found = answer_rewards(Records(Dataset.from_list(rows)), ctx, str(tmp_path))
    assert np.isnan(found).tolist() == [False, True, False, True, False]
    named = ctx.account.rows("unscorable")
    assert named["no answer"] == [1] and [3] in named.values()


def test_what_is_no_reward_model_is_refused_before_anything_runs(rewards, tmp_path):
    tokenizer = tiny_tokenizer()
    reward_model(tokenizer, labels=2).save_pretrained(tmp_path / "two")
    tokenizer.save_pretrained(tmp_path / "two")
    for name, named in (("two", "has 2 labels: a reward model has one"), ("none", "can't be found")):
        with pytest.raises(ValueError, match=named):
            MoDS(reward_model=str(tmp_path / name)).check(Records(alpaca(2)))
    mods(rewards).check(Records(alpaca(2)))
    tiny_model(tokenizer).save_pretrained(tmp_path / "lm")
    tokenizer.save_pretrained(tmp_path / "lm")
    with pytest.raises(ValueError, match="has 2 labels"):  # transformers' default for a language model
        mods(rewards, reward_model=str(tmp_path / "lm")).check(Records(alpaca(2)))


def test_rewards_that_are_no_numbers_leave_nothing_to_select(rewards, tmp_path):
    tokenizer = tiny_tokenizer()
    model = reward_model(tokenizer)
    with torch.no_grad():
        model.score.weight.fill_(torch.nan)
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(SelectionError, match="no reward: not a number"):
        select(alpaca(6), mods(rewards, reward_model=str(tmp_path)), 3, context())


# Coverage ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", [0, 1])
def test_seed_rows_are_the_authors_picks(case, monkeypatch):
    expected = golden("mods")["cases"][case]
    vectors = golden_arrays("mods_vectors")[expected["vectors"]]
    monkeypatch.setattr("hf_dataselect.selectors.mods.prompt_embedding", lambda records, ctx: vectors)
    seed = next(s for s in range(10**5) if np.random.default_rng(s).integers(len(vectors)) == expected["first_centre"])
    picks = MoDS(encoder="model")._cover(Records(alpaca(2)), expected["k"], context(seed=seed))
    assert picks.tolist() == expected["picks"]


def test_a_bert_embeds_by_its_first_token(tmp_path):
    tokenizer = bert_tokenizer()
    model = bert(BertModel, tokenizer)
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    encoder = _encoder(str(tmp_path), context())
    texts = ["red fox", "blue " * 300]
    found = encoder.encode(texts)
    for text, vector in zip(texts, found, strict=True):
        ids = tokenizer(text, return_tensors="pt", truncation=True, max_length=96)
        with torch.no_grad():
            state = model(ids["input_ids"], attention_mask=ids["attention_mask"]).last_hidden_state[0, 0]
        np.testing.assert_allclose(vector, state.numpy(), atol=2e-5)


def test_an_encoder_by_name_covers_the_prompts(tmp_path, rewards):
    tokenizer = bert_tokenizer()
    bert(BertModel, tokenizer).save_pretrained(tmp_path / "bert")
    tokenizer.save_pretrained(tmp_path / "bert")
    selector = mods(rewards, encoder=str(tmp_path / "bert"))
    records, ctx = Records(alpaca(20)), context(cache_dir=tmp_path / "cache", seed=3)
    vectors = _encoder(selector.encoder, ctx).encode([record.prompt for record in records])
    first = int(np.random.default_rng(3).integers(20))
    assert selector._cover(records, 6, ctx).tolist() == k_center(vectors, 6, [first])[0].tolist()
    again = context(cache_dir=tmp_path / "cache", seed=3)
    selector._cover(records, 6, again)
    assert again.account.passes == {"embedded_rows": 0, "cached_rows": 20}


# The whole -----------------------------------------------------------------------------------------------------------


def test_seed_rows_and_necessary_rows_make_the_subset(rewards):
    rows = alpaca(24)
    limit = medians(rows, rewards)
    ctx = context()
    records, reward = Records(rows), answer_rewards(Records(rows), context(), rewards["chat"])
    good = np.flatnonzero(reward > limit)
    asked = records.subset(good)
    prompts = [ctx.text_format().prompt_ids(record) for record in asked]
    own = generate(ctx.model, ctx.tokenizer, prompts, max_new_tokens=6, batch_tokens=10**4)
    judged = answer_rewards(asked, context(), rewards["chat"], own)
    border = float(np.sort(judged)[len(good) // 2])
    necessary = set(good[judged < border])
    first = int(np.random.default_rng(ctx.seed).integers(len(good)))
    seed = set(good[k_center(prompt_embedding(asked, context()), 5, [first])[0]])

    selector = mods(rewards, quality_threshold=limit, necessity_threshold=border, seed_rows=5)
    selection = select(rows, selector, 20, ctx)
    assert set(selection.indices) == seed | necessary and seed & necessary and necessary - seed
    assert (np.diff(selection.scores[selection.indices]) <= 0).all()
    figures = selection.facts["figures"]
    assert figures["rows of high quality"] == len(good) == 12 and figures["seed rows"] == 5
    assert figures["necessary rows"] == len(necessary)
    assert figures["seed and necessary rows together"] == len(selection.indices)
    assert sorted(row for rows in selection.dropped.values() for row in rows) == sorted(
        {*range(24)} - {*good.tolist()}
    )
    few = select(rows, selector, 7, context())
    worst = sorted(necessary - seed, key=lambda row: judged[list(good).index(row)])
    assert set(few.indices) == seed | set(worst[:2])


@pytest.mark.parametrize("kind", ["messages", "prompt-completion"])
def test_the_tuned_model_answers_and_a_second_run_repeats_nothing(rewards, tmp_path, kind):
    rows = layout(kind, 12)
    options = {"warmup": "lora", "warmup_epochs": 1, "warmup_gradient_accumulation": 1, "quality_threshold": -1e9}
    selector = mods(rewards, necessity_threshold=1e9, seed_rows=0.5, **options)
    first, second = (select(rows, selector, 8, context(cache_dir=tmp_path)) for _ in range(2))
    assert len(first.indices) == 8 and first.indices.tolist() == second.indices.tolist()
    assert first.passes["answered_rows"] == 12 and second.passes["answered_rows"] == 0
    assert second.cached_seconds > 0 == first.cached_seconds
    assert first.facts["figures"]["answers of the model that were cut off"] > 0, "generation is bounded"
    untuned = select(rows, mods(rewards, **{**options, "warmup": "none"}), 8, context())
    assert untuned.facts["figures"]["seed rows"] == 4


def test_identical_rows_and_a_budget_of_one(rewards):
    same = Dataset.from_list([alpaca(1).to_list()[0]] * 5)
    options = {"quality_threshold": -1e9, "necessity_threshold": -1e9, "seed_rows": 3}
    assert len(select(same, mods(rewards, **options), 4, context()).indices) == 3
    assert len(select(same, mods(rewards, **options), 0.01, context()).indices) == 1


@pytest.mark.parametrize(
    "options, named", [({"seed_rows": 0}, "seed_rows=0"), ({"seed_rows": 1.5}, "1.5"), ({"max_new_tokens": 0}, "=0")]
)
def test_wrong_options_are_refused(options, named):
    with pytest.raises(ValueError, match=named):
        load_selector("mods", {"encoder": "model", **options})


def test_the_model_is_trained_on_what_it_needs(tmp_path, rewards):
    options = {"reward_model": rewards["pair"], "encoder": "model", "quality_threshold": -1e9, "max_new_tokens": 4}
    options |= {"warmup_epochs": 1, "warmup_batch_size": 2, "warmup_gradient_accumulation": 1}
    trainer = tiny_trainer(tmp_path, "mods", options, selection_budget=8, train_dataset=alpaca(16))
    trainer.train()
    assert 4 <= len(trainer.selection.indices) <= 8 and trainer.state.global_step == 3


def test_two_ranks_choose_the_rows_of_one(tmp_path, rewards):
    options = {"reward_model": rewards["chat"], "encoder": "model", "max_new_tokens": 4, "warmup_epochs": 1}
    options |= {"quality_threshold": medians(alpaca(24), rewards), "necessity_threshold": 0.1, "warmup_batch_size": 1}
    recipe = write_recipe(tmp_path, selection_method="mods", selection_dtype="float32", max_length=128)
    found = []
    for processes in (1, 2):
        given = json.dumps(options | {"warmup_gradient_accumulation": 2 // processes})
        output = ["--output_dir", str(tmp_path / f"{processes}"), "--selection_cache_dir", "none"]
        run(processes, recipe, *output, "--selection_kwargs", given, command="select")
        found.append(selection(tmp_path / f"{processes}"))
    assert found[0]["indices"] == found[1]["indices"] and found[0]["facts"]["figures"] == found[1]["facts"]["figures"]
