"""Instruction Mining: indicators, published rules, and a rule fitted by tuning, killed and resumed."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from datasets import Dataset

from hf_dataselect.cli.main import main
from hf_dataselect.context import Context
from hf_dataselect.data.records import Records
from hf_dataselect.engines.forward.seq2seq import load_evaluator, yes_probability
from hf_dataselect.engines.llm.load import load_reward_model
from hf_dataselect.engines.runtime.runtime import Runtime
from hf_dataselect.engines.tuning.warm_up import WarmupSettings, warmed_up
from hf_dataselect.errors import SelectionError
from hf_dataselect.features import indicators as measuring
from hf_dataselect.features.indicators import NAMES, IndicatorSources
from hf_dataselect.features.loss import answer_loss
from hf_dataselect.features.rewards import conversation
from hf_dataselect.features.text_statistics import TEXT_FEATURES
from hf_dataselect.features.tuned_loss import TunedLoss
from hf_dataselect.features.tuning import tuning_rows
from hf_dataselect.fitted.rules.fit_rule import FitRuleArguments, draw_subset, fit_rule
from hf_dataselect.fitted.rules.fitting import least_squares
from hf_dataselect.fitted.rules.rule import PUBLISHED, Rule, load_rule
from hf_dataselect.pipeline import select
from hf_dataselect.registry import load_selector
from hf_dataselect.selectors.instruction_mining import best_size
from tests.engines.llm.test_local import reward_model
from tests.rows import alpaca
from tests.tiny import context_of, tiny_evaluator, tiny_model, tiny_tokenizer
from tests.tiny_training import write_recipe


def context(**changes) -> Context:
    tokenizer = tiny_tokenizer()
    return context_of(tokenizer, tiny_model(tokenizer), **{"max_length": 128, "dtype": "float32", **changes})


@pytest.fixture(scope="module")
def sources(tmp_path_factory) -> IndicatorSources:
    tokenizer, folders = tiny_tokenizer(), {}
    for name, model in (("reward_model", reward_model(tokenizer)), ("evaluator", tiny_evaluator(tokenizer))):
        folders[name] = str(tmp_path_factory.mktemp(name))
        model.save_pretrained(folders[name])
        tokenizer.save_pretrained(folders[name])
    return IndicatorSources(encoder="model", neighbour=3, **folders)


# Indicators ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_tokens", [1, 200, 10**5])
def test_an_evaluator_says_yes_as_in_one_plain_forward_a_text(sources, batch_tokens, tmp_path):
    model, tokenizer = load_evaluator(sources.evaluator, Runtime())
    texts = [f"{row['instruction']} {row['output']}" for row in alpaca(9)] + ["x " * 90]
    runtime = Runtime(batch_tokens=batch_tokens, dtype="float32", cache_dir=tmp_path)
    found = yes_probability(model, tokenizer, texts, runtime, max_length=40)
    yes, no = (tokenizer(word)["input_ids"][0] for word in ("Yes", "No"))
    for text, probability, cut in zip(texts, found.probability, found.cut, strict=True):
        ids = tokenizer(text)["input_ids"]
        assert cut == (len(ids) > 40)
        ids = torch.tensor([ids if not cut else [*ids[:39], ids[-1]]])
        with torch.no_grad():
            start = torch.tensor([[model.config.decoder_start_token_id]])
            logits = model.eval()(input_ids=ids, decoder_input_ids=start).logits[0, 0, [yes, no]]
        assert float(logits.softmax(0)[0]) == pytest.approx(probability, abs=1e-5)
    assert found.cut.tolist()[-1] and len(set(found.probability.round(6))) > 5
    runtime = Runtime(batch_tokens=batch_tokens, dtype="float32", cache_dir=tmp_path)
    again = yes_probability(model, tokenizer, texts, runtime, max_length=40)
    assert runtime.account.passes["cached_rows"] == 10 and (again.probability == found.probability).all()


def test_indicators_are_what_they_say(sources):
    records, ctx = Records(alpaca(12)), context()
    found = sources.measure(records, ctx, NAMES).columns
    assert set(found) == set(NAMES) and all(np.isfinite(values).all() for values in found.values())
    np.testing.assert_allclose(found["ppl"], np.exp(answer_loss(records, context()).mean))
    assert found["mtld"].tolist() == [TEXT_FEATURES["mtld"].of(record.answer) for record in records]
    counts = [len(ctx.tokenizer(record.answer, add_special_tokens=False)["input_ids"]) for record in records]
    assert found["len"].tolist() == counts
    judge = load_reward_model(sources.reward_model, Runtime(dtype="float32"))
    np.testing.assert_allclose(found["rew"], judge.score([conversation(record) for record in records]))
    assert all(((found[name] > 0) & (found[name] < 1)).all() for name in ("nat", "coh", "und"))
    model, tokenizer = load_evaluator(sources.evaluator, Runtime())
    history = [
        f"question: {measuring.QUESTIONS['coh']} </s> response: {r.answer} </s> dialogue history: {r.prompt}"
        for r in records
    ]
    expected = yes_probability(model, tokenizer, history, Runtime(dtype="float32")).probability
    np.testing.assert_allclose(found["coh"], expected)


def test_rows_without_indicators_are_named(sources):
    rows = alpaca(6).to_list()
    rows[2]["output"] = ""
    ctx = context()
    found = sources.measure(Records(Dataset.from_list(rows)), ctx, NAMES).columns
    assert all(np.isnan(found[name][2]) for name in ("len", "mtld", "rew", "ppl", "nat", "coh", "und"))
    assert ctx.account.rows("unscorable")["no answer"] == [2]
    few = context()
    found = sources.measure(Records(alpaca(3)), few, ["knn"]).columns
    assert np.isnan(found["knn"]).all()
    assert few.account.rows("unscorable") == {"fewer than 3 other rows to be near to": [0, 1, 2]}


# Rules ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PUBLISHED)
def test_rows_are_kept_by_the_published_rule(name, sources):
    records = Records(alpaca(20))
    options = {"rule": name, "neighbour": 3, "encoder": "model"}
    options |= {"reward_model": sources.reward_model, "evaluator": sources.evaluator}
    selector = load_selector("instruction_mining", options)
    assert ("model" in selector.needs()) is (name == "v1")
    selection = select(records, selector, 5, context())
    i = sources.measure(records, context(), NAMES).columns
    foretold = {
        "v1": 1.0694 - 0.1498 * i["rew"] + 8.257e-5 * i["len"] - 0.9350 * i["knn"],
        "v2": 0.0274 - 0.0078 * i["rew"] + 0.4421 * i["und"] - 0.3212 * i["nat"] - 0.1520 * i["coh"],
    }[name]
    np.testing.assert_allclose(selection.scores, -foretold, rtol=1e-5)
    assert selection.indices.tolist() == np.argsort(foretold.astype(np.float32), kind="stable")[:5].tolist()


def test_least_squares_finds_the_rule_that_made_the_losses():
    draw = np.random.default_rng(0)
    means = draw.normal([100, 0.5, -3], [30, 0.01, 1], (40, 3))
    losses = 0.3 + means @ [1e-3, -2.0, 0.05]
    intercept, coefficients, r2 = least_squares(means, losses, "abc")
    np.testing.assert_allclose([intercept, *coefficients, r2], [0.3, 1e-3, -2.0, 0.05, 1], rtol=1e-6)
    noisy = losses + draw.normal(0, losses.std(), 40)
    _, found, r2 = least_squares(means, noisy, "abc")
    design = np.column_stack([np.ones(40), means])
    plain = np.linalg.lstsq(design, noisy, rcond=None)[0]
    np.testing.assert_allclose(found, plain[1:], rtol=1e-6)
    assert r2 == pytest.approx(1 - ((noisy - design @ plain) ** 2).sum() / ((noisy - noisy.mean()) ** 2).sum())
    with pytest.raises(ValueError, match="do not determine 3 coefficients"):
        least_squares(np.column_stack([means[:, :2], means[:, 0] * 2]), losses, "abc")


@pytest.mark.parametrize("value", [1 / 3, 0.1, 0.0, 7e5])
def test_an_indicator_that_is_the_same_in_all_subsets_has_no_coefficient(value):
    draw = np.random.default_rng(0)
    # As sums differ in their last bits by the order of the rows.
    same = np.array([np.full(7 + i, value).sum() / (7 + i) for i in range(40)])
    len_ = draw.normal(100, 30, 40)
    with pytest.raises(ValueError, match="`indicators`: und: the same in all 40 subsets"):
        least_squares(np.column_stack([len_, same]), draw.normal(size=40), ["len", "und"])
    with pytest.raises(ValueError, match="depend on each other"):  # far from 0, what is rounding may seem to be more
        least_squares(np.column_stack([1e6 + len_, 1e6 + len_ / 3]), draw.normal(size=40), ["len", "mtld"])


def test_subsets_lean_in_every_direction():
    values = np.random.default_rng(0).normal([10, -5], [4, 1], (400, 2))
    usable = np.arange(0, 400, 2)
    means = {lean: [] for lean in (0.0, 1.0)}
    for lean, found in means.items():
        for number in range(30):
            rows = draw_subset(values, usable, 40, lean, [42, number])
            assert len(set(rows)) == 40 and set(rows) <= set(usable) and (np.diff(rows) > 0).all()
            found.append(values[rows].mean(0))
    assert (np.std(means[1.0], axis=0) > 3 * np.std(means[0.0], axis=0)).all()
    assert (
        draw_subset(values, usable, 40, 1.0, [42, 1]).tolist()
        == draw_subset(values, usable, 40, 1.0, [42, 1]).tolist()
    )


@pytest.mark.parametrize(
    "content, named",
    [
        ("nothing", "is damaged .*Expecting value"),
        ('{"intercept": 1, "coefficients": {"beauty": 1}}', "unknown indicators"),
        ('{"intercept": 1, "coefficients": {}}', "no finite coefficients"),
        ('{"intercept": NaN, "coefficients": {"len": 1}}', "no finite coefficients"),
        ('{"intercept": 1, "coefficients": {"len": "long"}}', "is not a rule file: could not convert"),
        ('{"intercept": 1, "coefficients": {"len": 1}, "sources": {"rm": "x"}}', "have no such rm='x'"),
        ('{"intercept": 1, "coefficients": {"len": 1}, "sources": {"neighbour": "six"}}', "no such neighbour='six'"),
        ('{"intercept": 1, "coefficients": {"len": 1}, "sources": {"neighbour": 0}}', "not a rule file: .*at least 1"),
        ('{"intercept": 1, "coefficients": {"len": 1}, "sources": null}', "is not a rule file"),
    ],
)
def test_what_is_no_rule_is_refused(content, named, tmp_path):
    (tmp_path / "rule.json").write_text(content)
    with pytest.raises(ValueError, match=named):
        load_selector("instruction_mining", {"rule": str(tmp_path / "rule.json")})
    with pytest.raises(ValueError, match="neither 'v1' nor 'v2' nor a file"):
        load_selector("instruction_mining", {"rule": "v3"})


def test_numbers_of_a_rule_may_be_written_as_text(tmp_path):
    (tmp_path / "rule.json").write_text('{"intercept": "0.5", "coefficients": {"len": "2"}}')
    rule = load_rule(str(tmp_path / "rule.json"), IndicatorSources)
    assert rule.log_loss({"len": np.array([1.0, np.nan])}).tolist()[0] == 2.5


def test_a_rule_that_names_what_is_gone_is_named_itself(tmp_path):
    rule = Rule(0.5, {"rew": 1.0}, sources={"reward_model": str(tmp_path / "gone")})
    rule.save(tmp_path / "rule.json")
    selector = load_selector("instruction_mining", {"rule": str(tmp_path / "rule.json")})
    with pytest.raises(ValueError, match="(?s)gone' can't be found.*rule='.*rule.json' was fitted with it"):
        selector.check(Records(alpaca(2)))
    given = load_selector("instruction_mining", {"rule": str(tmp_path / "rule.json"), "reward_model": "./none"})
    with pytest.raises(ValueError, match="none' can't be found") as refused:
        given.check(Records(alpaca(2)))
    assert "fitted with" not in str(refused.value)


def test_models_that_measure_nothing_are_refused(sources, tmp_path):
    tiny_evaluator(tiny_tokenizer()).save_pretrained(tmp_path / "mute")
    whole, kept = tiny_evaluator(tiny_tokenizer()), {}
    for name, tensor in whole.state_dict().items():
        kept |= {} if name.startswith("decoder.block.1") else {name: tensor}
    for part in (whole, tiny_tokenizer()):
        part.save_pretrained(tmp_path / "half", **({"state_dict": kept} if part is whole else {}))
    with pytest.raises(SelectionError, match="evaluator='.*half' can't be loaded: it lacks weights: decoder.block.1"):
        replace(sources, evaluator=str(tmp_path / "half")).measure(Records(alpaca(2)), context(), ["nat"])
    with pytest.raises(ValueError, match="encoder='.*none' can't be found"):
        replace(sources, encoder=str(tmp_path / "none")).check(["knn"])
    for options, named in (
        ({"evaluator": str(tmp_path / "mute"), "reward_model": sources.reward_model}, "has no tokenizer of its own"),
        ({"evaluator": sources.reward_model, "reward_model": sources.reward_model}, "is not an encoder-decoder"),
        ({"evaluator": str(tmp_path / "none"), "reward_model": sources.reward_model}, "can't be found"),
    ):
        with pytest.raises(ValueError, match=named):
            load_selector("instruction_mining", options).check(Records(alpaca(2)))


# The size of the subset ----------------------------------------------------------------------------------------------


def test_the_size_is_the_best_of_those_tried(sources, tmp_path):
    options = {"rule": "v2", "search_trials": 4, "search_epochs": 2}
    options |= {"reward_model": sources.reward_model, "evaluator": sources.evaluator}
    selector = load_selector("instruction_mining", options)
    assert {"model", "target"} <= selector.needs()
    target, found = Records(alpaca(6, seed=9)), []
    for _ in range(2):
        found.append(select(alpaca(32), selector, 32, context(target=target, cache_dir=tmp_path)))
    losses = found[0].facts["figures"]["held-out loss by rows kept"]
    assert 1 < len(losses) <= 4 and min(losses) >= 2 and max(losses) <= 32
    whole = select(alpaca(32), load_selector("instruction_mining", options | {"search_trials": 0}), 32, context())
    best = min(losses, key=losses.get)
    assert found[0].indices.tolist() == found[1].indices.tolist() == whole.indices[:best].tolist()
    assert found[1].facts["figures"] == found[0].facts["figures"] and found[1].cached_seconds > 0
    assert not (tmp_path / "warmup").exists()  # weights of every trial would fill the disk
    ctx, rows = context(), whole.indices[:best]
    tuning = WarmupSettings(epochs=2, learning_rate=2e-4)
    with warmed_up(ctx.model, ctx.tokenizer, tuning_rows(Records(alpaca(32)), rows, ctx), tuning, Runtime()) as model:
        loss = answer_loss(target, ctx.using(model), ctx.text_format(end_of_turn=True)).mean.mean()
    assert losses[best] == pytest.approx(loss, abs=1e-4)


def test_the_search_finds_a_valley():
    tried = []

    def loss(n):
        tried.append(n)
        return abs(n - 60)

    best = best_size(loss, 10, 160, 15, seed=1)
    assert tried[:3] == [10, 40, 160] and len(set(tried)) == len(tried) <= 15
    assert abs(best - 60) == min(abs(n - 60) for n in tried) <= 3
    assert best_size(loss, 3, 3, 4, seed=1) == 3


# Fitting -------------------------------------------------------------------------------------------------------------


def settings() -> WarmupSettings:
    return WarmupSettings(epochs=1, learning_rate=1e-2, batch_size=4, gradient_accumulation=1)


def test_a_fit_is_killed_and_resumed_and_its_rule_used_on_other_rows(sources, tmp_path, monkeypatch):
    records, held_out = Records(alpaca(40)), Records(alpaca(8, seed=9))
    arguments = FitRuleArguments(indicators=["len", "mtld", "rew", "ppl"], subsets=8, subset_rows=8)
    tuned = []

    def counting(*given, **options):
        tuned.append(1)
        if len(tuned) == 4:
            raise KeyboardInterrupt
        return warmed_up(*given, **options)

    monkeypatch.setattr("hf_dataselect.features.tuned_loss.warmed_up", counting)
    given = (records, held_out, context(), sources, arguments, settings())
    with pytest.raises(KeyboardInterrupt):
        fit_rule(*given, tmp_path)
    with open(tmp_path / "subsets.jsonl", "a") as file:
        file.write('{"settings": "torn')
    rule = fit_rule(*given, tmp_path)
    assert len(tuned) == 4 + 5
    whole = fit_rule(*given, tmp_path / "again")
    assert whole == rule and len(tuned) == 9 + 8
    written = json.loads((tmp_path / "rule.json").read_text())
    assert set(written["coefficients"]) == {"len", "mtld", "rew", "ppl"} and written["subsets"] == 8
    assert 0 <= written["r2"] <= 1 and written["sources"] == {"reward_model": sources.reward_model}
    assert load_rule(str(tmp_path / "rule.json"), IndicatorSources) == rule

    lines = [json.loads(line) for line in (tmp_path / "again" / "subsets.jsonl").read_text().split("\n") if line]
    values = sources.measure(records, context(), arguments.indicators).columns
    table = np.column_stack([values[name] for name in arguments.indicators])
    rows = draw_subset(table, np.arange(40), 8, 1.0, [42, 0])
    assert lines[0]["rows"] == rows.tolist()
    means = np.array([table[line["rows"]].mean(0) for line in lines])
    losses = np.log([line["loss"] for line in lines])
    intercept, coefficients, r2 = least_squares(means, losses, arguments.indicators)
    np.testing.assert_allclose([rule.intercept, *rule.coefficients.values(), rule.r2], [intercept, *coefficients, r2])
    ctx = context()
    with warmed_up(ctx.model, ctx.tokenizer, tuning_rows(records, rows, ctx), settings(), Runtime()) as model:
        loss = answer_loss(held_out, ctx.using(model), ctx.text_format(end_of_turn=True)).mean.mean()
    assert lines[0]["loss"] == pytest.approx(loss, rel=1e-5)

    selector = load_selector("instruction_mining", {"rule": str(tmp_path / "rule.json")})
    read, text = [], Path.read_text
    monkeypatch.setattr(Path, "read_text", lambda path, **how: read.append(path.name) or text(path, **how))
    selection = select(alpaca(16, seed=3), selector, 4, context())
    assert "rule.json" not in read, "a selector reads its rule once, when it is made"
    other = sources.measure(Records(alpaca(16, seed=3)), context(), arguments.indicators).columns
    np.testing.assert_allclose(selection.scores, -rule.log_loss(other), rtol=1e-4)


def moved_model() -> Context:
    ctx = context()
    with torch.no_grad():
        next(ctx.model.parameters()).add_(0.01)
    return ctx


def test_a_loss_is_known_by_all_that_decides_it():
    template = context()
    template.tokenizer.chat_template = template.tokenizer.chat_template.replace("'<|'", "'\\n<|'")
    first = {
        "records": Records(alpaca(20)),
        "held_out": Records(alpaca(4, seed=9)),
        "ctx": context(),
        "settings": settings(),
    }
    others = [
        {"settings": replace(settings(), seed=1)},
        {"records": Records(alpaca(20, seed=4))},
        {"held_out": Records(alpaca(4, seed=8))},
        {"ctx": moved_model()},
        {"ctx": template},
        {"ctx": context(max_length=100)},
        {"ctx": context(dtype="bfloat16")},
    ]
    keys = [TunedLoss(**first | other).key for other in others]
    assert len({*keys, TunedLoss(**first).key}) == 8
    assert TunedLoss(**first | {"ctx": context(batch_tokens=7)}).key == TunedLoss(**first).key


def test_other_models_and_draws_never_share_results(sources, tmp_path):
    fitted = []
    for ctx, lines in ((context(), 3), (context(), 3), (moved_model(), 6), (context(seed=7), 9), (context(), 9)):
        arguments = FitRuleArguments(indicators=["len"], subsets=3, subset_rows=4)
        given = (Records(alpaca(20)), Records(alpaca(4, seed=9)), ctx, sources, arguments, settings())
        fitted.append(fit_rule(*given, tmp_path))
        assert sum(bool(line) for line in (tmp_path / "subsets.jsonl").read_text().split("\n")) == lines
    assert fitted[0] == fitted[1] == fitted[4] != fitted[2]


def test_a_reward_model_replaced_in_its_folder_draws_and_fits_anew(sources, tmp_path):
    tokenizer, folder = tiny_tokenizer(), tmp_path / "reward"
    arguments = FitRuleArguments(indicators=["rew"], subsets=4, subset_rows=4)
    other = replace(sources, reward_model=str(folder))

    def fit(out: str):
        given = (Records(alpaca(20)), Records(alpaca(4, seed=9)), context(), other, arguments, settings())
        return fit_rule(*given, tmp_path / out)

    found = {}
    for name in ("old", "new"):
        model = reward_model(tokenizer)
        with torch.no_grad():
            model.score.weight.copy_(model.score.weight.flip(1) if name == "new" else model.score.weight)
        for part in (model, tokenizer):
            part.save_pretrained(folder)
        found[name] = fit("kept")
    assert found["new"] == fit("fresh") != found["old"]


def test_a_rule_says_what_it_left_out_and_what_it_is_worth(sources, tmp_path, caplog):
    rows = alpaca(30).to_list()
    rows[3]["output"], rows[7]["output"], rows[11]["instruction"] = "", None, None
    held_out = alpaca(4, seed=9).to_list()
    held_out[1]["output"] = ""
    ctx = context(cache_dir=tmp_path / "cache")
    arguments = FitRuleArguments(indicators=["len", "mtld"], subsets=6, subset_rows=8)
    given = (Records(Dataset.from_list(rows)), Records(Dataset.from_list(held_out)), ctx, sources, arguments)
    with caplog.at_level("INFO", "hf_dataselect"):
        rule = fit_rule(*given, settings(), tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "subsets.jsonl").read_text().split("\n") if line]
    assert not {3, 7, 11} & {row for line in lines for row in line["rows"]}
    losses = [line["loss"] for line in lines]
    assert rule.about["losses"] == [min(losses), max(losses)]
    assert f"{min(losses):.4f} to {max(losses):.4f}" in rule.summary() and "len  " in rule.summary()
    left_out = json.loads((tmp_path / "rule.json").read_text())["about"]["rows left out"]
    assert sum(left_out.values()) == 3 and left_out["missing value in `output`"] == 1
    assert "1 of 30 rows are excluded from all subsets: missing value in `output`" in caplog.text
    assert "1 of 4 held-out rows have no loss" in caplog.text
    assert "6 subsets leave 3 degrees of freedom beside 2 coefficients" in caplog.text
    assert ("has not seen no better than the mean" in caplog.text) is (not rule.left_out_r2 > 0)
    # Weights of every subset, and what is computed by their models, would fill the disk; losses are in one place.
    assert not any((tmp_path / "cache").glob("*"))
    caplog.clear()
    with caplog.at_level("INFO", "hf_dataselect"):
        assert fit_rule(*given, settings(), tmp_path) == rule
    assert "6 of 6 subsets are read from" in caplog.text


def test_noise_is_called_noise(sources, tmp_path, caplog, monkeypatch):
    noise = iter(np.random.default_rng(1).normal(2, 1e-3, 8))
    losses = {
        "noise": lambda self, rows: float(next(noise)),
        "rule": lambda self, rows: np.exp(np.mean([len(self.records[int(row)].answer.split()) for row in rows]) / 100),
    }
    for name, loss_of in losses.items():
        caplog.clear()
        monkeypatch.setattr(TunedLoss, "__call__", loss_of)
        arguments = FitRuleArguments(indicators=["len"], subsets=8, subset_rows=8)
        given = (Records(alpaca(40)), Records(alpaca(4, seed=9)), context(), sources, arguments, settings())
        rule = fit_rule(*given, tmp_path / name)
        assert ("may have learnt noise" in caplog.text) is (name == "noise") is (rule.left_out_r2 < 0)


def test_what_can_not_be_fitted_is_known_before_a_model_is_tuned(sources, tmp_path, monkeypatch):
    monkeypatch.setattr(TunedLoss, "__call__", None)
    same = Records(Dataset.from_list([alpaca(1).to_list()[0]] * 16))
    arguments = FitRuleArguments(indicators=["len", "rew"], subsets=4, subset_rows=4)
    with pytest.raises(ValueError, match="`indicators`: len, rew: the same in all 4 subsets"):
        fit_rule(same, Records(alpaca(4)), context(), sources, arguments, settings(), tmp_path)


@pytest.mark.parametrize(
    "options, named",
    [
        ({"indicators": ["beauty"]}, "must be different names"),
        ({"indicators": ["len", "ppl"], "subsets": 3}, "it takes 4 at least"),
        ({"subset_rows": 0}, "must be at least 1"),
        ({"tuning_learning_rate": 0.0}, "tuning_learning_rate=0.0"),
    ],
)
def test_fits_that_can_not_be_are_refused(options, named):
    with pytest.raises(ValueError, match=named):
        FitRuleArguments(**options)


def test_too_few_rows_for_subsets_that_differ(sources, tmp_path):
    arguments = FitRuleArguments(indicators=["len"], subsets=4, subset_rows=8)
    with pytest.raises(ValueError, match="10 rows of 10 have all indicators"):
        fit_rule(Records(alpaca(10)), Records(alpaca(4)), context(), sources, arguments, settings(), tmp_path)


def test_the_command_fits_a_rule_from_a_recipe(tmp_path, capsys, monkeypatch):
    # The recipe already names the rule, and the reward model by a path that is right from here only.
    reward = tmp_path / "reward"
    for part in (reward_model(tiny_tokenizer()), tiny_tokenizer()):
        part.save_pretrained(reward)
    monkeypatch.chdir(tmp_path)
    options = {"encoder": "model", "reward_model": "reward", "rule": str(tmp_path / "run" / "rule.json")}
    recipe = write_recipe(tmp_path, selection_method="instruction_mining", selection_kwargs=options)
    with pytest.raises(SystemExit):
        main(["select", "--config", str(recipe)])
    assert "rule.json' is neither 'v1' nor 'v2' nor a file" in capsys.readouterr().err
    content = yaml.safe_load(recipe.read_text())
    content |= {"indicators": ["len", "rew", "knn"], "subsets": 8, "subset_rows": 4, "num_train_epochs": 1}
    content |= {"max_length": 128, "bf16": False, "gradient_checkpointing": False, "selection_dtype": "float32"}
    content |= {"gradient_accumulation_steps": 1}
    recipe.write_text(yaml.safe_dump(content))
    main(["fit-rule", "--config", str(recipe)])
    shown = capsys.readouterr().out
    rule = load_rule(str(tmp_path / "run" / "rule.json"), IndicatorSources)
    assert f"over 8 subsets, {rule.left_out_r2:.3f} of those left out" in shown
    assert f"{rule.coefficients['rew']:+.6g}" in shown and "Losses of the 8 subsets" in shown
    assert rule.about["settings"]["learning_rate"] == 2e-4  # an adapter's, whatever that of the training is
    assert rule.sources == {"reward_model": str(reward), "encoder": "model", "neighbour": 6}
    replace(rule, sources=rule.sources | {"neighbour": 2}).save(tmp_path / "run" / "rule.json")
    main(["fit-rule", "--config", str(recipe)])  # takes nothing over from the rule that it writes anew
    assert load_rule(str(tmp_path / "run" / "rule.json"), IndicatorSources) == rule
    monkeypatch.chdir("/")
    main(["select", "--config", str(write_recipe(tmp_path)), "--selection_method", "instruction_mining",
          "--selection_kwargs", json.dumps({"rule": str(tmp_path / "run" / "rule.json")}),
          "--output_dir", str(tmp_path / "picked")])  # fmt: skip
    assert json.loads((tmp_path / "picked" / "selection.json").read_text())["kept"] == 6
    with pytest.raises(SystemExit):
        main(["fit-rule", "--config", str(recipe), "--selection_method", "ifd", "--selection_kwargs", "{}"])
    assert "`fit-rule` fits 'instruction_mining' and 'instructiongpt4'" in capsys.readouterr().err
