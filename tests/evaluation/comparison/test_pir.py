"""PIR of each kind: directions, what has no ratio, published numbers, and intervals against the plain way."""

import math

import numpy as np
import pytest

from hf_dataselect.evaluation.benchmark import Setting
from hf_dataselect.evaluation.comparison.pir import (
    BENCHMARK_RATIO,
    ESTIMATED,
    PIR,
    WINS_RATE,
    benchmark_pir,
    bridged_pir,
    cost_warning,
)
from tests.shared_data import golden


NAN = math.nan


def higher(score: float) -> Setting:
    return Setting(score, higher_is_better=True)


def lower(score: float) -> Setting:
    return Setting(score, higher_is_better=False)


def test_better_is_above_one_in_both_directions():
    pir = benchmark_pir({"accuracy": higher(0.6), "loss": lower(2.0)}, {"accuracy": higher(0.5), "loss": lower(3.0)})
    assert pir.settings == pytest.approx({"accuracy": 1.2, "loss": 1.5})
    assert pir.value == pytest.approx(1.35) and pir.kind == BENCHMARK_RATIO and not pir.left_out


def test_worse_is_below_one_in_both_directions():
    pir = benchmark_pir({"accuracy": higher(0.4), "loss": lower(4.0)}, {"accuracy": higher(0.5), "loss": lower(3.0)})
    assert pir.settings == pytest.approx({"accuracy": 0.8, "loss": 0.75})


def test_a_model_against_itself_has_one():
    settings = {"accuracy": higher(0.37), "loss": lower(1.9)}
    assert benchmark_pir(settings, settings).value == 1


def test_settings_of_one_run_only_are_left_out_and_named():
    pir = benchmark_pir({"loss": lower(2.0), "mine": higher(1)}, {"loss": lower(2.0), "other": higher(1)})
    assert pir.settings == {"loss": 1}
    assert pir.left_out == {"mine": "only the model has it", "other": "only the baseline has it"}


def test_runs_that_disagree_on_a_direction_are_not_compared():
    pir = benchmark_pir({"score": higher(1)}, {"score": lower(1)})
    assert math.isnan(pir.value) and "direction" in pir.left_out["score"]


@pytest.mark.parametrize("mine, other", [(math.nan, 1.0), (1.0, math.nan), (1.0, 0.0), (-1.0, 1.0), (1.0, math.inf)])
def test_scores_without_a_meaningful_ratio_are_left_out(mine, other):
    pir = benchmark_pir({"good": higher(1), "odd": higher(mine)}, {"good": higher(2), "odd": higher(other)})
    assert pir.settings == {"good": 0.5} and pir.value == 0.5
    assert set(pir.left_out) == {"odd"}


def test_a_score_of_zero_has_no_ratio_on_whichever_side_it_is():
    assert benchmark_pir({"loss": lower(0.0)}, {"loss": lower(1.0)}).left_out
    for mine, other in ((0.0, 0.5), (0.5, 0.0)):
        assert not benchmark_pir({"accuracy": higher(mine)}, {"accuracy": higher(other)}).settings


def test_nothing_to_compare_gives_nan():
    assert math.isnan(benchmark_pir({}, {"loss": lower(1.0)}).value)


def of(values, higher_is_better: bool = True) -> Setting:
    return Setting.of(np.asarray(values, np.float64), higher_is_better)


def drawn(seed: int, n: int = 60, shift: float = 0.0) -> np.ndarray:
    return np.random.default_rng(seed).lognormal(shift, 0.5, n)


@pytest.mark.parametrize(
    "low, high, verdict",
    [
        (1.01, 1.2, "better"),
        (0.5, 0.99, "worse"),
        (0.9, 1.1, "no significant difference"),
        (1.0, 1.0, "no significant difference"),
        (1.2, math.inf, "better"),
        (NAN, NAN, "unknown"),
    ],
)
def test_the_verdict_is_read_off_the_interval(low, high, verdict):
    assert PIR(1.1, low=low, high=high).verdict == verdict


