"""Prompts by difficulty: stored pass rates, and the sampler against the authors' numbers."""

import json

import numpy as np
import pytest
import torch
from datasets import Dataset

from hf_dataselect import select_dataset
from hf_dataselect.cli.main import main
from hf_dataselect.errors import SelectionError
from hf_dataselect.training.prompt_sampler import PromptSampler
from hf_dataselect.training.rollouts import with_rollouts
from tests.shared_data import golden
from tests.tiny import tiny_model, tiny_tokenizer


def test_prompts_of_middling_difficulty_are_kept_and_constant_ones_excluded():
    for stored in (
        [0.0, 1.0, 0.5, 0.25, 0.75, None, float("nan")],
        ["0", "1", "0.5", "0.25", "0.75", "unknown", None],
        [[0, 0], [1, 1], [1, 0], [1, 0, 0, 0], [0, 1, 1, 1, None], [None], []],
    ):
        for prompt in ("What is 1 + 1?", [{"role": "user", "content": "What is 1 + 1?"}]):
            rows = Dataset.from_dict({"prompt": [prompt] * 7, "pass_rate": stored})
            kept, selection = select_dataset(rows, "pass_rate", budget=3, method_kwargs={"target": 0.4})
            assert selection.indices.tolist()[:2] == [2, 3] and sorted(selection.indices) == [2, 3, 4]
            assert kept["prompt"][0] == prompt and selection.unscorable == {"no pass rate in `pass_rate`": [5, 6]}
            assert list(selection.dropped.values()) == [[0], [1]]
    with pytest.raises(ValueError, match="no column 'rate'; did you mean 'pass_rate'"):
        select_dataset(rows, "pass_rate", method_kwargs={"column": "rate"})


@pytest.mark.parametrize("rate", [3.0, -0.1, float("inf"), "12"])
def test_numbers_that_are_no_rates_are_refused(rate):
    rows = Dataset.from_dict({"prompt": ["a", "b", "c"], "pass_rate": [type(rate)(0.5), rate, None]})
    with pytest.raises(ValueError, match=rf"column='pass_rate' has {rate!r} in row 1: a rate is in \[0, 1\]"):
        select_dataset(rows, "pass_rate")


def test_one_rollout_tells_no_rate_and_is_named():
    rows = Dataset.from_dict({"prompt": ["a", "b", "c"], "pass_rate": [[1.0], [1.0, 0.0], [None, 1.0]]})
    kept, selection = select_dataset(rows, "pass_rate", budget=3)
    assert kept["prompt"][:] == ["b"]
    assert selection.unscorable == {"one rollout only in `pass_rate`": [0, 2]} and not selection.dropped
    with pytest.raises(SelectionError, match="no row to keep of 1: one rollout only in `pass_rate`"):
        select_dataset(rows.select([0]), "pass_rate", budget=1.0)


def test_the_command_selects_prompts(tmp_path):
    tiny_tokenizer().save_pretrained(tmp_path)
    tiny_model(tiny_tokenizer()).save_pretrained(tmp_path)
    Dataset.from_dict({"prompt": ["a", "b", "c"], "pass_rate": [0.5, 1.0, 0.1]}).to_json(tmp_path / "prompts.jsonl")
    given = ["--dataset_name", tmp_path / "prompts.jsonl", "--model_name_or_path", tmp_path, "--use_cpu", "true"]
    given += ["--selection_method", "pass_rate", "--output_dir", tmp_path / "run", "--bf16", "false"]
    main(["select", *map(str, given), "--selection_budget", "2"])
    kept = Dataset.from_parquet(str(tmp_path / "run" / "selected.parquet"))
    assert kept["prompt"][:] == ["a", "c"] and kept["pass_rate"][:] == [0.5, 0.1]


