"""The guard: verdicts on domains by losses before and after, at each evaluation, after a resume, at the exit."""

import json

import numpy as np
import pytest
import yaml
from datasets import Dataset
from scipy.stats import t

from benchmarks import four_domains
from hf_dataselect.cli.main import main
from hf_dataselect.data.records import Records
from hf_dataselect.engines.store.checked import read_json
from hf_dataselect.evaluation.comparison.comparison import compare_runs
from hf_dataselect.evaluation.guard import HARMED, HELPED, NO_DIFFERENCE, change_of
from hf_dataselect.evaluation.report.report import to_markdown
from hf_dataselect.evaluation.report.sections import sections
from hf_dataselect.training import guard
from tests.online import sources
from tests.rows import alpaca, layout
from tests.tiny_training import tiny_trainer, write_recipe


def test_verdicts_are_by_one_sided_bounds():
    draw = np.random.default_rng(0)
    before = np.ones(200)
    noise = draw.normal(0, 0.1, 200)
    noise -= noise.mean()
    spread = t.ppf(0.95, 199) * noise.std(ddof=1) / np.sqrt(200)
    change = change_of(before, before + 0.005 + noise, 0.01)
    assert (change.loss, change.change) == pytest.approx((1.005, 0.005))
    assert (change.low, change.high) == pytest.approx((0.005 - spread, 0.005 + spread), abs=spread / 10)
    cases = {0.015: NO_DIFFERENCE, 0.03: HARMED, -0.005: NO_DIFFERENCE, -0.02: HELPED, 0.0: NO_DIFFERENCE}
    assert {shift: change_of(before, before + shift + noise, 0.01).verdict for shift in cases} == cases
    assert change_of(before, before + 0.015 + noise, 0.0).verdict == HARMED
    assert change_of(before, before + 0.03 + noise, 0.05).verdict == NO_DIFFERENCE


def test_rows_count_in_pairs_and_one_that_loses_its_loss_is_a_harm():
    draw = np.random.default_rng(1)
    before = draw.gamma(2, 1, 30)
    assert change_of(before, before * 1.02, 0.01).verdict == HARMED  # far within the spread of the rows
    assert change_of(before, before.copy(), 0.01).verdict == NO_DIFFERENCE
    before[3] = np.nan
    same = change_of(before, np.where(np.arange(30) == 3, 9.0, before), 0.01)
    assert (same.change, same.lost) == (0, 0) and same.loss == pytest.approx(np.nanmean(before))
    now = before.copy()
    now[5] = np.nan
    lost = change_of(before, now, 0.01)
    assert (lost.verdict, lost.lost, lost.change) == (HARMED, 1, np.inf)


def test_the_page_has_the_table_of_the_four_domains():
    file = four_domains.PAGE.parents[1] / "results" / "guard" / "four-domains.json"
    if not file.is_file():
        pytest.skip("the runs are not finished")
    assert four_domains.said(read_json(file)) in four_domains.PAGE.read_text(encoding="utf-8")


HELD_OUT = layout("prompt-completion", 24, seed=7)
DOMAINS = {"a": HELD_OUT.select(range(12)), "music": HELD_OUT.select(range(12, 24))}
GUARD = {"guard_dataset": DOMAINS, "eval_dataset": HELD_OUT.select(range(2)), "max_steps": 4, "save_steps": 2}
GUARD |= {"eval_strategy": "steps", "eval_steps": 2, "save_strategy": "steps", "selection_policy": "domains"}


