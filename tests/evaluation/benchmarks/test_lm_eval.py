"""Tasks of the lm-evaluation-harness on the trainer's own model, from YAML files over local rows."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from hf_dataselect.context import Context
from hf_dataselect.engines.runtime.model_state import preserved
from hf_dataselect.engines.store.identity import model_identity
from hf_dataselect.evaluation.benchmark import load_benchmarks
from tests.evaluation.benchmarks.test_multiple_choice import MMLU, plain_loss, write
from tests.processes import run
from tests.tiny import context_of, tiny_model, tiny_tokenizer
from tests.tiny_training import tiny_trainer, write_recipe


pytest.importorskip("lm_eval", reason="the extra `lm-eval` is not installed")

TEST = [row for row in MMLU if row["split"] == "test"]


def task(folder: Path, name: str, **config) -> str:
    rows = write(folder, TEST, f"{name}.jsonl")
    config = {
        "task": name,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": rows}},
        "test_split": "test",
        "metadata": {"version": 1.0},
        **config,
    }
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(config))
    return str(folder / f"{name}.yaml")


def choice_task(folder: Path, **config) -> str:
    return task(
        folder,
        "which",
        output_type="multiple_choice",
        doc_to_text="{{question}}\nAnswer:",
        doc_to_choice="{{choices}}",
        doc_to_target="answer",
        metric_list=[{"metric": "acc", "higher_is_better": True}, {"metric": "acc_norm", "higher_is_better": True}],
        **config,
    )


def words_task(folder: Path) -> str:
    return task(
        folder,
        "words",
        output_type="generate_until",
        doc_to_text="{{question}}",
        doc_to_target="{{choices[0]}}",
        generation_kwargs={"max_gen_toks": 4, "until": ["\n"], "do_sample": False},
        metric_list=[{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
    )


def perplexity_task(folder: Path) -> str:
    return task(
        folder,
        "text",
        output_type="loglikelihood_rolling",
        doc_to_text="",
        doc_to_target="{{question}}",
        metric_list=[{"metric": "bits_per_byte", "higher_is_better": False}],
    )


def harness(*tasks: str, **options):
    (benchmark,) = load_benchmarks([{"kind": "lm_eval", "tasks": list(tasks), **options}])
    benchmark.prepare()
    return benchmark


def context(**options) -> Context:
    tokenizer = tiny_tokenizer()
    return context_of(tokenizer, tiny_model(tokenizer), dtype="float32", **options)


def test_metrics_become_settings_with_direction_and_examples(tmp_path):
    benchmark = harness(choice_task(tmp_path), words_task(tmp_path), perplexity_task(tmp_path), chat_template=False)
    ctx = context()
    found = benchmark.run(ctx)
    assert {name: value.higher_is_better for name, value in found.items()} == {
        "lm_eval/which/acc": True,
        "lm_eval/which/acc_norm": True,
        "lm_eval/words/exact_match": True,
        "lm_eval/text/bits_per_byte": False,
    }
    expected = []
    for row in TEST:
        scores = [-plain_loss(ctx, f"{row['question']}\nAnswer:", f" {choice}")[0] for choice in row["choices"]]
        expected.append(float(np.argmax(scores) == row["answer"]))
    assert found["lm_eval/which/acc"].examples == expected
    assert found["lm_eval/which/acc"].score == pytest.approx(np.mean(expected))
    assert found["lm_eval/text/bits_per_byte"].examples is None and found["lm_eval/text/bits_per_byte"].score > 0
    assert len(found["lm_eval/words/exact_match"].examples) == 6


def test_the_model_and_the_tokenizer_are_left_as_they_were(tmp_path):
    tokenizer = tiny_tokenizer(pad=False)
    ctx = Context(tokenizer, tiny_model(tokenizer).train())
    before, state = model_identity(ctx.model), torch.get_rng_state()
    with preserved(ctx.model):
        harness(choice_task(tmp_path), words_task(tmp_path)).run(ctx)
    assert model_identity(ctx.model) == before and ctx.model.training and torch.equal(state, torch.get_rng_state())
    assert tokenizer.pad_token is None


def test_the_chat_template_is_used_where_there_is_one(tmp_path):
    path = choice_task(tmp_path)
    ctx = context()
    own, chat, plain = (harness(path, chat_template=value).run(ctx) for value in (None, True, False))
    assert own == chat
    expected = []
    for row in TEST:
        before = f"<|user|>\n{row['question']}\nAnswer:</s>\n<|assistant|>\n"
        scores = [-plain_loss(ctx, before, choice)[0] for choice in row["choices"]]
        expected.append(float(np.argmax(scores) == row["answer"]))
    assert own["lm_eval/which/acc"].examples == expected


def test_the_protocol_is_of_the_rows_and_the_task(tmp_path):
    path = choice_task(tmp_path)
    first = harness(path).protocol()
    assert harness(path).protocol() == first
    assert harness(path, limit=2).protocol() != first
    assert harness(path, chat_template=False).protocol() != first
    assert harness(choice_task(tmp_path, description="Choose. ")).protocol() != first
    assert json.loads(json.dumps(first)) == first
    (tmp_path / "copy").mkdir()
    assert harness(choice_task(tmp_path / "copy", description="Choose. ")).protocol() == harness(path).protocol()


def test_the_protocol_knows_functions_by_their_source(tmp_path):
    path, code = Path(choice_task(tmp_path)), "def target(doc):\n    return doc['answer']\n"
    path.write_text(path.read_text().replace("doc_to_target: answer", "doc_to_target: !function code.target"))
    found = []
    for source in (code, code, code.replace("doc", "row")):
        (tmp_path / "code.py").write_text(source)
        found.append(json.dumps(harness(str(path)).protocol()))
    assert found[0] == found[1] != found[2]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tasks": ["no_such_task_at_all"]}, "no_such_task_at_all.*can't be loaded"),
        ({"tasks": []}, "`tasks` is empty"),
        ({"tasks": ["a"], "shots": -1}, "`shots=-1` must be at least 0"),
        ({"tasks": ["a"], "task": "b"}, "did you mean 'tasks'"),
    ],
)
def test_wrong_tasks_are_refused_before_any_model(options, message):
    with pytest.raises(ValueError, match=message):
        harness(**options) if "tasks" not in options else harness(*options.pop("tasks"), **options)


def test_it_runs_in_the_trainer_when_training_ends(tmp_path):
    benchmarks = [{"kind": "lm_eval", "tasks": [choice_task(tmp_path)], "limit": 4}]
    trainer = tiny_trainer(tmp_path, benchmarks=benchmarks, eval_strategy="no")
    trainer.train()
    settings = json.loads((tmp_path / "run" / "eval.json").read_text())["settings"]
    assert len(settings["lm_eval/which/acc"]["examples"]) == 4
    assert trainer.model.training


def test_an_adapter_is_evaluated_with_the_model(tmp_path):
    from peft import LoraConfig, get_peft_model

    benchmark, ctx = harness(choice_task(tmp_path), perplexity_task(tmp_path)), context()
    plain = benchmark.run(ctx)
    config = LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM", init_lora_weights=False)
    adapted = benchmark.run(ctx.using(get_peft_model(ctx.model, config)))
    assert adapted.keys() == plain.keys()
    assert adapted["lm_eval/text/bits_per_byte"].score != plain["lm_eval/text/bits_per_byte"].score


def test_without_the_package_the_extra_is_named(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *_: None if name == "lm_eval" else find(name, *_))
    with pytest.raises(ImportError, match=r"pip install hf_dataselect\[lm-eval\]"):
        load_benchmarks([{"kind": "lm_eval", "tasks": ["a"]}])


def test_two_ranks_give_the_settings_of_one(tmp_path):
    benchmarks = [
        {"kind": "lm_eval", "tasks": [choice_task(tmp_path), words_task(tmp_path), perplexity_task(tmp_path)]},
        {"kind": "multiple_choice", "dataset": write(tmp_path, MMLU)},
        {"kind": "instructions", "dataset": write(tmp_path, TEST, "chat.jsonl"), "max_new_tokens": 8},
    ]
    options = {"selection_method": "full", "selection_kwargs": {}, "benchmarks": benchmarks, "learning_rate": 0.0}
    recipe = write_recipe(tmp_path, selection_dtype="float32", selection_budget=None, **options)
    for processes in (1, 2):
        run(processes, recipe, "--output_dir", str(tmp_path / f"{processes}"))
    one, two = (json.loads((tmp_path / name / "eval.json").read_text())["settings"] for name in "12")
    answers = [(tmp_path / name / "answers" / "chat.jsonl").read_text().splitlines() for name in "12"]
    said, again = ([json.loads(line)["answer"] for line in lines] for lines in answers)
    assert said == again and len(said) == len(TEST)
    assert one.keys() == two.keys() >= {"lm_eval/which/acc", "lm_eval/words/exact_match", "mmlu/accuracy"}
    for name in one:
        assert one[name]["score"] == pytest.approx(two[name]["score"], rel=1e-4), name
        assert (one[name]["examples"] or []) == pytest.approx(two[name]["examples"] or [], rel=1e-4), name


def test_few_shot_examples_are_no_test_questions(tmp_path, caplog):
    with pytest.raises(
        ValueError, match="6 of the 6 rows for few-shot examples are test questions in the task 'which'"
    ):
        harness(choice_task(tmp_path), shots=1)
    dev = [row for row in MMLU if row["split"] == "dev"]
    files = {"test": write(tmp_path, TEST, "test.jsonl"), "dev": write(tmp_path, [*TEST[:2], *dev], "dev.jsonl")}
    path = choice_task(tmp_path, dataset_kwargs={"data_files": files}, fewshot_split="dev")
    task = harness(path, shots=2).loaded["which"]
    assert [row["question"] for row in task.sampler.fewshot_docs()] == [row["question"] for row in dev]
    assert "2 of the 8 rows for few-shot examples are test questions in the task 'which', and left out" in caplog.text
    assert harness(path, shots=0).loaded["which"].sampler.fewshot_docs()
