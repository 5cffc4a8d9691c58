"""MoDS: quality by reward, coverage by k-center, necessity by what the tuned model answers."""

import json

import numpy as np
import pytest
import torch
from datasets import Dataset
from transformers import BertConfig, BertForSequenceClassification, BertModel, PreTrainedTokenizerFast

from hf_dataselect.cli.main import main
from hf_dataselect.context import Context
from hf_dataselect.data.records import Records
from hf_dataselect.engines.forward.generation import generate
from hf_dataselect.engines.runtime import progress
from hf_dataselect.engines.runtime.runtime import Runtime
from hf_dataselect.engines.runtime.stored_vectors import Vectors
from hf_dataselect.engines.subset.choose import k_center
from hf_dataselect.errors import SelectionError
from hf_dataselect.features.generated_answers import generated_answers
from hf_dataselect.features.hidden_states import prompt_vectors
from hf_dataselect.features.rewards import answer_rewards
from hf_dataselect.features.sentence_vectors import load_text_encoder
from hf_dataselect.pipeline import select
from hf_dataselect.registry import load_selector
from hf_dataselect.selectors.mods import MoDS
from tests.engines.llm.test_local import reward_model
from tests.processes import run
from tests.rows import alpaca, layout
from tests.shared_data import golden, golden_arrays
from tests.test_ranks import selection
from tests.tiny import CHAT_TEMPLATE, context_of, tiny_model, tiny_tokenizer
from tests.tiny_training import tiny_trainer, write_recipe


def context(**changes) -> Context:
    tokenizer = tiny_tokenizer()
    return context_of(tokenizer, tiny_model(tokenizer), **{"max_length": 128, "dtype": "float32", **changes})


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
    assert again.account.passes["cached_rows"] == 12 and again.account.cached_seconds > 0


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


def test_a_folder_without_a_tokenizer_or_a_head_is_no_reward_model(rewards, tmp_path, capsys):
    bert(BertForSequenceClassification, bert_tokenizer(), num_labels=1).save_pretrained(tmp_path / "mute")
    with pytest.raises(ValueError, match="reward_model='.*mute' has no tokenizer of its own: it has 5 tokens"):
        mods(rewards, reward_model=str(tmp_path / "mute")).check(Records(alpaca(2)))
    with pytest.raises(SelectionError, match="reward_model='.*mute' can't be loaded: it has 5 tokens"):
        answer_rewards(Records(alpaca(2)), context(), str(tmp_path / "mute"))
    model, tokenizer = tiny_model(tiny_tokenizer()), tiny_tokenizer()
    model.config.num_labels = 1
    for part in (model, tokenizer):
        part.save_pretrained(tmp_path / "lm")
    recipe = write_recipe(tmp_path, selection_method="mods")
    given = json.dumps({"reward_model": str(tmp_path / "lm"), "encoder": "model"})
    with pytest.raises(SystemExit):  # one line, though it shows only when the weights are read
        main(["select", "--config", str(recipe), "--selection_kwargs", given])
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("hf-dataselect: error: `selection_kwargs`: reward_model=") and "score.weight" in last


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
    embedded = Vectors(vectors, np.isfinite(vectors).all(1))
    monkeypatch.setattr("hf_dataselect.features.sentence_vectors.prompt_vectors", lambda records, ctx: embedded)
    seed = next(s for s in range(10**5) if np.random.default_rng(s).integers(len(vectors)) == expected["first_centre"])
    picks = MoDS(encoder="model")._cover(Records(alpaca(2)), expected["k"], context(seed=seed))
    assert picks.tolist() == expected["picks"]


def test_a_bert_embeds_by_its_first_token(tmp_path):
    tokenizer = bert_tokenizer()
    model = bert(BertModel, tokenizer)
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    encoder = load_text_encoder(str(tmp_path), Runtime())
    texts = ["red fox", "blue " * 300]
    found = encoder.encode(texts)
    for text, vector in zip(texts, found, strict=True):
        ids = tokenizer(text, return_tensors="pt", truncation=True, max_length=96)
        with torch.no_grad():
            state = model(ids["input_ids"], attention_mask=ids["attention_mask"]).last_hidden_state[0, 0]
        np.testing.assert_allclose(vector, state.numpy(), atol=2e-5)


