"""Every option of every command, with a value that is not its default, reaches what it is for."""

import json
from functools import partial
from pathlib import Path

import pytest
import yaml
from transformers import TrainerCallback
from trl import ScriptArguments, SFTConfig

from hf_dataselect.cli import compare, judge_check, report
from hf_dataselect.cli.main import COMMANDS, main
from hf_dataselect.cli.parsers import scenario_parser
from hf_dataselect.data.load import load_rows
from hf_dataselect.diversity import Diversity
from hf_dataselect.engines.llm.judge_options import JudgeOptions
from hf_dataselect.evaluation.judging.judge_check import agreement
from hf_dataselect.training import recipe, trainer
from hf_dataselect.training.config import DataSelectingConfig
from hf_dataselect.training.recipe import DataArguments
from tests.cli import test_cache, test_training_options
from tests.cli.given_options import PUSHES, Stop, as_arguments, own
from tests.reported_runs import answered, candidates, make_run, tables
from tests.rows import alpaca
from tests.tiny import tiny_tokenizer
from tests.tiny_training import write_recipe


# select and train ----------------------------------------------------------------------------------------------------

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

    def select(records, selector, budget, ctx, may_keep_none):
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
    tested = [
        name for name in (*globals(), *vars(test_cache), *vars(test_training_options)) if name.startswith("test_")
    ]
    for command in COMMANDS:
        assert any(f"_{command.replace('-', '_')}_" in name for name in tested), command
