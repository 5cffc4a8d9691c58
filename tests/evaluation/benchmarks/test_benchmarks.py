"""Benchmarks as recipes name them: what is refused, when they run, and what a run folder keeps of them."""

import json
import math

import numpy as np
import pytest
import torch
import yaml
from datasets import Dataset

from hf_dataselect.cli.main import main
from hf_dataselect.context import Context
from hf_dataselect.evaluation.benchmark import Setting, as_json, benchmark_kinds, from_json, load_benchmarks
from hf_dataselect.evaluation.comparison.comparison import compare_runs
from hf_dataselect.evaluation.judging.win_rate import read_answers
from hf_dataselect.evaluation.report.report import to_markdown
from hf_dataselect.evaluation.report.sections import sections
from hf_dataselect.runs.files import plain
from hf_dataselect.training.compare_arguments import CompareArguments
from hf_dataselect.training.comparison import plan
from hf_dataselect.training.config import DataSelectingConfig
from hf_dataselect.training.recipe import parse_recipe
from tests.evaluation.benchmarks.test_multiple_choice import MMLU, write
from tests.evaluation.test_metrics import local_metric
from tests.rows import alpaca
from tests.tiny import context_of, tiny_model, tiny_tokenizer
from tests.tiny_training import tiny_trainer, write_recipe


SUMS = [
    {"question": f"What is {a} plus {b}?", "answer": f"{a} and {b} are <<{a}+{b}={a + b}>>{a + b}.\n#### {a + b}"}
    for a, b in ((1, 2), (30, 4), (500, 700))
]


def context(**options) -> Context:
    tokenizer = tiny_tokenizer()
    return context_of(tokenizer, tiny_model(tokenizer), dtype="float32", **options)


@pytest.mark.parametrize(
    ("described", "message"),
    [
        (
            [{"kind": "multiple_choise", "dataset": "x"}],
            "`kind='multiple_choise'` does not exist; did you mean 'multi",
        ),
        (
            [{"kind": "no_such_module:Mine"}],
            r"`benchmarks\[0\]`: `kind='no_such_module:Mine'` can't be imported: No module",
        ),
        ([{"kind": "hf_dataselect:Budget"}], "is not a `Benchmark`"),
        ([{"dataset": "x"}], "`kind='None'` does not exist. Known: generation, gsm8k"),
        ([{"kind": "gsm8k"}], r"`benchmarks\[0\]`: 'gsm8k' needs `dataset`"),
        ([{"kind": "gsm8k", "dataset": "x", "limt": 3}], "has no option 'limt'; did you mean 'limit'"),
        ([{"kind": "gsm8k", "dataset": "x", "limit": "many"}], "limit='many' must be"),
        ([{"kind": "gsm8k", "dataset": "x", "limit": 0}], "`limit=0` must be at least 1"),
        ([{"kind": "gsm8k", "dataset": "x", "max_new_tokens": 0}], "`max_new_tokens=0` must be at least 1"),
        ([{"kind": "gsm8k", "dataset": "x", "template": "go"}], r"must contain \{question\}"),
        ([{"kind": "generation", "dataset": "x", "metrics": []}], "`metrics` is empty"),
        ([{"kind": "generation", "dataset": "x", "columns": {"qestion": "a"}}], "did you mean 'question'"),
        ([{"kind": "multiple_choice", "dataset": "x", "answer_with": "word"}], "must be one of 'letter', 'text'"),
        ([{"kind": "mt_bench", "dataset": "x", "judge_tokens": 0}], "`judge_tokens=0` must be at least 1"),
        ([{"kind": "multiple_choice", "dataset": "x", "shots": -1}], "`shots=-1` must be at least 0"),
        (
            [{"kind": "multiple_choice", "dataset": "x", "shots": 1, "split": "dev"}],
            "is the evaluated split",
        ),
        ([{"kind": "held_out", "dataset": "x", "columns": {"question": "a"}}], "`columns` is not supported"),
        ([{"kind": "gsm8k", "dataset": "a/x.jsonl"}, {"kind": "gsm8k", "dataset": "b/x.jsonl"}], "name 'x' is taken"),
        ([{"kind": "gsm8k", "dataset": "x", "name": "a/b"}], "may only contain letters"),
        ("[{", "is not JSON"),
        ("3", "must be a list of mappings"),
        (["gsm8k"], "must be a list of mappings"),
    ],
)
def test_wrong_benchmarks_are_refused_with_the_right_name(tmp_path, described, message):
    with pytest.raises(ValueError, match=message):
        DataSelectingConfig(str(tmp_path), use_cpu=True, bf16=False, benchmarks=described)


