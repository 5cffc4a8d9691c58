"""Intervals of a PIR: the plain way, coverage, variance between runs."""

import dataclasses
import math

import numpy as np
import pytest
from scipy import stats

from hf_dataselect.evaluation.comparison import bootstrap as resampling
from hf_dataselect.evaluation.comparison.pir import (
    PIR,
    benchmark_pir,
)
from hf_dataselect.evaluation.comparison.wins import wins_pir
from hf_dataselect.runs.files import plain
from tests.evaluation.comparison.test_pir import NAN, drawn, of


def test_it_can_be_written_and_read_again():
    pir = benchmark_pir({"a": of(drawn(0))}, {"a": of(drawn(1))})
    assert PIR(**plain(vars(pir))) == pir == PIR(**plain(dataclasses.asdict(pir)))


def test_two_copies_of_a_run_show_no_difference():
    run = {f"s{i}": of(drawn(i, n=37 + 2 * (i // 2)), i % 2 == 0) for i in range(7)}
    for sides in ((run, run), ([run, run], [run, run]), ([run] * 3, run)):
        pir = benchmark_pir(*sides)
        assert (pir.value, pir.low, pir.high, pir.verdict) == (1, 1, 1, "no significant difference")
    pir = wins_pir({"a": [0] * 30 + [1] * 20 + [-1] * 20})
    assert pir.value == 1 and pir.low < 1 < pir.high and pir.verdict == "no significant difference"


def resampled_naively(model: dict, baseline: dict, resamples: int = 2000, seed: int = 5) -> np.ndarray:
    """Every resample's rows gathered by index, one setting after the other; settings of equal length share them."""
    rng, found = np.random.default_rng(seed), []
    for _ in range(resamples):
        rows, ratios = {}, []
        for name, setting in model.items():
            mine, other = np.array(setting.examples), np.array(baseline[name].examples)
            at = rows.setdefault(len(mine), rng.integers(len(mine), size=len(mine)))
            ratio = np.nanmean(mine[at]) / np.nanmean(other[at])
            ratios.append(ratio if setting.higher_is_better else 1 / ratio)
        found.append(np.mean(ratios))
    return np.array(found)


def test_the_bootstrap_is_that_of_the_plain_way():
    base, noise = drawn(0, 200), drawn(1, 200)
    model = {"loss": of(base * 0.9, False), "more": of(base + noise), "short": of(drawn(2, 50, 0.1))}
    baseline = {"loss": of(base + 0.1 * noise, False), "more": of(base + 1), "short": of(drawn(3, 50))}
    each, fast = resampling.bootstrap(
        [
            resampling.Ratio(np.array([model[n].examples]), np.array([baseline[n].examples]), rows, n != "loss")
            for n, rows in (("loss", 200), ("more", 200), ("short", 50))
        ],
        seed=0,
    )
    assert each.shape == (3, 2000) and each.mean(0) == pytest.approx(fast)
    slow = resampled_naively(model, baseline)
    assert fast.mean() == pytest.approx(slow.mean(), rel=0.01) and fast.std() == pytest.approx(slow.std(), rel=0.08)
    for tail in (0.025, 0.5, 0.975):
        assert np.quantile(fast, tail) == pytest.approx(np.quantile(slow, tail), abs=0.2 * slow.std())
    pir = benchmark_pir(model, baseline)
    assert (pir.low, pir.high) == pytest.approx(np.quantile(slow, (0.025, 0.975)), abs=0.3 * slow.std())
    assert pir.interval.startswith("paired bootstrap over 200 + 50 examples")
    assert pir.interval.endswith("; variance between runs is not included")


def test_settings_of_the_same_rows_share_the_draw():
    """So a setting that says nothing new does not narrow the interval."""
    mine, other = drawn(0), drawn(1)
    once = benchmark_pir({"a": of(mine)}, {"a": of(other)})
    twice = benchmark_pir({"a": of(mine), "b": of(2 * mine)}, {"a": of(other), "b": of(2 * other)})
    apart = benchmark_pir({"a": of(mine), "b": of([*mine, NAN])}, {"a": of(other), "b": of([*other, NAN])})
    assert (twice.low, twice.high) == pytest.approx((once.low, once.high), rel=1e-9)
    assert apart.high - apart.low == pytest.approx((once.high - once.low) / math.sqrt(2), rel=0.1)


def test_row_counts_count_the_rows_drawn():
    weights = resampling._row_counts(np.random.default_rng(0), 500, 30)
    assert weights.shape == (500, 30) and (weights.sum(1) == 30).all() and (weights == np.round(weights)).all()
    # Multinomial: mean 1, variance 1 - 1/n, covariance -1/n.
    assert weights.mean(0) == pytest.approx(np.ones(30), abs=0.2)
    assert weights.var() == pytest.approx(1 - 1 / 30, rel=0.05)
    assert np.cov(weights.T)[0, 1:].mean() == pytest.approx(-1 / 30, abs=0.02)


def test_few_examples_get_students_interval():
    n, error = 10, 0.01  # of the mean; a bootstrap of n values spreads by sqrt((n - 1) / n) of it
    resamples = 1 + stats.norm.ppf((np.arange(20_000) + 0.5) / 20_000) * error * math.sqrt((n - 1) / n)
    low, high = resampling.interval_of(resamples, 1.0, n)
    assert (low, high) == pytest.approx((1 + np.array([-1, 1]) * error * stats.t.ppf(0.975, n - 1)), abs=2e-4)


def test_chunks_cover_every_resample(monkeypatch):
    run = {"a": of(drawn(0)), "b": of(drawn(1, 41))}
    other = {"a": of(drawn(2)), "b": of(drawn(3, 41))}
    monkeypatch.setattr(resampling, "_DRAWS", 1)  # one resample at a time
    one = benchmark_pir(run, other)
    monkeypatch.setattr(resampling, "_DRAWS", 2**24)  # all at once
    all_ = benchmark_pir(run, other)
    assert (one.low, one.high) == pytest.approx((all_.low, all_.high), rel=0.05) and one.value == all_.value


def test_the_same_seed_gives_the_same_interval():
    run, other = {"a": of(drawn(0))}, {"a": of(drawn(1))}
    assert benchmark_pir(run, other) == benchmark_pir(run, other)
    assert benchmark_pir(run, other).low != benchmark_pir(run, other, seed=1).low


def covered(once, truth: float, times: int = 300) -> float:
    """Share of repeated experiments whose interval holds the truth."""
    pirs = [once(np.random.default_rng(seed)) for seed in range(times)]
    return np.mean([pir.low <= truth <= pir.high for pir in pirs])


@pytest.mark.parametrize("n", [20, 150])
def test_the_interval_holds_the_truth_about_95_times_of_100(n, monkeypatch):
    """The ratio of the means of paired lognormals, exp(0.1) by construction."""
    monkeypatch.setattr(resampling, "RESAMPLES", 1000)

    def once(rng):
        base = rng.normal(size=n)
        model, other = (np.exp(0.4 * base + 0.3 * rng.normal(size=n) + shift) for shift in (0.1, 0.0))
        return benchmark_pir({"a": of(model)}, {"a": of(other)})

    assert 0.91 <= covered(once, math.exp(0.1)) <= 0.985


@pytest.mark.parametrize("runs, run_noise, row_noise", [((2, 2), 0.1, 0.01), ((3, 3), 0.05, 0.5), ((3, 1), 0.05, 0.5)])
def test_so_it_does_over_several_runs(runs, run_noise, row_noise, monkeypatch):
    """Scores of a run are those of its rows and a chance of its own; the single baseline has none."""
    monkeypatch.setattr(resampling, "RESAMPLES", 1000)

    def once(rng):
        rows, sides = rng.normal(size=80), []
        for number in runs:
            chance = run_noise * rng.normal(size=number) if number > 1 else [0.0]
            own = [row_noise * (rows + 0.5 * rng.normal(size=80)) for _ in range(number)]
            sides.append([{"a": of(10 + c + noise)} for c, noise in zip(chance, own, strict=True)])
        return benchmark_pir(*sides)

    assert 0.9 <= covered(once, 1.0) <= 0.985


def test_an_equal_model_is_seldom_called_better(monkeypatch):
    """Mostly ties, so wins / losses of each test set is skewed; plain percentiles call 7 of 100 better."""
    monkeypatch.setattr(resampling, "RESAMPLES", 500)
    draws = (np.random.default_rng(seed).choice([1, 0, -1], p=[0.2, 0.6, 0.2], size=(5, 80)) for seed in range(400))
    verdicts = [wins_pir({str(i): found for i, found in enumerate(outcomes)}).verdict for outcomes in draws]
    assert verdicts.count("better") <= 0.045 * 400 and verdicts.count("no significant difference") >= 0.92 * 400


def test_runs_are_averaged_and_their_chance_widens_the_interval():
    base = drawn(0, 500)
    model = [{"a": of(base * factor)} for factor in (1.0, 1.1, 1.2)]
    other = {"a": of(base)}
    pir = benchmark_pir(model, [other, other, other])
    assert pir.value == pytest.approx(1.1) and pir.low < 1.0 and pir.high > 1.2
    assert pir.interval == "paired bootstrap over 500 examples and 3 + 3 runs"
    one = benchmark_pir(model[1], other)
    assert one.low == pytest.approx(1.1) == one.high  # every row is a tenth higher
    single = benchmark_pir(model, other)
    assert single.interval.endswith("3 + 1 runs; the side with one run is taken to vary as the other")
    assert single.high - single.low > pir.high - pir.low


def plain_run_variance(model: np.ndarray, baseline: np.ndarray) -> float:
    """The twin: variance of the runs less that of their residuals, a two-way table for each side."""
    excess, freedom, factor = 0.0, 0, 0.0
    for side in (model, baseline):
        scaled = side / side.mean()
        runs, n = side.shape
        residuals = scaled - scaled.mean(0) - scaled.mean(1, keepdims=True) + scaled.mean()
        excess += (runs - 1) * scaled.mean(1).var(ddof=1) - (residuals**2).sum() / n**2
        freedom, factor = freedom + runs - 1, factor + 1 / runs
    return max(0.0, excess) / freedom * factor


def test_the_variance_between_runs_is_what_the_noise_of_examples_leaves():
    rng = np.random.default_rng(0)
    rows = rng.lognormal(size=(1, 400))
    found = []
    for chance in (0.0, 0.2):
        model, baseline = (
            rows * (1 + chance * rng.normal(size=(runs, 1))) + rng.normal(size=(runs, 400)) for runs in (3, 4)
        )
        ratio = resampling.Ratio(model, baseline, 400)
        found.append(resampling.run_variance([ratio]))
        assert found[-1] == pytest.approx(plain_run_variance(model, baseline), rel=1e-9)
        lower_is_better = ratio._replace(higher_is_better=False)
        assert resampling.run_variance([lower_is_better]) == pytest.approx(found[-1])
        assert resampling.run_variance([ratio, ratio]) == pytest.approx(found[-1])
    assert found[0] < 0.002 < found[1]
    assert resampling.run_variance([resampling.Ratio(model[:1], baseline[:1], 400)]) == 0


@pytest.mark.parametrize("runs", [2, 3, 5])
def test_more_runs_strengthen_a_verdict(runs):
    """Of a model that is 5 % better; once, the noise of examples was counted again between runs."""
    rng, found = np.random.default_rng(3), []
    hard = rng.beta(3, 1.3, 1000) * 0.93
    for _ in range(40):
        model, baseline = ((rng.random((runs, 1000)) < hard * gain).astype(float) for gain in (1.05, 1.0))
        sides = ([{"a": of(run)} for run in side] for side in (model, baseline))
        found.append(benchmark_pir(*sides).verdict)
    assert found.count("better") >= {2: 12, 3: 22, 5: 34}[runs] and "worse" not in found
