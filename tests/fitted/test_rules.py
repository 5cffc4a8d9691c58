"""Rules: the network with self-attention, what left-out subsets say of a rule, and files that are none."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from hf_dataselect.context import Context
from hf_dataselect.data.records import Records
from hf_dataselect.engines.runtime.runtime import Runtime
from hf_dataselect.features.image_text import ImageTextSources
from hf_dataselect.features.indicators import IndicatorSources
from hf_dataselect.fitted.rules.attention import AttentionRegressor, fit_attention, predict
from hf_dataselect.fitted.rules.fit_rule import draw_subset
from hf_dataselect.fitted.rules.fitting import fit_linear, fit_network, least_squares, left_out_r2
from hf_dataselect.fitted.rules.rule import AttentionRule, Rule, indicator_of, load_rule
from hf_dataselect.fitted.subset_losses import SubsetLosses
from hf_dataselect.pipeline import select
from hf_dataselect.registry import load_selector
from hf_dataselect.selectors.instructiongpt4 import _mean_of_standardised
from tests.rows import alpaca
from tests.run_folders import flipped
from tests.tiny import tiny_model, tiny_tokenizer


def pool(n: int = 400, columns: int = 3) -> tuple[np.ndarray, list[np.ndarray], np.ndarray]:
    """Rows, the rows of 24 subsets that lean to some side, and their means of a quality that is not linear."""
    draw = np.random.default_rng(0)
    rows = draw.normal(size=(n, columns))
    quality = rows[:, 0] - 0.5 * rows[:, 1] ** 2
    lean = [rows @ draw.standard_normal(columns) + draw.gumbel(size=n) for _ in range(24)]
    subsets = [np.argsort(-values)[:30] for values in lean]
    targets = np.array([quality[rows].mean() for rows in subsets])
    return rows, subsets, (targets - targets.mean()) / targets.std()


def attention_rule(**changes) -> AttentionRule:
    rows, subsets, targets = pool()
    weights = fit_attention([rows[s] for s in subsets[:6]], targets[:6], seed=1)
    standard = {"len": [10.0, 2.0], "pca1": [0.0, 1.0], "pca2": [-1.0, 0.5]}
    return AttentionRule(**{"standard": standard, "target": [0.5, 0.1], "tensors": weights, "r2": 0.5, **changes})


def test_attention_learns_the_quality_of_rows_from_means_of_subsets():
    rows, subsets, targets = pool()
    before = torch.get_rng_state().clone()
    weights = fit_attention([rows[s] for s in subsets], targets, seed=0)
    again = fit_attention([rows[s] for s in subsets], targets, seed=0)
    found = predict(weights, rows)
    assert torch.equal(before, torch.get_rng_state())
    assert all((weights[name] == again[name]).all() for name in weights)
    quality = rows[:, 0] - 0.5 * rows[:, 1] ** 2
    means = np.array([found[s].mean() for s in subsets])
    assert np.corrcoef(found, quality)[0, 1] > 0.75 and ((means - targets) ** 2).mean() < 0.1
    other = fit_attention([rows[s] for s in subsets], targets, seed=2)
    assert any((weights[name] != other[name]).any() for name in weights)


def test_a_row_s_number_is_its_own():
    rows, _, _ = pool()
    weights = attention_rule().tensors
    whole = predict(weights, rows)
    np.testing.assert_allclose(predict(weights, rows, block=7), whole, atol=1e-12)
    np.testing.assert_allclose([predict(weights, rows[i : i + 1])[0] for i in range(9)], whole[:9], atol=1e-12)
    holes = rows.copy()
    holes[5, 1] = np.nan
    found = predict(weights, holes)
    assert np.isnan(found[5]) and np.isfinite(np.delete(found, 5)).all()


@torch.no_grad()
def test_the_network_is_attention_residual_and_linear():
    torch.manual_seed(0)
    network, rows = AttentionRegressor(3).double().eval(), torch.randn(4, 3, dtype=torch.float64)
    hidden = rows[..., None] * network.direction + network.place
    for attention, linear in zip(network.attention, network.linear, strict=True):
        q, k, v = (hidden @ attention.in_proj_weight.T + attention.in_proj_bias).chunk(3, -1)
        heads = []
        for q_, k_, v_ in zip(q.chunk(4, -1), k.chunk(4, -1), v.chunk(4, -1), strict=True):
            heads.append((q_ @ k_.transpose(1, 2) / q_.shape[-1] ** 0.5).softmax(-1) @ v_)
        hidden = linear(hidden + attention.out_proj(torch.cat(heads, -1)))
    torch.testing.assert_close(network(rows), network.head(hidden.mean(1))[:, 0])


def test_left_out_r2_is_of_subsets_that_the_fit_has_not_seen():
    draw = np.random.default_rng(0)
    means = draw.normal(size=(8, 2))
    losses, seen = means @ [1.0, -2.0] + draw.normal(0, 0.3, 8), []

    def fit(chosen):
        seen.append(chosen.tolist())
        intercept, coefficients, _ = least_squares(means[chosen], losses[chosen], "ab")
        return lambda some: intercept + means[some] @ coefficients

    foretold = np.empty(8)
    for i in range(8):
        design = np.column_stack([np.ones(7), np.delete(means, i, 0)])
        foretold[i] = [1, *means[i]] @ np.linalg.lstsq(design, np.delete(losses, i), rcond=None)[0]
    expected = 1 - ((losses - foretold) ** 2).sum() / ((losses - losses.mean()) ** 2).sum()
    assert left_out_r2(fit, losses, seed=3) == pytest.approx(expected)
    assert sorted(set(range(8)) - set(chosen) for chosen in seen) and all(len(chosen) == 7 for chosen in seen)
    seen.clear()
    left_out_r2(lambda chosen: seen.append(len(chosen)) or (lambda some: some + 1.0), np.arange(35.0), seed=3)
    assert sorted(seen) == [31] * 5 + [32] * 5
    assert left_out_r2(fit, losses[:2], seed=3) is None  # two subsets leave one, which determines nothing


def nearly_constant(n: int) -> np.ndarray:
    """Equal numbers but for the last bit."""
    return np.where(np.arange(n) % 2, 0.1, np.nextafter(0.1, 1))


def test_a_constant_indicator_is_refused_and_equal_losses_have_no_r2(tmp_path):
    draw = np.random.default_rng(0)
    rows = np.column_stack([draw.normal(size=40), nearly_constant(40)])
    drawn = [np.sort(draw.choice(40, 10, replace=False)) for _ in range(6)]
    subsets, losses = [rows[some] for some in drawn], draw.normal(size=6)
    for fit, of in ((fit_network, "40 rows"), (fit_linear, "6 subsets")):
        with pytest.raises(ValueError, match=f"`indicators`: len: the same in all {of}"):
            fit(["rew", "len"], subsets, losses, rows, seed=0)
        found = fit(["rew"], [values[:, :1] for values in subsets], np.full(6, 0.1), rows[:, :1], seed=0)
        assert found.r2 is None and found.left_out_r2 is None
        np.testing.assert_allclose(found.log_loss({"rew": np.array([0.5, -30.0])}), 0.1, atol=1e-6)
        replace(found, subsets=6, about={"losses": [1, 1]}).save(tmp_path / "rule.json")
        load = json.loads((tmp_path / "rule.json").read_text(), parse_constant=lambda name: pytest.fail(name))
        assert load["r2"] is None and "R2 unknown over" in replace(found, about={"losses": [1, 1]}).summary()


def test_a_constant_indicator_leans_nothing_and_counts_nothing():
    draw = np.random.default_rng(0)
    values = np.column_stack([draw.normal(size=40), nearly_constant(40)])
    drawn = [draw_subset(values * [1, factor], np.arange(40), 8, 5.0, [1, 2]).tolist() for factor in (1, 0)]
    assert drawn[0] == drawn[1]
    holed = np.vstack([values, [3.0, np.nan]])
    expected = (values[:, 0] - values[:, 0].mean()) / values[:, 0].std() / 2
    np.testing.assert_allclose(_mean_of_standardised(holed), [*expected, np.nan], atol=1e-12)


@pytest.mark.parametrize("kind", ["linear", "attention"])
def test_a_rule_comes_back_as_it_was_written(kind, tmp_path):
    basis = {"pca.mean": np.arange(4.0), "pca.components": np.eye(4)[:2]}
    linear = Rule(0.5, {"len": 0.1, "pca1": -2.0, "pca2": 1.0}, r2=0.5, left_out_r2=0.25, subsets=8, tensors=basis)
    rule = linear if kind == "linear" else attention_rule(tensors=attention_rule().tensors | basis)
    rule.save(tmp_path / "rule.json")
    found = load_rule(str(tmp_path / "rule.json"), ImageTextSources)
    assert found == rule and found.names == ["len", "pca"] and json.loads((tmp_path / "rule.json").read_text())
    assert all((found.tensors[name] == value).all() for name, value in basis.items())
    draw = np.random.default_rng(1)
    indicators = {name: draw.normal(size=5) for name in ("len", "pca1", "pca2")}
    np.testing.assert_array_equal(found.log_loss(indicators), rule.log_loss(indicators))
    if kind == "attention":
        values = np.column_stack([(indicators[n] - m) / s for n, (m, s) in rule.standard.items()])
        np.testing.assert_allclose(rule.log_loss(indicators), 0.5 + 0.1 * predict(rule.tensors, values))


def changed(tmp_path, **entries) -> str:
    attention_rule().save(tmp_path / "rule.json")
    content = json.loads((tmp_path / "rule.json").read_text()) | entries
    del content["checksum"]
    (tmp_path / "rule.json").write_text(json.dumps(content))
    return str(tmp_path / "rule.json")


@pytest.mark.parametrize(
    "entries, named",
    [
        ({"regressor": "forest"}, "is not a rule file: 'forest'"),
        ({"standard": {"len": [1, 2]}}, "(?s)is not a rule file: .*size mismatch"),
        ({"target": [None, 1]}, "is not a rule file"),
        ({"standard": {"len": [1, 1], "pca1": [0, float("nan")], "pca2": [0, 1]}}, "no finite numbers"),
        ({"standard": {"len": [1, 1], "pca1": [0, 1], "ppl": [0, 1]}}, r"unknown indicators \['ppl'\]"),
        ({"about": {"method": "instruction_mining"}}, "is a rule of `instruction_mining`, not of `instructiongpt4`"),
        ({"tensors": {"file": "../rule.safetensors", "hash": "0"}}, "is not the one that it was written with"),
        ({"tensors": {"file": "gone.safetensors", "hash": "0"}}, "No such file"),
    ],
)
def test_a_network_that_is_none_is_refused(entries, named, tmp_path):
    with pytest.raises(ValueError, match=named):
        load_rule(changed(tmp_path, **entries), ImageTextSources)


@pytest.mark.parametrize("name", ["rule.json", "rule.safetensors"])
def test_a_fitted_rule_whose_numbers_changed_is_refused(name, tmp_path):
    rule = attention_rule()
    rule.save(tmp_path / "rule.json")
    path = tmp_path / name
    whole = path.read_bytes()
    for place in range(0, len(whole), len(whole) // 30):
        for broken in (flipped(whole, place), whole[:place]):
            path.write_bytes(broken)
            try:
                found = load_rule(str(tmp_path / "rule.json"), ImageTextSources)
                assert found == rule and broken.split() == whole.split()
            except ValueError as error:
                assert "rule.json" in str(error) and ("is damaged" in str(error) or "beside it is not" in str(error))


def test_an_edited_rule_is_read_once_its_checksum_is_gone(tmp_path, caplog):
    rule = Rule(intercept=1.0, coefficients={"len": 2.0})
    rule.save(tmp_path / "rule.json")
    content = json.loads((tmp_path / "rule.json").read_text()) | {"intercept": 3.0}
    (tmp_path / "rule.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match="rule.json is damaged .*or, if you edited it, remove its entry `checksum`"):
        load_rule(str(tmp_path / "rule.json"), IndicatorSources)
    del content["checksum"]
    (tmp_path / "rule.json").write_text(json.dumps(content))
    assert load_rule(str(tmp_path / "rule.json"), IndicatorSources) == replace(rule, intercept=3.0)
    assert "has no checksum" in caplog.text


def test_losses_of_subsets_that_are_damaged_are_computed_again(tmp_path, caplog):
    path = tmp_path / "subsets.jsonl"
    subsets = [np.array([number, number + 1]) for number in range(8)]
    SubsetLosses(path, "these", Runtime()).measure(subsets, lambda rows: (0.5 + rows[0], {}))
    lines = path.read_bytes().split(b"\n\n")
    earlier = [
        b'{"settings": "these", "loss": "x", "rows": [20]}',
        b'{"settings": "these", "loss": NaN, "rows": [21]}',
    ]
    earlier += [b'{"settings": "these", "loss": 1.5, "rows": 22}', b'{"settings": "these", "loss": 1.5, "rows": [23]}']
    earlier += [b'{"settings": "others", "loss": 1.5, "rows": [24]}', b"[1]", b"5"]
    torn = [lines[1].replace(b"1.5", b"3.5"), lines[2][:30], b"\xff\xfe", lines[3].replace(b'"loss"', b'"lost"')]
    path.write_bytes(b"\n".join([lines[0], *torn, *earlier, *lines[4:]]))
    known = {(number, number + 1): 0.5 + number for number in (0, 4, 5, 6, 7)} | {(23,): 1.5}
    assert {rows: float(m.losses[0]) for rows, m in SubsetLosses(path, "these", Runtime()).done.items()} == known
    assert f"{path}: 6 of 16 lines are damaged, and left out." in caplog.text


def test_instruction_mining_takes_a_network_too(tmp_path):
    rule = attention_rule(standard={"len": [10.0, 5.0], "ppl": [1.0, 2.0], "mtld": [1.0, 3.0]})
    rule.save(tmp_path / "rule.json")
    selector, tokenizer = load_selector("instruction_mining", {"rule": str(tmp_path / "rule.json")}), tiny_tokenizer()
    ctx = Context(tokenizer, tiny_model(tokenizer), runtime=Runtime(dtype="float32"), max_length=128)
    selection = select(alpaca(12), selector, 4, ctx)
    found = selector.sources().measure(Records(alpaca(12)), ctx, rule.names).columns
    np.testing.assert_allclose(selection.scores, -rule.log_loss(found), rtol=1e-4)


def test_columns_are_of_indicators():
    assert [indicator_of(name) for name in ("pca12", "pca", "len")] == ["pca", "pca", "len"]
    with pytest.raises(ValueError, match="is not a file: write one with"):
        load_rule("nowhere.json", ImageTextSources)