def test_benchmarks_are_typed_from_yaml_and_json(tmp_path):
    given = [{"kind": "multiple_choice", "dataset": "mmlu.jsonl.gz", "limit": "200", "at_end": "true"}]
    for described in (given, json.dumps(given), json.dumps(given[0])):
        (benchmark,) = load_benchmarks(described)
        assert (benchmark.limit, benchmark.at_end, benchmark.name) == (200, True, "mmlu")
    assert load_benchmarks(None) == load_benchmarks([]) == []


def test_only_cheap_kinds_run_at_every_evaluation():
    options = {"lm_eval": {"tasks": ["a"]}}
    at_end = {}
    for kind in benchmark_kinds():
        try:
            at_end[kind] = load_benchmarks([{"kind": kind, **options.get(kind, {"dataset": "x"})}])[0].at_end
        except ImportError as error:
            assert kind == "lm_eval" and "hf_dataselect[lm-eval]" in str(error)
            at_end[kind] = True
    assert {kind for kind, late in at_end.items() if not late} == {"held_out", "multiple_choice"}


def test_settings_survive_json():
    settings = {"a": Setting(0.5, True, [1.0, float("nan"), 0.0], {"x": float("nan")}), "b": Setting(math.nan, False)}
    again = from_json(json.loads(json.dumps(plain(as_json(settings)))))
    assert as_json(again).keys() == {"a", "b"} and math.isnan(again["b"].score) and again["b"].examples is None
    assert np.array_equal(again["a"].examples, settings["a"].examples, equal_nan=True)
    assert math.isnan(again["a"].parts["x"])


def test_a_run_with_named_benchmarks(tmp_path):
    benchmarks = [
        {"kind": "multiple_choice", "dataset": write(tmp_path, MMLU)},
        {"kind": "gsm8k", "dataset": write(tmp_path, SUMS, "sums.jsonl"), "max_new_tokens": 4},
        {"kind": "instructions", "dataset": write(tmp_path, SUMS, "chat.jsonl"), "max_new_tokens": 4, "limit": 2},
    ]
    options = {"eval_strategy": "steps", "eval_steps": 1, "eval_dataset": alpaca(4, seed=7), "max_steps": 2}
    trainer = tiny_trainer(tmp_path, benchmarks=benchmarks, **options)
    trainer.train()
    evaluation = json.loads((tmp_path / "run" / "eval.json").read_text())
    assert {*evaluation["settings"]} == {
        "answer_loss",
        "token_accuracy",
        "mmlu/accuracy",
        "sums/numeric_match",
    }
    assert len(evaluation["settings"]["mmlu/accuracy"]["examples"]) == 6
    assert {*evaluation["protocol"]} == {"", "mmlu", "sums", "chat"}
    first, last = evaluation["history"]
    assert "benchmark/mmlu/accuracy" in first and "benchmark/sums/numeric_match" not in first
    assert "benchmark/mmlu/accuracy" in last and "benchmark/sums/numeric_match" in last
    logged = [entry for entry in trainer.state.log_history if "benchmark/mmlu/accuracy" in entry]
    assert len(logged) == 2
    lines = [json.loads(line) for line in (tmp_path / "run" / "answers" / "chat.jsonl").read_text().splitlines()]
    assert [line.keys() for line in lines] == [{"run", "id", "question", "answer"}] * 2
    assert [line["id"] for line in lines] == ["0", "2"] and lines[1]["question"] == SUMS[2]["question"]
    assert all(isinstance(line["answer"], str) for line in lines)

    again = tiny_trainer(
        tmp_path / "sem",
        "random",
        selection_budget=6,
        benchmarks=benchmarks,
        baseline_dir=str(tmp_path / "run"),
        **options,
    )
    again.train()
    pir = json.loads((tmp_path / "sem" / "run" / "eval.json").read_text())["pir"]
    assert {*pir["settings"], *pir["left_out"]} == {*evaluation["settings"]}
    table = to_markdown(sections(compare_runs([tmp_path / "run", tmp_path / "sem" / "run"])))
    assert "mmlu/accuracy" in table and "sums/numeric_match" in table
    kept = {"chat": [SUMS[0]["question"], SUMS[2]["question"]]}, {"chat": [line["answer"] for line in lines]}
    assert read_answers(tmp_path / "run") == kept
    benchmarks[0]["limit"] = 3
    with pytest.raises(ValueError, match="was not evaluated on the same rows"):
        tiny_trainer(tmp_path / "other", benchmarks=benchmarks, baseline_dir=str(tmp_path / "run"), **options)


