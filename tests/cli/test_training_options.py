"""Options of commands that train many times: each, with a value that is not its default, reaches what it should."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from trl import ScriptArguments, SFTConfig

from hf_dataselect.cli import compare, fit_rule
from hf_dataselect.cli.main import main
from hf_dataselect.data.records import Records
from hf_dataselect.engines.llm.judge_options import JudgeOptions
from hf_dataselect.features.text_statistics import TEXT_FEATURES
from hf_dataselect.fitted.rules.fit_rule import FitRuleArguments, draw_subset
from hf_dataselect.fitted.rules.rule import AttentionRule
from hf_dataselect.fitted.scorers import train_scorer
from hf_dataselect.fitted.scorers.train_scorer import ScorerArguments
from hf_dataselect.training import comparison
from hf_dataselect.training.audit_arguments import AuditArguments
from hf_dataselect.training.compare_arguments import CompareArguments
from tests.cli.given_options import PUSHES, Stop, as_arguments, own, rewrite
from tests.rows import alpaca
from tests.tiny import tiny_tokenizer
from tests.tiny_training import write_recipe


def test_options_of_compare_reach_the_runs_and_the_report(tmp_path, monkeypatch, judges):
    options = {
        "methods": ["ifd", "length"],
        "budgets": ["0.25", "9"],
        "method_budgets": '{"length": 12}',
        "seeds": ["3", "4"],
        "method_kwargs": '{"ifd": {"warmup": "none"}}',
        "equal": "tokens",
        "save_models": "false",
        "count_by": "rating",
    }
    assert options.keys() == own(CompareArguments) - PUSHES
    path = write_recipe(tmp_path, output_dir=str(tmp_path / "runs"), judge="model:some", judge_kwargs={"max_calls": 9})
    rewrite(path, lambda name: name not in ("selection_method", "selection_kwargs", "selection_budget", "max_steps"))
    made, compared = [], SimpleNamespace()
    (tmp_path / "runs" / "full-seed3" / "answers").mkdir(parents=True)
    (tmp_path / "runs" / "full-seed3" / "answers" / "koala.jsonl").touch()
    monkeypatch.setattr(comparison.PlannedRun, "build", lambda self: None)
    monkeypatch.setattr(
        compare, "carry_out", lambda run, trainer, save: made.append((run.folder.name, run, save)) or {}
    )
    monkeypatch.setattr(compare, "compare_runs", lambda folders: setattr(compared, "runs", folders) or compared)
    monkeypatch.setattr(compare, "add_wins", lambda compared, judge: setattr(compared, "judge", judge))
    monkeypatch.setattr(
        compare, "add_rows", lambda compared, records, by: setattr(compared, "rows", (len(records), by))
    )
    monkeypatch.setattr(compare, "sections", lambda compared: [])
    monkeypatch.setattr(compare, "conclusion", lambda compared: [])
    monkeypatch.setattr(compare, "update_cards", lambda compared: [])
    monkeypatch.setattr(compare, "write_report", lambda compared, folder: setattr(compared, "folder", folder) or [])
    main(["compare", "--config", str(path), *as_arguments(options)])
    names = ["full", "random-0.25", "random-9", "random-12", "ifd-0.25", "ifd-9", "length-12"]
    assert [name for name, _, _ in made] == [f"{name}-seed{seed}" for seed in (3, 4) for name in names]
    for name, run, save in made:
        method, *budget, seed = name.split("-")
        given = run.given
        assert run.recipe.more.equal == run.settings["equal"] == "tokens"
        assert given["selection_method"] == method and given["seed"] == int(seed[4:]) and save is False
        assert given["selection_budget"] == (float(budget[0]) if budget else None)
        assert given["selection_kwargs"] == ({"warmup": "none"} if method == "ifd" else None)
    assert [folder.name for folder in compared.runs] == [name for name, _, _ in made]
    assert compared.rows == (24, "rating") and compared.folder == tmp_path / "runs" / "report"
    assert judges.given == ("model:some", JudgeOptions(max_calls=9), tmp_path / "cache")


def test_options_of_audit_reach_the_subsets_and_the_top_rows(tmp_path, monkeypatch):
    options = {
        "methods": [
            "length,random",
            '{"method": "indicator", "selection_kwargs": {"prefer": "low"}, "name": "short"}',
        ],
        "subsets": "9",
        "subset_rows": "5",
        "top_seeds": "3",
    }
    assert options.keys() == own(AuditArguments)
    trained = []

    class Loss:
        unscorable, seconds, train_seconds = {}, 1.0, 1.0

        def __init__(self, records, held_out, ctx, settings):
            self.key, self.settings, self.held_out = str(settings.seed), settings, len(held_out)

        def untrained(self):
            return np.full(self.held_out, 3.0)

        def by_row(self, rows):
            trained.append((self.settings, tuple(rows.tolist())))
            return np.arange(self.held_out) + rows.mean() / 99

    monkeypatch.setattr("hf_dataselect.training.trained_losses.TunedLoss", Loss)
    path = write_recipe(tmp_path)
    rewrite(path, lambda name: name not in ("selection_method", "selection_kwargs", "selection_budget"))
    main(["audit", "--config", str(path), "--seed", "5", "--max_grad_norm", "0.5", *as_arguments(options)])
    audit = json.loads((tmp_path / "run" / "audit.json").read_text())
    assert {found["name"] for found in audit["findings"]} == {"length", "random", "short"}
    assert (audit["subsets"], audit["subset_rows"], audit["seeds"]) == (9, 5, 3)
    assert "selection_target" in audit["left_out"]["bm25"]
    assert [settings.seed for settings, _ in trained] == [5] * (9 + 3) + [6] * 3 + [7] * 3
    assert {len(rows) for _, rows in trained} == {5} and len({rows for _, rows in trained}) == 9 + 3
    given = [settings.arguments(5, 1) for settings, _ in trained]
    assert all(one["max_grad_norm"] == 0.5 and one["max_steps"] == 2 for one in given)
    assert [one["seed"] for one in given] == [settings.seed for settings, _ in trained]


@pytest.mark.parametrize("tuning", ["lora", "full"])
def test_options_of_fit_rule_reach_the_subsets_and_the_fit(tuning, tmp_path, monkeypatch):
    options = {
        "indicators": ["len", "mtld"],
        "regressor": "attention" if tuning == "full" else "linear",
        "subsets": "6",
        "subset_rows": "5",
        "tuning": tuning,
        "tuning_learning_rate": "0.03",
        "lean": "0.5",
    }
    assert options.keys() == own(FitRuleArguments)
    drawn, tuned = [], []

    class Loss:
        unscorable, described, key = {}, {"rows": "", "held_out": "", "settings": ""}, "key"

        def __init__(self, records, held_out, ctx, settings):
            tuned.append((len(records), len(held_out), settings))

        def __call__(self, rows):
            drawn.append(rows.tolist())
            return 1 + len(drawn) / 9

    monkeypatch.setattr("hf_dataselect.fitted.rules.fit_rule.TunedLoss", Loss)
    rules = []
    monkeypatch.setattr(
        fit_rule, "fit_rule", lambda *given, fit=fit_rule.fit_rule: rules.append(fit(*given)) or rules[0]
    )
    path = write_recipe(tmp_path, selection_method="instruction_mining", selection_kwargs=None)
    main(["fit-rule", "--config", str(path), *as_arguments(options)])
    (rule,), ((n, held_out, settings),) = rules, tuned
    assert (n, held_out, settings.method, settings.learning_rate) == (24, 6, tuning, 0.03)
    assert list(rule.columns) == ["len", "mtld"] and rule.subsets == 6
    assert isinstance(rule, AttentionRule) == (tuning == "full")
    records = Records(alpaca())
    values = np.array(
        [[len(tiny_tokenizer()(r.answer)["input_ids"]), TEXT_FEATURES["mtld"].of(r.answer)] for r in records]
    )
    assert drawn == [draw_subset(values, np.arange(24), 5, 0.5, [42, number]).tolist() for number in range(6)]


def test_options_of_train_scorer_reach_the_judge_and_the_rows(tmp_path, monkeypatch, judges):
    options = {
        "kind": "quality",
        "judge": "model:some",
        "judge_kwargs": '{"max_calls": 9}',
        "seed_rows": "8",
        "rounds": "2",
        "held_out": "0.25",
        "max_characters": "90",
        "selection_cache_dir": str(tmp_path / "kept"),
    }
    assert options.keys() == own(ScorerArguments, ScriptArguments)
    found = SimpleNamespace()

    def evolved(pairs, judge, kind, rounds, seed):
        found.pairs, found.how = pairs, (judge.name, kind, rounds, seed)
        return [{"prompt": "p", "completion": "1", "row": row} for row in range(8)], {}

    def trains(model, args, train_dataset, **given):
        found.rows = len(train_dataset)
        raise Stop

    monkeypatch.setattr(train_scorer, "evolved_rows", evolved)
    monkeypatch.setattr(train_scorer, "SFTTrainer", trains)
    path = write_recipe(tmp_path)
    rewrite(
        path, lambda name: name in SFTConfig.__dataclass_fields__ or name in ("model_name_or_path", "dataset_name")
    )
    with pytest.raises(Stop):
        main(["train-scorer", "--config", str(path), "--seed", "5", *as_arguments(options)])
    assert found.how == ("model:some", "quality", 2, 5) and found.rows == 6
    lengths, short = [[len(r.prompt) + len(r.answer) for r in Records(alpaca())], [len(q + a) for q, a in found.pairs]]
    assert len(short) == 8 and max(short) <= 90 < max(lengths) and sum(length <= 90 for length in lengths) > 8
    assert judges.given == ("model:some", JudgeOptions(max_calls=9), tmp_path / "kept")
