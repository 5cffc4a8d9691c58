"""Prompts by difficulty: stored pass rates, and the sampler against the authors' numbers."""

import numpy as np
import pytest
from datasets import Dataset

from hf_dataselect import select_dataset
from hf_dataselect.training.prompt_sampler import PromptSampler
from tests.shared_data import golden


def test_prompts_of_middling_difficulty_are_kept_and_constant_ones_excluded():
    for stored in (
        [0.0, 1.0, 0.5, 0.25, 0.75, None, 3.0],
        [[0, 0], [1, 1], [1, 0], [1, 0, 0, 0], [0, 1, 1, 1], [None], []],
    ):
        for prompt in ("What is 1 + 1?", [{"role": "user", "content": "What is 1 + 1?"}]):
            rows = Dataset.from_dict({"prompt": [prompt] * 7, "pass_rate": stored})
            kept, selection = select_dataset(rows, "pass_rate", budget=3, method_kwargs={"target": 0.4})
            assert selection.indices.tolist()[:2] == [2, 3] and sorted(selection.indices) == [2, 3, 4]
            assert kept["prompt"][0] == prompt and selection.unscorable == {"no pass rate in `pass_rate`": [5, 6]}
            assert list(selection.dropped.values()) == [[0], [1]]
    with pytest.raises(ValueError, match="no column 'rate'; did you mean 'pass_rate'"):
        select_dataset(rows, "pass_rate", method_kwargs={"column": "rate"})


@pytest.mark.parametrize("run", range(4))
def test_the_sampler_draws_and_learns_as_the_authors_code(run):
    given = golden("mopps")
    run = given["runs"][run]
    if run["strategy"] != "topk":
        pytest.skip("only topk, which their scripts use")
    sampler = PromptSampler(40, given["batch_size"], 1, decay=run["decay"], seed=run["seed"])
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
            sampler.observe([(row, float(draw.random() < rates[row])) for _ in range(4)] + [(row, None)])
    assert np.abs(np.array(drawn[-200:]) - 0.5).mean() < 0.6 * np.abs(np.array(drawn[:50]) - 0.5).mean()
    state = sampler.state_dict()
    again = PromptSampler(50, 5, 4, repeats=2, candidates=4, seed=1)
    expected = [*sampler]
    again.load_state_dict(state)
    assert [*again] == expected
    with pytest.raises(ValueError, match="it has 50 prompts, and the dataset 49"):
        PromptSampler(49, 5, 4).load_state_dict(state)
    with pytest.raises(ValueError, match="`batch_size=51`"):
        PromptSampler(50, 51, 4)