def test_a_guard_measures_before_training_and_at_each_evaluation_also_after_a_resume(tmp_path, monkeypatch, caplog):
    rows, file = sources(20), tmp_path / "run" / "guard.json"
    trainer = tiny_trainer(tmp_path, train_dataset=rows, **GUARD)
    records = Records(DOMAINS["a"])
    before = guard.held_out_loss(records, trainer.context(cached=False)).mean
    trainer.train()
    assert "names 'music', which no row has in `source`" in caplog.text
    written = json.loads(file.read_text())
    assert written["domains"]["a"]["losses_before"] == pytest.approx(before, rel=1e-6)
    after = guard.held_out_loss(records, trainer.context(cached=False)).mean
    assert written["domains"]["a"]["losses"] == pytest.approx(after, rel=1e-6)
    assert written["domains"]["a"]["change"] == pytest.approx(np.mean(after) / np.mean(before) - 1)
    assert [entry["step"] for entry in written["history"]] == [2, 4]
    logged = [entry for entry in trainer.state.log_history if "guard/a/loss" in entry]
    assert [entry["step"] for entry in logged] == [2, 4] and logged[-1]["guard/music/verdict"] == 1
    assert logged[-1]["guard/a/change"] == written["domains"]["a"]["change"] < 0
    assert trainer.online.policy.state["held_out"][0] == 1 + trainer.guard.changes["a"].change
    text = to_markdown(sections(compare_runs([tmp_path / "run"])))
    assert "## Domains that were guarded" in text and "| run | music  | HELPED" in text
    assert "column='source', rate=0.5" in text

    measured, loss = [], guard.held_out_loss
    monkeypatch.setattr(guard, "held_out_loss", lambda *given, **named: measured.append(1) or loss(*given, **named))
    again = tiny_trainer(tmp_path, train_dataset=rows, **GUARD)
    again.train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-2"))
    assert json.loads(file.read_text()) == written and len(measured) == 2  # both domains, at the end only
    other = tiny_trainer(tmp_path, train_dataset=rows, **GUARD | {"guard_dataset": {"a": DOMAINS["music"]}})
    with pytest.raises(ValueError, match="was of other rows or domains"):
        other.train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-2"))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"guard_dataset": "rows.jsonl"}, "must name held-out rows by domain"),
        ({"guard_dataset": {}}, "must name held-out rows by domain"),
        ({"guard_dataset": "{a"}, "is not JSON"),
        ({"guard_dataset": {"a": 3}}, "`guard_dataset.a=3` must be"),
        ({"guard_dataset": {" ": "rows.jsonl"}}, "must be the name of a domain"),
        ({"guard_dataset": {"a": {"dataset": "rows.jsonl", "spilt": "test"}}}, "did you mean 'split'"),
        ({"guard_dataset": {"a": "rows.jsonl"}}, "there is no file 'rows.jsonl'"),
        ({"guard_dataset": {"a": HELD_OUT.select(range(9))}}, "`guard_dataset.a` has 9 rows, too few"),
        ({"guard_dataset": {"a": HELD_OUT.select([])}}, "`guard_dataset.a` has no rows"),
        ({"guard_dataset": {"a": Dataset.from_dict({"input_ids": [[5]] * 12})}}, "already tokenized"),
        ({"guard_dataset": {"token": "rows.jsonl"}}, "'token' is what options with secrets are called"),
        ({"guard_harm": -0.1}, "`guard_harm=-0.1` must be at least 0"),
        ({"guard_harm": 0.05, "guard_dataset": None}, "`guard_harm=0.05` needs `guard_dataset`"),
        (
            {"guard_dataset": {"a": HELD_OUT}, "fsdp": True, "fsdp_config": {"version": 1}},
            "`guard_dataset.a` has not been run under FSDP1: use FSDP2",
        ),
    ],
)
def test_what_can_t_guard_is_refused_by_name(tmp_path, options, said):
    with pytest.raises(ValueError, match=said):
        tiny_trainer(tmp_path, train_dataset=sources(), **options)


def test_streamed_rows_can_t_guard(tmp_path):
    with pytest.raises(TypeError, match="`guard_dataset.a` is an `IterableDataset`"):
        tiny_trainer(tmp_path, guard_dataset={"a": HELD_OUT.to_iterable_dataset()})


def test_rows_without_a_loss_before_training_are_told_and_too_few_are_refused(tmp_path):
    trainer = tiny_trainer(tmp_path, train_dataset=sources(), guard_dataset={"a": HELD_OUT}, max_length=8)
    with pytest.raises(ValueError, match=r"only \d of 24 rows have a loss before training"):
        trainer.train()


def test_the_command_ends_with_3_once_all_is_saved_if_a_domain_is_harmed(tmp_path, capsys, caplog):
    recipe = write_recipe(tmp_path, selection_method="full", selection_kwargs={}, learning_rate=3.0, max_steps=3)
    alpaca(12, seed=5).to_json(tmp_path / "a.jsonl")
    content = yaml.safe_load(recipe.read_text()) | {"guard_dataset": {"a": str(tmp_path / "a.jsonl")}}
    del content["selection_budget"]
    recipe.write_text(yaml.safe_dump(content | {"guard_dataset": {"a": str(tmp_path / "a.jsonl")}}))
    with pytest.raises(SystemExit) as left:
        main(["train", "--config", str(recipe), "--fail_on_harm"])
    assert left.value.code == 3 and "HARMED by this training: a" in capsys.readouterr().out
    assert {"guard.json", "eval.json", "model.safetensors", "README.md"} <= {
        path.name for path in (tmp_path / "run").iterdir()
    }
    assert json.loads((tmp_path / "run" / "guard.json").read_text())["domains"]["a"]["verdict"] == HARMED
    alpaca(12).to_json(tmp_path / "a.jsonl")  # candidates
    main(["train", "--config", str(recipe), "--guard_harm", "1e9", "--fail_on_harm"])
    assert "12 of 24 rows of `train_dataset` are also in `guard_dataset.a`" in caplog.text
    also = json.loads((tmp_path / "run" / "selection.json").read_text())["facts"]["also_in"]
    assert also["guard_dataset.a"]["kept"] == 12