def test_an_encoder_by_name_covers_the_prompts(tmp_path, rewards, capsys, monkeypatch):
    monkeypatch.setattr(progress, "EVERY", 0.0)
    tokenizer = bert_tokenizer()
    bert(BertModel, tokenizer).save_pretrained(tmp_path / "bert")
    tokenizer.save_pretrained(tmp_path / "bert")
    selector = mods(rewards, encoder=str(tmp_path / "bert"))
    records, ctx = Records(alpaca(20)), context(cache_dir=tmp_path / "cache", seed=3)
    vectors = load_text_encoder(selector.encoder, ctx.runtime).encode([record.prompt for record in records])
    first = int(np.random.default_rng(3).integers(20))
    assert selector._cover(records, 6, ctx).tolist() == k_center(vectors, 6, [first])[0].tolist()
    again = context(cache_dir=tmp_path / "cache", seed=3)
    selector._cover(records, 6, again)
    assert again.account.passes == {"embedded_rows": 0, "cached_rows": 20}
    assert "Embedding instructions: 100%, 20 of 20" in capsys.readouterr().err
    selector.check(records)


def test_what_is_no_encoder_is_refused_before_anything_runs(rewards, tmp_path):
    bert(BertModel, bert_tokenizer()).save_pretrained(tmp_path / "mute")
    for name, named in (("none", "can't be found"), ("mute", "has no tokenizer of its own")):
        with pytest.raises(ValueError, match=f"encoder='.*{name}' {named}"):
            mods(rewards, encoder=str(tmp_path / name)).check(Records(alpaca(2)))


# Necessity -----------------------------------------------------------------------------------------------------------


def plain_answers(ctx: Context, records: Records, lengths: list[int]) -> list[str]:
    """The same, one row at a time."""
    prompts = [ctx.text_format().prompt_ids(record) for record in records]
    found = []
    for ids, length in zip(prompts, lengths, strict=True):
        found += generate(ctx.model, ctx.tokenizer, [ids], Runtime(batch_tokens=1), max_new_tokens=length)
    return found


def test_rows_that_differ_in_their_tools_are_answered_apart(tmp_path, caplog):
    ctx = context(cache_dir=tmp_path)
    ctx.tokenizer.chat_template = "{% for tool in tools or [] %}{{ tool['name'] }}\n{% endfor %}" + CHAT_TEMPLATE
    chat = [{"role": "user", "content": "Name a colour."}, {"role": "assistant", "content": "Red."}]
    tools = [[{"name": "search the whole library"}], [{"name": "call a friend at once"}]]
    records = Records(Dataset.from_list([{"messages": chat, "tools": tool} for tool in tools]))
    with caplog.at_level("INFO", "hf_dataselect"):
        found, _ = generated_answers(records, ctx, 6)
    found = [*found]
    assert found == plain_answers(ctx, records, [6, 6]) and found[0] != found[1]
    assert "the tuned model: 2 calls" in caplog.text
    again = context(cache_dir=tmp_path)
    again.tokenizer.chat_template = ctx.tokenizer.chat_template
    assert [*generated_answers(records, again, 6)[0]] == found
    assert again.account.passes["answered_rows"] == 0 and again.account.cached_seconds > 0


def test_answers_are_as_long_as_the_positions_allow(rewards):
    rows = alpaca(6).to_list()
    rows[2]["instruction"] = "red fox " * 60
    ctx, records = context(), Records(Dataset.from_list(rows))
    prompts = [len(ctx.text_format().prompt_ids(record)) for record in records]
    positions = max(length for row, length in enumerate(prompts) if row != 2) + 3
    ctx.model.config.max_position_embeddings = positions
    lengths = [min(8, positions - length) for length in prompts]
    assert prompts[2] > positions and 0 < lengths[prompts.index(positions - 3)] == 3 < max(lengths) == 8
    texts, short = generated_answers(records, ctx, 8)
    found = [*texts]
    others = [row for row in range(6) if row != 2]
    assert found[2] is None
    assert [found[row] for row in others] == plain_answers(
        ctx, Records(records.dataset.select(others)), [lengths[row] for row in others]
    )
    assert {prompts.index(positions - 3)} <= {*np.flatnonzero(short)} <= {r for r in others if lengths[r] < 8}
    selector = mods(rewards, quality_threshold=-1e9, necessity_threshold=1e9, max_new_tokens=8, seed_rows=2)
    selection = select(records, selector, 6, ctx)
    assert selection.facts["figures"]["without a judged answer of the model"] == [2]
    assert selection.truncated["the model's answer reached its last position"] == np.flatnonzero(short).tolist()
    assert "without a judged answer of the model: 1 rows" in selection.summary()


