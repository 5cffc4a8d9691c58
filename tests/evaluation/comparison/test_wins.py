"""PIR by wins rate: counts, test sets without a loss, several runs."""

import math

import numpy as np
import pytest
from scipy import stats

from hf_dataselect.evaluation.comparison.pir import (
    PIR,
    WINS_RATE,
)
from hf_dataselect.evaluation.comparison.wins import wins_pir
from tests.evaluation.comparison.test_pir import NAN
from tests.shared_data import golden


def wins_pir_of_counts(counts: dict[str, tuple[int, int, int]]) -> PIR:
    """Of wins, ties and losses by test set."""
    return wins_pir({name: np.repeat([1, 0, -1], number) for name, number in counts.items()})


@pytest.mark.parametrize("method", ["AlpaGasus-7B", "IFD"])
def test_the_published_wins_rates_come_out_of_their_counts(method):
    found = golden("tedd")["win_counts"][method]
    pir = wins_pir_of_counts(dict(zip(found["test_sets"], found["wins_ties_losses"], strict=True)))
    assert pir.value == pytest.approx(found["pir"], rel=1e-6) and pir.kind == WINS_RATE
    assert list(pir.settings.values()) == pytest.approx(found["ratios"], rel=1e-6)
    assert math.floor(pir.value * 1000) / 1000 == found["printed"]
    assert pir.low < pir.value < pir.high and pir.verdict == "better" and not pir.left_out


def test_outcomes_and_their_counts_are_the_same():
    outcomes = {"a": np.random.default_rng(0).permutation([1] * 30 + [0] * 20 + [-1] * 25), "b": [1] * 20 + [-1] * 15}
    by_example, by_count = wins_pir(outcomes), wins_pir_of_counts({"a": (30, 20, 25), "b": (20, 0, 15)})
    assert by_example.settings == by_count.settings == {"a": 1.2, "b": 20 / 15}
    assert (by_example.low, by_example.high) == pytest.approx((by_count.low, by_count.high), rel=0.05)
    assert "over 75 + 35 examples" in by_count.interval


def test_test_sets_of_equal_size_are_drawn_apart():
    """Both are sorted: one draw for both would couple them and widen the interval."""
    counts = dict.fromkeys("abcd", (40, 0, 40))
    four, one = wins_pir_of_counts(counts), wins_pir_of_counts({"a": (40, 0, 40)})
    assert math.log(four.high / four.low) == pytest.approx(math.log(one.high / one.low) / 2, rel=0.15)


def test_a_test_set_without_a_loss_is_not_dropped():
    pir = wins_pir_of_counts({"perfect": (30, 0, 0), "hard": (12, 0, 15)})
    assert pir.value == 42 / 15 and pir.settings == {"hard": 0.8} and pir.verdict == "better"
    assert "all wins / all losses, as perfect alone would say little" in pir.interval
    assert pir.interval.endswith("biased upwards, here by about 6.7%")  # 1 / 15
    turned = wins_pir_of_counts({"perfect": (0, 0, 30), "hard": (15, 0, 12)})
    assert turned.value == 15 / 42 and turned.verdict == "worse"
    assert (turned.low, turned.high) == pytest.approx((1 / pir.high, 1 / pir.low), rel=0.15)
    pir = wins_pir_of_counts({"good": (30, 0, 20), "ties": (0, 12, 0), "empty": (0, 0, 0)})
    assert pir.value == 1.5 and pir.left_out == {"empty": "no example was judged"}
    assert pir.interval.endswith("biased upwards, here by about 5.0%")
    few = wins_pir_of_counts({"few": (6, 0, 3)})
    assert few.value == 2 and few.interval == "exact, of all wins / all losses"
    assert few.low / (1 + few.low) == pytest.approx(stats.binomtest(6, 9).proportion_ci().low)


def test_only_wins_are_better_and_only_losses_worse():
    won, lost = wins_pir_of_counts({"a": (20, 3, 0)}), wins_pir_of_counts({"a": (0, 3, 20)})
    assert math.isnan(won.value) and won.verdict == "better" and won.low > 4 and won.high == math.inf
    assert lost.value == 0 and lost.verdict == "worse" and lost.low == 0 and lost.high == pytest.approx(1 / won.low)
    # Clopper-Pearson of 20 of 20: 2.5 % ** (1 / 20).
    assert won.low / (1 + won.low) == pytest.approx(0.025 ** (1 / 20))
    assert wins_pir_of_counts({"a": (3, 0, 0)}).verdict == wins_pir_of_counts({"a": (0, 0, 3)}).verdict
    assert wins_pir_of_counts({"a": (3, 0, 0)}).verdict == "no significant difference"
    assert wins_pir_of_counts({"a": (0, 30, 0)}).verdict == wins_pir_of_counts({}).verdict == "unknown"


def test_examples_that_were_not_judged_are_counted():
    pir = wins_pir({"a": [1, NAN, -1] * 10, "b": [NAN] * 4})
    assert pir.settings == {"a": 1} and pir.left_out == {"b": "no example was judged"}
    assert pir.interval.endswith("; 14 examples were not judged") and set(pir.intervals) == {"a"}


def test_wins_of_several_runs():
    rng = np.random.default_rng(0)
    outcomes = rng.choice([1, 0, -1], size=(3, 200), p=[0.5, 0.2, 0.3])
    pir = wins_pir({"a": outcomes})
    assert pir.value == pytest.approx((outcomes == 1).sum() / (outcomes == -1).sum())
    assert "200 examples and 3 runs" in pir.interval and pir.low < pir.value < pir.high
    with pytest.raises(ValueError, match="same number of runs"):
        wins_pir({"a": outcomes, "b": outcomes[0]})


@pytest.mark.parametrize("outcomes", [[1, 2], [0.5], [[[1]]]])
def test_other_outcomes_are_refused(outcomes):
    with pytest.raises(ValueError, match="`outcomes`: 'a' must hold 1, 0, -1 or NaN"):
        wins_pir({"a": outcomes})
