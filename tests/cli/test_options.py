"""Every option of every command, with a value that is not its default, reaches what it is for."""

import argparse
import dataclasses
import json
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import yaml
from transformers import TrainerCallback
from trl import ScriptArguments, SFTConfig

from hf_dataselect.cli import compare, fit_rule, judge_check, report
from hf_dataselect.cli.main import COMMANDS, main
from hf_dataselect.cli.parsers import scenario_parser
from hf_dataselect.data.load import load_rows
from hf_dataselect.data.records import Records
from hf_dataselect.diversity import Diversity
from hf_dataselect.engines.llm.judge_options import JudgeOptions
from hf_dataselect.evaluation.judging.judge_check import agreement
from hf_dataselect.features.text_statistics import TEXT_FEATURES
from hf_dataselect.fitted.rules.fit_rule import FitRuleArguments, draw_subset
from hf_dataselect.fitted.rules.rule import AttentionRule
from hf_dataselect.fitted.scorers import train_scorer
from hf_dataselect.fitted.scorers.train_scorer import ScorerArguments
from hf_dataselect.training import comparison, recipe, trainer
from hf_dataselect.training.audit_arguments import AuditArguments
from hf_dataselect.training.compare_arguments import CompareArguments
from hf_dataselect.training.config import DataSelectingConfig
from hf_dataselect.training.recipe import DataArguments
from tests.cli import test_cache
from tests.evaluation.judging.test_win_rate import Scripted
from tests.evaluation.report.test_report import answered, candidates, make_run, tables
from tests.rows import alpaca
from tests.tiny import tiny_tokenizer
from tests.tiny_training import write_recipe


class Stop(Exception):
    """The option has reached what it is for."""


def own(kind: type, *bases: type) -> set[str]:
    """Fields of a dataclass that none of its bases has."""
    return {item.name for item in dataclasses.fields(kind)} - {
        i.name for base in bases for i in dataclasses.fields(base)
    }


def as_arguments(options: dict) -> list[str]:
    return [
        part
        for name, value in options.items()
        for part in (f"--{name}", *(value if isinstance(value, list) else [value]))
    ]


def rewrite(recipe: Path, keeps) -> None:
    """A recipe with only those of its options that a command has."""
    options = yaml.safe_load(recipe.read_text())
    recipe.write_text(yaml.safe_dump({name: value for name, value in options.items() if keeps(name)}))


class Judges:
    """`load_judge` that records what it is given; the judge scores an answer by the number in it."""

    def __call__(self, spec, options, runtime, **current):
        self.spec, self.options, self.runtime, self.lengths = spec, options, runtime, set()
        judge, answer = Scripted(), Scripted._answer
        judge.runtime, judge.name = runtime, spec
        judge._answer = lambda questions, length, label: (
            self.lengths.add(length) or answer(judge, questions, length, label)
        )
        return judge

    @property
    def given(self) -> tuple:
        return self.spec, self.options, self.runtime.cache_dir


@pytest.fixture
def judges(monkeypatch) -> Judges:
    found = Judges()
    for module in ("cli.judge_check", "cli.compare", "plan", "training.trainer", "fitted.scorers.train_scorer"):
        monkeypatch.setattr(f"hf_dataselect.{module}.load_judge", found)
    return found


@pytest.fixture
def parsed(monkeypatch) -> dict:
    """Options of a command that has no dataclass of its own, filled as they are parsed."""
    found, parse = {}, argparse.ArgumentParser.parse_args
    monkeypatch.setattr(
        argparse.ArgumentParser, "parse_args", lambda *given: found.update(vars(options := parse(*given))) or options
    )
    return found


# select and train ----------------------------------------------------------------------------------------------------

#: What writes cards and pushes: tested in tests/runs/test_publish.py and tests/evaluation/report/test_model_card.py.
PUSHES = {"hub_subset_id", "hub_report_id", "update_cards"}
#: What selects while training: tested in tests/training/test_online.py and test_selecting_again.py.
ONLINE = {"selection_policy", "selection_policy_kwargs", "selection_schedule"}
#: What guards domains: tested in tests/training/test_guard.py.
ONLINE |= {"guard_dataset", "guard_harm"}
#: Options that `select` and `train` share with TRL, and that decide what is selected from what.
SHARED = {"seed", "max_length", "dataset_num_proc", "gradient_checkpointing", "dataset_text_field", "use_cpu"}
SHARED |= {"dataset_config", "dataset_train_split", "dataset_test_split", "chat_template_path", "eos_token"}
EVALUATION = {"baseline_dir", "benchmarks", "benchmark_metrics", "benchmark_max_new_tokens"}
EVALUATION |= {"eval_dataset_name", "eval_dataset_config", "dataset_test_split"}


