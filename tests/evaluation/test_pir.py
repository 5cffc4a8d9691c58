"""PIR: directions, settings that can't be compared, scores that have no ratio."""

import math

import pytest

from hf_dataselect.evaluation.benchmarks import Setting
from hf_dataselect.evaluation.pir import BENCHMARK_RATIO, benchmark_pir


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


def test_a_baseline_that_loses_nothing_can_not_be_divided_by():
    assert benchmark_pir({"loss": lower(0.0)}, {"loss": lower(1.0)}).left_out
    assert benchmark_pir({"accuracy": higher(0.0)}, {"accuracy": higher(0.5)}).settings == {"accuracy": 0}


def test_nothing_to_compare_gives_nan():
    assert math.isnan(benchmark_pir({}, {"loss": lower(1.0)}).value)