def test_a_prompt_that_does_not_fit_in_memory_is_no_end_of_the_run(monkeypatch):
    ctx, records = context(batch_tokens=10**4), Records(alpaca(5))
    whole = [*generated_answers(records, ctx, 6)[0]]
    longest, own = max(len(ctx.text_format().prompt_ids(record)) for record in records), ctx.model.generate

    def small(input_ids, **options):
        if input_ids.shape[1] >= longest:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory.")
        return own(input_ids=input_ids, **options)

    monkeypatch.setattr(ctx.model, "generate", small)
    found = [*generated_answers(records, ctx, 6)[0]]
    lost = [row for row, answer in enumerate(found) if answer is None]
    assert 1 <= len(lost) < 5
    assert [a for row, a in enumerate(found) if row not in lost] == [a for r, a in enumerate(whole) if r not in lost]


# The whole -----------------------------------------------------------------------------------------------------------


def test_seed_rows_and_necessary_rows_make_the_subset(rewards):
    rows = alpaca(24)
    limit = medians(rows, rewards)
    ctx = context()
    records, reward = Records(rows), answer_rewards(Records(rows), context(), rewards["chat"])
    good = np.flatnonzero(reward > limit)
    asked = records.subset(good)
    prompts = [ctx.text_format().prompt_ids(record) for record in asked]
    own = generate(ctx.model, ctx.tokenizer, prompts, Runtime(batch_tokens=10**4), max_new_tokens=6)
    judged = answer_rewards(asked, context(), rewards["chat"], own)
    border = float(np.sort(judged)[len(good) // 2])
    necessary = set(good[judged < border])
    first = int(np.random.default_rng(ctx.seed).integers(len(good)))
    seed = set(good[k_center(prompt_vectors(asked, context()).vectors, 5, [first])[0]])

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


def test_a_reward_at_the_threshold_is_not_above_it(rewards):
    limit = float(np.sort(answer_rewards(Records(alpaca(10)), context(), rewards["chat"]))[4])
    options = {"quality_threshold": limit, "necessity_threshold": -1e9, "seed_rows": 2}
    assert select(alpaca(10), mods(rewards, **options), 4, context()).facts["figures"]["rows of high quality"] == 5


@pytest.mark.parametrize("kind", ["messages", "prompt-completion"])
def test_the_tuned_model_answers_and_a_second_run_repeats_nothing(rewards, tmp_path, kind):
    rows = layout(kind, 12)
    options = {"warmup": "lora", "warmup_epochs": 1, "warmup_gradient_accumulation": 1, "quality_threshold": -1e9}
    selector = mods(rewards, necessity_threshold=1e9, seed_rows=0.5, **options)
    first, second = (select(rows, selector, 8, context(cache_dir=tmp_path)) for _ in range(2))
    assert len(first.indices) == 8 and first.indices.tolist() == second.indices.tolist()
    assert first.passes["answered_rows"] == 12 and second.passes["answered_rows"] == 0
    assert first.passes["warmup_rows"] == 4 and "warmup_rows" not in second.passes
    assert second.cached_seconds > 0 == first.cached_seconds
    assert first.facts["figures"]["model-generated responses that were cut off"] > 0, "generation is bounded"
    untuned = select(rows, mods(rewards, **{**options, "warmup": "none"}), 8, context())
    assert untuned.facts["figures"]["seed rows"] == 4


def test_identical_rows_and_a_budget_of_one(rewards):
    same = Dataset.from_list([alpaca(1).to_list()[0]] * 5)
    options = {"quality_threshold": -1e9, "necessity_threshold": -1e9, "seed_rows": 3}
    assert len(select(same, mods(rewards, **options), 4, context()).indices) == 3
    assert len(select(same, mods(rewards, **options), 0.01, context()).indices) == 1


def test_seed_rows_are_a_part_or_a_count():
    with pytest.raises(ValueError, match="seed_rows=1.5 must be a part up to 1.0, or a count"):
        load_selector("mods", {"seed_rows": 1.5})


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
    for processes in (1, 2):
        given = json.dumps(options | {"warmup_gradient_accumulation": 2 // processes})
        output = ["--output_dir", str(tmp_path / f"{processes}"), "--selection_cache_dir", "none"]
        if processes == 1:
            main(["select", "--config", str(recipe), *output, "--selection_kwargs", given])
        else:
            run(processes, recipe, *output, "--selection_kwargs", given, command="select")
    found = [selection(tmp_path / name) for name in "12"]
    assert found[1]["facts"]["processes"] == 2 and "on 2 ranks" in found[1]["facts"]["figures"].pop("warm-up")
    assert found[0]["indices"] == found[1]["indices"] and found[0]["facts"]["figures"] == found[1]["facts"]["figures"]
