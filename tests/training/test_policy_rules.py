"""The rules of policies: weights and rows for given losses."""

import numpy as np
import pytest
import torch

from hf_dataselect.data.records import Records
from hf_dataselect.errors import SelectionError
from hf_dataselect.policies.domains import Domains
from hf_dataselect.policies.info_batch import InfoBatch
from hf_dataselect.policies.loss_weight import weights_of
from hf_dataselect.policies.self_paced import SelfPaced
from hf_dataselect.policies.tail_drop import TailDrop
from hf_dataselect.policy import Guarded, Seen
from tests.online import sources
from tests.shared_data import golden
from tests.tiny_training import tiny_trainer
from tests.training.test_online import by_row


def test_flow_weighs_as_its_authors_do():
    found = golden("flow")
    loss, weights = (np.array([row[name] for row in found["rows"]]) for name in ("mean_loss", "weight"))
    np.testing.assert_allclose(weights_of(loss), weights, atol=found["tolerance"]["weight"]["absolute"])
    assert weights_of(np.array([1.0, np.nan, 1.0])).tolist() == [np.exp(-1), 1.0, np.exp(-1)]
    assert weights_of(np.full(2, np.nan)).tolist() == [1.0, 1.0]
    with pytest.raises(SelectionError, match="median loss before training is 0"):
        weights_of(np.array([0.0, 0.0, 3.0]))
    assert weights_of(np.array([0.0, 0.0, 3.0]), 3.0).tolist() == [1.0, 1.0, np.exp(-1)]
    with pytest.raises(SelectionError, match="temperature=0.001 every row weighs 0"):
        weights_of(np.array([2.0, 3.0]), 1e-3)
    tokens = [len(row["ids"]) - row["n_prompt"] for row in found["rows"]]
    assert (weights_of(loss) * loss * tokens).sum() / sum(tokens) == pytest.approx(found["weighted_loss"], rel=1e-4)


def test_the_losses_of_flow_are_those_of_the_model_before_training(tmp_path):
    rows = sources()
    trainer = tiny_trainer(tmp_path, selection_policy="loss_weight", train_dataset=rows, max_steps=1)
    expected = by_row(trainer, rows)
    trainer.train()
    weights = weights_of(np.array([loss for loss, _ in expected.values()]))
    np.testing.assert_allclose(trainer.online.policy.state["weights"], weights, rtol=1e-5)
    assert trainer.selection.seconds >= trainer.online.prepared_in > 0


@pytest.mark.parametrize("number", [0, 1])
def test_info_batch_prunes_as_its_authors_do(number):
    case = golden("infobatch")["cases"][number]
    policy = InfoBatch(case["prune_ratio"], case["delta"])
    rows = np.arange(case["rows"])
    policy.state["losses"] = np.full(len(rows), np.nan)
    for epoch in case["log"]:
        number, random = epoch["epoch"], np.random.RandomState(epoch["epoch"] + 1)
        pruned = number + 1 <= case["epochs"] * case["delta"]
        chosen, factors = policy.choose(rows, 0.0 if pruned else 1.0, random)
        random.shuffle(order := chosen.copy())
        assert order.tolist() == epoch["order"]
        weights = factors[np.argsort(chosen)][np.searchsorted(np.sort(chosen), order)]
        if pruned:  # the authors keep stale weights after that, in the case that is about it
            np.testing.assert_allclose(weights, epoch["weights"], rtol=1e-6)
        else:
            assert (weights == 1).all()
        losses = np.array(case["losses"][number])[np.sort(order)]
        policy.observe(Seen(1, 2, np.sort(order), losses, np.ones(len(order))))


def test_cuts_drop_the_part_that_is_asked_for_while_the_loss_falls():
    draw, steps, n = np.random.default_rng(0), 200, 1000
    for policy in (TailDrop(0.4, "static"), SelfPaced(start=0.6, full_at=1.0)):
        policy.state["before"] = np.full(n, 3.0)
        parts, weights = [], []
        for step in range(1, steps + 1):
            rows = np.sort(draw.choice(n, 16, replace=False))
            losses = 1 + 2 * np.exp(-step / 20) + draw.gamma(2, 0.4, 16)  # skewed, and falling fast
            given = policy.weights(rows, torch.from_numpy(losses)).numpy()
            low = losses if isinstance(policy, TailDrop) else -losses
            assert not given.any() or low[given == 0].max(initial=-np.inf) <= low[given > 0].min()
            parts.append((given == 0).mean() - policy.part((step - 1) / (steps - 1)))
            weights.append(given.mean())
            policy.observe(Seen(step, steps, rows, losses, np.full(16, 50.0)))
        assert abs(np.mean(parts)) < 0.02 and np.mean(weights) == pytest.approx(1, abs=0.05)


