"""PIR of each kind: directions, what has no ratio, published numbers, and intervals against the plain way."""

import dataclasses
import math

import numpy as np
import pytest
from scipy import stats

from hf_dataselect.evaluation.benchmark import Setting
from hf_dataselect.evaluation.comparison import bootstrap as resampling
from hf_dataselect.evaluation.comparison.pir import (
    BENCHMARK_RATIO,
    ESTIMATED,
    PIR,
    WINS_RATE,
    benchmark_pir,
    bridged_pir,
    cost_warning,
)
from hf_dataselect.evaluation.comparison.wins import wins_pir
from hf_dataselect.runs.files import plain
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


def wins_pir_of_counts(counts: dict[str, tuple[int, int, int]]) -> PIR:
    """Of wins, ties and losses by test set."""
    return wins_pir({name: np.repeat([1, 0, -1], number) for name, number in counts.items()})


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