@pytest.mark.parametrize(("command", "judge"), [("select", "model:some"), ("select", "self"), ("train", "self")])
def test_options_of_select_and_train_reach_the_selection(command, judge, tmp_path, monkeypatch, judges):
    """AlpaGasus runs the model with `judge: self` only; without, `select` loads no model."""
    path, loaded, found = write_recipe(tmp_path), [], {}
    alpaca(5, seed=8).to_json(tmp_path / "target.jsonl")
    (tmp_path / "other.jinja").write_text(tiny_tokenizer().chat_template.replace("<|assistant|>", "Answer:"))

    def load(name, *given, **options):
        loaded.append((Path(name).name, given or options))
        if "stream_rows" in options:
            found["selection_stream_rows"] = options["stream_rows"]
        return load_rows(name)

    def select(records, selector, budget, ctx):
        runtime, template = ctx.runtime, ctx.tokenizer.chat_template
        found.update(
            selection_method=type(selector).__name__,
            selection_kwargs=selector.threshold,
            selection_budget=budget.value,
            selection_budget_by=budget.groups.column,
            selection_diversity=ctx.diversity,
            selection_target=len(ctx.target),
            selection_cache_dir=runtime.cache_dir,
            selection_batch_tokens=runtime.batch_tokens,
            selection_dtype=runtime.dtype,
            use_vllm=runtime.vllm_memory is not None,
            vllm_gpu_memory_utilization=runtime.vllm_memory,
            judge=ctx.judge.name,
            judge_kwargs=judges.options,
            seed=ctx.seed,
            max_length=ctx.max_length,
            dataset_num_proc=runtime.num_proc,
            gradient_checkpointing=runtime.gradient_checkpointing,
            dataset_text_field=records.text_field,
            use_cpu=runtime.device.type == "cpu",
            chat_template_path="Answer:" in template,
            eos_token=ctx.tokenizer.eos_token,
        )
        raise Stop

    def evaluate(trainer, benchmarks, baseline_dir):
        (held_out, named) = benchmarks
        found.update(baseline_dir=baseline_dir, eval_dataset_name=len(held_out.records), benchmarks=named.name)
        found.update(benchmark_metrics=held_out.metrics, benchmark_max_new_tokens=held_out.max_new_tokens)
        return TrainerCallback()

    monkeypatch.setattr(recipe, "load_rows", load)
    monkeypatch.setattr("hf_dataselect.plan.select", select)
    monkeypatch.setattr("hf_dataselect.training.config.check_vllm", lambda memory: None)
    if command == "train":
        monkeypatch.setattr(trainer, "PIRCallback", evaluate)
    elif judge != "self":
        monkeypatch.setattr(trainer.DataSelectingTrainer, "__init__", None)
    named = json.dumps([{"kind": "held_out", "dataset": str(tmp_path / "target.jsonl"), "name": "more"}])
    expected = {
        "selection_method": ("alpagasus", "AlpaGasus"),
        "selection_kwargs": ('{"threshold": 3.5}', 3.5),
        "selection_budget": ("7", 7),
        "selection_budget_by": ("rating", "rating"),
        "selection_diversity": ('{"kind": "filter", "threshold": 0.4, "encoder": "some/encoder"}',) * 2,
        "selection_target": (str(tmp_path / "target.jsonl"), 5),
        "selection_cache_dir": (str(tmp_path / "kept"), tmp_path / "kept"),
        "selection_batch_tokens": ("77", 77),
        "selection_dtype": ("float16", "float16"),
        "selection_stream_rows": ("99", 99),
        "use_vllm": ("true", True),
        "vllm_gpu_memory_utilization": ("0.7", 0.7),
        "judge": (judge, judge),
        "judge_kwargs": ('{"max_calls": 9}', JudgeOptions(max_calls=9)),
        "seed": ("7", 7),
        "max_length": ("48", 48),
        "dataset_num_proc": ("2", 2),
        "gradient_checkpointing": (str(judge == "self"), judge == "self"),  # TRL's default is not the runtime's
        "dataset_text_field": ("other", "other"),
        "use_cpu": ("true", True),
        "dataset_config": ("some", None),
        "dataset_train_split": ("mine", None),
        "dataset_test_split": ("yours", None),
        "chat_template_path": (str(tmp_path / "other.jinja"), True),
        "eos_token": ("<|user|>", "<|user|>"),
        "baseline_dir": ("runs/full", "runs/full"),
        "benchmarks": (named, "more"),
        "benchmark_metrics": (["exact_match"], ["exact_match"]),
        "benchmark_max_new_tokens": ("5", 5),
        "eval_dataset_name": (str(tmp_path / "heldout.jsonl"), 6),
        "eval_dataset_config": ("another", None),
    }
    ours = own(DataSelectingConfig, SFTConfig) - PUSHES - ONLINE
    assert expected.keys() == ours | own(DataArguments, ScriptArguments) | SHARED
    with monkeypatch.context() as patch, pytest.raises(Stop):
        patch.setattr(Diversity, "check", lambda self: None)  # the encoder does not exist
        main([command, "--config", str(path), *as_arguments({name: value for name, (value, _) in expected.items()})])
    diversity = Diversity("filter", threshold=0.4, encoder="some/encoder")
    expected["selection_diversity"] = None, diversity
    splits = [("rows.jsonl", ("some", "mine"))]
    splits += [("heldout.jsonl", ("another", "yours", "test", ["other"]))] if command == "train" else []
    assert loaded == splits
    reached = {name: value for name, (_, value) in expected.items() if value is not None}
    assert found == {name: value for name, value in reached.items() if command == "train" or name not in EVALUATION}