def test_benchmarks_alone_are_enough_to_compare_on(tmp_path):
    benchmarks = [{"kind": "multiple_choice", "dataset": write(tmp_path, MMLU)}]
    tiny_trainer(tmp_path, benchmarks=benchmarks).train()
    trainer = tiny_trainer(tmp_path / "sem", benchmarks=benchmarks, baseline_dir=str(tmp_path / "run"))
    trainer.train()
    evaluation = json.loads((tmp_path / "sem" / "run" / "eval.json").read_text())
    assert {*evaluation["settings"]} == {"mmlu/accuracy"}
    accuracy = evaluation["settings"]["mmlu/accuracy"]["score"]
    assert evaluation["pir"]["settings"] == ({"mmlu/accuracy": 1.0} if accuracy else {})


def test_bad_benchmark_rows_are_refused_before_any_weights_load(tmp_path):
    path = write(tmp_path, [{"question": "?"}], "bad.jsonl")
    for kind, message in (("multiple_choice", "not answer or"), ("gsm8k", "not answer or")):
        with pytest.raises(ValueError, match=message):
            tiny_trainer(tmp_path, model="no/such-model", benchmarks=[{"kind": kind, "dataset": path}])
    with pytest.raises(ValueError, match="Metric 'nothing' could not be loaded"):
        benchmarks = [{"kind": "generation", "dataset": write(tmp_path, SUMS, "s.jsonl"), "metrics": ["nothing"]}]
        tiny_trainer(tmp_path, model="no/such-model", benchmarks=benchmarks)
    with pytest.raises(ValueError, match="`eval_dataset` is called 'mmlu' too"):
        benchmarks = [{"kind": "multiple_choice", "dataset": write(tmp_path, MMLU)}]
        tiny_trainer(tmp_path, model="no/such-model", benchmarks=benchmarks, eval_dataset={"mmlu": alpaca(2)})


def test_a_split_of_a_benchmark_file_is_taken_or_refused(tmp_path):
    rows = [{"question": f"What is {i}?", "answer": f"00{i}"} for i in range(6)]
    Dataset.from_list(rows).to_csv(tmp_path / "quiz.csv")
    described = {"kind": "generation", "dataset": str(tmp_path / "quiz.csv"), "metrics": ["exact_match"]}
    for split, kept in ({"test": 6, "train": 6, "test[:2]": 2, "train[50%:]": 3}).items():
        (quiz,) = load_benchmarks([{**described, "split": split}])
        quiz.prepare()
        assert len(quiz.asked()) == kept and "'00" in repr(quiz.questions[-1].references)
    (quiz,) = load_benchmarks([{**described, "split": "validation"}])
    with pytest.raises(ValueError, match="Unknown split"):
        quiz.prepare()


def test_a_recipe_names_benchmarks_and_the_run_folder_repeats_them(tmp_path):
    benchmarks = [{"kind": "multiple_choice", "dataset": write(tmp_path, MMLU), "limit": 2}]
    recipe = write_recipe(tmp_path, selection_method="random", selection_kwargs={}, benchmarks=benchmarks)
    main(["train", "--config", str(recipe)])
    written = yaml.safe_load((tmp_path / "run" / "recipe.yaml").read_text())
    assert written["benchmarks"] == benchmarks
    benchmarks[0]["limit"] = 3
    main(["train", "--config", str(recipe), "--benchmarks", json.dumps(benchmarks)])
    settings = json.loads((tmp_path / "run" / "eval.json").read_text())["settings"]
    assert len(settings["mmlu/accuracy"]["examples"]) == 3
    main(["select", "--config", str(recipe), "--benchmarks", '[{"kind": "gsm8k", "dataset": "/nowhere.jsonl"}]'])


