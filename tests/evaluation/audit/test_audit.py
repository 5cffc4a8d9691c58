"""LDS and gain: other people's numbers, effects that are known, and how often intervals hold the truth."""

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from benchmarks.audit_intervals import World, draw, main
from hf_dataselect.errors import SelectionError
from hf_dataselect.evaluation.audit.estimate import Estimate, Part, cell_noise, half_width
from hf_dataselect.evaluation.audit.findings import Scored, audit
from hf_dataselect.evaluation.audit.gain import between_seeds, gain
from hf_dataselect.evaluation.audit.prediction import _jackknifed, predict, subset_sums
from hf_dataselect.evaluation.audit.report import sections
from hf_dataselect.evaluation.report.report import to_markdown
from tests.shared_data import golden


ABOUT = {"model": "some/model", "pool": 300, "excluded": {"no answer": 2}, "full_seconds_measured": False}
ABOUT |= {"left_out": {"alpagasus": "it asks a judge."}}


def test_lds_is_that_of_another_implementation():
    given = golden("lds")
    generator, n = torch.Generator().manual_seed(42), len(given["score"])
    size = round(given["subset_fraction"] * n)
    subsets = np.stack([torch.randperm(n, generator=generator)[:size] for _ in range(given["subset_count"])])
    assert subsets[:3].tolist() == given["first_subsets"]
    # There, scores are loss-signed and the subset is left out: both turn round.
    found = predict(subset_sums(given["score"], subsets), np.array(given["base_loss"]) - np.array(given["loss"]))
    np.testing.assert_allclose(found.by_row, given["lds_per_query"], atol=1e-6)
    assert found.lds.value == pytest.approx(given["lds"], abs=1e-6)
    # Wider than that of subsets only; resampling both counts the noise of single losses three times.
    narrow, wide = given["lds_ci95_2000"], given["lds_interval_if_queries_are_resampled_too"]
    assert wide[0] < found.lds.low < narrow[0] < narrow[1] < found.lds.high < wide[1]


def test_sums_count_a_row_without_a_score_as_the_mean_of_the_others():
    scores, subsets = np.array([1.0, 2, np.nan, 4]), np.array([[0, 1, 3], [0, 2, 3], [2, 2, 2]])
    np.testing.assert_allclose(subset_sums(scores, subsets), [7, 7.5, np.nan])


def test_leaving_out_is_ranking_anew():
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 6, (14, 1)).astype(float), rng.integers(0, 9, (14, 3)).astype(float)
    value, left_out = _jackknifed(x, y)
    for column in range(3):
        assert value[column] == pytest.approx(spearmanr(x[:, 0], y[:, column]).statistic)
        for s in range(14):
            rest = np.delete(x[:, 0], s), np.delete(y[:, column], s)
            assert left_out[s, column] == pytest.approx(spearmanr(*rest).statistic)


def planted(count: int = 64, rows: int = 30):
    """Losses of a pool whose rows' effects add up, with some noise."""
    world, rng = World("mixed"), np.random.default_rng(5)
    subsets, effects = draw(rng, count), world.effects(rng, rows)
    untrained = np.full(rows, 9.0)
    top = np.argsort(-world.shared)[None, :15]
    tops = {name: untrained - world.reductions(rng, rows, effects) for name, rows in
            (("true", top), ("opposite", np.argsort(world.shared)[None, :15]), ("random", draw(rng, 1)))}  # fmt: skip
    scores = {"true": world.shared, "opposite": -world.shared, "random": world.error}
    scored = {name: Scored(scores[name], tops[name], 15, 2.0) for name in scores}
    return subsets, untrained - world.reductions(rng, subsets, effects), untrained, scored