# compare -------------------------------------------------------------------------------------------------------------


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


# audit ---------------------------------------------------------------------------------------------------------------


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


# fit-rule and train-scorer -------------------------------------------------------------------------------------------


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


# judge-check, report and methods -------------------------------------------------------------------------------------


def test_options_of_judge_check_reach_the_judge_and_the_pairs(tmp_path, monkeypatch, judges, parsed, capsys):
    sets = {"one": 3, "two": 9}
    for name, n in sets.items():
        rows = [{"input": f"p{i}", "output_1": f"a {i}", "output_2": "b 4", "label": 1, "mine": 2} for i in range(n)]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    monkeypatch.setattr(judge_check, "agreement", partial(agreement, resamples=9))
    pairs, out = [str(tmp_path / f"{name}.jsonl") for name in sets], tmp_path / "out.json"
    options = {"judge": "model:some", "judge_kwargs": '{"max_calls": 9}', "cache_dir": str(tmp_path / "kept")}
    options |= {"max_new_tokens": "5", "limit": "4", "output_file": str(out)}
    main(["judge-check", *pairs, *as_arguments(options)])
    assert parsed.keys() == options.keys() | {"pairs", "replay"}
    assert judges.lengths == {5}
    assert judges.given == ("model:some", JudgeOptions(max_calls=9), tmp_path / "kept")
    written = json.loads(out.read_text())
    assert written["judge"] == "model:some" and [found["pairs"] for found in written["sets"].values()] == [3, 4]
    capsys.readouterr()
    main(["judge-check", *pairs, "--replay", "mine"])
    rows = [line.split("|")[1:4] for line in capsys.readouterr().out.splitlines()[2:4]]
    assert [[cell.strip() for cell in row] for row in rows] == [
        ["one", "3", "0.000 [0.000, 0.708]"],
        ["two", "9", "0.000 [0.000, 0.336]"],
    ]