@pytest.mark.parametrize("chat", [False, True])
def test_own_rollouts_are_seeded_and_reach_the_reward_as_trl_gives_them(chat):
    tokenizer, asked = tiny_tokenizer(), ["What is 1 + 1?", "Name three colours.", "Why?"]
    model = tiny_model(tokenizer).train()
    prompts = [[{"role": "user", "content": text}] for text in asked] if chat else asked
    rows, seen = Dataset.from_dict({"prompt": prompts, "answer": ["x", "y", "z"]}), []

    def reward(prompts, completions, answer):
        texts = [given[0]["content"] if chat else given for given in completions]
        seen.extend(zip(prompts, texts, answer, strict=True))
        return [None if missing(right) else float(len(text) % 2) for text, right in zip(texts, answer, strict=True)]

    def missing(right):  # the first batch has no reward at all
        return right in "xy" and not chat

    options = {"tokenizer": tokenizer, "max_new_tokens": 4, "batch_size": 2}
    padding, random = tokenizer.padding_side, torch.get_rng_state()
    first = with_rollouts(rows, model, reward, 4, **options)
    assert tokenizer.padding_side == padding and torch.equal(torch.get_rng_state(), random) and model.training
    assert [prompt for prompt, _, _ in seen] == [prompt for prompt in prompts for _ in range(4)]
    assert [answer for _, _, answer in seen] == list("xxxxyyyyzzzz")
    assert len({text for _, text, _ in seen[:4]}) > 1, "the answers are sampled"
    expected = [None if missing(right) else len(text) % 2 for _, text, right in seen]
    assert [reward for row in first["pass_rate"] for reward in row] == expected
    assert first.remove_columns("pass_rate")[:] == rows[:]
    del seen[:]
    assert with_rollouts(rows, model, reward, 4, **options)[:] == first[:]


def test_rollouts_that_tell_nothing_are_refused_before_a_model_loads():
    rows = Dataset.from_dict({"prompt": ["a"], "pass_rate": [0.5]})
    with pytest.raises(ValueError, match="`rollouts=1` must be at least 2"):
        with_rollouts(rows, "some/model", print, 1)
    with pytest.raises(ValueError, match="no 'pass_rate' \\(`column`\\)"):
        with_rollouts(rows, "some/model", print)


@pytest.mark.parametrize("run", range(4))
def test_the_sampler_draws_and_learns_as_the_authors_code(run):
    given = golden("mopps")
    run = given["runs"][run]
    if run["strategy"] != "topk":
        pytest.skip("only topk, which their scripts use")
    sampler = PromptSampler(40, given["batch_size"], 2, decay=run["decay"], seed=run["seed"])
    for step in run["steps"]:
        candidates = np.array(step["candidates"])
        assert sampler.pick(candidates).tolist() == step["picked"]
        rows, before = np.array(step["picked"]), sampler.alpha.copy()
        sampler.update(rows, np.array(step["success_rate"]), run["rollouts"])
        if run["rollouts"] == 1:  # their fault: they learn nothing; the paper's rule
            won = np.array(step["success_rate"])
            np.testing.assert_allclose(sampler.alpha[rows], 0.5 * before[rows] + 0.5 + won)
            sampler.alpha[rows], sampler.beta[rows] = step["alpha_after"], step["beta_after"]
        np.testing.assert_allclose(sampler.alpha[rows], step["alpha_after"], rtol=1e-6)
        np.testing.assert_allclose(sampler.beta[rows], step["beta_after"], rtol=1e-6)


def test_a_sampler_finds_the_prompts_of_middling_difficulty_and_goes_on_from_its_state():
    rates, draw = np.linspace(0, 1, 50), np.random.default_rng(0)
    sampler = PromptSampler(50, 5, 4, repeats=2, candidates=4)
    drawn = []
    for _ in range(12):
        order = [*sampler]
        assert len(order) == len(sampler) == 50 * 4 * 2
        for row in order[:: 4 * 2]:
            drawn.append(rates[row])
            sampler.observe([(row, float(draw.random() < rates[row])) for _ in range(4)] + [(row, None), (None, 1.0)])
    assert np.abs(np.array(drawn[-200:]) - 0.5).mean() < 0.6 * np.abs(np.array(drawn[:50]) - 0.5).mean()
    order = iter(sampler)
    begun = [next(order) for _ in range(3 * 5 * 4 * 2 + 1)]  # in the fourth batch of ten
    state = json.loads(json.dumps(sampler.state_dict()))
    again = PromptSampler(50, 5, 4, repeats=2, candidates=4, seed=1)
    again.load_state_dict(state)
    expected = [*begun, *order]
    assert [*again] == expected, "the same batches, those before, too"
    assert [*again] == [*sampler] != expected, "and the same epoch after it"
    with pytest.raises(ValueError, match="its `n` is 50, and that of the sampler 49"):
        PromptSampler(49, 5, 4, repeats=2).load_state_dict(state)
    with pytest.raises(ValueError, match="`batch_size=51`"):
        PromptSampler(50, 51, 4)
    with pytest.raises(ValueError, match="`num_generations=1` must be at least 2"):
        PromptSampler(50, 5, 1)
