"""The rule of `lead`."""

import json

import numpy as np
import pytest

from hf_dataselect.policies.lead import Lead, predicted_drop
from hf_dataselect.policy import Seen
from hf_dataselect.training.checkpointed import packed, unpacked
from tests.shared_data import golden


def test_the_bandit_and_the_utility_are_those_of_the_authors_code():
    case = golden("lead")
    policy = Lead(clusters=case["K"], gamma=case["gamma"])
    policy.begin(np.arange(case["K"]), np.ones(case["K"]))
    for update in case["updates"]:
        arm = update["arm"]
        assert policy.probabilities[arm] == pytest.approx(update["probability_before"], rel=1e-6)
        policy.reward(arm, update["reward"], policy.probabilities[arm])
        assert np.exp(policy.state["log"][arm]) == pytest.approx(update["weight_after"], rel=1e-6)
    np.testing.assert_allclose(policy.probabilities, case["probabilities"], rtol=1e-6)
    random = np.random.RandomState(case["draw_seed"])
    assert [int(random.choice(case["K"], p=policy.probabilities)) for _ in case["draws"]] == case["draws"]
    for one in case["utilities"]:
        drop = one["learning_rate"] * predicted_drop(one["theta_first"], one["theta_previous"], one["cosine"])
        assert drop == pytest.approx(one["predicted_drop"], rel=1e-6, abs=1e-15)


def test_two_equal_rewards_change_nothing():
    policy = Lead(clusters=2)
    policy.begin(np.array([0, 1]), np.ones(2))
    policy.reward(0, 0.5, 0.5)
    before = policy.state["log"].copy()
    policy.reward(0, 0.5, 0.5)
    assert policy.state["log"].tolist() == before.tolist()
    policy.reward(1, 0.2, 0.5)
    assert policy.state["log"][1] == pytest.approx(-0.1 / 2 / 0.5)  # the lowest so far
    assert predicted_drop(0.0, 0.0, 0.0) == 0 and predicted_drop(0.2, 0.2, 1.0) == pytest.approx(0.2)


def test_rounds_serve_the_highest_utilities_of_a_cluster_and_go_where_losses_fall():
    policy, rows = Lead(fraction=0.2, times=8, gamma=0.3), np.arange(100)
    policy.begin(rows % 2, 1 + rows / 100)
    policy.state["cluster"][90:] = -1
    random, drawn = np.random.RandomState(0), []
    for step in range(1, 41):
        utility, served = policy.state["utility"].copy(), policy.state["served"].copy()
        chosen, factors = policy.choose(rows, 0.0, random)
        (arm,) = np.unique(policy.state["cluster"][chosen])
        waiting = rows[(policy.state["cluster"] == arm) & (served < 8)]
        best = np.sort(-utility[waiting if len(waiting) else rows[policy.state["cluster"] == arm]])[: len(chosen)]
        assert np.sort(-utility[chosen]).tolist() == best.tolist() and len(chosen) <= 9 and (factors == 1).all()
        drawn.append(arm)
        fall = 0.1 if arm == 1 else 0.0  # one of them learns
        policy.observe(Seen(step, 40, chosen, utility[chosen] - fall, np.ones(len(chosen))))
        policy.state = unpacked(json.loads(json.dumps(packed(policy.state))))  # as a checkpoint keeps it
    assert np.mean(drawn) > 0.6 and policy.probabilities[1] > policy.probabilities[0]
    assert not policy.state["served"][90:].any() and policy.state["served"].max() <= 8


def test_a_round_is_learned_from_by_the_rows_that_were_seen():
    policy, rows, random = Lead(fraction=0.5, memory=0.5), np.arange(8), np.random.RandomState(0)
    policy.begin(np.zeros(8, np.int64), np.full(8, 2.0))
    first, _ = policy.choose(rows, 0.0, random)
    second, _ = policy.choose(rows, 0.0, random)  # within the same step
    assert not {*first} & {*second} and len(first) == len(second) == 4
    policy.observe(Seen(1, 9, first[:2], np.array([1.0, 1.5]), np.ones(2)))
    assert policy.state["utility"][first[:2]].tolist() == [1.5, 1.75]  # half of it stays
    policy.choose(rows, 0.0, random)
    assert policy.state["first"][0] == policy.state["latest"] == 0.75  # (1 + 0.5) / 2
    assert policy.state["rewards"] == [0.375, 0.375] and len(policy.state["open"]) == 2
    policy.observe(Seen(2, 9, second[:1], np.array([2.0]), np.ones(1)))
    drop = predicted_drop(0.75, 0.75, 0.0)
    assert policy.state["utility"][second[0]] == pytest.approx(0.5 * (2.0 - drop) + 0.5 * 2.0) and drop == 0.375