def test_effects_that_add_up_are_predicted_by_themselves():
    subsets, losses, untrained, scored = planted()
    scored["none"] = Scored(np.full(300, np.nan), scored["random"].top, 15, 0.0)
    scored["equal"] = Scored(np.ones(300), scored["random"].top, 12, 0.0)
    half = np.where(np.arange(300) % 2, scored["true"].scores, np.nan)
    scored["half"] = Scored(half, scored["true"].top, 15, 1.0)
    found = audit(subsets, losses, untrained, scored, full_seconds=8.0)
    by_name = {one.name: one for one in found.findings}
    assert [one.name for one in found.findings[:2]] == ["true", "half"] and found.findings[2].name == "random"
    right, wrong, chance = (by_name[name] for name in ("true", "opposite", "random"))
    assert right.prediction.mean_loss.value > 0.8 and right.prediction.lds.verdict == "above 0"
    np.testing.assert_allclose(right.prediction.by_row, -wrong.prediction.by_row)
    assert right.prediction.lds.low == pytest.approx(-wrong.prediction.lds.high)
    assert chance.prediction.lds.verdict == chance.gain.verdict == "not different from 0"
    assert (right.gain.verdict, wrong.gain.verdict) == ("above 0", "below 0") and right.str_ratio == 0.25
    assert by_name["none"].prediction.lds.verdict == by_name["equal"].prediction.lds.verdict == "unknown"
    assert by_name["none"].unscored == 300 and by_name["half"].unscored == 150
    shown = to_markdown(sections(found, ABOUT))
    for said in (
        "Model: some/model. Pool: 300 rows (2 excluded, no answer).",
        "Scores predict what training on rows does, beyond chance: `true`, `half`. The contrary: `opposite`.",
        "beyond chance: `true`, `half`. The contrary: `opposite`",
        "| random (control) |",
        "`none` has no LDS: 0 subsets have a row with a score.",
        "`equal` has no LDS: all subsets score alike.",
        "`equal`: 12 top rows are trained on, not 15.",
        "`half`: 150 rows have no score and count as the mean of their subset; 0 subsets have none",
        "`alpagasus` is left out: it asks a judge.",
        "STR, extrapolated",
    ):
        assert said in shown


def test_losses_that_are_not_finite_are_left_out_and_counted():
    subsets, losses, untrained, scored = planted(20)
    losses[3], losses[5, 2], scored["true"].top[0, 4] = np.nan, np.inf, np.nan
    found = audit(subsets, losses, untrained, scored)
    assert (found.subsets, found.rows, found.lost_subsets, found.lost_rows) == (19, 28, 1, 2)
    assert found.findings[0].str_ratio is None
    assert "Left out: 2 held-out rows and 1 subsets" in to_markdown(sections(found, ABOUT))
    losses[7:] = np.nan
    with pytest.raises(SelectionError, match="6 of 20 subsets and 28 of 30 held-out rows have finite losses"):
        audit(subsets, losses, untrained, scored)


def test_subsets_alike_are_called_alike():
    subsets, losses, untrained, scored = planted(10)
    alike = losses.mean(0) + 1e-4 * (losses - losses.mean(0))
    assert "less than 2 %" in to_markdown(sections(audit(subsets, alike, untrained, scored), ABOUT))


def test_variance_is_counted_once():
    rng = np.random.default_rng(0)
    tables = [rng.normal(size=(9, 1)) + rng.normal(size=7) + 3 * rng.normal(size=(9, 7)) for _ in range(400)]
    assert np.mean([cell_noise(table) for table in tables]) == pytest.approx(9 / 63, rel=0.1)
    assert half_width([Part(4.0, 10)]) == pytest.approx(2 * 2.228, rel=1e-3)
    assert half_width([Part(2.0, 1e6), Part(2.0, 1e6)]) == pytest.approx(2 * 1.96, rel=1e-3)
    assert np.isnan(half_width([Part(1.0, 0)])) and Estimate().verdict == "unknown"


def test_luck_and_seeds_widen_the_interval_of_a_gain():
    rng = np.random.default_rng(0)
    random, top = 5 + rng.normal(size=(40, 1)) + 0.1 * rng.normal(size=(40, 50)), 4.5 + 0.1 * rng.normal(size=(2, 50))
    found = gain(random, top, Part(0.0, 0))
    assert found.value == pytest.approx(float(random.mean() - top.mean())) and found.verdict == "not different from 0"
    assert found.high - found.low == pytest.approx(
        2 * 2.02 * random.mean(1).std(ddof=1) * (1 + 1 / 40) ** 0.5, rel=0.02
    )
    several = between_seeds([top + 0.3 * rng.normal(size=(2, 1)) for _ in range(300)])
    assert several.freedom == 300 and several.variance == pytest.approx(0.09, rel=0.3)
    assert between_seeds([top[:1]]) == Part(0.0, 0)
    assert np.isnan(gain(random[:, :1], top[:, :1], several).low)


def test_intervals_hold_the_truth_as_often_as_they_say(capsys):
    options = ["--worlds", "mixed", "--scorers", "half", "--subsets", "32", "--rows", "12", "--trials", "200"]
    (line,) = main(options)
    capsys.readouterr()
    assert all(0.9 <= float(share.rstrip("%")) / 100 <= 0.99 for share in line[4:])
