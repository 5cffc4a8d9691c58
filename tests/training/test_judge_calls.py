"""What a comparison says of its judge: the total once, before anything is trained and before answers are compared."""

import json
import logging

import pytest

from hf_dataselect.engines.llm.judge_options import JudgeOptions
from hf_dataselect.errors import JudgeError
from hf_dataselect.evaluation.benchmark import load_benchmarks
from hf_dataselect.evaluation.comparison.comparison import add_wins, compare_runs
from hf_dataselect.evaluation.judging.win_rate import asked_about, at_most
from hf_dataselect.training.judge_calls import judge_total
from tests.evaluation.judging.test_win_rate import Scripted
from tests.reported_runs import answered, make_run


def logged(caplog) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name.endswith("metered")]


@pytest.fixture
def judged_runs(tmp_path):
    runs = [make_run(tmp_path / name, name, rows=[1]) for name in ("full", "ifd", "length")]
    answered(runs[0], [5] * 12)
    answered(runs[1], [9] * 12)
    answered(runs[2], [1] * 12)
    answered(runs[1], [9] * 12, "koala")
    return runs


def test_the_comparisons_of_all_runs_are_announced_and_concluded_once(judged_runs, caplog):
    caplog.set_level(logging.INFO, logger="hf_dataselect")
    judge = Scripted()
    judge.options = JudgeOptions(price_in=1, price_out=1)
    add_wins(compare_runs(judged_runs), judge)
    before, after = logged(caplog)
    assert "scripted: 48 calls to make (0 replies are cached)" in before and "at most about 0.0" in before
    assert "asked 48, failed 0" in after and judge.cost.calls == 48
    caplog.clear()
    add_wins(compare_runs(judged_runs), judge)
    assert logged(caplog) == [] and judge.cost.calls == 48, "all in the cache"


def test_too_many_calls_in_all_are_refused_before_the_first(judged_runs):
    judge = Scripted()
    judge.options = JudgeOptions(max_calls=47)
    with pytest.raises(JudgeError, match="max_calls=47 leaves 47 calls and 48 are needed"):
        add_wins(compare_runs(judged_runs), judge)
    assert judge.cost.calls == 0


def test_a_run_without_answers_does_not_keep_the_others_from_being_judged(judged_runs, tmp_path, caplog):
    caplog.set_level(logging.INFO, logger="hf_dataselect")
    found = compare_runs([*judged_runs, make_run(tmp_path / "rds", "rds", rows=[2])])
    add_wins(found, Scripted())
    assert len(logged(caplog)) == 2 and [group.wins is not None for group in found.groups] == [
        False,
        True,
        True,
        False,
    ]


def test_the_total_is_known_before_training_and_not_exceeded(tmp_path, judged_runs, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    rows = [{"question": f"q{i}"} for i in range(12)]
    turns = [{"turns": ["Who was first?", "And then?"], "reference": ["Anna", "Ben"]}] * 3
    for name, content in (("koala", rows), ("mt", turns)):
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, content)), encoding="utf-8")
    described = [
        {"kind": "instructions", "dataset": str(tmp_path / "koala.jsonl"), "name": "koala", "max_new_tokens": 50},
        {"kind": "mt_bench", "dataset": str(tmp_path / "mt.jsonl"), "name": "mt", "max_new_tokens": 100},
    ]
    koala, mt = benchmarks = load_benchmarks(described)
    mt.judge = "openai:judge-1"
    for benchmark in benchmarks:
        benchmark.prepare()
    calls, prompt, new = at_most(koala.questions, 50)
    assert (calls, new) == (24, 24 * 128) and koala.judge_calls() == (0, 0, 0)
    judge = Scripted()
    asked = asked_about(*judged_runs[1::-1])
    assert len(asked) == calls and prompt > judge._prompt_tokens(asked) > prompt - 24 * 100
    graded, grade_prompt, grades = mt.judge_calls()
    assert (graded, grades) == (6, 6 * 512) and grade_prompt > 3 * (100 + 200)
    said = judge_total(benchmarks, JudgeOptions(price_in=1e6, price_out=0), to_train=4, to_compare=3)
    tokens, replies = 3 * prompt + 4 * grade_prompt, 3 * new + 4 * grades
    assert said == (
        f"at most {3 * 24 + 4 * 6} calls in all, about {tokens:,} prompt tokens and {replies:,} new ones at most, "
        f"at most about {tokens:,.2f}; replies in the cache cost nothing"
    )
    assert judge_total(load_benchmarks(described[:1]), JudgeOptions(), 4, 3) is None, "no question was read"
    mt.at_end = False
    assert "again at every evaluation before the end" in judge_total(benchmarks, JudgeOptions(), 4, 3)
