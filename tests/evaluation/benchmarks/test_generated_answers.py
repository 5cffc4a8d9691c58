"""Benchmarks of generated answers: metrics by row, questions in every layout, real test sets."""

import json

import numpy as np
import pytest

from hf_dataselect.engines.runtime.runtime import Runtime
from hf_dataselect.evaluation.benchmark import load_benchmarks
from tests.evaluation.benchmarks.test_benchmarks import SUMS, context
from tests.evaluation.benchmarks.test_multiple_choice import write
from tests.shared_data import data_path


def test_generated_answers_are_scored_row_by_row(tmp_path):
    from hf_dataselect.engines.forward.generation import generate
    from hf_dataselect.evaluation.metrics import score_texts

    rows = [*SUMS, {"question": "long " * 3000, "answer": "#### 1"}, {"question": "What?", "answer": None}]
    rows += [{"question": "Say it.", "answer": "nothing"}]
    path, ctx = write(tmp_path, rows, "sums.jsonl"), context()
    given = [{"kind": "generation", "dataset": path, "metrics": ["chrf", "numeric_match"], "max_new_tokens": 8}]
    (benchmark,) = load_benchmarks(given)
    benchmark.prepare()
    found = benchmark.run(ctx, tmp_path)
    prompts = [
        ctx.tokenizer(f"<|user|>\n{row['question']}</s>\n<|assistant|>\n", add_special_tokens=False)["input_ids"]
        for row in (*rows[:3], rows[5])
    ]
    answers = generate(ctx.model, ctx.tokenizer, prompts, Runtime(batch_tokens=1536), max_new_tokens=8)
    expected = score_texts("chrf", answers, [row["answer"] for row in (*rows[:3], rows[5])])["chrf"]
    examples = found["sums/chrf"].examples
    assert [examples[i] for i in (0, 1, 2, 5)] == expected.examples and np.isnan(examples[3:5]).all()
    assert found["sums/chrf"].score == expected.score
    assert np.isnan(found["sums/numeric_match"].examples[3:]).all()
    assert ctx.account.rows("unscorable") == {
        "the prompt is empty or too long": [3],
        "no reference answer": [4],
        "the reference has no value for `numeric_match`": [5],
    }
    kept = [json.loads(line)["answer"] for line in (tmp_path / "generated" / "sums.jsonl").read_text().splitlines()]
    assert [kept[i] for i in (0, 1, 2, 5)] == answers and kept[3] is None


def test_free_questions_in_every_layout(tmp_path):
    layouts = {
        "vicuna": ({"question_id": 7, "text": "Why?", "category": "x"}, "7", "Why?"),
        "koala": ({"id": "koala_1", "prompt": "Why?"}, "koala_1", "Why?"),
        "wizard": ({"idx": 3, "Instruction": "Why?", "Skill": "Math"}, "3", "Why?"),
        "self": ({"id": "a", "instruction": "Sum", "instances": [{"input": "1 2", "output": "3"}]}, "a", "Sum\n\n1 2"),
        "alpaca": ({"instruction": "Sum", "input": "", "output": "3"}, "0", "Sum"),
        "lima": ({"conversations": ["Why?", "Because."]}, "0", "Why?"),
        "chat": ({"prompt": [{"role": "system", "content": "Hm"}, {"role": "user", "content": "Why?"}]}, "0", "Why?"),
    }
    for name, (row, key, text) in layouts.items():
        (benchmark,) = load_benchmarks([{"kind": "instructions", "dataset": write(tmp_path, [row], f"{name}.jsonl")}])
        benchmark.prepare()
        assert (benchmark.questions[0].id, benchmark.questions[0].turns) == (key, [text]), name
    with pytest.raises(ValueError, match="no row of .* has text"):
        (benchmark,) = load_benchmarks(
            [{"kind": "instructions", "dataset": write(tmp_path, [{"prompt": " "}], "e.jsonl")}]
        )
        benchmark.prepare()


@pytest.mark.parametrize(
    ("file", "kind", "rows"),
    [
        ("vicuna_80", "instructions", 80),
        ("koala_180", "instructions", 180),
        ("wizardlm_218", "instructions", 218),
        ("self_instruct_252", "instructions", 252),
        ("lima_300", "instructions", 300),
        ("arena_hard_v01_500", "instructions", 500),
        ("mt_bench_80", "mt_bench", 80),
        ("gsm8k_test", "gsm8k", 1319),
        ("bbh_all", "generation", 6511),
    ],
)
def test_the_real_test_sets_are_read_whole(file, kind, rows):
    (benchmark,) = load_benchmarks([{"kind": kind, "dataset": str(data_path(f"eval/{file}.jsonl.gz"))}])
    benchmark.judge = "model:judge"
    benchmark.prepare()
    assert len(benchmark.questions) == rows
    assert all(len(question.turns) == (2 if kind == "mt_bench" else 1) for question in benchmark.questions)
    assert len({question.id for question in benchmark.questions}) == rows
    if kind in ("gsm8k", "generation"):
        assert all(question.references[0] for question in benchmark.questions)


@pytest.mark.parametrize(
    ("file", "kind"), [("gsm8k_test", "gsm8k"), ("self_instruct_252", "instructions"), ("lima_300", "instructions")]
)
def test_real_questions_are_answered(tmp_path, file, kind):
    given = {"kind": kind, "dataset": str(data_path(f"eval/{file}.jsonl.gz")), "limit": 2, "max_new_tokens": 4}
    (benchmark,) = load_benchmarks([given])
    benchmark.prepare()
    found = benchmark.run(context(), tmp_path)
    assert [setting.examples for setting in found.values()] == ([[0.0, 0.0]] if kind == "gsm8k" else [])
    lines = (tmp_path / ("generated" if kind == "gsm8k" else "answers") / f"{file}.jsonl").read_text().split("\n")
    assert [bool(json.loads(line)["answer"]) for line in lines if line] == [True, True]


def test_real_bbh_answers_are_compared_as_texts():
    path = str(data_path("eval/bbh_all.jsonl.gz"))
    given = [
        {"kind": "generation", "dataset": path, "where": {"task": ["word_sorting", "object_counting"]}, "limit": 4}
    ]
    (benchmark,) = load_benchmarks([given[0] | {"max_new_tokens": 4, "template": "{question}\nGive only the answer."}])
    benchmark.prepare()
    assert {question.subject for question in benchmark.questions} == {"word_sorting", "object_counting"}
    setting = benchmark.run(context())["bbh_all/exact_match"]
    assert setting.examples == [0.0] * 4