def test_a_setting_that_some_runs_lack_is_left_out():
    pir = benchmark_pir([{"a": higher(1), "b": higher(1)}, {"b": higher(3)}], {"a": higher(1), "b": higher(1)})
    assert pir.left_out == {"a": "only 1 of the model's 2 runs have it"} and pir.settings == {"b": 2}


def test_a_setting_whose_ratio_cannot_be_estimated_is_named_and_no_part_of_the_value():
    rare, never = of([1] * 9 + [0] * 51), of([0] * 51 + [1] * 9)
    model = {"loss": of(drawn(0), False), "bleu": higher(30.0), "few": of([1, 2, 3]), "rare": rare}
    other = {"loss": of(drawn(1), False), "bleu": higher(10.0), "few": of([1, 1, 1]), "rare": never}
    model["sum"] = other["sum"] = Setting(9, True, [1] * 20)
    alone = benchmark_pir({"loss": model["loss"]}, {"loss": other["loss"]})
    for one, two, rises in ((model, other, 1), (other, model, -1)):  # by a rule that does not see who is better
        pir = benchmark_pir(one, two)
        assert pir.value == pytest.approx(alone.value**rises) and np.isfinite([pir.low, pir.high]).all()
        assert pir.left_out == {
            "bleu": "no score by example",
            "few": "fewer than 10 examples that every run has a score of",
            "sum": "no score by example",
            "rare": "fewer than 10 examples have a score other than 0",
        }
        assert pir.settings["bleu"] == pytest.approx(3.0**rises) and set(pir.intervals) == {"loss"}


@pytest.mark.parametrize("right, verdict", [(50, "better"), (30, "worse"), (9, "worse"), (3, "worse"), (0, "unknown")])
def test_a_collapse_is_no_reason_to_leave_a_setting_out(right, verdict):
    """The loss falls by 5 %, and of 60 questions the baseline answers 50."""
    base = np.linspace(1.5, 2.5, 200)
    loss, other_loss = of(base * 0.95, False), of(base, False)
    quiz, other_quiz = (of([1.0] * number + [0.0] * (60 - number)) for number in (right, 50))
    pir = benchmark_pir({"loss": loss, "quiz": quiz}, {"loss": other_loss, "quiz": other_quiz})
    assert pir.verdict == verdict
    turned = benchmark_pir({"loss": other_loss, "quiz": other_quiz}, {"loss": loss, "quiz": quiz})
    assert turned.verdict == {"better": "worse", "worse": "better", "unknown": "unknown"}[verdict]
    if right == 0:
        assert pir.left_out == {"quiz": "no ratio of 0 and 0.833333"} and "no verdict against quiz" in pir.interval


def test_examples_without_a_score_of_every_run_are_not_compared():
    """The bad answers of a model that is 5 % worse on every example have no grade."""
    base = np.concatenate([np.full(30, 8.0), np.full(30, 3.0)]) + np.random.default_rng(0).normal(0, 0.1, 60)
    graded = np.where(np.arange(60) < 30, base * 0.95, NAN)
    pir = benchmark_pir({"grades": of(graded)}, {"grades": of(base)})
    assert pir.value == pytest.approx(0.95) and pir.verdict == "worse"
    assert "30 examples of grades without a score of every run are not compared" in pir.interval
    several = benchmark_pir([{"grades": of(graded)}, {"grades": of(base * 0.95)}], [{"grades": of(base)}] * 2)
    assert several.value == pytest.approx(0.95) and several.high < 1


def test_each_setting_has_a_verdict_by_its_own_interval():
    base = drawn(0, 300)
    model = {"up": of(base * 1.2), "down": of(base * 0.8), "same": of(drawn(1, 300)), "bleu": higher(2.0)}
    pir = benchmark_pir(model, {"up": of(base), "down": of(base), "same": of(drawn(2, 300)), "bleu": higher(1.0)})
    assert pir.verdicts == {"up": "better", "down": "worse", "same": "no significant difference", "bleu": "unknown"}
    assert pir.intervals["up"] == pytest.approx([1.2, 1.2]) and pir.intervals["down"] == pytest.approx([0.8, 0.8])
    low, high = pir.intervals["same"]
    alone = benchmark_pir({"same": model["same"]}, {"same": of(drawn(2, 300))})
    assert (low, high) == pytest.approx((alone.low, alone.high), rel=0.05)