def test_domains_gain_weight_where_they_learn_least_and_lose_it_again(tmp_path):
    policy, records = Domains(prefer={"c": 2}), Records(sources(100))
    policy.prepare(records, np.arange(100), None)
    of_row = policy.state["of_row"]
    shares = np.bincount(of_row) / 100

    def weights() -> np.ndarray:
        given = policy.weights(np.arange(100), torch.zeros(100)).numpy()
        assert given.mean() == pytest.approx(1)
        return np.bincount(of_row, given) / np.bincount(of_row)

    np.testing.assert_allclose(weights(), np.array([1, 1, 2]) / (shares * [1, 1, 2]).sum(), rtol=1e-6)
    for step in range(1, 101):  # `a` stays where it was, until the others have nothing left to learn either
        losses = np.where(of_row == 0, 3.0, 3.0 * max(0.5, 1 - (step - 1) / 50))
        policy.observe(Seen(step, 400, np.arange(100), losses, np.full(100, 10.0)))
        if step == 30:
            early = weights()
    assert early[0] > 1.2 * early[1] and early[2] == pytest.approx(2 * early[1])
    for step in range(101, 400):
        policy.observe(Seen(step, 400, np.arange(100), np.full(100, 1.5), np.full(100, 10.0)))
    assert weights()[0] == pytest.approx(weights()[1], rel=0.01)


def test_a_guarded_domain_goes_by_its_held_out_rows_and_gains_weight_where_it_is_harmed(caplog):
    policy, records = Domains(anchor=0.0, rate=1.0), Records(sources(100))
    policy.check_guard(records, ["a", "b", "bb"])
    assert "names 'bb', which no row has in `source`" in caplog.text and "did you mean 'b'" in caplog.text
    policy.prepare(records, np.arange(100), None)
    of_row, shares = policy.state["of_row"], np.bincount(policy.state["of_row"]) / 100

    def weights() -> np.ndarray:
        assert (policy.state["by_domain"] * shares).sum() == pytest.approx(1)
        return policy.state["by_domain"] / policy.state["by_domain"][2]

    policy.guard({"a": Guarded(0.1, False), "b": Guarded(-0.2, False)})  # before a step
    np.testing.assert_allclose(weights(), 1)
    losses = np.array([4.0, 2.0, 3.0])[of_row]  # as at the beginning: training says nothing
    policy.observe(Seen(1, 9, np.arange(100), losses, np.full(100, 10.0)))
    np.testing.assert_allclose(weights(), np.exp([0.1, -0.2, 0]))
    for harmed, factor in ((True, 2), (True, 4), (False, 2), (False, 1), (False, 1)):
        policy.guard({"a": Guarded(0.1, harmed)})
        np.testing.assert_allclose(weights(), np.exp([0.1, -0.2, 0]) * [factor, 1, 1])


def test_weights_of_domains_stay_finite_beside_one_without_rows():
    policy, records = Domains(harmed=1e9), Records(sources(100))
    rows = np.flatnonzero(np.array(records.dataset["source"]) != "c")
    policy.prepare(records, rows, None)
    for _ in range(60):
        policy.guard({"c": Guarded(0.5, True)})
    policy.observe(Seen(1, 9, rows, np.ones(len(rows)), np.ones(len(rows))))
    np.testing.assert_allclose(policy.state["by_domain"][:2], 1)
    assert np.isfinite(policy.state["by_domain"]).all()


def test_a_row_without_a_loss_before_training_weighs_one():
    policy = TailDrop(0.5, "static")
    policy.state |= {"before": np.array([1.0, np.nan, 1.0]), "cut": -0.5, "factor": 2.0}
    assert policy.weights(np.arange(3), torch.tensor([0.0, 0.0, 1.0])).tolist() == [0.0, 1.0, 2.0]


def test_domains_say_that_rows_kept_are_of_one_and_which_have_none(caplog):
    policy, records = Domains(prefer={"c": 2}), Records(sources())
    policy.check(records)
    policy.prepare(records, np.array([0, 4]), None)
    assert "all rows kept are of 'a'" in caplog.text and "prefer names c, of which no row was kept" in caplog.text
    assert policy.weights(np.array([0, 4]), torch.zeros(2)).tolist() == [1, 1]