def test_options_of_report_reach_the_comparison(tmp_path, monkeypatch, judges, parsed, capsys):
    runs = [
        make_run(tmp_path / "full"),
        make_run(tmp_path / "full2", loss=3.0),
        make_run(tmp_path / "ifd", "ifd", 1.5),
    ]
    for run, scores in zip(runs, ([5] * 20, [5] * 20, [9] * 15 + [1] * 5), strict=True):
        answered(run, scores)
    loaded = []
    monkeypatch.setattr(report, "load_rows", lambda *given: loaded.append(given) or candidates().dataset)
    options = {"baseline": str(runs[1]), "output_dir": str(tmp_path / "out"), "count_by": "fault"}
    options |= {"dataset_name": "some/rows", "dataset_config": "en", "dataset_train_split": "mine"}
    options |= {"judge": "model:some", "judge_kwargs": '{"max_calls": 9}', "cache_dir": str(tmp_path / "kept")}
    main(["report", *map(str, runs), *as_arguments(options)])
    assert parsed.keys() - PUSHES == options.keys() | {"runs"}
    shown, written = capsys.readouterr().out, (tmp_path / "out" / "report.md").read_text()
    assert loaded == [("some/rows", "en", "mine")]
    for found in map(tables, (shown, written)):
        assert [row["run"] for row in found["Runs"]] == ["full2 (BM)", "full", "ifd"]
        assert [row["PIR (wins rate)"] for row in found["Runs"]][::2] == ["", "3.000"]
        assert list(found["Rows kept by `fault`"][0]) == ["run", "none", "cut", "false"]
    assert judges.given == ("model:some", JudgeOptions(max_calls=9), tmp_path / "kept")


def test_options_of_scenario_reach_the_rows_and_the_comparisons(tmp_path, monkeypatch):
    alpaca(40).to_json(tmp_path / "rows.jsonl")
    (tmp_path / "places.yaml").write_text("{some/rows: rows.jsonl, some/model: model}")
    rows = {"dataset": "some/rows", "rows": 10}
    given = {
        "question": "Why?",
        "pool": [rows],
        "held_out": {"words": [rows]},
        "compare": {"model_name_or_path": "some/model"},
    }
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(given))
    commands = []
    monkeypatch.setattr(compare, "run", commands.append)
    options = {"sources": str(tmp_path / "places.yaml"), "output_dir": str(tmp_path / "out"), "pool_seed": "3"}
    options |= {"equal": ["tokens", "updates"]}
    main(["scenario", str(tmp_path / "mine.yaml"), *as_arguments(options), "--methods", "length", "bm25"])
    flags = {action.dest for action in scenario_parser()._actions} - {"help"}
    assert flags == options.keys() | {"name", "list", "dry_run"}  # the last two: test_scenario.py
    recipes = [str(tmp_path / "out" / f"{equal}.yaml") for equal in options["equal"]]
    assert commands == [["--config", recipe, "--methods", "length", "bm25"] for recipe in recipes]
    for equal, path in zip(options["equal"], recipes, strict=True):
        found = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
        assert found["equal"] == equal and found["output_dir"] == str(tmp_path / "out" / equal)
        assert found["model_name_or_path"] == str(tmp_path / "model")
    drawn = json.loads((tmp_path / "out" / "rows" / "drawn.json").read_text())
    assert drawn["asked"]["pool_seed"] == 3 and drawn["asked"]["pool"][0]["dataset"] == str(tmp_path / "rows.jsonl")
    monkeypatch.chdir(tmp_path)
    for seed in ("0", "3"):
        main(["scenario", "mine.yaml", "--sources", "places.yaml", "--pool_seed", seed])
    folders = {Path(path).parent for _, path, *_ in commands[2:]}
    assert folders == {Path("runs/scenarios/mine"), Path("runs/scenarios/mine-pool3")}


def test_the_option_of_methods_names_the_method_shown(parsed, capsys):
    main(["methods", "less"])
    assert parsed == {"name": "less", "question": None} and capsys.readouterr().out.startswith("less\n")


def test_the_option_of_recipe_names_the_file_that_is_printed(parsed, capsys):
    main(["recipe", "full"])
    assert parsed == {"name": "full"} and "selection_method: full" in capsys.readouterr().out


def test_the_command_env_has_no_options(parsed, capsys):
    main(["env"])
    assert parsed == {} and "- hf_dataselect: " in capsys.readouterr().out


def test_every_command_is_here():
    tested = [name for name in (*globals(), *vars(test_cache)) if name.startswith("test_")]
    for command in COMMANDS:
        assert any(f"_{command.replace('-', '_')}_" in name for name in tested), command