def test_an_evaluation_that_fails_loses_no_model(tmp_path, monkeypatch):
    from hf_dataselect.evaluation.benchmarks.multiple_choice import MultipleChoice

    def fail(*args):
        raise RuntimeError("out of everything")

    monkeypatch.setattr(MultipleChoice, "score", fail)
    benchmarks = [{"kind": "multiple_choice", "dataset": write(tmp_path, MMLU), "at_end": True}]
    trainer = tiny_trainer(tmp_path, benchmarks=benchmarks, eval_dataset=alpaca(4, seed=7), eval_strategy="epoch")
    with pytest.raises(RuntimeError, match="out of everything"):
        trainer.train()
    saved = type(trainer.model).from_pretrained(tmp_path / "run").state_dict()
    assert all(torch.equal(tensor, saved[name]) for name, tensor in trainer.model.state_dict().items())


def test_named_held_out_rows_are_scored_as_eval_dataset_rows(tmp_path):
    rows = alpaca(6, seed=7)
    rows.to_json(tmp_path / "rows.jsonl")
    given = {"kind": "held_out", "dataset": str(tmp_path / "rows.jsonl"), "metrics": ["exact_match"]}
    trainer = tiny_trainer(
        tmp_path,
        benchmarks=[given | {"max_new_tokens": 4}, given | {"name": "few", "limit": 2, "metrics": []}],
        benchmark_metrics=["exact_match"],
        benchmark_max_new_tokens=4,
        eval_dataset=rows,
    )
    trainer.train()
    settings = json.loads((tmp_path / "run" / "eval.json").read_text())["settings"]
    for name in ("answer_loss", "token_accuracy", "exact_match"):
        assert settings[name] == settings[f"rows/{name}"]
    assert settings["few/answer_loss"]["examples"] == pytest.approx(
        [settings["answer_loss"]["examples"][i] for i in (0, 5)], rel=1e-5
    )
    with pytest.raises(ValueError, match="has the columns"):
        bad = {"kind": "held_out", "dataset": write(tmp_path, [{"a": 1}], "bad.jsonl")}
        tiny_trainer(tmp_path, model="no/such-model", benchmarks=[bad])


def test_a_metric_of_held_out_rows_takes_no_name_of_theirs(tmp_path):
    metric = local_metric(tmp_path, "own_rate", "{'answer_loss': 0.5, 'other': 0.25}") + ":lower"
    rows = alpaca(3, seed=7).to_list()
    rows[1]["output"] = None
    path = write(tmp_path, rows, "rows.jsonl")
    (benchmark,) = load_benchmarks([{"kind": "held_out", "dataset": path, "metrics": [metric], "max_new_tokens": 4}])
    benchmark.prepare()
    ctx = context()
    found = benchmark.run(ctx)
    assert found.keys() == {
        f"rows/{name}" for name in ("answer_loss", "token_accuracy", "own_rate.answer_loss", "other")
    }
    assert found["rows/own_rate.answer_loss"].score == 0.5 != found["rows/answer_loss"].score
    assert ctx.account.rows("unscorable")["missing value in `output`"] == [1]


def test_held_out_rows_with_a_list_of_answers_are_named(tmp_path):
    rows = [{"instruction": "Why?", "output": ["a", "b"]}, {"instruction": "How?", "output": []}]
    (benchmark,) = load_benchmarks([{"kind": "held_out", "dataset": write(tmp_path, rows, "rows.jsonl")}])
    benchmark.prepare()
    ctx = context()
    assert np.isnan(benchmark.run(ctx)["rows/answer_loss"].examples).all()
    assert ctx.account.rows("unscorable")["`output` is not text"] == [0, 1]


def test_a_comparison_knows_the_rows_of_its_benchmarks(tmp_path):
    path = write(tmp_path, MMLU)
    options = {"methods": ["length"], "budgets": [8], "seeds": [1], "max_steps": 1, "eval_dataset_name": ""}
    options["benchmarks"] = [{"kind": "multiple_choice", "dataset": path}]
    recipe = write_recipe(tmp_path, **options, save_models=False)
    given = yaml.safe_load(recipe.read_text())
    for name in ("selection_method", "selection_kwargs", "selection_budget"):
        del given[name]
    recipe.write_text(yaml.safe_dump(given))

    def states() -> set[str]:
        return {run.state for run in plan(parse_recipe(["--config", str(recipe)], "compare", CompareArguments))[1]}

    assert states() == {"new"}
    main(["compare", "--config", str(recipe)])
    assert states() == {"finished"}
    assert "mmlu/accuracy" in (tmp_path / "run" / "report" / "report.md").read_text()
    write(tmp_path, MMLU[:-1])
    with pytest.raises(ValueError, match="benchmarks_content"):
        states()