def test_without_examples_there_is_no_interval():
    pir = benchmark_pir({"a": higher(2.0)}, {"a": higher(1.0)})
    assert math.isnan(pir.low) and math.isnan(pir.high) and pir.verdict == "unknown" and pir.value == 2
    assert pir.interval == "no interval (a: no score by example)" and not pir.left_out
    assert benchmark_pir({}, {}).verdict == "unknown"


@pytest.mark.parametrize("counterpart", ["same model", "other models"])
def test_the_bridge_is_the_published_one(counterpart):
    for item in golden("tedd")["bridge"][counterpart.replace(" ", "_")]:
        bridged = bridged_pir(PIR(item["benchmark_ratio"]), counterpart)
        assert bridged.value == pytest.approx(item["pir"], rel=1e-6), item["method"]
        assert bridged.kind == f"{ESTIMATED} ({counterpart})"


def test_a_bridged_interval_keeps_the_verdict_of_the_benchmarks():
    slope = (1.475 - 1.284) / (1.01 - 0.949)
    bridged = bridged_pir(PIR(0.97, low=0.96, high=0.98))
    found = (bridged.low, bridged.value, bridged.high)
    assert found == pytest.approx([1.284 + slope * (x - 0.949) for x in (0.96, 0.97, 0.98)])
    assert bridged.verdict == "worse" and "line to the wins scale" in bridged.interval and not bridged.left_out
    assert bridged_pir(PIR(1.005, low=1.001, high=1.01)).verdict == "better"


def test_an_equal_model_has_no_place_on_the_wins_scale():
    run = {"a": of(drawn(0))}
    for ratio in (benchmark_pir(run, run), PIR(1.005, low=0.995, high=1.009), PIR(0.99, low=0.98, high=1.0)):
        bridged = bridged_pir(ratio)
        assert np.isnan([bridged.value, bridged.low, bridged.high]).all()
        assert bridged.verdict == "no significant difference" and "its interval holds 1" in bridged.left_out["all"]


@pytest.mark.parametrize("counterpart, low, high", [("same model", 0.949, 1.01), ("other models", 0.985, 1.0)])
def test_the_bridge_is_not_extended_beyond_the_two_methods(counterpart, low, high):
    for end in (low, high):
        assert math.isfinite(bridged_pir(PIR(end), counterpart).value)
    out = [PIR(low - 1e-3), PIR(high + 1e-3), PIR(0.4, low=0.3, high=0.5), PIR(1.2, low=1.1, high=math.inf)]
    out += [PIR(0.99, low=low - 1e-3, high=0.995), PIR(1.2, low=1.1, high=1.3)]
    for ratio in out:
        bridged = bridged_pir(ratio, counterpart)
        assert np.isnan([bridged.value, bridged.low, bridged.high]).all(), ratio
        assert f"its benchmark ratio {ratio.value:.4f}" in bridged.left_out["all"]
        assert f"is outside the range {low} to {high} in which the line is known" in bridged.left_out["all"]
    assert math.isnan(bridged_pir(PIR(NAN)).value) and bridged_pir(PIR(NAN)).left_out == {}


def test_only_benchmark_ratios_are_bridged():
    with pytest.raises(ValueError, match="must be of the kind 'benchmark ratio', got 'wins rate'"):
        bridged_pir(PIR(1.2, WINS_RATE))
    with pytest.raises(ValueError, match="must be one of 'same model', 'other models'"):
        bridged_pir(PIR(1.2), "another")


def test_a_selection_dearer_than_training_is_warned_of():
    assert "2.5 times as long as training on everything" in cost_warning(2.5)
    assert cost_warning(1.0) is None and cost_warning(0.2) is None and cost_warning(None) is None
